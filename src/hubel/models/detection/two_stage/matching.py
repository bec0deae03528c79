"""Which anchors and proposals stand for which object, and which of them count in a loss.

Ren et al. 2015, "Faster R-CNN", arXiv 1506.01497, section 3.1.2; Girshick 2015, "Fast R-CNN", arXiv 1504.08083,
section 2.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hubel.boxes import iou

BACKGROUND, IGNORED = -1, -2


def match(boxes: Tensor, objects: Tensor, positive: float, negative: float, best_too: bool = False) -> Tensor:
    """Index of the object that each box (A, 4) overlaps most, int64 (A,), if it does by enough.

    Args:
        boxes: anchors or proposals.
        objects: boxes of the objects (M, 4).
        positive: least IoU of a box with its object.
        negative: below it a box is :data:`BACKGROUND`; between the two it is :data:`IGNORED`.
        best_too: the boxes that an object overlaps most, all of them if they overlap it alike, keep their own object,
            however little that is: no object is left without an anchor.
    """
    if not len(objects):
        return torch.full((len(boxes),), BACKGROUND, device=boxes.device)
    overlap = iou(objects, boxes)
    best, indices = overlap.max(0)
    matched = torch.where(best >= positive, indices, torch.where(best < negative, BACKGROUND, IGNORED))
    if best_too:
        # Also where an object overlaps no box at all, and so all of them alike; as the authors' code and its heirs.
        rescued = (overlap == overlap.amax(1, keepdim=True)).any(0)
        matched = torch.where(rescued, indices, matched)
    return matched


@dataclass(frozen=True)
class Sampler:
    """A fixed number of boxes of each image, so that the background's thousands do not decide alone.

    Attributes:
        count: boxes of an image.
        share: of them with an object, at most; if there are fewer, background takes their places.
    """

    count: int
    share: float

    def draw(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Random boxes of those with an object and of background, bool (A,) each: indices of the drawn, ascending."""
        of_positive, of_negative = positive.nonzero()[:, 0], negative.nonzero()[:, 0]
        many, few = self._counts(len(of_positive), len(of_negative))
        # Both permutations are drawn on the boxes' device.
        drawn = [
            indices[torch.randperm(len(indices), device=indices.device)[:count]]
            for indices, count in ((of_positive, many), (of_negative, few))
        ]
        return torch.cat(drawn).sort().values

    def weights(self, positive: Tensor, negative: Tensor, random: bool) -> Tensor:
        """How much each box counts, float32 (A,): 1 if it is drawn, else 0; or, not random, how likely it is drawn.

        The latter is the mean over all draws: a loss that does not depend on chance, to compare epochs by.
        """
        if random:
            return torch.zeros(len(positive), device=positive.device).index_fill(0, self.draw(positive, negative), 1)
        sums = positive.sum(), negative.sum()
        counts = self._counts(*map(int, sums))
        both = zip((positive, negative), counts, sums, strict=True)
        return sum((mask * (count / total.clamp(min=1)) for mask, count, total in both), torch.zeros(())).float()

    def _counts(self, positives: int, negatives: int) -> tuple[int, int]:
        taken = min(positives, int(self.count * self.share))
        return taken, min(negatives, self.count - taken)
