"""Which of a region's free attributes is its class: VIA has no place of its own for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hubel.data.annotations.reading import Reading

_USUAL = ("class", "label", "name", "category", "type", "object", "species", "kind")
UNNAMED = "object"
"""The class of regions where nothing names one."""


def class_attribute(reading: Reading, regions: Sequence[Mapping[str, Any]]) -> str | None:
    """The attribute that names the classes: one called so, else the one that most regions have; a warning says which.

    Returns:
        Its name, or ``None`` where the regions have no attributes: they are all :data:`UNNAMED`.
    """
    counts = Counter(name for attributes in regions for name, value in attributes.items() if value_of(value))
    if not counts:
        if regions:
            reading.say(f"no attribute names the regions' classes: they are called {UNNAMED!r}")
        return None
    for usual in _USUAL:
        for name in counts:
            if name.strip().casefold() in (usual, f"{usual}_name", f"{usual} name"):
                return name
    chosen = max(counts, key=lambda name: (counts[name], -list(counts).index(name)))
    if len(counts) > 1:
        reading.say(f"of the attributes {', '.join(counts)}, {chosen!r} is taken for the class")
    return chosen


def value_of(value: Any) -> str:
    """An attribute's value as text; of several ticked boxes the first; ``""`` for nothing."""
    if isinstance(value, dict):
        value = next((name for name, ticked in value.items() if ticked), "")
    return "" if value is None else str(value).strip()


def named(reading: Reading, attributes: Mapping[str, Any], chosen: str | None) -> tuple[int, dict[str, Any]]:
    """A region's label, and its other attributes."""
    rest = {name: value for name, value in attributes.items() if name != chosen}
    name = value_of(attributes.get(chosen)) if chosen is not None else ""
    if not name and chosen is not None:
        reading.count(f"regions have no {chosen!r}: they are called {UNNAMED!r}")
    if chosen is not None and isinstance(value := attributes.get(chosen), dict) and sum(map(bool, value.values())) > 1:
        reading.count(f"regions have several {chosen!r}: the first is taken")
    return reading.label(name or UNNAMED), rest
