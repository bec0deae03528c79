"""Weight averaging: the exponential moving average of all weights along the way is the model that is kept.

Polyak and Juditsky 1992; for networks as in Tarvainen and Valpola 2017, arXiv 1703.01780, section 2, with the
decay growing from 0.1 over the first steps so that the start is forgotten.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def average_of(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of ``model`` that ``update_parameters(model)`` moves towards it after every step."""

    def move(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        return average.lerp(current, 1 - min(decay, (1 + int(count)) / (10 + int(count))))

    return AveragedModel(model, avg_fn=move, use_buffers=True)
