"""Networks that their paper trains in stages: each from the weights of a simpler one of the family."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from hubel.models.load_checked import load_checked


@dataclass(frozen=True)
class Stages:
    """How an architecture is trained in stages.

    Attributes:
        before: names of the architectures that are trained first, in this order.
        new: pattern that keys begin with where a stage may have fresh weights, or leave out some; all others are those
            of the stage before.
        options: fields of the configuration of all stages that differ from those of training at once.
        rate_divisor: the learning rates of all stages but the first are those of the first over this.
    """

    before: tuple[str, ...]
    new: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rate_divisor: float = 10.0


def load_stage(model: nn.Module, state: Mapping[str, Tensor], stages: Stages, origin: str) -> None:
    """Load the weights of the stage before into a network with fresh ones.

    What matches :attr:`Stages.new` is taken over where the key and the shape are the same. Of all else, no weight may
    be missing or left over.

    Args:
        model: its layers that the stage before does not have keep their weights.
        state: of the stage before.
        origin: file of ``state``, for errors.

    Raises:
        WeightsError: the weights do not fit.
    """
    own = model.state_dict()
    fresh = {key for key in own if re.match(stages.new, key)}
    same = {
        key: tensor
        for key, tensor in state.items()
        if not re.match(stages.new, key) or (key in own and own[key].shape == tensor.shape)
    }
    load_checked(model, same, origin, may_be_fresh=fresh)
