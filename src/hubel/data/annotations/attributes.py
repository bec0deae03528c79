"""Free attributes of tools, and those among them that have a field of their own in :class:`Annotation`.

``occluded: true`` in a VIA region or a CVAT attribute means what ``<occluded>1</occluded>`` means in VOC. Where a
format has free attributes, everything it has no field for is written as one and recognized when it is read again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from hubel.data.annotations import parse
from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import FLAGS, Annotation

UNNAMED = "object"
"""Class of regions without a name."""

_FLAG_OF = {flag: flag for flag in FLAGS} | {"iscrowd": "crowd"}
_FALSE = (None, "", False, "false", "False", "0", 0)
_CLASS_ATTRIBUTES = ("class", "label", "name", "category", "type", "object", "species", "kind")


def split_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :class:`Annotation` from a tool's attributes: those with a field, and the others by name."""
    fields: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in attributes.items():
        flag = _FLAG_OF.get(name.strip().casefold())
        if flag and (parse.flag(value) or value in _FALSE):
            fields[flag] = parse.flag(value)
        elif name in ("annotator", "labeler") and isinstance(value, str) and value:
            fields["annotator"] = value
        elif name in ("score", "area") and (number := _number(value)) is not None:
            fields[name] = number
        elif value is not None:
            others[name] = value
    if others:
        fields["attributes"] = others
    return fields


def merge_attributes(annotation: Annotation, exclude: Collection[str] = ()) -> dict[str, Any]:
    """Attributes of an object together with its fields, except those that the format has a place for (``exclude``)."""
    merged = dict(annotation.attributes)
    merged |= {name: True for name in FLAGS if name not in exclude and getattr(annotation, name)}
    for name in ("annotator", "score", "area"):
        if name not in exclude and (value := getattr(annotation, name)) is not None:
            merged[name] = value
    return merged


def group_by_annotator(objects: Iterable[Annotation]) -> dict[str | None, list[Annotation]]:
    """Objects of an image by those who labelled it; ``{None: []}`` if there is none."""
    groups: dict[str | None, list[Annotation]] = {}
    for obj in objects:
        groups.setdefault(obj.annotator, []).append(obj)
    return groups or {None: []}


def _number(value: Any) -> float | None:
    try:
        number = float(value) if parse.is_plain(value) else math.nan
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < 1e18 else None


def as_text(value: Any) -> str:
    """An attribute's value for formats with text only; ``1`` and ``0`` for booleans."""
    if isinstance(value, bool):
        return "1" if value else "0"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def class_attribute(reader: AnnotationReader, regions: Sequence[Mapping[str, Any]]) -> str | None:
    """Name of the attribute that holds the class: ``class``, ``label`` or similar, else the most frequent one.

    A guess adds a warning. ``None`` if the regions have no attributes: they are then all :data:`UNNAMED`.
    """
    counts = Counter(name for attributes in regions for name, value in attributes.items() if _value_text(value))
    if not counts:
        if regions:
            reader.warn(f"no attribute names the regions' classes: they are called {UNNAMED!r}")
        return None
    for usual in _CLASS_ATTRIBUTES:
        for name in counts:
            if name.strip().casefold() in (usual, f"{usual}_name", f"{usual} name"):
                return name
    chosen = max(counts, key=lambda name: (counts[name], -list(counts).index(name)))
    if len(counts) > 1:
        reader.warn(f"of the attributes {', '.join(counts)}, {chosen!r} is used as the class")
    return chosen


def _value_text(value: Any) -> str:
    """An attribute's value as text; of several ticked boxes the first; empty for none."""
    if isinstance(value, dict):
        value = next((name for name, ticked in value.items() if ticked), "")
    return "" if value is None else str(value).strip()


def take_label(
    reader: AnnotationReader, attributes: Mapping[str, Any], chosen: str | None
) -> tuple[int, dict[str, Any]]:
    """Label of a region, and its attributes without the one that holds the class."""
    others = {name: value for name, value in attributes.items() if name != chosen}
    value = attributes.get(chosen) if chosen is not None else None
    name = _value_text(value)
    if not name and chosen is not None:
        reader.count_warning(f"regions have no {chosen!r}: they are called {UNNAMED!r}")
    if isinstance(value, dict) and sum(map(bool, value.values())) > 1:
        reader.count_warning(f"regions have several {chosen!r}: the first is used")
    return reader.label(name or UNNAMED), others
