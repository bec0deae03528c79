"""Whether the best settings are better than the defaults: the corrected test, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hubel.tuning.comparison import compare, verdict

BEST, DEFAULT = [0.94, 0.95, 0.93, 0.96, 0.95], [0.92, 0.94, 0.93, 0.93, 0.93]


def test_the_statistic_is_nadeau_and_bengios() -> None:
    """By another way: the plain paired t-test's statistic, scaled by the two standard errors."""
    plain = stats.ttest_rel(BEST, DEFAULT)
    scale = np.sqrt((1 / 5) / (1 / 5 + 1 / 4))
    found = compare(BEST, DEFAULT, 1, 5)
    assert found.difference == pytest.approx(0.016)
    assert found.p == pytest.approx(2 * stats.t.sf(plain.statistic * scale, 4)) and found.p > plain.pvalue
    interval = plain.confidence_interval(0.95)
    assert found.high - 0.016 == pytest.approx((interval.high - 0.016) / scale)
    assert found.low == pytest.approx(0.032 - found.high)
    assert found.corrected_p == found.p and compare(BEST, DEFAULT, 4, 5).corrected_p == pytest.approx(4 * found.p)
    assert compare(DEFAULT, BEST, 1, 5).difference == pytest.approx(-0.016)


def test_with_repetitions_the_variance_is_divided_by_their_number() -> None:
    """Nadeau and Bengio's factor for r times k scores, 1/rk + n_test/n_train, and rk - 1 degrees of freedom."""
    rng = np.random.default_rng(1)
    best, default = rng.normal(0.9, 0.02, 12), rng.normal(0.88, 0.02, 12)
    found = compare(best, default, 1, 4)
    difference = best - default
    error = np.sqrt((1 / 12 + (1 / 4) / (3 / 4)) * difference.var(ddof=1))
    assert found.p == pytest.approx(2 * stats.t.sf(difference.mean() / error, 11)) and found.repeats == 3
    low, high = stats.t.interval(0.95, 11, loc=difference.mean(), scale=error)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert "corrected resampled t-test over 3 times 4 folds, " in verdict(found, "top-1")
    assert compare([0.9] * 6, [0.8] * 6, 1, 3).p == 0.25, "repetitions are not other images: a sign test of three"


def test_on_equal_settings_it_says_better_less_often_than_one_time_in_twenty() -> None:
    """Folds share training images: their differences vary together, by a fifth of their variance here."""
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(1500, 1)), rng.normal(size=(1500, 5))
    differences = np.sqrt(0.2) * shared + np.sqrt(0.8) * own
    found = [compare(row, np.zeros(5), 1, 5) for row in differences]
    assert np.mean([each.p < 0.05 for each in found]) < 0.06
    assert np.mean([stats.ttest_1samp(row, 0).pvalue < 0.05 for row in differences]) > 0.12
    # The best of ten settings without a difference, chosen by the folds that compare it.
    best = [max((compare(row, np.zeros(5), 10, 5) for row in ten), key=lambda c: c.difference)
            for ten in rng.normal(size=(150, 10, 5))]  # fmt: skip
    assert np.mean([each.is_significant for each in best]) < 0.05 < np.mean([each.p < 0.05 for each in best])


def test_equal_differences_prove_nothing() -> None:
    found = compare([0.9, 0.8], [0.8, 0.7], 1, 2)
    assert (found.p, found.is_significant) == (0.5, False)
    assert compare([0.9, 0.8], [0.9, 0.8], 1, 2).p == 1.0


def test_the_sentence_says_better_or_chance() -> None:
    better = verdict(compare([0.95, 0.951, 0.949], [0.9, 0.9, 0.9], 2, 3), "top-1")
    assert better.startswith("The best settings are better than the defaults in top-1 (difference +0.0500, 95 %")
    assert "corrected resampled t-test over 3 folds, Nadeau and Bengio 2003: p = 0.00" in better
    assert "with Bonferroni's correction for 2 settings tried)." in better
    chance = verdict(compare(BEST, DEFAULT, 9, 5), "top-1")
    assert chance.startswith("The best settings score higher than the defaults in top-1, but that may be chance (")
    assert verdict(None, "top-1") == "No settings scored higher than the defaults."
