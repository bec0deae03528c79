"""Several networks of one architecture as one model, whose predictions are the means of theirs.

Hansen and Salamon 1990, "Neural Network Ensembles"; Lakshminarayanan et al. 2017, arXiv 1612.01474, section 2.4:
probabilities are averaged, not raw scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from hubel.models.base import Model


class Ensemble(Model):
    """Predicts with each of its members and averages. It has no loss: it cannot be trained further.

    Args:
        members: at least two networks of the same architecture, options and classes. They become part of the ensemble,
            without their auxiliary classifiers, which only training needs.
    """

    is_sequential = False

    def __init__(self, members: Sequence[Model]) -> None:
        super().__init__(nn.Sequential(), nn.Identity(), {})
        self.members = nn.ModuleList(members)
        for member in members:
            member.auxiliary = nn.ModuleDict()
        self.prediction_names = members[0].prediction_names

    def forward(self, images: Tensor) -> tuple[Any, ...]:
        """The raw outputs of each member for images (N, C, H, W)."""
        return tuple(member(images) for member in self.members)

    def predictions(self, outputs: Sequence[Any], size: tuple[int, int]) -> dict[str, Tensor]:
        """The members' averaged predictions, by the same names: see :meth:`Model.mean_predictions`."""
        first = self.members[0]
        assert isinstance(first, Model)
        return first.mean_predictions(outputs, size)

    def mean_predictions(self, outputs: Sequence[Sequence[Any]], size: tuple[int, int]) -> dict[str, Tensor]:
        """:meth:`predictions` averaged over several outputs, such as those of an image and its mirror image."""
        return self.predictions([member for each in outputs for member in each], size)
