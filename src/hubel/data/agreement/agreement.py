"""Compare several annotators' labels of the same images, and write their consensus."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from hubel.boxes import scalar_iou
from hubel.data.agreement.consensus import Consensus, Disagreement, Method, find_consensus, find_disagreements
from hubel.data.agreement.rater_statistics import Estimate, cohen_kappa, dawid_skene, krippendorff_alpha
from hubel.data.agreement.ratings import MIN_IOU, Ratings, read_ratings
from hubel.data.annotations import AnnotatedDataset, AnnotatedImage, Annotation, write_annotations
from hubel.data.annotations.writer import ImageMode, write_class_folders
from hubel.errors import DataError, UsageError
from hubel.fileio import write_rows


@dataclass(frozen=True)
class Annotator:
    """One annotator compared with the others, on images that several have labelled.

    Attributes:
        labels: number of objects drawn, or of images with a class.
        reliability: 0..1, fraction of the ratings that are right, by Dawid and Skene's estimate; of objects, including
            that there is none. NaN with two annotators: nothing shows which of them is right.
        missed: objects of the consensus that were not drawn; ``None`` for whole images, as ``added`` and ``mean_iou``.
        added: objects drawn that are not in the consensus.
        mean_iou: of the boxes with those of the consensus.
    """

    name: str
    images: int
    labels: int
    reliability: float
    missed: int | None = None
    added: int | None = None
    mean_iou: float | None = None


@dataclass(frozen=True)
class Pair:
    """Agreement of two annotators on images that both have labelled.

    Attributes:
        matched: items to which both gave a class.
        found: of objects, twice ``matched`` over the number of all boxes of both, 0..1 (an F1 score).
        same: fraction of matched items with the same class.
        kappa: Cohen's, of the classes of matched items.
        mean_iou: of matched boxes; ``None`` for whole images, as ``found``.
    """

    annotators: tuple[str, str]
    images: int
    matched: int
    found: float | None
    same: float
    kappa: float
    mean_iou: float | None


@dataclass(frozen=True)
class Agreement:
    """Agreement of several annotators.

    Attributes:
        alpha: Krippendorff's, of the classes of all items that more than one annotator classified.
        alpha_objects: of objects, the same with "nothing" as a class of its own, so missed objects lower it. No item is
            "nothing" to all, so it is lower than a count of all positions in the images would give.
        estimate: Dawid and Skene's, of the ``shared`` items.
        shared: indices of the items that more than one annotator has rated.
        disagreements: the images on which they disagree, the worst first.
    """

    ratings: Ratings
    annotators: tuple[Annotator, ...]
    pairs: tuple[Pair, ...]
    alpha: float
    alpha_objects: float | None
    estimate: Estimate
    shared: np.ndarray
    consensus: Consensus
    disagreements: tuple[Disagreement, ...]

    def as_json(self) -> dict[str, Any]:
        """For ``--json``; ``errors`` has rates by annotator, true class and answer."""
        classes = self.ratings.classes
        estimated = len(self.annotators) > 2
        rates = zip(self.ratings.annotators, self.estimate.error_rates.tolist(), strict=True) if estimated else ()
        labels = Counter(classes[label] for label in self.consensus.labels.tolist())
        return {
            "pictures": len(self.ratings.shared_images()),
            "things": len(self.shared),
            "classes": list(classes),
            "alpha": self.alpha,
            "alpha_objects": self.alpha_objects,
            "annotators": [_as_json(each) for each in self.annotators],
            "pairs": [_as_json(each) for each in self.pairs],
            "errors": {
                name: {classes[true]: dict(zip(classes, row, strict=True)) for true, row in enumerate(rows) if any(row)}
                for name, rows in rates
            },
            "consensus": {"method": self.consensus.method, "labels": {name: labels[name] for name in classes}},
            "second_look": [
                {"picture": str(each.path), "agreement": each.agreement, "reasons": list(each.reasons)}
                for each in self.disagreements
            ],
            "notes": list(self.ratings.notes),
        }


def _as_json(record: Annotator | Pair) -> dict[str, Any]:
    return {"pictures" if name == "images" else name: value for name, value in asdict(record).items()}


def agree(
    sources: Sequence[str | Path], format: str | None = None, min_iou: float = MIN_IOU, method: Method | None = None
) -> Agreement:
    """Compare several annotators' labels of the same images.

    The arguments are those of :func:`~hubel.data.agreement.ratings.read_ratings`; the ``method`` of the consensus is
    Dawid and Skene's for three annotators or more, else the majority.

    Raises:
        DataError: a set cannot be read, or they have nothing in common.
        UsageError: there is only one annotator.
    """
    ratings = read_ratings(sources, format, min_iou)
    table = ratings.table
    shared = np.flatnonzero((table >= 0).sum(1) >= 2)
    if not len(shared):
        message = f"{', '.join(ratings.annotators)}: the images that two of them have labelled contain no objects"
        raise DataError(message, "compare data sets that contain labels")
    people = len(ratings.annotators)
    items, raters = np.nonzero(table[shared] >= 0)
    shape = (len(shared), people, len(ratings.classes))
    estimate = dawid_skene(items, raters, table[shared][items, raters], shape)
    if people == 2:
        estimate = replace(estimate, accuracies=np.full(2, np.nan))
    consensus = find_consensus(ratings, estimate, shared, method or ("dawid-skene" if people > 2 else "majority"))
    return Agreement(
        ratings,
        tuple(_annotator(ratings, who, estimate, shared, consensus) for who in range(people)),
        tuple(_pair(ratings, one, other) for one, other in combinations(range(people), 2)),
        krippendorff_alpha(ratings.classes_only),
        krippendorff_alpha(table) if ratings.drawn else None,
        estimate,
        shared,
        consensus,
        find_disagreements(ratings),
    )


def _annotator(ratings: Ratings, who: int, estimate: Estimate, shared: np.ndarray, consensus: Consensus) -> Annotator:
    name, missing = ratings.annotators[who], ratings.missing
    images = sum(key in ratings.files[who] for key in ratings.shared_images())
    labels = int((ratings.classes_only[shared, who] >= 0).sum())
    reliability = float(estimate.accuracies[who])
    if not ratings.drawn:
        return Annotator(name, images, labels, reliability)
    rated, true = ratings.table[shared, who], consensus.labels[shared]
    overlaps = [
        scalar_iou(ratings.items[index].drawn[who].box, obj.box)
        for index in shared.tolist()
        if who in ratings.items[index].drawn and (obj := consensus.objects[index]) is not None
    ]
    missed = int(((rated == missing) & (true != missing)).sum())
    added = int(((rated >= 0) & (rated != missing) & (true == missing)).sum())
    return Annotator(name, images, labels, reliability, missed, added, _mean(overlaps))


def _pair(ratings: Ratings, one: int, other: int) -> Pair:
    names = (ratings.annotators[one], ratings.annotators[other])
    images = len(ratings.files[one].keys() & ratings.files[other].keys())
    a, b = ratings.classes_only[:, one], ratings.classes_only[:, other]
    both = (a >= 0) & (b >= 0)
    matched = int(both.sum())
    same = float((a[both] == b[both]).mean()) if matched else float("nan")
    kappa = cohen_kappa(a, b)
    if not ratings.drawn:
        return Pair(names, images, matched, None, same, kappa, None)
    drawn = [item.drawn for item in ratings.items]
    overlaps = [scalar_iou(drawn[index][one].box, drawn[index][other].box) for index in np.flatnonzero(both).tolist()]
    rated = (ratings.table[:, one] >= 0) & (ratings.table[:, other] >= 0)
    boxes = int((a[rated] >= 0).sum() + (b[rated] >= 0).sum())
    found = 2 * matched / boxes if boxes else float("nan")
    return Pair(names, images, matched, found, same, kappa, _mean(overlaps))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def write_consensus(
    agreement: Agreement, out: str | Path, format: str | None = None, images: ImageMode = "copy"
) -> tuple[str, ...]:
    """Write the consensus; images that only one annotator has labelled keep those labels.

    ``out`` is a new folder; or, for labels of whole images, a new ``.csv`` file with ``image,label,confidence``. If
    objects were drawn, the ``format`` is the first annotator's by default, and ``images`` may be left out. Returns what
    the format cannot hold, one line each with a count.

    Raises:
        DataError: ``out`` exists, or cannot be written; or images do not exist that would be sorted into folders.
        UsageError: ``format`` does not exist, or does not apply.
    """
    out = Path(out)
    ratings = agreement.ratings
    if ratings.drawn:
        return write_annotations(_consensus_dataset(agreement), format or ratings.format, out, images)
    if format is not None:
        raise UsageError(f"labels of whole images cannot be written as {format}", "omit --to")
    labels = [ratings.classes[label] for label in agreement.consensus.labels.tolist()]
    keys = [item.image for item in ratings.items]
    if out.suffix.lower() == ".csv":
        if out.exists():
            raise DataError(f"{out} exists already", "choose another name; nothing is overwritten")
        rows = zip(keys, labels, agreement.consensus.confidence.tolist(), strict=True)
        write_rows(out, [{"image": key, "label": label, "confidence": f"{sure:.4f}"} for key, label, sure in rows])
        return ()
    files = {key: path for of_one in reversed(ratings.files) for key, path in of_one.items()}
    if missing := [key for key in keys if not files[key].is_file()]:
        message = f"{missing[0]} does not exist, so it cannot be copied into a class folder"
        raise DataError(message, f"write a table: --consensus {out}.csv")
    samples = [(files[key], label) for key, label in zip(keys, labels, strict=True)]
    return write_class_folders({"all": samples}, out, images)


def _consensus_dataset(agreement: Agreement) -> AnnotatedDataset:
    ratings = agreement.ratings
    objects: dict[str, list[Annotation]] = defaultdict(list)
    for item, obj in zip(ratings.items, agreement.consensus.objects, strict=True):
        if obj is not None:
            objects[item.image].append(obj)
    splits: dict[str, list[AnnotatedImage]] = defaultdict(list)
    for key, by in ratings.labelled.items():
        # Some tools export labels without images.
        first = next((image for image in by.values() if image.path.is_file()), next(iter(by.values())))
        sized = next((image for image in by.values() if image.width and image.height), first)
        record = AnnotatedImage(first.path, sized.width, sized.height, tuple(objects[key]))
        splits[ratings.splits[key]].append(record)
    return AnnotatedDataset(Path(), ratings.classes[:-1], {split: tuple(images) for split, images in splits.items()})
