"""Classes: names that may mean the same, classes that have nothing, classes that have nearly everything."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from hubel.data.annotations.records import AnnotatedDataset
from hubel.data.checks.findings import Finding
from hubel.data.file_listing import listing

RARER = 10
"""How many times rarer than a class of nearly the same name one is that may be misspelt."""

LIKENESS = 0.85
"""Least share of letters, in order, that two such names have in common (difflib's ratio)."""

UNEVEN = 100
"""From this ratio of the most to the least frequent class on, it is worth knowing."""

_SHORTEST = 4


def spelling_groups(dataset: AnnotatedDataset) -> list[list[int]]:
    """Classes that differ only by case, blanks, hyphens and underscores; the most frequent of each group first."""
    counts = object_counts(dataset)
    groups: dict[str, list[int]] = defaultdict(list)
    for label, name in enumerate(dataset.classes):
        groups[_plain(name)].append(label)
    return [sorted(group, key=lambda label: (-counts[label], label)) for group in groups.values() if len(group) > 1]


def object_counts(dataset: AnnotatedDataset, split: str | None = None) -> Counter[int]:
    """Objects by label, of a split or of all."""
    images = dataset.images() if split is None else dataset.splits[split]
    return Counter(thing.label for image in images for thing in image.objects or ())


def class_findings(dataset: AnnotatedDataset) -> Iterator[Finding]:
    """What the names and numbers of classes tell."""
    counts = object_counts(dataset)
    names = dataset.classes
    merged: set[int] = set()
    for first, *others in spelling_groups(dataset):
        merged.update(others)
        spelled = ", ".join(f"{names[label]!r} ({counts[label]})" for label in others)
        yield Finding("class-spelling", f"{names[first]!r} ({counts[first]} objects) is also {spelled}.")
    named = {names[label]: count for label, count in counts.items() if label not in merged}
    for rare, frequent in like_names(named):
        yield Finding(
            "class-likeness",
            f"{rare!r} ({named[rare]} objects) may be {frequent!r} ({named[frequent]}).",
        )
    yield from _absent({split: object_counts(dataset, split) for split in dataset.splits}, names, merged)
    there = [(count, names[label]) for label, count in counts.items()]
    if there and (most := max(there))[0] >= UNEVEN * (least := min(there))[0]:
        yield Finding("skew", f"{most[0]:,} objects of {most[1]}, {least[0]:,} of {least[1]}.")


def like_names(counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """A rare class and a frequent one that it may be: its plural or singular, or a slip of a letter."""
    for rare, count in counts.items():
        frequent = [name for name, number in counts.items() if number >= RARER * count]
        plain = {_plain(name): name for name in frequent}
        stem = _plain(rare)
        forms = (stem + "s", stem + "es", stem.removesuffix("s"), stem.removesuffix("es"))
        found = next((plain[form] for form in forms if form in plain), None)
        if found is None and len(rare) >= _SHORTEST:
            close = difflib.get_close_matches(stem, plain, n=3, cutoff=LIKENESS)
            # class10 is not class11 misspelt.
            found = next((plain[one] for one in close if _digits(one) == _digits(rare)), None)
        if found is not None:
            yield rare, found


def _absent(by_split: Mapping[str, Counter[int]], names: Sequence[str], merged: set[int]) -> Iterator[Finding]:
    labels = [label for label in range(len(names)) if label not in merged]
    nowhere = [label for label in labels if not any(counts[label] for counts in by_split.values())]
    if nowhere:
        yield Finding("class-absent", f"no object at all of {listing([names[label] for label in nowhere])}.")
    for split, counts in by_split.items():
        without = [names[label] for label in labels if label not in nowhere and not counts[label]]
        if without:
            yield Finding("class-absent", f"no object in {split} of {listing(without)}.", split)


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).casefold()


def _digits(name: str) -> list[str]:
    return re.findall(r"\d+", name)
