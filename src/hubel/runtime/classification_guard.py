"""How a quantized classifier is judged: by labels where there are any, else by the float network's own beliefs."""

from __future__ import annotations

import numpy as np

from hubel.runtime.quantization_guard import HeldOut, Run, in_batches
from hubel.tasks.class_scores import probabilities


def classifier_held_out(pixels: np.ndarray, labels: np.ndarray | None, exact: Run) -> HeldOut:
    """The score of a classifier on held-out images.

    With labels it is top-1 accuracy. Without, the float32 network's own probabilities say how accurate it expects its
    answers to be, and how accurate the quantized network's: the score is the second over the first. So to exchange
    two classes that the float32 network cannot tell apart costs little, and to answer what it does not believe costs
    much, however sure of itself it is in general.

    Args:
        pixels: uint8 (N, height, width, channels).
        labels: class indices (N,), or None.
        exact: runs the float32 network.
    """
    exact_scores = class_scores(exact, pixels)
    exact_best = exact_scores.argmax(1)
    beliefs = probabilities(exact_scores)

    def best(run: Run) -> np.ndarray:
        answers: np.ndarray = class_scores(run, pixels).argmax(1)
        return answers

    def top1(run: Run) -> float:
        return float((best(run) == labels).mean())

    def expected_top1(run: Run) -> float:
        return float(beliefs[np.arange(len(beliefs)), best(run)].sum() / beliefs.max(1).sum())

    def agreement(run: Run) -> float:
        return float((best(run) == exact_best).mean())

    if labels is None:
        return HeldOut("expected accuracy (no labels; float32 = 1)", len(pixels), expected_top1, agreement)
    return HeldOut("top-1", len(pixels), top1, agreement)


def class_scores(run: Run, pixels: np.ndarray) -> np.ndarray:
    """Raw scores (N, classes)."""
    return np.concatenate([scores for scores, *_ in run(in_batches(pixels))])
