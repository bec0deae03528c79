"""Features of images, computed once: a head on a frozen backbone need not see the images again in every epoch.

This holds where only the head is trained and the images are not augmented. An epoch then takes as long as the head
does, and features can be treated as data: SMOTE adds some.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from hubel.analysis.tracing import Tracing, to_meta
from hubel.config import TrainingConfig
from hubel.data.loader import EpochSampler, identity_collate, seed_for
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Batch, Target
from hubel.errors import DataError, MissingExtraError, ResumableError, UsageError
from hubel.models.base import ClassificationHead, Model
from hubel.training.cache_budget import allocate_block
from hubel.training.distributed import SINGLE_PROCESS, DistributedContext
from hubel.training.feature_store import FeatureStore, features_key
from hubel.training.finetune import FrozenBackbone, Phase, freeze_below


@dataclass(frozen=True)
class Features:
    """Output of the frozen backbone.

    Attributes:
        maps: float32 (N, C, H, W) on the CPU, the input of the head; H = W = 1 where it begins with averaging.
        labels: int64 (N,).
        indices: int64 (N,), positions in the data set; ``None`` after oversampling.
    """

    maps: Tensor
    labels: Tensor
    indices: Tensor | None = None


class FeatureRows(Dataset[Batch]):
    """Features under the keys (epoch, index) of an :class:`~hubel.data.loader.EpochSampler`."""

    def __init__(self, features: Features) -> None:
        self._features = features
        self._targets = [Target(label) for label in features.labels.tolist()]

    def __len__(self) -> int:
        return len(self._features.labels)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """A batch whose pixels are features; the loader asks for whole batches."""
        index = torch.tensor([index for _, index in keys], dtype=torch.int64)
        return Batch(self._features.maps[index], [self._targets[row] for row in index.tolist()], index)


def compute_features(
    images: DataLoader[Any],
    preprocessing: Preprocessing,
    lower: FrozenBackbone,
    head: nn.Module,
    accelerator: Accelerator,
    buffer: Tensor | None = None,
) -> Features:
    """One pass over the images, batches of uint8 pixels in fixed order, through the whole backbone.

    For a :class:`ClassificationHead` the means of the maps are stored, as maps of one pixel: it averages those to the
    same numbers, and SMOTE's neighbours are near in the input of its dense layer. The maps are stored in ``buffer``,
    float32, or by default in new memory.

    Raises:
        DataError: none of the images can be read.
    """
    maps: list[Tensor] = []
    labels, indices = [], []
    used = 0
    for batch in images:
        if not len(batch.indices):
            continue
        pixels = preprocessing.normalize(batch.pixels.to(accelerator.device, non_blocking=True))
        with accelerator.autocast():
            out = lower(pixels.contiguous(memory_format=torch.channels_last)).float()
        out = head.pool(out)[:, :, None, None] if isinstance(head, ClassificationHead) else out
        if buffer is not None:
            out = buffer[used : used + out.numel()].view(out.shape).copy_(out)
            used += out.numel()
        maps.append(out.cpu())
        labels.append(batch.labels)
        indices.append(batch.indices)
    if not maps:
        raise ResumableError("no image can be read anymore", "restore the images, then continue with --resume")
    together = torch.cat(maps) if buffer is None else buffer[:used].view(-1, *maps[0].shape[1:])
    return Features(together, torch.cat(labels), torch.cat(indices))


def features_size(model: Model, preprocessing: Preprocessing) -> int:
    """Number of stored values of an image."""
    network = to_meta(model, torch.float32).eval()
    assert isinstance(network, Model)
    shape = (1, preprocessing.channels, preprocessing.height, preprocessing.width)
    with torch.no_grad(), Tracing():
        maps = network.backbone(torch.empty(shape, device="meta"))
    return int(maps.shape[1]) if isinstance(model.head, ClassificationHead) else int(maps.numel())


def feature_batches(
    features: Features,
    sampler: EpochSampler,
    batch: int,
    training: bool,
    processes: DistributedContext = SINGLE_PROCESS,
) -> DataLoader[Any]:
    """A loader of batches of features, or of this process's part of each; training drops an incomplete last one."""
    dummy = Batch(torch.zeros_like(features.maps[:1]), [Target(0)], torch.tensor([-1]))
    return DataLoader(
        processes.shard(FeatureRows(features), dummy if training else None),
        batch_size=batch,
        sampler=sampler,
        collate_fn=identity_collate,
        drop_last=training and len(sampler) >= batch,
        generator=torch.Generator(),  # leaves the global one, which dropout draws from, alone
    )


