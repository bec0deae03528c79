"""What is minimized: terms of a loss, and what is added to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor


def sum_of(terms: Mapping[str, Tensor]) -> Tensor:
    """The sum of one or more terms."""
    first, *others = terms.values()
    return sum(others, first)


def add_auxiliary_losses(loss: Tensor, auxiliary: Sequence[Tensor], weight: float) -> Tensor:
    """What is minimized where auxiliary classifiers learn too (Szegedy et al. 2014, arXiv 1409.4842, section 5).

    Args:
        loss: of the head's scores.
        auxiliary: the same loss of each auxiliary classifier's scores; may be empty.
        weight: of each of these; 0.3 in GoogLeNet.
    """
    return loss + weight * sum(auxiliary)
