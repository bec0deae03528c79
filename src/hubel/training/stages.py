"""A run in the stages of its network's paper: the trainings before the last lie in ``stages/`` of the run's folder.

Each is a run itself, with its best weights, scores and report. The next one starts from its best weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from hubel.bounded import BoundError, read_json
from hubel.config import TrainingConfig
from hubel.errors import DataError, UsageError
from hubel.models import architecture, list_models, load_model
from hubel.models.base import Model
from hubel.models.config_schema import with_options
from hubel.models.metadata import WEIGHTS_FILE
from hubel.models.stages import load_stage
from hubel.training.run_data import RunData
from hubel.training.run_folder import CONFIG, STAGES, make_run_folder

_LARGEST_RESULTS = 64 << 20  # bytes of results.json


@dataclass(frozen=True)
class Stage:
    """One training of a run; most have no other.

    Attributes:
        folder: of this training; that of the run for the last one.
        config: resolved, with the network and the learning rates of the stage.
        before: folder of the training whose best weights it starts from, if there is one.
        number: from 1, of ``count``.
    """

    folder: Path
    config: TrainingConfig
    before: Path | None = None
    number: int = 1
    count: int = 1

    @property
    def name(self) -> str:
        """``"stage 1 of 3: fcn32s"``; for logs."""
        return f"stage {self.number} of {self.count}: {self.config.model}"

    def finished_seconds(self) -> float | None:
        """How long a stage before the last took, if it is finished; its report is written last."""
        if self.number == self.count or not (self.folder / "report.html").is_file():
            return None
        try:
            results = read_json(self.folder / "results.json", _LARGEST_RESULTS)
        except (OSError, BoundError):
            return None
        seconds = results.get("seconds") if isinstance(results, dict) else None
        return seconds if isinstance(seconds, int | float) and math.isfinite(seconds) else None

    def make_folder(self, data: RunData) -> None:
        """Make the folder of a stage before the last, unless it has begun; raises :class:`DataError` if that fails."""
        if not self.folder.exists():
            make_run_folder(self.folder, self.config, data.splits, data.samples)

    def load_previous(self, model: Model) -> None:
        """Load the best weights of the stage before; nothing for the first.

        Raises:
            ModelError, WeightsError: they are missing or damaged, or do not fit.
        """
        stages = architecture(self.config.model).stages
        if self.before is not None and stages is not None:
            best = self.before / "best"
            load_stage(model, load_model(best)[0].state_dict(), stages, str(best / WEIGHTS_FILE))


def resolve_stages(config: TrainingConfig) -> TrainingConfig:
    """The configuration with the options of networks that are trained in stages, if they are to be.

    Raises:
        UsageError: the network has no stages, or its options leave nothing of them.
    """
    if not config.staged:
        return config
    stages = architecture(config.model).stages
    if stages is None:
        others = [name for name in list_models(config.task) if architecture(name).stages is not None]
        hint = f"use --model {' or '.join(others)}, or omit --staged" if others else "omit --staged"
        raise UsageError(f"--staged: {config.model} is not trained in stages", hint)
    config = replace(config, options={**stages.options, **config.options})
    names = (*stages.before, config.model)
    networks = [with_options(architecture(name), config.options) for name in names]
    if any(network == other for network, other in pairwise(networks)):
        given = ", ".join(f"{name}={value}" for name, value in config.options.items() if name not in stages.options)
        raise UsageError(f"--staged: with {given} all stages are the same network", "omit --staged, or the option")
    return config


def stages_of(config: TrainingConfig, folder: Path) -> list[Stage]:
    """The trainings of a run, in order."""
    stages = architecture(config.model).stages if config.staged else None
    if stages is None:
        return [Stage(folder, config)]
    names = (*stages.before, config.model)
    found: list[Stage] = []
    for number, name in enumerate(names, 1):
        divisor = 1.0 if number == 1 else stages.rate_divisor
        own = replace(
            config,
            model=name,
            staged=number == len(names),  # the earlier ones are runs like any other
            learning_rate=_divided(config.learning_rate, divisor),
            head_learning_rate=_divided(config.head_learning_rate, divisor),
        )
        where = folder if own.staged else folder / STAGES / name
        found.append(Stage(where, own, found[-1].folder if found else None, number, len(names)))
    return found


def _divided(rate: float | None, divisor: float) -> float | None:
    return None if rate is None else rate / divisor


def refuse_stage(folder: Path) -> None:
    """Raise :class:`DataError` for the folder of a stage, which goes on only as a part of its run."""
    run = folder.resolve().parent.parent
    if folder.resolve().parent.name == STAGES and (run / CONFIG).is_file():
        raise DataError(f"{folder} is a stage of a run and cannot be resumed by itself", f"resume the run: --out {run}")
