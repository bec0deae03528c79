"""The result of a search: the best settings, what they score, and whether they are really better."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubel.console import count_of
from hubel.tables import Table
from hubel.tuning.comparison import Comparison, compare, nested_verdict, verdict
from hubel.tuning.space import Plain
from hubel.tuning.trials import Estimate, State, Trial, best_trial

_SHOWN = 10
_SLOWER = 1.1
"""Ratio of training times from which on it is mentioned."""

_WITHOUT_COST = frozenset(
    {"learning_rate", "head_learning_rate", "schedule", "warmup", "weight_decay", "average"}
    | {"label_smoothing", "loss_weights", "layer_decay"}
)
"""Settings that do not change how long a training takes, however busy the machine was."""


@dataclass(frozen=True, repr=False)
class TuneResult:
    """A search, finished or so far.

    Attributes:
        folder: holds ``config.yaml``, ``trials.csv``, ``study.db`` and ``report.html``.
        data: the data set; ``images`` of it are in the folds, ``test_images`` in its test split, which is not touched.
        metric: the score, in words.
        minimize: whether lower scores are better.
        folds: of one division of the images; with ``repeats`` divisions a trial has as many scores for each.
        defaults: values of the settings that were searched, in trial 0.
        trials: in order; trial 0 is finished.
        importance: of each setting, fractions that sum to 1; empty for few trials.
        nested: score of the settings that were found without each fold, on that fold; ``None`` unless asked for.
        ensemble: folder of the model that averages the networks of the best settings; ``None`` unless asked for.
    """

    folder: Path
    task: str
    model: str
    data: Path
    images: int
    test_images: int
    metric: str
    minimize: bool
    folds: int
    defaults: Mapping[str, Plain]
    trials: Sequence[Trial]
    importance: Mapping[str, float]
    nested: Estimate | None = None
    repeats: int = 1
    ensemble: Path | None = None

    @property
    def best_trial(self) -> Trial:
        """The finished trial of the best mean; trial 0 if none is better than the defaults."""
        return best_trial(self.trials, self.minimize) or self.trials[0]

    @property
    def best(self) -> dict[str, Plain]:
        """The best settings by name: keywords of :func:`hubel.train`."""
        return {**self.defaults, **self.best_trial.settings}

    @property
    def estimate(self) -> Estimate:
        """The best settings' score: ``.mean``, ``.spread`` and ``.scores`` over the folds."""
        return self.best_trial.estimate

    @property
    def default(self) -> Estimate:
        """The score with the defaults over the same folds."""
        return self.trials[0].estimate

    @property
    def comparison(self) -> Comparison | None:
        """The best settings against the defaults; ``None`` if the defaults are the best."""
        if self.best_trial.number == 0:
            return None
        return self._against_defaults(self.estimate, sum(trial.is_scored for trial in self.trials) - 1)

    def _against_defaults(self, estimate: Estimate, trials: int) -> Comparison:
        sign = -1 if self.minimize else 1
        scores, default = ([sign * score for score in each.scores] for each in (estimate, self.default))
        return compare(scores, default[: len(scores)], trials, self.folds)  # a nested search has no repetitions

    @property
    def sentences(self) -> list[str]:
        """Whether the best settings are better, and what else to know of them."""
        lines = [verdict(self.comparison, self.metric)]
        if self.nested is not None:
            comparison = self._against_defaults(self.nested, 1)
            lines.append(nested_verdict(comparison, str(self.nested), self.metric))
        elif self.comparison is not None:
            rest = "the test set, which the search has not used, tells" if self.test_images else "new images tell"
            lines.append(f"The score of the best of several settings is a little too high by selection: {rest}.")
        best, default = self.best_trial.fold_seconds, self.trials[0].fold_seconds
        changed = {name for name, value in self.best.items() if value != self.defaults[name]}
        if changed - _WITHOUT_COST and default and best / default > _SLOWER:
            lines.append(
                f"Training with the best settings took {best / default:.1f} times as long as with the defaults."
            )
        if self.ensemble is not None:
            tells = "the test set" if self.test_images else "new images"
            lines.append(
                f"The ensemble of the {self.folds} networks of the best settings costs as many times "
                f"what one costs. The mean over the folds is that of single networks; only {tells} can tell the "
                "ensemble's score, as all its networks but one were trained on each image of the folds."
            )
        return lines

    def differences(self, trial: Trial) -> str:
        """The settings of a trial that are not the defaults', in words."""
        if trial.number == 0:
            return "defaults"
        changed = [f"{n} {_short(v)}" for n, v in trial.settings.items() if v != self.defaults.get(n)]
        return ", ".join(changed) or "as the defaults"

    def ranked(self) -> list[Trial]:
        """The finished trials, the best first."""
        sign = -1 if self.minimize else 1
        finished = [trial for trial in self.trials if trial.state is State.FINISHED]
        return sorted(finished, key=lambda trial: -sign * trial.estimate.mean)

    def table(self) -> Table:
        """The best trials, and the defaults."""
        ranked = self.ranked()
        shown = [trial for at, trial in enumerate(ranked) if at < _SHOWN or trial.number == 0]
        rows = [
            [str(each.number), str(each.estimate), f"{each.fold_seconds:.0f}", self.differences(each)] for each in shown
        ]
        return Table(("trial", self.metric, "s a fold", "settings"), rows, left=("settings",))

    def headline(self) -> str:
        """Counts of trials by their end."""
        counts = {state: sum(trial.state is state for trial in self.trials) for state in State}
        times = f"{self.repeats} times " if self.repeats > 1 else ""
        parts = [
            f"{count_of(len(self.trials), 'trial')} on {times}{self.folds} folds of {count_of(self.images, 'image')}",
            *(f"{counts[state]} {word}" for state, word in _WORDS.items() if counts[state]),
        ]
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The document that ``--json`` prints."""
        comparison = self.comparison
        return {
            "task": self.task,
            "model": self.model,
            "data": str(self.data),
            "run": str(self.folder),
            "images": self.images,
            "folds": self.folds,
            "repeats": self.repeats,
            "metric": self.metric,
            "best": self.best,
            "estimate": _estimate(self.estimate),
            "default": _estimate(self.default),
            "nested": self.nested and _estimate(self.nested),
            "ensemble": self.ensemble and str(self.ensemble),
            "comparison": comparison and {
                "difference": comparison.difference,
                "low": comparison.low,
                "high": comparison.high,
                "p": comparison.p,
                "corrected_p": comparison.corrected_p,
                "significant": comparison.is_significant,
            },
            "sentences": self.sentences,
            "importance": dict(self.importance),
            "trials": [trial_row(trial) for trial in self.trials],
        }  # fmt: skip

    def __repr__(self) -> str:
        return "\n".join([f"{self.folder}: {self.headline()}", self.table().text(), "", *self.sentences])

    def _repr_html_(self) -> str:
        sentences = "".join(f"<p>{html.escape(line)}</p>" for line in self.sentences)
        return f"<p>{html.escape(f'{self.folder}: {self.headline()}')}</p>{self.table().html()}{sentences}"


_WORDS = {
    State.FINISHED: "trained on all folds",
    State.STOPPED: "stopped early as worse than others",
    State.FAILED: "failed",
    State.RUNNING: "not ended",
}


def _short(value: Plain) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"mean": estimate.mean, "spread": estimate.spread, "scores": list(estimate.scores)}


def trial_row(trial: Trial) -> dict[str, Any]:
    """A trial as JSON has it."""
    scored = {"mean": trial.estimate.mean, "spread": trial.estimate.spread} if trial.scores else {}
    return {
        "trial": trial.number,
        "state": trial.state.value,
        "settings": dict(trial.settings),
        **scored,
        "scores": list(trial.scores),
        "seconds": list(trial.seconds),
        "early": trial.early and {"score": trial.early[0], "seconds": trial.early[1]},
        **({"error": trial.error} if trial.error else {}),
    }
