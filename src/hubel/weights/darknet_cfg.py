"""Darknet's ``.cfg``: a network as text, one section a layer.

Facts of the format are those of pjreddie/darknet, and of AlexeyAB/darknet where that adds to it. A text is untrusted:
kinds, activations and numbers are checked, and bounded, before anything is made of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hubel.bounded import BoundError, read_text
from hubel.errors import ModelError

ACTIVATIONS = ("leaky", "linear", "relu", "mish", "logistic", "swish", "ramp")
HEADS = ("yolo", "region", "detection")
"""Kinds of sections that stand for boxes; the layer before one gives what it reads."""
KINDS = (
    "convolutional", "connected", "local", "batchnorm", "maxpool", "avgpool", "route", "shortcut", "upsample", "reorg",
    "softmax", "dropout", "crop", "cost", *HEADS,
)  # fmt: skip

MOST_CHANNELS, LARGEST_SIDE = 65_536, 8192
_LARGEST_FILE = 1 << 20
_MOST_LAYERS = 1000
_LONGEST_LINE = 4096
_HINT = "pass the cfg that Darknet itself reads"

# Options that change what a layer computes, and no published cfg of these kinds has.
_NOT_COMPUTED = {
    "convolutional": ("binary", "xnor", "dilation", "antialiasing", "share_index", "stride_x", "stride_y", "deform"),
    "maxpool": ("maxpool_depth", "stride_x", "stride_y", "antialiasing"),
    "shortcut": ("weights_type",),
    "region": ("background",),
}


def cfg_error(message: str, hint: str = _HINT) -> ModelError:
    """The error of a cfg that cannot be built."""
    return ModelError(message, hint)


@dataclass(frozen=True)
class Section:
    """A layer, or ``[net]``, as a cfg describes it.

    Attributes:
        where: its place, for messages: ``yolov4.cfg, [convolutional] in line 20``.
    """

    kind: str
    options: Mapping[str, str]
    where: str

    def integer(self, name: str, default: int, least: int = 0, most: int = LARGEST_SIDE) -> int:
        """An option that is a whole number of a range."""
        text = self.options.get(name, str(default))
        if not re.fullmatch(r"[+-]?\d{1,12}", text) or not least <= int(text) <= most:
            raise self.error(f"{name}={text:.40} is not a whole number from {least:,} to {most:,}")
        return int(text)

    def number(self, name: str, default: float, least: float = 0, most: float = 1e6) -> float:
        """An option that is a number of a range."""
        return self._number(name, self.options.get(name, str(default)), least, most)

    def numbers(self, name: str, least: float = 0, most: float = 1e6) -> tuple[float, ...]:
        """An option that is a list of numbers; it must be there."""
        texts = [text for text in self.options.get(name, "").split(",") if text.strip()]
        if not texts:
            raise self.error(f"{name} is missing")
        return tuple(self._number(name, text.strip(), least, most) for text in texts)

    def integers(self, name: str, least: int = -_MOST_LAYERS, most: int = _MOST_LAYERS) -> tuple[int, ...]:
        """An option that is a list of whole numbers; it must be there."""
        found = self.numbers(name, least, most)
        if any(not number.is_integer() for number in found):
            raise self.error(f"{name}={self.options[name]:.40} are not whole numbers")
        return tuple(map(int, found))

    def flag(self, name: str, default: int = 0) -> bool:
        """An option that is 0 or 1."""
        return bool(self.integer(name, default, 0, 1))

    def word(self, name: str, default: str, known: Sequence[str]) -> str:
        """An option that is one of some words."""
        text = self.options.get(name, default)
        if text not in known:
            raise self.error(f"{name}={text:.40} is unknown; known are {', '.join(known)}")
        return text

    def error(self, message: str) -> ModelError:
        """An error that names the section."""
        return cfg_error(f"{self.where}: {message}")

    def _number(self, name: str, text: str, least: float, most: float) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise self.error(f"{name}={text:.40} is not a number from {least:g} to {most:g}")
        return number


def read_cfg(path: Path) -> list[Section]:
    """The sections of a file, ``[net]`` first; raises as :func:`parse_cfg`."""
    return parse_cfg(cfg_text(path), path.name)


def cfg_text(path: Path) -> str:
    """The text of a file; raises :class:`ModelError` if it cannot be read or is too large."""
    try:
        return read_text(path, _LARGEST_FILE)
    except (OSError, BoundError) as error:
        reason = f"it {error}" if isinstance(error, BoundError) else error.strerror or error
        raise ModelError(f"{path} cannot be read as a Darknet cfg: {reason}", _HINT) from error


def parse_cfg(text: str, origin: str = "the cfg") -> list[Section]:
    """The sections of a cfg, ``[net]`` first. Of an option that is given twice the first counts, as in Darknet.

    Raises:
        ModelError: the text is not a cfg, or has layers of an unknown kind; the message names the line.
    """
    found: list[tuple[str, dict[str, str], int]] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = "" if line.lstrip().startswith(";") else re.sub(r"\s", "", line.split("#")[0][:_LONGEST_LINE])
        if line.startswith("[") and line.endswith("]"):
            found.append((line[1:-1], {}, number))
            if len(found) > _MOST_LAYERS + 1:
                raise cfg_error(f"{origin} has more than {_MOST_LAYERS:,} layers")
        elif line:
            name, equals, value = line.partition("=")
            if not equals or not found:
                raise cfg_error(f"line {number} of {origin} is not NAME=VALUE in a section: {line:.40}")
            found[-1][1].setdefault(name, value)
    if not found or found[0][0] not in ("net", "network"):
        raise cfg_error(f"{origin} does not begin with [net]")
    sections = [Section(kind, options, f"{origin}, [{kind:.40}] in line {number}") for kind, options, number in found]
    for section in sections[1:]:
        _check(section)
    return sections


def _check(section: Section) -> None:
    if section.kind not in KINDS:
        raise section.error(f"layers of this kind are unknown; known are {', '.join(KINDS)}")
    for name in _NOT_COMPUTED.get(section.kind, ()):
        if section.options.get(name, "0") not in ("0", "1" if name == "dilation" else "0", "none"):
            raise section.error(f"{name}={section.options[name]:.40} is not supported")
    section.word("activation", "linear", ACTIVATIONS)


def to_text(sections: Iterable[Section]) -> str:
    """A cfg of these sections."""
    return "\n".join(
        f"[{section.kind}]\n" + "".join(f"{name}={value}\n" for name, value in section.options.items())
        for section in sections
    )


def classes_of(sections: Sequence[Section]) -> int:
    """The number of classes that a network tells apart.

    Raises:
        ModelError: it is neither a detector nor a classifier, or its heads disagree.
    """
    if heads := [section for section in sections if section.kind in HEADS]:
        counts = {head.integer("classes", 20, 1, MOST_CHANNELS) for head in heads}
        if len(counts) > 1:
            raise heads[-1].error("its classes are not those of the sections before it")
        return counts.pop()
    layer = sections[class_layers(sections)[0] + 1]
    return layer.integer(_WIDTH[layer.kind], 1, 1, MOST_CHANNELS)


_WIDTH = {"convolutional": "filters", "local": "filters", "connected": "output"}
"""Name of the option that is the number of a layer's output channels."""


