"""Everything that several annotators' sets tell about each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from hubel.boxes import scalar_iou
from hubel.data.agreement.consensus import Consensus, Method, consensus
from hubel.data.agreement.dawid_skene import Estimate, dawid_skene
from hubel.data.agreement.disagreements import Disagreement, doubts
from hubel.data.agreement.kappa import cohen_kappa, krippendorff_alpha
from hubel.data.agreement.load import read_ratings
from hubel.data.agreement.match_objects import SAME_OBJECT
from hubel.data.agreement.ratings import Ratings
from hubel.errors import DataError


@dataclass(frozen=True)
class Annotator:
    """How one annotator's work stands beside the others'; of pictures that several have labelled.

    Attributes:
        name: of the annotator.
        pictures: labelled.
        labels: given: objects drawn, or pictures with a class.
        reliability: 0..1, the share of what was said that is right, by Dawid and Skene's estimate; of objects, also
            that there is none. NaN where there are two annotators: which of them is right, nothing tells.
        missed: objects of the consensus that were not drawn; ``None`` where nothing is drawn.
        added: objects drawn that are not in the consensus; likewise.
        mean_iou: overlap of the boxes with those of the consensus; likewise.
    """

    name: str
    pictures: int
    labels: int
    reliability: float
    missed: int | None = None
    added: int | None = None
    mean_iou: float | None = None


@dataclass(frozen=True)
class Pair:
    """How far two annotators agree; of pictures that both have labelled.

    Attributes:
        annotators: their names.
        pictures: that both have labelled.
        matched: things that both gave a class.
        found: of objects, twice ``matched`` over the number of all boxes of both, 0..1 (an F1 score); ``None`` where
            nothing is drawn.
        same: the share of matched things with the same class.
        kappa: Cohen's, of the classes of matched things.
        mean_iou: of matched boxes; ``None`` where nothing is drawn.
    """

    annotators: tuple[str, str]
    pictures: int
    matched: int
    found: float | None
    same: float
    kappa: float
    mean_iou: float | None


@dataclass(frozen=True)
class Agreement:
    """What several annotators' sets tell about each other.

    Attributes:
        ratings: what was said.
        annotators: one by one.
        pairs: two by two.
        alpha: Krippendorff's, of the classes of all things that more than one annotator gave one.
        alpha_objects: of objects, the same with "nothing" as a class of its own: who misses objects lowers it. There is
            no thing of which all say "nothing", so it is lower than it were in a count of all places.
        estimate: Dawid and Skene's, of ``shared``.
        shared: places of the things that more than one annotator has rated.
        consensus: what they say together.
        doubts: the pictures on which they differ, the worst first.
    """

    ratings: Ratings
    annotators: tuple[Annotator, ...]
    pairs: tuple[Pair, ...]
    alpha: float
    alpha_objects: float | None
    estimate: Estimate
    shared: np.ndarray
    consensus: Consensus
    doubts: tuple[Disagreement, ...]

    def as_json(self) -> dict[str, Any]:
        """For ``--json``; ``errors`` has, by annotator, true class and class said, how often that is said of it."""
        classes = self.ratings.classes
        estimated = len(self.annotators) > 2
        rates = zip(self.ratings.annotators, self.estimate.error_rates.tolist(), strict=True) if estimated else ()
        labels = Counter(classes[label] for label in self.consensus.labels.tolist())
        return {
            "pictures": len(self.ratings.pictures()),
            "things": len(self.shared),
            "classes": list(classes),
            "alpha": self.alpha,
            "alpha_objects": self.alpha_objects,
            "annotators": [asdict(each) for each in self.annotators],
            "pairs": [asdict(each) for each in self.pairs],
            "errors": {
                name: {classes[at]: dict(zip(classes, row, strict=True)) for at, row in enumerate(rows) if any(row)}
                for name, rows in rates
            },
            "consensus": {"method": self.consensus.method, "labels": {name: labels[name] for name in classes}},
            "second_look": [
                {"picture": str(each.path), "agreement": each.agreement, "reasons": list(each.reasons)}
                for each in self.doubts
            ],
            "notes": list(self.ratings.notes),
        }


def agree(
    sources: Sequence[str | Path],
    format: str | None = None,
    least: float = SAME_OBJECT,
    method: Method | None = None,
) -> Agreement:
    """Compare several annotators' sets of the same pictures.

    Args:
        sources: as for :func:`~hubel.data.agreement.load.read_ratings`, and so are ``format`` and ``least``.
        format: of label files, where a folder has several.
        least: intersection over union from which on boxes may mean one object.
        method: of the consensus; Dawid and Skene's for three annotators and more, else the majority.

    Raises:
        DataError: a set cannot be read, or they have nothing in common.
        UsageError: there is one annotator only.
    """
    ratings = read_ratings(sources, format, least)
    table = ratings.table
    shared = np.flatnonzero((table >= 0).sum(1) >= 2)
    if not len(shared):
        message = f"{', '.join(ratings.annotators)}: there is no object in the pictures that two of them have labelled."
        raise DataError(message, "Compare sets with labels in them.")
    things, people = np.nonzero(table[shared] >= 0)
    shape = (len(shared), len(ratings.annotators), len(ratings.classes))
    estimate = dawid_skene(things, people, table[shared][things, people], shape)
    if len(ratings.annotators) == 2:
        estimate = replace(estimate, accuracies=np.full(2, np.nan))
    chosen: Method = method or ("dawid-skene" if len(ratings.annotators) > 2 else "majority")
    together = consensus(ratings, estimate, shared, chosen)
    everybody = range(len(ratings.annotators))
    return Agreement(
        ratings,
        tuple(_annotator(ratings, who, estimate, shared, together) for who in everybody),
        tuple(_pair(ratings, one, other) for one, other in combinations(everybody, 2)),
        krippendorff_alpha(ratings.classes_only),
        krippendorff_alpha(table) if ratings.drawn else None,
        estimate,
        shared,
        together,
        doubts(ratings),
    )


def _annotator(ratings: Ratings, who: int, estimate: Estimate, shared: np.ndarray, together: Consensus) -> Annotator:
    pictures = sum(key in ratings.files[who] for key in ratings.pictures())
    given = int((ratings.classes_only[shared, who] >= 0).sum())
    reliability = float(estimate.accuracies[who])
    if not ratings.drawn:
        return Annotator(ratings.annotators[who], pictures, given, reliability)
    nothing = len(ratings.classes) - 1
    said, true = ratings.table[shared, who], together.labels[shared]
    overlaps = [
        scalar_iou(ratings.things[at].drawn[who].box, agreed.box)
        for at in shared.tolist()
        if who in ratings.things[at].drawn and (agreed := together.objects[at]) is not None
    ]
    return Annotator(
        ratings.annotators[who],
        pictures,
        given,
        reliability,
        int(((said == nothing) & (true != nothing)).sum()),
        int(((said >= 0) & (said != nothing) & (true == nothing)).sum()),
        _mean(overlaps),
    )


def _pair(ratings: Ratings, one: int, other: int) -> Pair:
    names = (ratings.annotators[one], ratings.annotators[other])
    pictures = len(ratings.files[one].keys() & ratings.files[other].keys())
    a, b = ratings.classes_only[:, one], ratings.classes_only[:, other]
    both = (a >= 0) & (b >= 0)
    matched = int(both.sum())
    same = float((a[both] == b[both]).mean()) if matched else float("nan")
    kappa = cohen_kappa(a, b)
    if not ratings.drawn:
        return Pair(names, pictures, matched, None, same, kappa, None)
    drawn = [thing.drawn for thing in ratings.things]
    overlaps = [scalar_iou(drawn[at][one].box, drawn[at][other].box) for at in np.flatnonzero(both).tolist()]
    rated = (ratings.table[:, one] >= 0) & (ratings.table[:, other] >= 0)
    boxes = int((a[rated] >= 0).sum() + (b[rated] >= 0).sum())
    return Pair(names, pictures, matched, 2 * matched / boxes if boxes else float("nan"), same, kappa, _mean(overlaps))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
