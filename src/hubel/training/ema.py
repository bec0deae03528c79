"""EMA: the exponential moving average of the weights is the model that is validated and saved.

Polyak and Juditsky 1992; for networks as in Tarvainen and Valpola 2017, arXiv 1703.01780, section 2, with the
decay growing from 0.1 over the first steps so that the initial weights are forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class WeightAverage(AveragedModel):
    """A copy of a network, as ``module``, that :meth:`update_parameters` moves towards it after every step.

    Only trainable tensors are moved: parameters with gradients, and buffers except those of frozen modules. While only
    a head is trained, going through all the other weights took longer than its whole step.

    Args:
        model: with its frozen layers frozen already.
        decay: weight of the average in a step, 0..1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._decay = decay
        self._trainable = _trainable(model)

    def update_parameters(self, model: nn.Module) -> None:
        """Move towards the current weights; the first call copies them."""
        count = int(self.n_averaged)
        rate = 1 - min(self._decay, (1 + count) / (10 + count)) if count else 1.0
        with torch.no_grad():
            for of in self._trainable:
                average, current = of(self.module), of(model)
                if count and average.is_floating_point():
                    average.lerp_(current, rate)
                else:
                    average.copy_(current)
        self.n_averaged += 1


def _trainable(model: nn.Module) -> list[Callable[[nn.Module], Tensor]]:
    """Getters of the tensors that training steps change."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for prefix, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if not own or any(parameter.requires_grad for parameter in own):
            names += [f"{prefix}.{name}".lstrip(".") for name, _ in module.named_buffers(recurse=False)]
    return [attrgetter(name) for name in names]
