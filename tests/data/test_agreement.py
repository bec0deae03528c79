"""Agreement of annotators: against scikit-learn, published worked examples, exhaustive search and torchvision."""

from __future__ import annotations

import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score
from torchvision.ops import box_iou

from hubel.data.agreement.agreement import agree
from hubel.data.agreement.consensus import majority
from hubel.data.agreement.rater_statistics import Estimate, cohen_kappa, dawid_skene, krippendorff_alpha
from hubel.data.agreement.ratings import match_groups, match_pairs
from hubel.data.annotations import Annotation
from labelled_sets import write_image


def _table(*rows: str) -> np.ndarray:
    """One row an annotator, a letter or digit an item, ``.`` for none."""
    letters = sorted(set("".join(rows)) - {"."})
    return np.array([[letters.index(one) if one != "." else -1 for one in row] for row in rows]).T


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = rng.integers(0, 4, 60)
    other = np.where(rng.random(60) < 0.6, one, rng.integers(0, 4, 60))
    missing = rng.random(60) < 0.2
    seen = np.where(missing, -1, other)
    assert cohen_kappa(one, seen) == pytest.approx(cohen_kappa_score(one[~missing], other[~missing]), abs=1e-12)


def test_kappa_of_one_class_or_of_nothing_is_none() -> None:
    assert math.isnan(cohen_kappa(np.array([1, 1]), np.array([1, 1])))
    assert math.isnan(cohen_kappa(np.array([1, -1]), np.array([-1, 0])))


# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", sections A, B and C.
WORKED = {
    "two observers, two values": (("0100000010", "1110010000"), 0.095),
    "two observers, five values": (("aabbdcccedda", "babbbccceddd"), 0.692),
    "four observers, missing data": (("123321412...", "1233224125.3", ".3332342251.", "12332441251."), 0.743),
}


@pytest.mark.parametrize("example", WORKED)
def test_alpha_of_krippendorffs_examples(example: str) -> None:
    rows, printed = WORKED[example]
    assert krippendorff_alpha(_table(*rows)) == pytest.approx(printed, abs=5e-4)


def test_alpha_without_anything_to_compare_is_none() -> None:
    assert math.isnan(krippendorff_alpha(_table("ab..", "..ba")))
    assert math.isnan(krippendorff_alpha(_table("aaa", "aaa")))


# Dawid and Skene 1979, table 1: what five anaesthetists said of 45 patients, the first one three times.
ANAESTHETISTS = """
111 1 1 1 1, 333 4 3 3 4, 112 2 1 2 2, 222 3 1 2 1, 222 3 2 2 2, 222 3 3 2 2, 122 2 1 1 1, 333 3 4 3 3, 222 2 2 2 3,
232 2 2 2 3, 444 4 4 4 4, 222 3 3 4 3, 111 1 1 1 1, 222 3 2 1 2, 121 1 1 1 1, 111 2 1 1 1, 111 1 1 1 1, 111 1 1 1 1,
222 2 2 2 1, 222 1 3 2 2, 222 2 2 2 2, 222 2 2 2 1, 222 3 2 2 2, 221 2 2 2 2, 111 1 1 1 1, 111 1 1 1 1, 232 2 2 2 2,
111 1 1 1 1, 111 1 1 1 1, 112 1 1 2 1, 111 1 1 1 1, 333 3 2 3 3, 111 1 1 1 1, 222 2 2 2 2, 222 3 2 3 2, 433 4 3 4 3,
221 2 2 3 2, 232 3 2 3 3, 333 3 4 3 2, 111 1 1 1 1, 111 1 1 1 1, 121 2 1 1 1, 232 2 2 2 2, 121 1 1 1 1, 222 2 2 2 2
"""

Ratings = tuple[np.ndarray, np.ndarray, np.ndarray]


def _anaesthetists() -> Ratings:
    rows = [
        (patient, who, int(grade) - 1)
        for patient, labels in enumerate(ANAESTHETISTS.split(","))
        for who, grades in enumerate(labels.split())
        for grade in grades
    ]
    items, people, classes = np.array(rows).T
    return items, people, classes


