"""What the values and colours of masks mean: the names of the classes, from a file or as published."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hubel.bounded import BoundError, read_bytes
from hubel.data.annotations.encodings import decode_file
from hubel.data.mask_file import Colours, MaskFile
from hubel.data.samples import IGNORE_INDEX
from hubel.errors import DataError

CLASS_FILES = ("classes.txt", "label_colors.txt", "labelmap.txt", "class_dict.csv")
"""Files of class names: CamVid's, CVAT's and that of many tables of names and colours come after hubel's own."""

IGNORED = "(ignore)"
"""Ends the names of classes whose pixels do not count."""

_HINT = "write one name per line, in order"
_TITLES = re.compile(r"# label:.*|name, *r, *g, *b", re.IGNORECASE)  # CVAT's, and those of class_dict.csv
_NUMBERS = r"(?P<red>\d{1,3})[ ,\t]+(?P<green>\d{1,3})[ ,\t]+(?P<blue>\d{1,3})"
_COLOURED = (  # the colour after the name, or before it
    re.compile(rf"(?P<name>[^\s:].*?):{_NUMBERS}:[^:]*:[^:]*"),  # CVAT: with parts and actions
    re.compile(rf"(?P<name>\S.*?)[ ,\t]+{_NUMBERS}"),
    re.compile(rf"{_NUMBERS}[ ,\t]+(?P<name>\S.*)"),
)

# Cityscapes' labels by their id, with the 19 that are trained on (Cordts et al. 2016, arXiv 1604.01685, section 3.1).
_CITYSCAPES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
_FIRST_OBJECT = 24  # humans and vehicles have the last ids
_VOC_VOID = (224, 224, 192)


@dataclass(frozen=True)
class MaskClasses:
    """The classes of a data set's masks; see :class:`~hubel.data.mask_file.MaskFile`."""

    names: tuple[str, ...]
    colours: Colours | None = None
    classes: bytes | None = None
    names_ignored: bool = False

    def file(self, path: Path) -> MaskFile:
        """A mask of these classes."""
        return MaskFile(path, self.colours, self.classes, self.names_ignored)


def read_mask_classes(root: Path) -> MaskClasses | None:
    """The classes that a file in a folder names; ``None`` without one. Raises :class:`DataError` if it is wrong.

    A line is a value of the masks, from 0: ``INDEX NAME`` or ``NAME``, with or without its colour. The lines that are
    not ignored are the classes.
    """
    file = next((root / name for name in CLASS_FILES if (root / name).is_file()), None)
    if file is None:
        return None
    try:
        lines = decode_file(read_bytes(file))[0].splitlines()
    except (OSError, BoundError, UnicodeError) as error:
        raise DataError(f"{file} cannot be read: {error}", _HINT) from error
    lines = [line.strip("\ufeff \t") for line in lines]
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line and not _TITLES.fullmatch(line)]
    texts, colours = _without_colours(file, [line for _, line in numbered])
    names: list[str | None] = []  # by value, None for those that do not count
    for (number, _), text in zip(numbered, texts, strict=True):
        index, *rest = text.split(maxsplit=1)
        if rest and index.isdecimal():
            if (index.lstrip("0") or "0") != str(len(names)):
                message = f"{file}, line {number}: index {index:.20} where {len(names)} is expected"
                raise DataError(message, "number the classes from 0, without gaps")
            text = rest[0]
        names.append(None if text.endswith(IGNORED) else text)
    if not any(names):
        raise DataError(f"{file} names no class", _HINT)
    if len(names) > IGNORE_INDEX:
        message = f"{file} has {len(names):,} lines, and a mask has values from 0 to {IGNORE_INDEX - 1}"
        raise DataError(message, "merge some classes")
    return _mask_classes(names, colours)


def cityscapes_objects() -> dict[int, str]:
    """Cityscapes' classes of which single objects are labelled, by their id (Cordts et al. 2016, section 3.1)."""
    return {id_: name for id_, name in _CITYSCAPES.items() if id_ >= _FIRST_OBJECT}


def voc_classes() -> MaskClasses:
    """Background and Pascal VOC's 20 classes, with the colours of its palette; 255 does not count."""
    from hubel.weights.catalog import class_names

    names = class_names("voc21")
    colours = (*(_voc_colour(index) for index in range(len(names))), _VOC_VOID)
    return _mask_classes([*names, None], colours)


def cityscapes_classes(train_ids: bool) -> MaskClasses:
    """Cityscapes' 19 classes, of masks of its ids, or of the classes' own indices, ``train_ids``."""
    names = _CITYSCAPES.values() if train_ids else (_CITYSCAPES.get(index) for index in range(max(_CITYSCAPES) + 1))
    classes = _mask_classes(list(names), None)
    return MaskClasses(classes.names, None, classes.classes, True)


def _mask_classes(names: Sequence[str | None], colours: Colours | None) -> MaskClasses:
    """The classes of masks whose values have these names; ``None`` for values that do not count."""
    kept = [name for name in names if name is not None]
    classes = np.arange(256, dtype=np.uint8)
    classes[: len(names)] = IGNORE_INDEX
    classes[[value for value, name in enumerate(names) if name is not None]] = np.arange(len(kept))
    is_plain = len(kept) == len(names)
    return MaskClasses(tuple(kept), colours, None if is_plain else classes.tobytes(), not is_plain)


def _voc_colour(index: int) -> tuple[int, int, int]:
    """Colour of an index in Pascal VOC's palette: its bits in turn for red, green and blue, the highest bits first."""
    red, green, blue = (
        sum((index >> (3 * place + channel) & 1) << (7 - place) for place in range(3)) for channel in range(3)
    )
    return red, green, blue


def _without_colours(file: Path, lines: list[str]) -> tuple[list[str], Colours | None]:
    """Lines of names alone, and the colours, where all lines have one."""
    for pattern in _COLOURED:
        matches = [match for line in lines if (match := pattern.fullmatch(line)) is not None]
        if matches and len(matches) == len(lines):
            break
    else:
        return lines, None
    colours = tuple((int(match["red"]), int(match["green"]), int(match["blue"])) for match in matches)
    if wrong := next((colour for colour in colours if max(colour) > 255), None):
        raise DataError(f"{file} has the colour {wrong}", "use numbers from 0 to 255")
    if len(set(colours)) < len(colours):
        raise DataError(f"{file} has a colour twice", "give each class a colour of its own")
    return [match["name"] for match in matches], colours
