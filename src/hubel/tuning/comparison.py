"""Whether settings are really better than the defaults, or may be so by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """Scores of the best settings against those of the defaults, paired over the folds.

    Attributes:
        difference: mean over the folds, positive where the best settings are better.
        low, high: its 95 % confidence interval.
        p: probability of a mean at least as far from 0 if there were no difference; two-sided.
        corrected_p: the same for the best of ``trials`` settings (Bonferroni), 0..1.
        trials: that were compared with the defaults.
        folds: of one division of the images.
        repeats: divisions, each with folds of its own.
    """

    difference: float
    low: float
    high: float
    p: float
    corrected_p: float
    trials: int
    folds: int
    repeats: int

    @property
    def is_significant(self) -> bool:
        """True if chance, of the folds and of choosing the best, does not explain the difference."""
        return self.difference > 0 and self.corrected_p < _LEVEL


def compare(best: Sequence[float], default: Sequence[float], trials: int, folds: int) -> Comparison:
    """Corrected resampled t-test (Nadeau and Bengio 2003, "Inference for the Generalization Error", section 4.2).

    The networks of two folds share most of their training images, so their scores vary together, and a plain paired
    t-test takes too many differences for real. The correction adds the ratio of test to training images to the 1/rk by
    which the variance of a mean over r times k scores is divided: 1/rk + 1/(k - 1). The test has rk - 1 degrees of
    freedom (Bouckaert and Frank 2004, "Evaluating the Replicability of Significance Tests", section 3.2).

    Args:
        best: score of each fold of r divisions, higher is better.
        default: of the same folds.
        trials: settings that were compared with the defaults, of which ``best`` are the best.
        folds: k, of one division; at least two.
    """
    from scipy import stats

    differences = np.asarray(best, float) - np.asarray(default, float)
    count = len(differences)
    mean, variance = float(differences.mean()), float(differences.var(ddof=1))
    error = math.sqrt((1 / count + 1 / (folds - 1)) * variance)
    # Equal differences say nothing of the variance: a sign test, of independent images.
    p = 2.0 ** (1 - folds) if mean else 1.0
    if error > 1e-12:
        p = float(2 * stats.t.sf(abs(mean) / error, count - 1))
    reach = float(stats.t.ppf(1 - _LEVEL / 2, count - 1)) * error
    corrected = min(1.0, p * max(1, trials))
    return Comparison(mean, mean - reach, mean + reach, p, corrected, trials, folds, count // folds)


def verdict(comparison: Comparison | None, metric: str) -> str:
    """The sentence that says whether the best settings are really better; ``None`` stands for the defaults."""
    if comparison is None:
        return "No settings scored higher than the defaults."
    if comparison.is_significant:
        return f"The best settings are better than the defaults in {metric} ({_test(comparison)})."
    return (
        f"The best settings score higher than the defaults in {metric}, but that may be chance ({_test(comparison)})."
    )


def nested_verdict(comparison: Comparison, scores: str, metric: str) -> str:
    """The sentence on a nested search, whose ``scores`` are given as text."""
    if comparison.is_significant:
        end = "searching is better than the defaults"
    elif comparison.difference > 0:
        end = "higher than with the defaults, but that may be chance"
    else:
        end = "not higher than with the defaults"
    start = f"Nested, on images that had no part in choosing the settings, a search reaches {metric} {scores}"
    return f"{start}: {end} ({_test(comparison)})."


def _test(comparison: Comparison) -> str:
    """The test and its figures."""
    over = f"{comparison.repeats} times {comparison.folds}" if comparison.repeats > 1 else f"{comparison.folds}"
    text = (
        f"difference {comparison.difference:+.4f}, 95 % confidence {comparison.low:+.4f} to {comparison.high:+.4f}; "
        f"corrected resampled t-test over {over} folds, Nadeau and Bengio 2003: p = {comparison.p:.2g}"
    )
    if comparison.trials > 1:
        text += f", {comparison.corrected_p:.2g} with Bonferroni's correction for {comparison.trials} settings tried"
    return text
