"""Find the image that a label file names.

Labels come from other people's machines: ``C:\\photos\\a.jpg``, ``/home/ann/a.jpg``, ``file:///…``, URLs of an
annotation server, ``a%20b.jpg``, ``A.JPG`` for a file that is now ``a.jpg``. Images are only ever looked up below the
data set's folder: first under the name itself, then as the file whose path ends most like it.
"""

from __future__ import annotations

import contextlib
import html
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, unquote_plus, urlsplit

from hubel.data.annotations import parse
from hubel.data.file_listing import IMAGE_SUFFIXES, composed, is_own_output, is_shown, is_written_data
from hubel.data.image_io import read_size
from hubel.data.split_names import SPLIT_NAMES
from hubel.errors import ImageError

_MAX_NAME_LENGTH = 4096

LABEL_FOLDERS = frozenset(
    {"annotations", "annotation", "annots", "labels", "label", "ann", "anns"}
    | {"json", "jsons", "xml", "xmls", "csv", "txt"}
)
"""Names of folders with label files, case-folded."""

_SAME_SUFFIX = {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg", "tiff": "tif"}
_TREES = LABEL_FOLDERS | {"images", "image", "imgs", "img", "jpegimages", "photos", "pictures"}


class ImageLookup:
    """The images below a data set's folder ``root``; folders are listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[Path, dict[str, str]] = {}
        self._within: dict[Path, list[Path]] = {}
        self._stems: dict[Path, dict[str, list[Path]]] = {}
        self._mirrors: dict[str, dict[tuple[str, ...], list[Path]]] = {}  # by suffix
        self._folders: dict[tuple[str, Path, str], Path] = {}
        self._by_name: dict[str, list[tuple[str, ...]]] | None = None
        self._by_stem: dict[str, list[tuple[str, ...]]] = defaultdict(list)

    def find(self, name: str, near: Path, stem_only: bool = False) -> Path:
        """The file that ``name`` refers to, relative to the folder ``near``; if there is none, where it would be.

        With ``stem_only``, the suffix of ``name`` may be wrong or missing.

        Raises:
            InvalidAnnotation: the name is empty, leads out of the data set's folder, or matches several images.
        """
        parts, absolute = _parts(name)
        spellings = [] if absolute else [_parts(spelling)[0] for spelling in _decoded(name)]
        candidates = [] if absolute else [path for each in (parts, *spellings) for path in self._resolve(each, near)]
        if (path := next(filter(None, map(self.locate, candidates)), None)) is not None:
            return path
        tail = parts[max((index + 1 for index, part in enumerate(parts) if part == ".."), default=0) :]
        if not tail:
            raise parse.InvalidAnnotation(f"names {name!r}, which is not an image")
        if found := self._most_similar(tail, near, stem_only):
            return found
        for spelling in _decoded("/".join(tail)):
            if found := self._most_similar(_parts(spelling)[0], near, stem_only):
                return found
        if absolute == "path":
            raise parse.InvalidAnnotation(f"names {name!r}, which is not in {self.root}")
        if not candidates and not absolute:
            raise parse.InvalidAnnotation(f"names {name!r}, which is outside {self.root}")
        return candidates[0] if candidates else self.root / tail[-1]

    def find_any(self, names: Iterable[str], near: Path) -> Path:
        """The first image that one of several names refers to; if there is none, where the first would be."""
        missing: list[Path] = []
        for name in names:
            path = self.find(name, near)
            if self.has(path):
                return path
            missing.append(path)
        if not missing:
            raise parse.InvalidAnnotation("names no image")
        return missing[0]

    def has(self, path: Path) -> bool:
        """True if the file exists."""
        return self.locate(path) is not None

    def locate(self, path: Path) -> Path | None:
        """The file, under the name that it has in its folder: ``é`` may be written as one character or as two."""
        name = self._names_in(path.parent).get(composed(path.name))
        return None if name is None else path if name == path.name else path.with_name(name)

    def _names_in(self, folder: Path) -> dict[str, str]:
        """Names in a folder by their composed form."""
        if folder not in self._names:
            self._names[folder] = {}
            with contextlib.suppress(OSError, ValueError):
                names = filter(is_shown, os.listdir(folder))  # noqa: PTH208 – names, not paths
                self._names[folder] = {composed(name): name for name in names}
        return self._names[folder]

    def within(self, folder: Path) -> list[Path]:
        """The images directly in a folder, by name."""
        if folder not in self._within:
            self._within[folder] = [
                folder / name for name in sorted(self._names_in(folder).values()) if _is_image(name)
            ]
        return self._within[folder]

    def with_stem(self, folder: Path, stem: str) -> Path | None:
        """The image with that stem in a folder, whatever its suffix.

        Raises :class:`InvalidAnnotation` if there are several.
        """
        if folder not in self._stems:
            self._stems[folder] = defaultdict(list)
            for path in self.within(folder):
                self._stems[folder][composed(path.stem)].append(path)
        found = self._stems[folder].get(composed(stem), ())
        if len(found) > 1:
            raise parse.InvalidAnnotation(f"is of {found[0].name} or of {found[1].name}: it does not say which")
        return found[0] if found else None

    def named_in(self, name: str, folders: Iterable[Path]) -> Path | None:
        """The image in one of the folders that a label file names, without the folders of that name."""
        name = re.split(r"[\\/]", name.strip())[-1]
        paths = (self.locate(folder / name) for folder in folders) if _is_image(name) else ()
        return next(filter(None, paths), None)

    def with_stem_in(self, stem: str, folders: Iterable[Path]) -> Path | None:
        """The image with that stem in the first folder that has one; raises as :meth:`with_stem`."""
        return next(filter(None, (self.with_stem(folder, stem) for folder in folders)), None)

    def folder_of(self, split: str, file: Path) -> Path:
        """The folder of images that a label file of a split refers to.

        It is the file's own folder if that has images, else the one at the same place of a mirrored tree
        (``images/a`` for ``labels/a``), else one named after the split, or ``images`` or similar.
        """
        year = re.sub(r".*?((?:train|val|test)\d+)?$", r"\1", file.stem.casefold())
        if (known := self._folders.get((split, file.parent, year))) is not None:
            return known
        aliases = [name for name, meant in SPLIT_NAMES.items() if meant == split]
        names = [*([year] if year else []), *aliases]
        folders = (
            (file.parent,),
            self.mirrors(file.parent) if mirror_key(file.parent, self.root) else (),
            (self.root / path for name in names for path in (f"images/{name}", f"{name}/images", name)),
            (base / name for base in (file.parent, self.root) for name in ("images", "JPEGImages", "img")),
            self.mirrors(file.parent),
            (self.root,),
        )
        found = next((folder for folder in itertools.chain(*folders) if self.within(folder)), file.parent)
        return self._folders.setdefault((split, file.parent, year), found)

    def mirrors(self, folder: Path, suffix: str = "") -> list[Path]:
        """Folders at the same place as another, in a tree beside it or the same one, that have images.

        With ``suffix``, those that have files of that kind.
        """
        if suffix not in self._mirrors:
            by_key: dict[tuple[str, ...], list[Path]] = defaultdict(list)
            for other, names in visible_files(self.root):
                if any(name.lower().endswith(suffix) if suffix else _is_image(name) for name in names):
                    by_key[mirror_key(other, self.root)].append(other)
            self._mirrors[suffix] = by_key
        return self._mirrors[suffix].get(mirror_key(folder, self.root), [])

    def existing(self, parts: Iterable[str]) -> Path | None:
        """The file or folder at a path below the root, whose letters may be composed otherwise or in another case."""
        path = self.root
        for part in parts:
            names = self._names_in(path)
            name = names.get(composed(part)) or next((n for n in names.values() if _folded(n) == _folded(part)), None)
            if name is None:
                return None
            path /= name
        return path

    def size(self, path: Path, width: int = 0, height: int = 0) -> tuple[int, int]:
        """Width and height as the label file states them, else of the upright image; ``(0, 0)`` if it is unreadable."""
        if width > 0 and height > 0:
            return width, height
        try:
            return read_size(path)
        except ImageError:
            return 0, 0

    def _resolve(self, parts: list[str], near: Path) -> Iterator[Path]:
        """``parts`` below ``near`` and below the root, with ``..`` resolved by name; only what is within the root."""
        for base in dict.fromkeys((near, self.root)):
            if base.is_relative_to(self.root) and (
                resolved := resolve_parts([*base.relative_to(self.root).parts, *parts])
            ):
                yield self.root.joinpath(*resolved)

    def _most_similar(self, parts: list[str], near: Path, stem_only: bool) -> Path | None:
        """The image below the root whose path ends most like ``parts``; among equals the one nearest to ``near``."""
        if self._by_name is None:
            self._by_name = defaultdict(list)
            for folder, files in visible_files(self.root):
                parents = folder.relative_to(self.root).parts
                for name in filter(_is_image, sorted(files)):
                    for spelling in _in_encodings(name):
                        self._by_name[_folded(spelling)].append((*parents, name))
                        self._by_stem[_folded(spelling).rpartition(".")[0]].append((*parents, name))
        found = self._by_name.get(_folded(parts[-1]))
        if not found and (stem_only or not _is_image(parts[-1])):
            stem = PurePosixPath(parts[-1]).stem if _is_image(parts[-1]) else parts[-1]
            found = self._by_stem.get(_folded(stem))
        if not found:
            return None
        target = tuple(map(_folded, parts[:-1]))
        start = near.relative_to(self.root).parts if near.is_relative_to(self.root) else ()

        def similarity(file: tuple[str, ...]) -> tuple[int, int]:
            parents = tuple(map(_folded, file[:-1]))
            return _common_length(parents[::-1], target[::-1]), _common_length(file, start)

        best = max(map(similarity, found))
        matches = [file for file in found if similarity(file) == best]
        if len(matches) > 1:
            exact = [file for file in matches if composed(file[-1]) == composed(parts[-1])]
            if len(exact) != 1:
                names = " or ".join("/".join(file) for file in matches[:2])
                raise parse.InvalidAnnotation(f"names {'/'.join(parts)!r}, which is ambiguous: {names}")
            matches = exact
        return self.root.joinpath(*matches[0])


def _folded(name: str) -> str:
    """A name without what systems and programs change: case, accents as characters of their own, ``.jpeg``."""
    folded = composed(composed(name).casefold())
    stem, dot, suffix = folded.rpartition(".")
    return stem + dot + _SAME_SUFFIX.get(suffix, suffix)


def _decoded(name: str) -> list[str]:
    """What a name means if it was written for a URL, even twice, or for HTML."""
    once = unquote(name)
    others = (once, unquote(once), unquote_plus(name), html.unescape(name))
    return [each for each in dict.fromkeys(others) if each not in ("", name)]


def _in_encodings(name: str) -> list[str]:
    """A file's name; where its bytes are not UTF-8, what it is in each of the encodings that such disks have."""
    if name.isascii():
        return [name]
    data = os.fsencode(name)
    try:
        data.decode()
    except UnicodeError:
        names = [name]
        for encoding in ("cp1252", "cp932", "gb18030", "big5", "euc-kr", "cp1251"):
            with contextlib.suppress(UnicodeError):
                names.append(data.decode(encoding))
        return list(dict.fromkeys(names))
    return [name]


def mirror_key(folder: Path, root: Path) -> tuple[str, ...]:
    """The place of a folder in trees of images and of labels: its parts below the root without ``images``, ``labels``.

    It is the same for ``images/train/a`` and ``labels/train/a``, ``train/images`` and ``Annotations/train``.
    """
    parts = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
    return tuple(part for part in map(_folded, parts) if part not in _TREES)


def resolve_parts(parts: Iterable[str]) -> list[str] | None:
    """Parts of a relative path with ``..`` resolved by name; ``None`` if it leads out of where it starts."""
    resolved: list[str] = []
    for part in parts:
        if part != "..":
            resolved.append(part)
        elif resolved:
            resolved.pop()
        else:
            return None
    return resolved


def visible_files(root: Path, max_depth: int | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Each folder below ``root`` and the names of its files, without those hidden, of systems, or written by hubel.

    Data sets that hubel wrote count where there are no images beside them. Links to folders are followed, and a folder
    that is reached twice is read once.
    """
    seen: set[tuple[int, int]] = set()
    waiting, has_images = [root], False
    copies: list[Path] = []
    while waiting:
        folder = waiting.pop()
        with contextlib.suppress(OSError):
            status = folder.stat()
            if (identity := (status.st_dev, status.st_ino)) not in seen:
                seen.add(identity)
                files, folders = _listed(folder)
                has_images = has_images or any(map(_is_image, files))
                yield folder, files
                if len(folder.relative_to(root).parts) != max_depth:
                    inner = [each for each in folders if not is_own_output(each)]
                    written = [each for each in inner if is_written_data(each)]
                    copies += written
                    waiting += [each for each in reversed(inner) if each not in written]
        if not waiting and not has_images:
            waiting, copies = list(reversed(copies)), []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _listed(folder: Path) -> tuple[list[str], list[Path]]:
    """The names of a folder's files, and its folders, sorted, without those hidden and of systems."""
    with os.scandir(folder) as entries:
        shown = [(entry.name, _is_folder(entry)) for entry in entries if is_shown(entry.name)]
    files = [name for name, is_folder in shown if not is_folder]
    return files, [folder / name for name in sorted(name for name, is_folder in shown if is_folder)]


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 – a name, many times


def _common_length(a: Iterable[str], b: Iterable[str]) -> int:
    pairs = zip(a, b, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _parts(name: str) -> tuple[list[str], str]:
    """Parts of a name, and ``"path"`` or ``"url"`` where it is absolute."""
    if len(name) > _MAX_NAME_LENGTH:
        raise parse.InvalidAnnotation(f"names an image with more than {_MAX_NAME_LENGTH:,} characters")
    if not name.strip() or "\0" in name:
        raise parse.InvalidAnnotation("names no image")
    absolute = ""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
        absolute = "url"
        try:
            url = urlsplit(name)
        except ValueError:
            raise parse.InvalidAnnotation(f"names {name!r}, which is not a URL") from None
        # Label Studio serves files of its own machine as …/data/local-files/?d=folder/a.jpg.
        query = re.search(r"(?:^|&)d=([^&]+)", url.query)
        name = unquote(query[1] if query else url.path)
    plain = name.replace("\\", "/")
    if not absolute and (plain.startswith("/") or re.match(r"[A-Za-z]:", plain)):
        absolute = "path"
        plain = re.sub(r"^[A-Za-z]:", "", plain)
    return [part for part in plain.split("/") if part not in ("", ".")], absolute