@dataclass(frozen=True)
class FeatureCache:
    """Replaces images by features while only the head is trained.

    Attributes:
        training: training images in fixed order, without random changes, all of them in every process; what normalizes
            them.
        validation: the same of the validation images.
        classes: names.
        sample_weights: of the training images, as in :class:`~hubel.tasks.base.TaskData`.
        store: features that trainings before have computed, and where those of this one are left.
    """

    config: TrainingConfig
    training: tuple[DataLoader[Any], Preprocessing]
    validation: tuple[DataLoader[Any], Preprocessing]
    classes: Sequence[str]
    sample_weights: Tensor | None
    processes: DistributedContext
    store: FeatureStore | None = None

    def swap_in_features(
        self, model: Model, lower: FrozenBackbone, accelerator: Accelerator, log: Callable[[str], None]
    ) -> tuple[DataLoader[Any], DataLoader[Any]] | None:
        """Loaders of training and validation features; ``None`` if they do not fit."""
        config, smote = self.config, self.config.balance == "smote"
        computed = self._stored(lower, accelerator) or self._compute(model, lower, accelerator, log)
        if computed is None:
            return None
        training, validation = computed
        weights = self.sample_weights
        if smote:
            training, weights = with_smote(training, self.classes, config.seed), None
        elif weights is not None:
            weights = weights[training.indices]
        order = EpochSampler(len(training.labels), config.seed, shuffle=True, weights=weights)
        in_order = EpochSampler(len(validation.labels), config.seed, shuffle=False)
        return (
            feature_batches(training, order, config.batch, True, self.processes),
            feature_batches(validation, in_order, config.batch, False, self.processes),
        )

    def _stored(self, lower: FrozenBackbone, accelerator: Accelerator) -> tuple[Features, Features] | None:
        """What trainings before have left in the store, if it is all that is needed."""
        if self.store is None:
            return None
        found = []
        for images, size in (self.training, self.validation):
            samples = images.dataset.samples  # type: ignore[attr-defined]
            maps = self.store.find(features_key(lower, size, images, accelerator.mixed_precision), samples)
            if maps is not None:
                labels = torch.tensor([sample.label for sample in samples])
                found.append(Features(maps, labels, torch.arange(len(samples))))
        return (found[0], found[1]) if len(found) == 2 else None

    def _compute(
        self, model: Model, lower: FrozenBackbone, accelerator: Accelerator, log: Callable[[str], None]
    ) -> tuple[Features, Features] | None:
        """Features of the training and of the validation images; ``None`` if they do not fit."""
        config, sets = self.config, (self.training, self.validation)
        lengths = [len(images.dataset) * features_size(model, size) for images, size in sets]  # type: ignore[arg-type]
        mode = "auto" if config.cache == "none" else config.cache
        block, where = allocate_block(4 * sum(lengths), mode, self.processes.on_this_machine)
        if block is None and config.balance != "smote":
            log(f"the images' features are computed in every epoch: {where}")
            return None
        buffers: Sequence[Tensor | None] = (None, None)
        if block is not None:
            buffers = torch.frombuffer(block, dtype=torch.float32, count=sum(lengths)).split(lengths)
        unchanged = " without random changes" if config.augmentation else ""
        log(f"the images' features{unchanged} are computed once and cached {where}")
        training, validation = (
            compute_features(images, size, lower, model.head, accelerator, buffer)
            for (images, size), buffer in zip(sets, buffers, strict=True)
        )
        if self.store is not None:
            for (images, size), features in zip(sets, (training, validation), strict=True):
                assert features.indices is not None  # before SMOTE
                key = features_key(lower, size, images, accelerator.mixed_precision)
                self.store.add(key, images.dataset.samples, features.indices, features.maps)  # type: ignore[attr-defined]
        return training, validation


def require_fixed_features(config: TrainingConfig, model: Model, phases: Sequence[Phase], option: str) -> None:
    """Raise :class:`UsageError` if images are augmented or layers below the head trained: features would change."""
    if config.augmentation:
        changes = ",".join(config.augmentation)
        raise UsageError(f"{option} computes features once, and --augment {changes} changes them", "add --augment none")
    for phase in phases:
        trainable = freeze_below(model, phase.trainable_from)
        if trainable:
            raise UsageError(
                f"{option} computes features once, and {', '.join(trainable)} would be trained in phase {phase.name}",
                "add --unfreeze-from 0, so that only the head is trained",
            )


NEIGHBOURS = 5  # the paper's


def require_imbalanced_learn() -> None:
    """Raise :class:`MissingExtraError` where imbalanced-learn is not installed."""
    try:
        import imblearn  # noqa: F401
    except ImportError:
        raise MissingExtraError("--balance smote", "imbalance") from None


def neighbours_for(labels: Sequence[int], classes: Sequence[str]) -> int:
    """Number of neighbours to interpolate with: five, or all that the smallest class has.

    Raises:
        DataError: a class has a single example, which has no neighbour.
    """
    counts = np.bincount(np.asarray(labels), minlength=len(classes))
    smallest = int(counts.argmin())
    if counts[smallest] < 2:
        raise DataError(
            f"class {classes[smallest]} has {counts[smallest]} training image; SMOTE interpolates between two or more",
            "add images, remove the class, or use --balance sampling, which repeats images",
        )
    return min(NEIGHBOURS, int(counts[smallest]) - 1)


def with_smote(features: Features, classes: Sequence[str], seed: int) -> Features:
    """Add interpolated examples, after the given ones, until every class has as many as the largest.

    Raises:
        MissingExtraError: imbalanced-learn is not installed.
        DataError: a class has a single example.
    """
    require_imbalanced_learn()
    from imblearn.over_sampling import SMOTE

    neighbours = neighbours_for(features.labels.tolist(), classes)
    smote = SMOTE(k_neighbors=neighbours, random_state=seed_for(seed, "smote") % 2**32)
    rows, labels = smote.fit_resample(features.maps.flatten(1).numpy(), features.labels.numpy())
    return Features(torch.from_numpy(rows).reshape(-1, *features.maps.shape[1:]), torch.from_numpy(labels))
