"""What the losses of detectors say of images in which only some classes are labelled.

A box that matches no object of such an image is background for the classes that are labelled. For another class it may
be one of the objects that nobody labelled: nothing is known of it. So a class that is not labelled has no part in the
loss of the image, and no gradient, but as the class of an object that is labelled nevertheless:

================== ====================================================================================================
loss               classes that are not labelled
================== ====================================================================================================
sigmoid, a class   their terms are left out, as in the federated loss of LVIS (Zhou et al. 2021, "Probabilistic
each               two-stage detection", arXiv 2103.07461)
softmax            it is over the other classes, and background
objectness beside  a background box counts as much as its class, were it an object, is likely one that is labelled: by
classes (YOLO)     the network's own scores, without gradient
objectness alone   a background box that the network takes for an object is left out, the others count: it may be one
(proposals)        of a class that is not labelled
================== ====================================================================================================

Objectness cannot leave all background out: where two sources are joined that label a class each, all images are partly
labelled, and nothing would teach the network what is not an object. The losses of boxes and masks are of objects alone,
and as ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hubel.models.base import ObjectTargets

_NEVER = -1e4
"""A raw score whose exponential is exactly 0, as then is its part in a softmax, or its cross-entropy with "no"."""


def known_classes(own: Tensor, targets: ObjectTargets) -> Tensor:
    """Which scores of boxes count in a loss: bool (A, classes), all where all classes are labelled.

    Args:
        own: bool (A, classes), the classes of the objects that each box stands for.
    """
    return torch.ones_like(own) if targets.labelled is None else own | targets.labelled


def without_unknown(scores: Tensor, labels: Tensor, targets: ObjectTargets) -> Tensor:
    """Raw scores (A, K) for a softmax or cross-entropies, in which scores that do not count have no part.

    Args:
        scores: of the classes, the last of the K columns; those before them, as of background, always count.
        labels: int64 (A,), the class of the object that each box stands for; negative for none.
    """
    if targets.labelled is None:
        return scores
    classes = torch.arange(len(targets.labelled), device=scores.device)
    known = known_classes(labels[:, None] == classes, targets)
    others = known.new_ones(len(known), scores.shape[1] - len(classes))
    return scores.masked_fill(~torch.cat((others, known), 1), _NEVER)


def without_unknown_of_batch(scores: Tensor, labels: Tensor, targets: Sequence[ObjectTargets]) -> Tensor:
    """:func:`without_unknown` of each image: scores (N, A, K), labels (N, A)."""
    if all(each.labelled is None for each in targets):
        return scores
    return torch.stack([without_unknown(*each) for each in zip(scores, labels, targets, strict=True)])


def share_labelled(probabilities: Tensor, targets: ObjectTargets) -> Tensor:
    """How much boxes count as background in objectness, 0..1 (A,), of the probabilities of their classes (A, classes).

    That is the share of the classes that are labelled: 1 where all are.
    """
    if targets.labelled is None:
        return torch.ones_like(probabilities[:, 0])
    likely = probabilities.detach().clamp(min=torch.finfo(probabilities.dtype).tiny)
    return (likely * targets.labelled).sum(1) / likely.sum(1)


def may_be_unlabelled(objectness: Tensor, targets: ObjectTargets) -> Tensor:
    """Which boxes are not background for certain, bool (A,), of their raw objectness (A,), whatever class they have."""
    if targets.labelled is None:
        return torch.zeros_like(objectness, dtype=torch.bool)
    return objectness.detach() >= 0
