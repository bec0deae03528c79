"""What a search has tried, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from statistics import fmean, stdev

from hubel.tuning.space import Plain


class State(Enum):
    """Of a trial: all folds trained, stopped after some, impossible, or not yet ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    RUNNING = "running"


@dataclass(frozen=True)
class Estimate:
    """A score by cross-validation: of each fold, their mean, and their spread (the sample's standard deviation)."""

    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the folds."""
        return fmean(self.scores)

    @property
    def spread(self) -> float:
        """Standard deviation over the folds; 0 for a single one."""
        return stdev(self.scores) if len(self.scores) > 1 else 0.0

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.spread:.4f}"


@dataclass(frozen=True)
class Trial:
    """Settings, and the scores of the folds that were trained with them.

    Attributes:
        number: from 0; trial 0 has the defaults.
        settings: values by name; of trial 0 empty where the space does not contain the defaults.
        scores: of the folds so far, in their order.
        seconds: that the epochs of each took.
        early: score and seconds in the first fold when a part of it was trained; ``None`` before, or if it has no such
            part.
        error: why it failed.
    """

    number: int
    settings: Mapping[str, Plain] = field(default_factory=dict)
    scores: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    state: State = State.RUNNING
    error: str = ""
    early: tuple[float, float] | None = None

    @property
    def is_scored(self) -> bool:
        """True if it has been compared with others."""
        return bool(self.scores or self.early)

    @property
    def estimate(self) -> Estimate:
        """The score over the folds so far; there must be one."""
        return Estimate(self.scores)

    @property
    def total_seconds(self) -> float:
        """Of all that was trained."""
        return sum(self.seconds) if self.seconds or self.early is None else self.early[1]

    @property
    def fold_seconds(self) -> float:
        """Mean over the folds so far; 0 before them."""
        return fmean(self.seconds) if self.seconds else 0.0


def best_trial(trials: Sequence[Trial], minimize: bool = False) -> Trial | None:
    """The finished trial of the best mean, the earliest of several; ``None`` if there is none."""
    finished = [trial for trial in trials if trial.state is State.FINISHED]
    sign = -1 if minimize else 1
    return max(finished, key=lambda trial: (sign * trial.estimate.mean, -trial.number), default=None)
