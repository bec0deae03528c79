"""Run folders: never overwritten, found again by name."""

from __future__ import annotations

from pathlib import Path

from hubel.errors import DataError


def new_run_folder(wanted: Path) -> Path:
    """Make ``wanted``, or ``wanted-2``, ``-3``, … where it exists already.

    Raises:
        DataError: the parent cannot be written.
    """
    number = 1
    while True:
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise DataError(f"{folder} cannot be made: {error.strerror}", "choose another place with --out") from error


def latest_run_folder(wanted: Path) -> Path:
    """The newest of ``wanted``, ``wanted-2``, …

    Raises:
        DataError: there is none.
    """
    found = [wanted] if wanted.is_dir() else []
    if wanted.parent.is_dir():
        numbered = wanted.parent.glob(f"{wanted.name}-*")
        found += [path for path in numbered if path.name[len(wanted.name) + 1 :].isdigit() and path.is_dir()]
    if not found:
        raise DataError(f"{wanted}: there is no run to resume", "start it without --resume, or name it with --out")
    return max(found, key=lambda path: int(path.name[len(wanted.name) + 1 :] or 1))
