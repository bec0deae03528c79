"""Training and validation images of a run as batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubel.data.image_cache import PixelCache
from hubel.data.loader import BatchDataset
from hubel.data.samples import Batch, Sample
from hubel.data.transforms.pipeline import Transform
from hubel.training.cache_budget import CachedShape


@dataclass(frozen=True)
class SampleImages:
    """How samples become batches.

    Attributes:
        augmented: of training images.
        plain: of validation images.
        seed: of the run.
    """

    augmented: Transform
    plain: Transform
    seed: int

    def cached_shapes(self) -> tuple[CachedShape, CachedShape]:
        """Shapes of what is cached of a training and of a validation image."""
        of_training, of_validation = (
            each.cached_shape if each.crops else each.cached_shape(1, 1) for each in (self.augmented, self.plain)
        )
        return of_training, of_validation

    def training(self, samples: Sequence[Sample], cache: PixelCache | None) -> BatchDataset:
        """Images that change at random, by keys (epoch, index)."""
        return BatchDataset(samples, self.augmented, self.seed, cache)

    def validation(self, samples: Sequence[Sample], cache: PixelCache | None) -> BatchDataset:
        """Images as for prediction."""
        return BatchDataset(samples, self.plain, self.seed, cache)

    def dummy_batch(self, images: int) -> Batch:
        """See :meth:`~hubel.data.loader.BatchDataset.dummy_batch`."""
        return BatchDataset((), self.augmented, self.seed).dummy_batch(images)
