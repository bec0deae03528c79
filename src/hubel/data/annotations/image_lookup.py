"""The picture that a label file means, by the name that it has there.

Labels come from other people's machines: ``C:\\photos\\a.jpg``, ``/home/ann/a.jpg``, ``file:///…``, addresses of an
annotation server, ``a%20b.jpg``, ``A.JPG`` for a file that is now ``a.jpg``. A picture is only ever looked for below
the data set's folder: first where the name says, then as the file whose path ends most like the name.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from hubel.data.annotations.validators import MAX_COORDINATE, InvalidAnnotation
from hubel.data.file_listing import PICTURE_SUFFIXES
from hubel.data.image_folder import SPLIT_NAMES
from hubel.data.image_io import read_size
from hubel.errors import ImageError

_LONGEST_NAME = 4096


class Pictures:
    """The pictures below a data set's folder.

    Args:
        root: the data set's folder.
        folders: folders below it in which names are looked for before anything else.
    """

    def __init__(self, root: Path, folders: Iterable[Path] = ()) -> None:
        self.root = root
        self.folders = tuple(folders)
        self._names: dict[Path, frozenset[str]] = {}
        self._within: dict[Path, list[Path]] = {}
        self._stems: dict[Path, dict[str, Path]] = {}
        self._folders: dict[tuple[str, Path, str], Path] = {}
        self._by_name: dict[str, list[tuple[str, ...]]] | None = None
        self._by_stem: dict[str, list[tuple[str, ...]]] = defaultdict(list)

    def find(self, name: str, near: Path, stem_only: bool = False) -> Path:
        """The file that ``name`` means; if there is none, where it would be.

        Args:
            name: as it stands in the label file.
            near: the folder from which relative names count.
            stem_only: ``name`` may have a wrong suffix or none.

        Raises:
            InvalidAnnotation: the name is empty, leads out of the data set's folder, or fits several images.
        """
        parts, is_foreign = _parts(name)
        inside = [path for path in self._meant(parts, near) if path] if not is_foreign else []
        if "%" in name and not is_foreign:
            inside += [path for path in self._meant(_parts(unquote(name))[0], near) if path]
        for path in inside:
            if self.has(path):
                return path
        kept = parts[max((place + 1 for place, part in enumerate(parts) if part == ".."), default=0) :]
        if not kept:
            raise InvalidAnnotation(f"names {name!r}, which is no picture")
        if found := self._alike(kept, near, stem_only):
            return found
        if "%" in kept[-1] and (found := self._alike([unquote(part) for part in kept], near, stem_only)):
            return found
        if is_foreign == "path":
            raise InvalidAnnotation(f"names {name!r}, which is not in {self.root}")
        if not inside and not is_foreign:
            raise InvalidAnnotation(f"names {name!r}, which leads out of {self.root}")
        return inside[0] if inside else self.root / kept[-1]

    def has(self, path: Path) -> bool:
        """Whether the file is there; folders are listed once."""
        names = self._names.get(path.parent)
        if names is None:
            try:
                names = frozenset(os.listdir(path.parent))  # noqa: PTH208 – names, not paths
            except (OSError, ValueError):
                names = frozenset()
            self._names[path.parent] = names
        return path.name in names

    def within(self, folder: Path) -> list[Path]:
        """The pictures directly in a folder, by name."""
        if folder not in self._within:
            self.has(folder / "-")
            self._within[folder] = [folder / name for name in sorted(self._names[folder]) if _is_picture(name)]
        return self._within[folder]

    def beside(self, folder: Path, stem: str) -> Path | None:
        """The picture of that stem in a folder, whatever its suffix; JPEG before others."""
        if folder not in self._stems:
            ordered = sorted(self.within(folder), key=lambda path: path.suffix.lower() in (".jpg", ".jpeg"))
            self._stems[folder] = {path.stem: path for path in ordered}
        return self._stems[folder].get(stem)

    def folder_of(self, split: str, file: Path) -> Path:
        """The folder of pictures that a label file of a split tells of, by its name and place.

        That is its own if there are pictures in it, else one named for the split or just for pictures.
        """
        year = re.sub(r".*?((?:train|val|test)\d+)?$", r"\1", file.stem.casefold())
        if (known := self._folders.get((split, file.parent, year))) is not None:
            return known
        aliases = [name for name, meant in SPLIT_NAMES.items() if meant == split]
        names = [*([year] if year else []), *aliases]
        folders = [
            file.parent,
            *self.folders,
            *(self.root / way for name in names for way in (f"images/{name}", f"{name}/images", name)),
            *(base / name for base in (file.parent, self.root) for name in ("images", "JPEGImages", "img")),
            self.root,
        ]
        found = next((folder for folder in folders if self.within(folder)), file.parent)
        return self._folders.setdefault((split, file.parent, year), found)

    def size(self, path: Path, width: int = 0, height: int = 0) -> tuple[int, int]:
        """Width and height as the label file says, else of the upright picture; ``(0, 0)`` if it cannot be read.

        Raises:
            InvalidAnnotation: no picture is as large as the file says.
        """
        if max(width, height) > MAX_COORDINATE:
            raise InvalidAnnotation(f"has a picture of {width}×{height} pixels")
        if width > 0 and height > 0:
            return width, height
        try:
            return read_size(path)
        except ImageError:
            return 0, 0

    def _meant(self, parts: list[str], near: Path) -> Iterator[Path | None]:
        for base in dict.fromkeys((near, *self.folders, self.root)):
            yield self._below(base, parts)

    def _below(self, base: Path, parts: list[str]) -> Path | None:
        """``base/parts`` with ``..`` resolved by name; ``None`` if it is not below the data set's folder."""
        try:
            way = list(base.relative_to(self.root).parts)
        except ValueError:
            return None
        for part in parts:
            if part != "..":
                way.append(part)
            elif way:
                way.pop()
            else:
                return None
        return self.root.joinpath(*way) if way else None

    def _alike(self, parts: list[str], near: Path, stem_only: bool) -> Path | None:
        """The picture below the root whose path ends most like ``parts``, of equals the one nearest to ``near``."""
        if self._by_name is None:
            self._by_name = self._walk()
        found = self._by_name.get(parts[-1].casefold())
        if not found and (stem_only or not _is_picture(parts[-1])):
            stem = PurePosixPath(parts[-1]).stem if _is_picture(parts[-1]) else parts[-1]
            found = self._by_stem.get(stem.casefold())
        if not found:
            return None
        wanted = [part.casefold() for part in parts]
        place = near.relative_to(self.root).parts if near.is_relative_to(self.root) else ()

        def likeness(file: tuple[str, ...]) -> tuple[int, int]:
            tail = _common(reversed([part.casefold() for part in file[:-1]]), reversed(wanted[:-1]))
            return tail, _common(file, place)

        best = max(map(likeness, found))
        alike = [file for file in found if likeness(file) == best]
        if len(alike) > 1:
            exact = [file for file in alike if file[-1] == parts[-1]]
            if len(exact) != 1:
                names = " and ".join("/".join(file) for file in alike[:2])
                raise InvalidAnnotation(f"names {'/'.join(parts)!r}, which may be {names}")
            alike = exact
        return self.root.joinpath(*alike[0])

    def _walk(self) -> dict[str, list[tuple[str, ...]]]:
        by_name: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for folder, folders, files in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
            way = Path(folder).relative_to(self.root).parts
            for name in sorted(files):
                if _is_picture(name) and not name.startswith("."):
                    by_name[name.casefold()].append((*way, name))
                    self._by_stem[name.casefold().rpartition(".")[0]].append((*way, name))
        return by_name


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122 – a name, many times


def _common(a: Iterable[str], b: Iterable[str]) -> int:
    count = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        count += 1
    return count


def _parts(name: str) -> tuple[list[str], str]:
    """The name's parts, and ``"path"`` or ``"address"`` where it is absolute on a machine or in the web."""
    if not name.strip() or "\0" in name or len(name) > _LONGEST_NAME:
        raise InvalidAnnotation(
            "names no picture" if len(name) <= _LONGEST_NAME else "names a picture in 4,096 letters"
        )
    foreign = ""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
        foreign = "address"
        try:
            address = urlsplit(name)
        except ValueError:
            raise InvalidAnnotation(f"names {name!r}, which is no address") from None
        # Label Studio serves files of its own machine as …/data/local-files/?d=folder/a.jpg.
        query = re.search(r"(?:^|&)d=([^&]+)", address.query)
        name = unquote(query[1] if query else address.path)
    plain = name.replace("\\", "/")
    if not foreign and (plain.startswith("/") or re.match(r"[A-Za-z]:", plain)):
        foreign = "path"
        plain = re.sub(r"^[A-Za-z]:", "", plain)
    return [part for part in plain.split("/") if part not in ("", ".")], foreign
