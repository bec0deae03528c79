"""What the values of a ``model.json`` can be, so that a damaged or forged one is refused before anything is built.

Written out here rather than declared for pydantic, whose import alone takes longer than all else that ``hubel predict``
does before it reads its first image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hubel.bounded import BoundError, read_json
from hubel.config import LARGEST_IMAGE_SIZE
from hubel.errors import ModelError
from hubel.models.registry import list_models, task_of

_AGAIN = "train or save the model again, or use an undamaged copy"
_LARGEST_FILE = 32 << 20  # bytes: names of a hundred thousand classes
_LONGEST_TEXT = 4096
_LONGEST_CFG = 1 << 18
_MOST_CLASSES = 200_000
_MOST_CHANNELS = 1024
_LARGEST_MARGIN, _LARGEST_SCALE = 1024, 16
_LARGEST_SIDE, _MOST_PIXELS = 8192, LARGEST_IMAGE_SIZE**2  # of an input
_DEEPEST, _MOST_OPTIONS, _LARGEST_OPTION = 6, 20_000, 65_536
MOST_MEMBERS = 100
"""Networks of an ensemble at most."""

Check = Callable[[Any], bool]


def read_record(path: Path) -> Any:
    """The JSON document in a file of a model's folder.

    Raises:
        ModelError: it cannot be read, is not JSON, or is larger than any.
    """
    try:
        return read_json(path, _LARGEST_FILE)
    except (OSError, BoundError) as error:
        reason = f"it {error}" if isinstance(error, BoundError) else error.strerror or error
        raise ModelError(f"{path} is damaged: {reason}", "use an undamaged copy, or train again") from error


def check_record(record: Mapping[str, Any], origin: str) -> None:
    """Raise :class:`ModelError` unless the values of a complete record are possible and agree."""
    _check(record, _FIELDS, origin, "")
    prepared = record["preprocessing"]
    unknown = sorted(set(map(str, prepared)) - set(_PREPROCESSING))
    missing = sorted({"height", "width", "mean", "std"} - set(prepared))
    for names, fault in ((unknown, "is unknown"), (missing, "is missing")):
        if names:
            raise ModelError(f"{origin}: preprocessing cannot be read: {', '.join(names[:5])} {fault}", _AGAIN)
    _check(prepared, _PREPROCESSING, origin, "preprocessing.")
    pixels = prepared["height"] * prepared["width"]
    if pixels > _MOST_PIXELS:
        limit = f"more than the limit of {_MOST_PIXELS:,}"
        raise ModelError(f"{origin}: its input would have {pixels:,} pixels, {limit}", _AGAIN)
    if prepared.get("resize") == "tiles" and 2 * prepared.get("margin", 0) >= min(
        prepared["height"], prepared["width"]
    ):
        raise ModelError(f"{origin}: margins of {prepared['margin']} pixels leave nothing of its tiles", _AGAIN)
    channels = prepared.get("channels", 3)
    disagreements = (
        (len(record["classes"]), record["num_classes"], "names {} classes for {} outputs"),
        (channels, record["in_channels"], "its preprocessing makes {} channels, and the network takes {}"),
        (len(prepared["mean"]), channels, "preprocessing.mean has {} values for {} channels"),
        (len(prepared["std"]), channels, "preprocessing.std has {} values for {} channels"),
    )
    for one, other, words in disagreements:
        if one != other:
            raise ModelError(f"{origin}: {words.format(one, other)}", _AGAIN)
    name, task = record["architecture"], record["task"]
    if name in list_models() and task_of(name) != task:
        raise ModelError(f"{origin}: its task is {task!r:.60}, and {name} is for {task_of(name)!r}", _AGAIN)
    if (backbone := record.get("backbone")) is not None:
        if unknown := sorted(set(map(str, backbone)) - set(_BACKBONE)):
            raise ModelError(f"{origin}: backbone cannot be read: {', '.join(unknown[:5])} is unknown", _AGAIN)
        _check(backbone, _BACKBONE, origin, "backbone.")


def _check(record: Mapping[str, Any], checks: Mapping[str, Check], origin: str, prefix: str) -> None:
    for name, is_valid in checks.items():
        if name in record and not is_valid(record[name]):
            raise ModelError(f"{origin}: {prefix}{name} cannot be {_shown(record[name])}", _AGAIN)


def _shown(value: Any) -> str:
    text = f"{value!r}" if isinstance(value, int | float | str | None) else f"a {type(value).__name__}"
    if isinstance(value, list | tuple) and len(value) <= 4 and all(isinstance(each, int | float) for each in value):
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT and value.isprintable()


def _is_cfg(value: Any) -> bool:
    """True for lines of text, as those of a Darknet cfg, or of a tree, whose names may be of any language."""
    if not isinstance(value, str) or len(value) > _LONGEST_CFG or "\0" in value:
        return False
    return value.isascii() or "".join(value.split()).isprintable()


def _is_text_or_none(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= _LONGEST_TEXT)  # names of files may be anything


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= _MOST_CLASSES
        and all(isinstance(name, str) and len(name) <= _LONGEST_TEXT for name in value)
    )


def _whole(most: int, least: int = 1) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def _number(least: float, most: float) -> Check:
    return lambda value: type(value) in (int, float) and least <= value <= most  # NaN is not


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list | tuple) and all(map(check, value))


def _one_of(*words: str) -> Check:
    return lambda value: isinstance(value, str) and value in words


def _are_options(value: Any) -> bool:
    """True for a dictionary of plain values, of bounded size and depth."""
    remaining = _MOST_OPTIONS

    def is_plain(entry: Any, depth: int) -> bool:
        nonlocal remaining
        remaining -= 1
        if remaining < 0 or depth > _DEEPEST:
            return False
        if isinstance(entry, dict):
            return all(_is_text(name) and is_plain(inner, depth + 1) for name, inner in entry.items())
        if isinstance(entry, list | tuple):
            return all(is_plain(inner, depth + 1) for inner in entry)
        if isinstance(entry, int | float) and not isinstance(entry, bool):
            return abs(entry) <= _LARGEST_OPTION and math.isfinite(entry)
        return entry is None or isinstance(entry, bool) or _is_text(entry) or _is_cfg(entry)

    return isinstance(value, dict) and is_plain(value, 0)


_FIELDS: Mapping[str, Check] = {
    "task": _is_text,
    "architecture": _is_text,
    "num_classes": _whole(_MOST_CLASSES, least=0),
    "in_channels": _whole(_MOST_CHANNELS),
    "image_size": _whole(_LARGEST_SIDE),
    "classes": _are_names,
    "preprocessing": lambda value: isinstance(value, dict),
    "options": _are_options,
    "hubel": _is_text,
    "weights": _is_text_or_none,
    "backbone": lambda value: value is None or (isinstance(value, dict) and _is_text(value.get("architecture"))),
    "members": _whole(MOST_MEMBERS, least=2),
}
_PREPROCESSING: Mapping[str, Check] = {
    "height": _whole(_LARGEST_SIDE),
    "width": _whole(_LARGEST_SIDE),
    "channels": lambda value: type(value) is int and value in (1, 3),
    "mean": _list_of(_number(-1e6, 1e6)),
    "std": _list_of(_number(1e-6, 1e6)),
    "resize": _one_of("crop", "stretch", "fit", "tiles"),
    "margin": _whole(_LARGEST_MARGIN, least=0),
    "scale": _whole(_LARGEST_SCALE),
    "fill": lambda value: value is None or _number(0, 255)(value),
    "crop_fraction": _number(0.01, 1),
    "interpolation": _one_of("nearest", "bilinear", "bicubic", "lanczos", "bilinear-2x2"),
}
_BACKBONE: Mapping[str, Check] = {
    "architecture": _is_text,
    "options": _are_options,
    "weights": _is_text_or_none,
    "source": _is_text_or_none,
}
