"""Which boxes of several annotators mean the same object of a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from hubel.boxes import iou
from hubel.data.agreement.kappa import UNRATED
from hubel.data.agreement.ratings import NOTHING, Ratings, Thing
from hubel.data.annotations import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.file_listing import listing
from hubel.errors import DataError

SAME_OBJECT = 0.5
"""Intersection over union from which on two boxes may mean one object."""

SAME_CLASS = 0.1
"""What an equal class is worth in choosing between overlapping boxes: a rider's box and a horse's are alike."""

MOST_BOXES = 5_000
"""Boxes by one annotator in one picture that are matched."""

Group = dict[int, int]
"""One object: by annotator, the place of the box among theirs."""


def pairs(
    one: Sequence[Annotation], other: Sequence[Annotation], least: float = SAME_OBJECT
) -> list[tuple[int, int, float]]:
    """The boxes of two annotators that mean the same objects, each in one pair at most.

    Of all ways to pair them, the one with the greatest sum of overlaps (:data:`SAME_CLASS` added where classes are
    equal), as an assignment problem. Classes need not be equal: a disagreement about the class is to be seen as one.

    Args:
        one: objects of a picture.
        other: another annotator's, of the same picture.
        least: intersection over union under which boxes are of different objects, above 0.

    Returns:
        Places in ``one`` and in ``other`` and the overlap.
    """
    boxes, others = (np.array([thing.box for thing in things], float).reshape(-1, 4) for things in (one, other))
    labels, other_labels = (np.array([thing.label for thing in things], int) for things in (one, other))
    shares = iou(boxes, others)
    able = shares >= least
    worth = able * (shares + SAME_CLASS * (labels[:, None] == other_labels))
    chosen = zip(*linear_sum_assignment(worth, maximize=True), strict=True)
    return [(int(row), int(column), float(shares[row, column])) for row, column in chosen if able[row, column]]


def groups(objects: Sequence[Sequence[Annotation]], least: float = SAME_OBJECT) -> list[Group]:
    """The objects that several annotators have drawn; every box is in one group, alone if need be.

    Annotators are paired two by two; then the pairs are joined, greatest overlap first, wherever the joined group has
    no annotator twice. Of two annotators this keeps every pair, and in whichever order they come, the groups are the
    same.

    Args:
        objects: by annotator, what they drew in one picture.
        least: as for :func:`pairs`.
    """
    group_of = {(who, at): {who: at} for who, things in enumerate(objects) for at in range(len(things))}
    links = [
        (share, who, at, whom, to)
        for who in range(len(objects))
        for whom in range(who + 1, len(objects))
        for at, to, share in pairs(objects[who], objects[whom], least)
    ]
    for _, who, at, whom, to in sorted(links, key=lambda link: -link[0]):
        first, second = group_of[who, at], group_of[whom, to]
        if first is not second and not first.keys() & second.keys():
            first.update(second)
            group_of.update({(each, first[each]): first for each in second})
    unique = {id(group): group for group in group_of.values()}
    return [dict(sorted(group.items())) for group in unique.values()]


_CLOSE = 2
"""Pixels by which two tools may state another size of a picture."""

Labelled = dict[str, AnnotatedImage]
"""By picture, what an annotator has labelled."""

Key = Callable[[AnnotatedDataset, AnnotatedImage], str]
"""Tells what a picture of a set is known by in all sets."""


def object_ratings(names: Sequence[str], sets: Sequence[AnnotatedDataset], least: float) -> Ratings:
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
            message = f"{key} has {most:,} boxes by one annotator, more than the {MOST_BOXES:,} that are matched."
            raise DataError(message, "Cut the picture into tiles, or leave it out.")
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


def _counted(image: AnnotatedImage) -> tuple[Annotation, ...]:
    return tuple(thing for thing in image.objects or () if not thing.crowd and not thing.ignore)


def _keys(sets: Sequence[AnnotatedDataset]) -> Key:
    """What pictures are known by: their file names or, where a set has one twice, their paths below it."""
    for each in sets:
        if max(Counter(image.path.name for image in each.images()).values()) > 1:
            return lambda dataset, image: image.path.relative_to(dataset.root).as_posix()
    return lambda _, image: image.path.name


def _labelled(dataset: AnnotatedDataset, classes: Sequence[str], key_of: Key) -> Labelled:
    """The pictures that were labelled, with labels that count in the common classes."""
    place = {name: at for at, name in enumerate(classes)}
    new = [place[name] for name in dataset.classes]
    labelled: Labelled = {}
    for image in dataset.images():
        if image.objects is not None:
            objects = tuple(replace(thing, label=new[thing.label]) for thing in image.objects)
            labelled[key_of(dataset, image)] = replace(image, objects=objects)
    return labelled


def _by_name(dataset: AnnotatedDataset, key_of: Key) -> dict[str, Labelled]:
    """By annotator, what they have drawn in a set that names them."""
    found: dict[str, Labelled] = {}
    for image in dataset.images():
        for name in dict.fromkeys(thing.annotator for thing in image.objects or ()):
            if name is not None:
                theirs = tuple(thing for thing in image.objects or () if thing.annotator == name)
                found.setdefault(name, {})[key_of(dataset, image)] = replace(image, objects=theirs)
    return dict(sorted(found.items()))


def _only_in_some(names: Sequence[str], sets: Sequence[AnnotatedDataset], classes: Sequence[str]) -> list[str]:
    notes = []
    for name, each in zip(names, sets, strict=True):
        if lacking := [one for one in classes if one not in each.classes]:
            notes.append(f"{name} has no class {listing(lacking)}, as others do")
    return notes


def _same_size(files: Sequence[Labelled], notes: list[str]) -> dict[str, Mapping[int, AnnotatedImage]]:
    """By picture, its records by annotator; without pictures whose sizes differ from one set to the other."""
    together: dict[str, Mapping[int, AnnotatedImage]] = {}
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
