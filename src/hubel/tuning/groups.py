"""Groups of images that stay in one fold: those that look alike, and those that a user has put together."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hubel.bounded import BoundError, read_text
from hubel.console import count_of
from hubel.data.checks.images import Progress, scan_images
from hubel.data.file_listing import listing
from hubel.data.resplit import near_duplicate_groups
from hubel.data.samples import ImageDataset, Sample
from hubel.errors import DataError

_MAX_BYTES = 1 << 28  # of a file of groups, which names every image
_HEADER = "begin it with the line image,group, and write a line for each image, such as daisy/1.jpg,anna"


def duplicate_groups(samples: Sequence[Sample], progress: Progress | None = None) -> np.ndarray:
    """The group of each image (N,): images of the same bytes, or that look alike, share one."""
    paths = [sample.path for sample in samples]
    group_of = np.zeros(len(paths), int)
    for number, members in enumerate(near_duplicate_groups(paths, scan_images(paths, progress))):
        group_of[members] = number
    return group_of


class GivenGroups:
    """Groups of images by a CSV file or a mapping: of a patient, a place, a film.

    Args:
        source: a CSV file with the columns ``image``, a path relative to the data set's folder, and ``group``; or a
            mapping from such paths to groups. An image without a group, where the group is empty or ``None``, stands
            alone.

    Raises:
        DataError: the file cannot be read, or does not have these columns.
    """

    def __init__(self, source: Path | str | Mapping[str, Any]) -> None:
        self._name = "groups" if isinstance(source, Mapping) else f"--groups {source}"
        rows = list(source.items()) if isinstance(source, Mapping) else self._rows(Path(source))
        self._groups: dict[str, str] = {}
        for image, given in rows:
            path, group = PurePath(image).as_posix(), "" if given is None else str(given).strip()
            if self._groups.setdefault(path, group) != group:
                message = f"{self._name} puts {path} into two groups, {self._groups[path]!r:.80} and {group!r:.80}"
                raise DataError(message, "leave one of the lines out, or give both groups one name")

    def _rows(self, path: Path) -> list[tuple[str, str]]:
        try:
            text = read_text(path, _MAX_BYTES).removeprefix("\ufeff")
        except OSError as error:
            raise DataError(f"{self._name} cannot be read: {error.strerror or error}", _HEADER) from error
        except BoundError as error:
            raise DataError(f"{self._name} {error}", "write it as a CSV file in UTF-8") from error
        first = text.partition("\n")[0]
        try:
            table = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if ";" in first else ",", strict=True)
            rows = [(row.get("image"), row.get("group")) for row in table]
        except csv.Error as error:
            raise DataError(f"{self._name} is not a CSV file: {error}", _HEADER) from error
        if not {"image", "group"} <= set(table.fieldnames or ()):
            raise DataError(f"{self._name} has no columns image and group: its first line is {first!r:.80}", _HEADER)
        if any(image is None or group is None for image, group in rows):
            number = next(number for number, row in enumerate(rows, 2) if None in row)
            raise DataError(f"{self._name}: line {number} has no group", "end it with a comma if it stands alone")
        return [(str(image).strip(), str(group)) for image, group in rows]

    def united(self, groups: np.ndarray, pool: Sequence[Sample], data: ImageDataset) -> np.ndarray:
        """Groups in which both those of ``groups`` and the given ones are whole.

        Args:
            groups: of the images of ``pool`` (N,), numbers.
            pool: the images to divide, N.
            data: all images that there are, those of a test split included.

        Returns:
            The group of each image of the pool (N,).

        Raises:
            DataError: an image is not in the data set, or one of the pool has no line.
        """
        here = set(_names([sample for split in data.splits.values() for sample in split], data.root))
        if strange := [path for path in self._groups if path not in here]:
            message = f"{self._name} names {count_of(len(strange), 'image')} that {data.root} does not have"
            example = min(here, default="daisy/1.jpg")
            raise DataError(f"{message}: {listing(strange)}", f"write paths relative to {data.root}, such as {example}")
        names = _names(pool, data.root)
        if missing := [name for name in names if name not in self._groups]:
            message = f"{self._name} lacks {count_of(len(missing), 'image')} of {data.root}: {listing(missing)}"
            raise DataError(message, "add them; an image with an empty group stands alone")
        given: list[tuple[str, ...]] = [(self._groups[name],) if self._groups[name] else ("", name) for name in names]
        number = {group: number for number, group in enumerate(dict.fromkeys(given), int(groups.max(initial=-1)) + 1)}
        # Nodes are the groups of both kinds; an image connects its two.
        edges = (np.ones(len(names), bool), (groups, np.array([number[group] for group in given], int)))
        size = max(number.values(), default=-1) + 1
        component = connected_components(coo_array(edges, (size, size)), directed=False)[1]
        united: np.ndarray = component[groups]
        return united

    def notes(self, pool: Sequence[Sample], test: Sequence[Sample], root: Path) -> tuple[str, ...]:
        """A sentence about groups that have images in the test set too, which is not divided by them."""
        of_pool, of_test = (
            {self._groups[name] for name in _names(part, root) if self._groups.get(name)} for part in (pool, test)
        )
        shared = sorted(of_pool & of_test)
        if not shared:
            return ()
        have = "group has images" if len(shared) == 1 else "groups have images"
        end = f"in the test set too, whose score may be too high: {listing(shared)}"
        return (f"{len(shared)} {have} {end}",)


def _names(samples: Sequence[Sample], root: Path) -> list[str]:
    return [sample.path.relative_to(root).as_posix() for sample in samples]
