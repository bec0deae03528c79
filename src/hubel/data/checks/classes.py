"""Check classes: names that may mean the same, missing classes, imbalance."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from hubel.data.annotations.records import AnnotatedDataset
from hubel.data.checks.findings import Finding
from hubel.data.file_listing import listing

RARER = 10
"""A class that may be a misspelling is at least this many times rarer than the other."""

MIN_SIMILARITY = 0.85
"""Similarity of two such names, 0..1 (difflib's ratio)."""

IMBALANCE = 100
"""Ratio of the most to the least frequent class from which it is reported."""

_MIN_LENGTH = 4


def spelling_groups(dataset: AnnotatedDataset) -> list[list[int]]:
    """Classes that differ only by case, spaces, hyphens and underscores; the most frequent of each group first."""
    counts = object_counts(dataset)
    groups: dict[str, list[int]] = defaultdict(list)
    for label, name in enumerate(dataset.classes):
        groups[_normalized(name)].append(label)
    return [sorted(group, key=lambda label: (-counts[label], label)) for group in groups.values() if len(group) > 1]


def object_counts(dataset: AnnotatedDataset, split: str | None = None) -> Counter[int]:
    """Number of objects by label, in a split or in all."""
    images = dataset.images() if split is None else dataset.splits[split]
    return Counter(obj.label for image in images for obj in image.objects or ())


def class_findings(dataset: AnnotatedDataset) -> Iterator[Finding]:
    """Problems of class names and counts."""
    counts = object_counts(dataset)
    names = dataset.classes
    merged: set[int] = set()
    for first, *others in spelling_groups(dataset):
        merged.update(others)
        spellings = ", ".join(f"{names[label]!r} ({counts[label]})" for label in others)
        yield Finding("class-spelling", f"{names[first]!r} ({counts[first]} objects) is also {spellings}")
    named = {names[label]: count for label, count in counts.items() if label not in merged}
    yield from likeness_findings(named, "objects")
    labels = [label for label in range(len(names)) if label not in merged]
    if absent := [names[label] for label in labels if not counts[label]]:
        yield Finding("class-absent", f"no object at all of {listing(absent)}")
    for split in dataset.splits:
        present = object_counts(dataset, split)
        if missing := [names[label] for label in labels if counts[label] and not present[label]]:
            yield Finding("class-absent", f"no object in {split} of {listing(missing)}", split)
    yield from imbalance_findings({names[label]: count for label, count in counts.items()}, "objects", IMBALANCE)


def likeness_findings(counts: Mapping[str, int], unit: str) -> Iterator[Finding]:
    """Rare classes that may be misspellings, from the number of objects or images by name."""
    for rare, frequent in similar_names(counts):
        yield Finding("class-likeness", f"{rare!r} ({counts[rare]} {unit}) may be {frequent!r} ({counts[frequent]})")


def imbalance_findings(counts: Mapping[str, int], unit: str, ratio: float) -> Iterator[Finding]:
    """Imbalance of at least ``ratio``, from the number of objects or images by name."""
    pairs = [(count, name) for name, count in counts.items()]
    if pairs and (most := max(pairs))[0] >= ratio * (least := min(pairs))[0]:
        yield Finding("skew", f"{most[0]:,} {unit} of {most[1]}, {least[0]:,} of {least[1]}")


def similar_names(counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """A rare class and a frequent one that it may be: its plural or singular, or a misspelling."""
    for rare, count in counts.items():
        frequent = {_normalized(name): name for name, number in counts.items() if number >= RARER * count}
        stem = _normalized(rare)
        forms = (stem + "s", stem + "es", stem.removesuffix("s"), stem.removesuffix("es"))
        found = next((frequent[form] for form in forms if form in frequent), None)
        if found is None and len(rare) >= _MIN_LENGTH:
            close = difflib.get_close_matches(stem, frequent, n=3, cutoff=MIN_SIMILARITY)
            # class10 is not class11 misspelt.
            found = next((frequent[one] for one in close if re.findall(r"\d+", one) == re.findall(r"\d+", rare)), None)
        if found is not None:
            yield rare, found


def _normalized(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).casefold()