def class_layers(sections: Sequence[Section]) -> list[int]:
    """Indices, from 0, of the layers whose width depends on the number of classes.

    They are those before the heads, or a classifier's last one with weights.
    """
    heads = [index for index, section in enumerate(sections[1:]) if section.kind in HEADS]
    if heads:
        found = [index - 1 for index in heads]
    else:
        found = [index for index, section in enumerate(sections[1:]) if section.kind in _WIDTH][-1:]
    for index in found:
        if index < 0 or sections[index + 1].kind not in _WIDTH:
            raise sections[index + 2].error("a layer with weights must stand before it")
    if not found:
        raise cfg_error(f"{sections[0].where}: the network has no layer with weights")
    return found


def task_of(sections: Sequence[Section]) -> str:
    """``"detect"`` for a network with heads, ``"classify"`` for one that ends in classes.

    Raises:
        ModelError: it is neither.
    """
    if any(section.kind in HEADS for section in sections):
        return "detect"
    ends = [section.kind for section in sections if section.kind not in ("cost", "dropout")]
    if ends[-1] not in ("softmax", "avgpool", "connected"):
        message = f"{sections[0].where}: the network ends neither in boxes nor in classes"
        raise cfg_error(message, f"the last section must be one of {', '.join(HEADS)}, softmax, avgpool, connected")
    return "classify"


def boxes_of(head: Section) -> int:
    """Boxes of a head at each position."""
    if head.kind == "yolo":
        return len(head.integers("mask", 0)) if "mask" in head.options else head.integer("num", 1, 1, 1000)
    return head.integer("num", 1, 1, 1000)


def with_classes(sections: Sequence[Section], count: int) -> list[Section]:
    """The same network for another number of classes; its last layers get the width for it."""
    changed = list(sections)
    for index in class_layers(sections):
        layer, head = sections[index + 1], sections[index + 2] if index + 2 < len(sections) else None
        width = count
        if head is not None and head.kind in HEADS:
            changed[index + 2] = replace(head, options={**head.options, "classes": str(count)})
            width = width_for(head, count)
        changed[index + 1] = replace(layer, options={**layer.options, _WIDTH[layer.kind]: str(width)})
    return changed


def width_for(head: Section, classes: int) -> int:
    """Channels that a head reads."""
    boxes = boxes_of(head)
    if head.kind == "detection":
        return head.integer("side", 7, 1, 1000) ** 2 * (5 * boxes + classes)
    return boxes * (5 + classes)
