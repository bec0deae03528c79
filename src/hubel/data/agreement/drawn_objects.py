"""Objects drawn in the same pictures by several annotators, put side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from hubel.data.agreement.coefficients import UNRATED
from hubel.data.agreement.matching import MOST_BOXES, groups
from hubel.data.agreement.ratings import NOTHING, Ratings, Thing
from hubel.data.annotations import LabelledDataset, LabelledImage, LabelledObject
from hubel.data.image_folder import listing
from hubel.errors import DataError

_CLOSE = 2
"""Pixels by which two tools may state another size of a picture."""

Labelled = dict[str, LabelledImage]
"""By picture, what an annotator has labelled."""

Key = Callable[[LabelledDataset, LabelledImage], str]
"""Tells what a picture of a set is known by in all sets."""


def object_ratings(names: Sequence[str], sets: Sequence[LabelledDataset], least: float) -> Ratings:
    """Ratings of the objects that any of several annotators has drawn; of one set, by those that it names.

    An annotator who has labelled a picture and not drawn what another has says :data:`~.ratings.NOTHING` of it.
    Crowds and objects to be ignored are left out.

    Raises:
        DataError: a picture has more boxes than are matched.
    """
    notes = [f"{name}: {line}" for name, each in zip(names, sets, strict=True) for line in each.warnings]
    classes = tuple(dict.fromkeys(name for each in sets for name in each.classes))
    key_of = _keys(sets)
    if len(sets) == 1:
        by_annotator = _by_name(sets[0], key_of)
        names, files = list(by_annotator), list(by_annotator.values())
        notes.append("an annotator has labelled the pictures in which one of the objects is theirs")
    else:
        notes += _only_in_some(names, sets, classes)
        files = [_labelled(each, classes, key_of) for each in sets]
    pictures = _same_size(files, notes)
    things: list[Thing] = []
    rows: list[list[int]] = []
    for key, images in pictures.items():
        drawn = [_counted(images[who]) if who in images else () for who in range(len(names))]
        if (most := max(map(len, drawn))) > MOST_BOXES:
            fault = f"{key} has {most:,} boxes by one annotator, more than the {MOST_BOXES:,} that are matched."
            raise DataError(fault, "Cut the picture into tiles, or leave it out.")
        for group in groups(drawn, least):
            thing = {who: drawn[who][at] for who, at in group.items()}
            things.append(Thing(key, thing))
            absent = [len(classes) if who in images else UNRATED for who in range(len(names))]
            rows.append([thing[who].label if who in thing else absent[who] for who in range(len(names))])
    if left_out := sum(len(image.objects or ()) - len(_counted(image)) for by in files for image in by.values()):
        notes.append(f"{left_out:,} crowds and objects to be ignored are left out")
    return Ratings(
        tuple(names),
        (*classes, NOTHING),
        tuple(things),
        np.array(rows, int).reshape(len(rows), len(names)),
        tuple(
            {key: images[who].path for key, images in pictures.items() if who in images} for who in range(len(names))
        ),
        drawn=True,
        labelled=pictures,
        splits={
            key_of(each, image): split
            for each in reversed(sets)
            for split, images_of in each.splits.items()
            for image in images_of
        },
        notes=tuple(notes),
        format=sets[0].format,
    )


def _counted(image: LabelledImage) -> tuple[LabelledObject, ...]:
    return tuple(thing for thing in image.objects or () if not thing.crowd and not thing.ignore)


def _keys(sets: Sequence[LabelledDataset]) -> Key:
    """What pictures are known by: their file names or, where a set has one twice, their paths below it."""
    for each in sets:
        if max(Counter(image.path.name for image in each.images()).values()) > 1:
            return lambda dataset, image: image.path.relative_to(dataset.root).as_posix()
    return lambda _, image: image.path.name


def _labelled(dataset: LabelledDataset, classes: Sequence[str], key_of: Key) -> Labelled:
    """The pictures that were labelled, with labels that count in the common classes."""
    place = {name: at for at, name in enumerate(classes)}
    new = [place[name] for name in dataset.classes]
    labelled: Labelled = {}
    for image in dataset.images():
        if image.objects is not None:
            objects = tuple(replace(thing, label=new[thing.label]) for thing in image.objects)
            labelled[key_of(dataset, image)] = replace(image, objects=objects)
    return labelled


def _by_name(dataset: LabelledDataset, key_of: Key) -> dict[str, Labelled]:
    """By annotator, what they have drawn in a set that names them."""
    found: dict[str, Labelled] = {}
    for image in dataset.images():
        for name in dict.fromkeys(thing.annotator for thing in image.objects or ()):
            if name is not None:
                theirs = tuple(thing for thing in image.objects or () if thing.annotator == name)
                found.setdefault(name, {})[key_of(dataset, image)] = replace(image, objects=theirs)
    return dict(sorted(found.items()))


def _only_in_some(names: Sequence[str], sets: Sequence[LabelledDataset], classes: Sequence[str]) -> list[str]:
    notes = []
    for name, each in zip(names, sets, strict=True):
        if lacking := [one for one in classes if one not in each.classes]:
            notes.append(f"{name} has no class {listing(lacking)}, as others do")
    return notes


def _same_size(files: Sequence[Labelled], notes: list[str]) -> dict[str, Mapping[int, LabelledImage]]:
    """By picture, its records by annotator; without pictures whose sizes differ from one set to the other."""
    together: dict[str, Mapping[int, LabelledImage]] = {}
    differing: list[str] = []
    for key in dict.fromkeys(key for labelled in files for key in labelled):
        images = {who: labelled[key] for who, labelled in enumerate(files) if key in labelled}
        sizes = np.array([(image.width, image.height) for image in images.values() if image.width and image.height])
        if len(sizes) and np.ptp(sizes, 0).max() > _CLOSE:
            differing.append(key)
        else:
            together[key] = images
    if differing:
        notes.append(f"pictures of another size in one set than in another are left out: {listing(differing)}")
    return together