def _crowd(seed: int, items: int, skill: tuple[float, ...], kinds: int, share: float) -> tuple[np.ndarray, Ratings]:
    """The truth, and ratings of a share of the items; who errs says any of the classes."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, kinds, items)
    rows = [
        (at, who, truth[at] if rng.random() < able else rng.integers(0, kinds))
        for at in range(items)
        for who, able in enumerate(skill)
        if who == 0 or rng.random() < share
    ]
    of, by, labels = np.array(rows).T
    return truth, (of, by, labels)


def _plainly(ratings: Ratings, shape: tuple[int, int, int], rounds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The paper's equations 2.3 to 2.5 and 3.1, term by term."""
    counts = np.zeros(shape)
    for rating in zip(*ratings, strict=True):
        counts[rating] += 1
    posteriors = counts.sum(1) / counts.sum((1, 2))[:, None]
    for _ in range(rounds):
        marginals = posteriors.sum(0) / len(posteriors)
        labels = np.einsum("ij,ikl->kjl", posteriors, counts)
        rates = labels / np.maximum(labels.sum(2, keepdims=True), 1e-300)
        for item, of_one in enumerate(counts):
            joint = marginals * np.prod(rates ** of_one[:, None, :], axis=(0, 2))
            posteriors[item] = joint / joint.sum()
    return marginals, rates, posteriors


def test_dawid_skene_of_the_papers_anaesthetists() -> None:
    found = dawid_skene(*_anaesthetists(), (45, 5, 4))
    # As the paper has them: frequencies of the four grades, and the first observer's error rates.
    np.testing.assert_allclose(found.marginals, (0.40, 0.42, 0.11, 0.07), atol=0.005)
    first = ((0.89, 0.11, 0, 0), (0.07, 0.88, 0.05, 0), (0, 0.34, 0.66, 0), (0, 0, 0.56, 0.44))
    np.testing.assert_allclose(found.error_rates[0], first, atol=0.005)


