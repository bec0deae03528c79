"""How much a run may spend on timing how it computes fastest: trials cost at most a tenth of the work planned."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hubel.config import TrainingConfig
from hubel.models.base import Model
from hubel.system import processor_name
from hubel.training.finetune import freeze_below, plan_phases

_SHARE = 0.1
_FORWARD = 1 / 3
"""Cost of a forward pass without gradients, as a fraction of a training step."""


def planned_steps(config: TrainingConfig, model: Model, training: int, validation: int, on_features: bool) -> float:
    """The work of a run, in training steps of its last phase.

    Args:
        config: resolved.
        model: tells which phases train the head only; its parameters are left as the last phase trains them.
        training, validation: numbers of images.
        on_features: epochs of the head alone use cached features, which takes next to no time.
    """
    steps = -(-training // config.batch)
    checked = _FORWARD * -(-validation // config.batch)
    planned = 0.0
    for phase in plan_phases(config):
        if freeze_below(model, phase.trainable_from):
            planned += phase.epochs * (steps + checked)
        elif not on_features:
            planned += phase.epochs * (_FORWARD * steps + checked)
    return planned


@dataclass
class TrialBudget:
    """Training steps that may still be spent on trials; ``announce`` is called with what is timed next."""

    steps: float = math.inf
    announce: Callable[[str], None] = lambda what: None

    @classmethod
    def of(cls, planned: float, announce: Callable[[str], None]) -> TrialBudget:
        """A tenth of the steps that a run will take."""
        return cls(_SHARE * planned, announce)

    def take(self, steps: float) -> bool:
        """Spend so many steps if they are left; false if they are not."""
        if steps > self.steps:
            return False
        self.steps -= steps
        return True


def machine_key() -> tuple[Any, ...]:
    """Everything but the network that the speed of a step depends on."""
    return processor_name(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), torch.__version__


def step_key(model: nn.Module, batch: tuple[int, ...], device: torch.device, precision: str) -> str:
    """A hash of everything that a measurement of training steps depends on."""
    shapes = [(name, tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()]
    described = (shapes, batch, str(device), precision, *machine_key())
    return hashlib.blake2b(repr(described).encode(), digest_size=12).hexdigest()
