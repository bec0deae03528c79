"""Learning rates as a pure function of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math


def rate_factor(schedule: str, step: int, steps: int, warmup_steps: int) -> float:
    """What the peak learning rate is multiplied by.

    Args:
        schedule: ``"cosine"`` falls from 1 to 0 along half a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983,
            equation 5, one period) after a linear warm-up (Goyal et al. 2017, arXiv 1706.02677, section 2.2);
            ``"one-cycle"`` rises from 1/25 over the first 30 % and falls to nearly nothing (Smith and Topin 2019,
            arXiv 1708.07120), its rise being the warm-up; ``"constant"`` stays at 1 after the warm-up.
        step: from 0.
        steps: of the whole phase, at least 1.
        warmup_steps: of the linear rise, of cosine and constant.

    Returns:
        0..1.
    """
    if schedule == "one-cycle":
        rise = max(1, round(0.3 * steps))
        if step < rise:
            return _half_cosine(1 / 25, 1.0, step / rise)
        return _half_cosine(1.0, 1 / 25e4, (step - rise) / max(1, steps - rise))
    warmup = min(1.0, (step + 1) / (warmup_steps + 1))
    return warmup * (_half_cosine(1.0, 0.0, step / steps) if schedule == "cosine" else 1.0)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