CROWDS = {
    "the paper's": (_anaesthetists(), (45, 5, 4)),
    "everybody everything": (_crowd(1, 120, (0.9, 0.7, 0.4), 3, 1.0)[1], (120, 3, 3)),
    "with gaps": (_crowd(2, 150, (0.8, 0.8, 0.5, 0.2), 5, 0.6)[1], (150, 4, 5)),
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_dawid_skene_is_what_the_equations_say(crowd: str) -> None:
    ratings, shape = CROWDS[crowd]
    found = dawid_skene(*ratings, shape)
    marginals, rates, posteriors = _plainly(ratings, shape, 400)
    np.testing.assert_allclose(found.posteriors, posteriors, atol=1e-5)
    np.testing.assert_allclose(found.marginals, marginals, atol=1e-5)
    np.testing.assert_allclose(found.error_rates, rates, atol=1e-5)


def _right(found: Estimate, truth: np.ndarray) -> float:
    return float((found.posteriors.argmax(1) == truth).mean())


def test_dawid_skene_finds_who_is_good_and_does_better_than_votes() -> None:
    skill = (0.2, 0.3, 0.3, 0.9, 0.95)
    truth, ratings = _crowd(3, 1500, skill, 4, 1.0)
    found = dawid_skene(*ratings, (1500, 5, 4))
    np.testing.assert_allclose(found.accuracies, [able + (1 - able) / 4 for able in skill], atol=0.03)
    table = np.full((1500, 5), -1)
    table[ratings[0], ratings[1]] = ratings[2]
    votes = np.array([majority(row, np.full(5, np.nan))[0] for row in table])
    assert _right(found, truth) > (votes == truth).mean() + 0.05
    assert _right(found, truth) > 0.95


@pytest.mark.parametrize(
    ("labels", "trust", "missing", "label", "share"),
    [
        ((0, 1, 1, -1), (1, 0, 0, 0), None, 1, 2 / 3),
        ((0, 1, -1, -1), (0.6, 0.9, 0, 0), None, 1, 1 / 2),  # a tie: whoever is right more often
        ((1, 0, -1, -1), (math.nan, math.nan, 0, 0), None, 1, 1 / 2),  # or comes first
        ((0, 2, 2, -1), (1, 1, 1, 1), 2, 2, 2 / 3),
        ((0, 2, -1, -1), (0.1, 0.9, 1, 1), 2, 0, 1 / 2),  # half does not make an object disappear
        ((0, 1, 0, 2, 2), (1, 1, 1, 1, 1), 2, 0, 2 / 5),  # three of five say that it is there
    ],
)
def test_majority(labels: tuple, trust: tuple, missing: int | None, label: int, share: float) -> None:
    assert majority(np.array(labels), np.array(trust, float), missing) == (label, pytest.approx(share))


def _boxes(rng: np.random.Generator, number: int, spread: float = 60) -> list[Annotation]:
    corners = rng.uniform(0, spread, (number, 2))
    sizes = rng.uniform(20, 50, (number, 2))
    return [Annotation(0, (x, y, x + w, y + h)) for (x, y), (w, h) in zip(corners, sizes, strict=True)]


def _iou(one: list[Annotation], other: list[Annotation]) -> np.ndarray:
    a, b = (torch.tensor([obj.box for obj in objects], dtype=torch.float64) for objects in (one, other))
    return box_iou(a, b).numpy()


@pytest.mark.parametrize("seed", range(8))
def test_pairs_are_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = _boxes(rng, 5), _boxes(rng, 5)
    overlaps = _iou(one, other)
    # All have one class, so each pair above the threshold is worth its overlap and as much for the class.
    worth = np.where(overlaps >= 0.3, overlaps + 0.1, 0)
    best = max(sum(worth[row, column] for row, column in enumerate(order)) for order in permutations(range(5)))
    found = match_pairs(one, other, 0.3)
    assert sum(worth[row, column] for row, column, _ in found) == pytest.approx(best)
    for row, column, share in found:
        assert share == pytest.approx(overlaps[row, column])
        assert share >= 0.3


def test_equal_classes_decide_between_boxes_that_both_fit() -> None:
    rider, horse = Annotation(0, (10, 0, 90, 100)), Annotation(1, (10, 2, 90, 100))
    swapped = [Annotation(1, (10, 0, 90, 99)), Annotation(0, (10, 3, 90, 100))]
    assert [(row, column) for row, column, _ in match_pairs([rider, horse], swapped)] == [(0, 1), (1, 0)]
    assert match_pairs([rider], [Annotation(3, (12, 0, 90, 100))])[0][:2] == (0, 0)


def test_groups_do_not_depend_on_who_comes_first() -> None:
    rng = np.random.default_rng(5)
    true = _boxes(rng, 12, 400)
    drawn = []
    for _ in range(4):
        kept = [obj for obj in true if rng.random() < 0.8]
        moved = [tuple(np.array(obj.box) + rng.normal(0, 2, 4)) for obj in kept]
        drawn.append([Annotation(0, box) for box in moved])
    expected = {frozenset(drawn[who][at].box for who, at in group.items()) for group in match_groups(drawn)}
    assert max(map(len, expected)) > 2
    for order in permutations(range(4)):
        mixed = [drawn[who] for who in order]
        assert {frozenset(mixed[who][at].box for who, at in group.items()) for group in match_groups(mixed)} == expected


def test_groups_never_have_an_annotator_twice() -> None:
    rng = np.random.default_rng(6)
    drawn = [_boxes(rng, 15, 40) for _ in range(3)]
    found = match_groups(drawn, 0.3)
    assert sorted((who, at) for group in found for who, at in group.items()) == [
        (who, at) for who in range(3) for at in range(15)
    ]
    for group in found:
        members = [drawn[who][at] for who, at in group.items()]
        if len(members) > 1:  # each overlaps one of the others
            overlaps = _iou(members, members) - np.eye(len(members))
            assert (overlaps.max(1) >= 0.3).all()


def test_equal_reasons_are_counted(tmp_path: Path) -> None:
    """An image of many objects in which every pair of classes disagrees takes one line."""
    for name, label in (("ann", "cat"), ("bob", "dog")):
        write_image(tmp_path / name / "a.jpg")
        rows = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x + 1}</xmin><ymin>1</ymin><xmax>{x + 8}</xmax><ymax>9</ymax>"
            "</bndbox></object>"
            for x in range(0, 30, 10)
        )
        (tmp_path / name / "a.xml").write_text(f"<annotation>{rows}</annotation>")
    (disagreement,) = agree([tmp_path / "ann", tmp_path / "bob"]).disagreements
    assert disagreement.reasons == ("cat (ann) or dog (bob) ×3",)
