"""The probes of ``benchmarks/behaviour.py``, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from behaviour_probes import probe_data, probe_models, probe_predict, probe_track, probe_train
from behaviour_probes.sandbox import Sandbox

PROBES: dict[str, Callable[[Sandbox], Any]] = {
    "help": probe_models.commands,
    "boxes": probe_models.boxes,
    "models": probe_models.models,
    "data": probe_data.data,
    "track": probe_track.track,
    "predict": probe_predict.predict,
    "results": probe_predict.results,
    "summary": probe_models.summary,
    "train-classify": probe_train.train_classify,
    "train-variants": probe_train.train_variants,
    "train-detect": probe_train.train_detect,
    "train-localize": probe_train.train_localize,
    "train-sliding-window": probe_train.train_sliding_window,
    "export": probe_train.export,
    "weights": probe_models.weights,
    "forward": probe_models.forward,
}
