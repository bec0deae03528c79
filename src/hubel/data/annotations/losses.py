"""What of a data set a format cannot hold, counted before it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from hubel.data.annotations.dataset import LabelledDataset, LabelledObject
from hubel.data.annotations.values import around

_CLOSE = 0.01
"""Pixels by which a box may miss the box around its outlines and still be it."""


def _has_own_box(thing: LabelledObject) -> bool:
    if not thing.polygons:
        return False
    return any(abs(a - b) > _CLOSE for a, b in zip(thing.box, around(thing.polygons), strict=True))


LOSSES: dict[str, tuple[str, Callable[[LabelledObject], bool]]] = {
    "polygons": ("outlines become the boxes of their objects", lambda o: bool(o.polygons)),
    "parts": ("objects of several outlines: joined into one by seams without width", lambda o: len(o.polygons) > 1),
    "holes": ("objects with holes: joined to the outline by seams without width", lambda o: bool(o.holes)),
    "masks": ("masks become the boxes of their objects", lambda o: o.mask is not None),
    "boxes": ("boxes differ from those around their outlines: only the outlines are kept", _has_own_box),
    "crowd": ("marks that an object is a crowd", lambda o: o.crowd),
    "ignore": ("marks that an object is to be ignored", lambda o: o.ignore),
    "difficult": ("marks that an object is difficult", lambda o: o.difficult),
    "truncated": ("marks that an object is truncated", lambda o: o.truncated),
    "occluded": ("marks that an object is occluded", lambda o: o.occluded),
    "area": ("areas that differ from those of their outlines", lambda o: o.area is not None),
    "attributes": ("objects have attributes", lambda o: bool(o.attributes)),
    "annotator": ("names of annotators", lambda o: o.annotator is not None),
    "score": ("scores", lambda o: o.score is not None),
}
"""By key: what is lost (after its number), and whether an object has it."""


def count_losses(dataset: LabelledDataset, holds: Collection[str]) -> Counter[str]:
    """The objects (and classes) that lose something in a format, by what they lose."""
    counts: Counter[str] = Counter()
    tests = [(text, test) for key, (text, test) in LOSSES.items() if key not in holds and not _is_moot(key, holds)]
    used: set[int] = set()
    for image in dataset.images():
        for thing in image.objects or ():
            used.add(thing.label)
            for text, test in tests:
                if test(thing):
                    counts[text] += 1
    if "unused" not in holds and (unused := len(dataset.classes) - len(used)):
        counts["classes have no object: they are not written"] = unused
    if "order" not in holds and dataset.classes != tuple(sorted(dataset.classes)):
        counts["classes lose their order: readers sort them by name"] = len(dataset.classes)
    return counts


def _is_moot(key: str, holds: Collection[str]) -> bool:
    """Of outlines that are not written at all, only that is said."""
    return key in ("parts", "holes", "boxes") and "polygons" not in holds
