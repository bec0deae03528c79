"""The free attributes of tools: some say what this package knows by its own name.

``occluded: true`` in a VIA region or a CVAT attribute means what ``<occluded>1</occluded>`` means in VOC. Where a
format has free attributes, what it has no place of its own for goes into them, and is found there again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import Annotation
from hubel.data.annotations.validators import truth

_FLAGS = {
    "crowd": "crowd", "iscrowd": "crowd", "ignore": "ignore", "difficult": "difficult", "truncated": "truncated",
    "occluded": "occluded",
}  # fmt: skip
_NOTHING = (None, "", False, "false", "False", "0", 0)


def split_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of :class:`Annotation` from a tool's attributes: known ones, and the rest by name."""
    known: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in attributes.items():
        key = _FLAGS.get(name.strip().casefold())
        if key and (truth(value) or value in _NOTHING):
            known[key] = truth(value)
        elif name in ("annotator", "labeler") and isinstance(value, str) and value:
            known["annotator"] = value
        elif name in ("score", "area") and (number := _number(value)) is not None:
            known[name] = number
        elif value is not None:
            rest[name] = value
    if rest:
        known["attributes"] = rest
    return known


def merged_attributes(thing: Annotation, apart: Collection[str] = ()) -> dict[str, Any]:
    """All that is said of an object as attributes by name, except what has a place of its own (``apart``)."""
    merged = dict(thing.attributes)
    for name in ("crowd", "ignore", "difficult", "truncated", "occluded"):
        if name not in apart and getattr(thing, name):
            merged[name] = True
    for name in ("annotator", "score", "area"):
        if name not in apart and (value := getattr(thing, name)) is not None:
            merged[name] = value
    return merged


def annotators(objects: Iterable[Annotation]) -> list[str | None]:
    """Who labelled a picture, in order of appearance; one unknown where nobody has found anything."""
    return list(dict.fromkeys(thing.annotator for thing in objects)) or [None]


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < 1e18 and not isinstance(value, bool) else None


def as_text(value: Any) -> str:
    """An attribute's value for formats that hold text only; ``1`` and ``0`` for true and false."""
    if isinstance(value, bool):
        return "1" if value else "0"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


_USUAL = ("class", "label", "name", "category", "type", "object", "species", "kind")
UNNAMED = "object"
"""The class of regions where nothing names one."""


def class_attribute(reading: AnnotationReader, regions: Sequence[Mapping[str, Any]]) -> str | None:
    """The attribute that names the classes: one called so, else the one that most regions have; a warning says which.

    Returns:
        Its name, or ``None`` where the regions have no attributes: they are all :data:`UNNAMED`.
    """
    counts = Counter(name for attributes in regions for name, value in attributes.items() if value_of(value))
    if not counts:
        if regions:
            reading.warn(f"no attribute names the regions' classes: they are called {UNNAMED!r}")
        return None
    for usual in _USUAL:
        for name in counts:
            if name.strip().casefold() in (usual, f"{usual}_name", f"{usual} name"):
                return name
    chosen = max(counts, key=lambda name: (counts[name], -list(counts).index(name)))
    if len(counts) > 1:
        reading.warn(f"of the attributes {', '.join(counts)}, {chosen!r} is taken for the class")
    return chosen


def value_of(value: Any) -> str:
    """An attribute's value as text; of several ticked boxes the first; ``""`` for nothing."""
    if isinstance(value, dict):
        value = next((name for name, ticked in value.items() if ticked), "")
    return "" if value is None else str(value).strip()


def named(reading: AnnotationReader, attributes: Mapping[str, Any], chosen: str | None) -> tuple[int, dict[str, Any]]:
    """A region's label, and its other attributes."""
    rest = {name: value for name, value in attributes.items() if name != chosen}
    name = value_of(attributes.get(chosen)) if chosen is not None else ""
    if not name and chosen is not None:
        reading.count(f"regions have no {chosen!r}: they are called {UNNAMED!r}")
    if chosen is not None and isinstance(value := attributes.get(chosen), dict) and sum(map(bool, value.values())) > 1:
        reading.count(f"regions have several {chosen!r}: the first is taken")
    return reading.label(name or UNNAMED), rest
