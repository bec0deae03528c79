"""What all networks for semantic segmentation have in common: their targets, losses and decoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hubel.data.samples import IGNORE_INDEX
from hubel.errors import ModelError
from hubel.models.base import AUXILIARY, Classifier, ClassLayers, Model, with_auxiliary
from hubel.models.segmentation.losses import dice, hardest_cross_entropy, lovasz_softmax

_LOVASZ_STEP = 2  # the sort over all pixels would cost more than the network: every second row and column counts


@dataclass(frozen=True)
class SegmentationTargets:
    """Class maps of a batch.

    Attributes:
        class_maps: int64 (N, H, W), classes from 0 or :data:`IGNORE_INDEX`.
        class_weights: how much a pixel of each class counts in the cross-entropy (classes,); ``None``: all the same.
    """

    class_maps: Tensor
    class_weights: Tensor | None = None

    @property
    def weight(self) -> float:
        """The pixels that count."""
        return float((self.class_maps != IGNORE_INDEX).sum())


class Segmenter(Model):
    """A backbone, and a head that reads the maps of :meth:`features` and gives raw class scores (N, classes, h, w).

    Scores of a coarser grid than the images' are interpolated to the pixels. Targets are :class:`SegmentationTargets`.
    The loss has up to four terms: ``"class"``, cross-entropy; ``"ohem"``, cross-entropy of the hardest pixels;
    ``"dice"`` and ``"lovasz"``, which count classes, not pixels (:mod:`hubel.models.segmentation.losses`).

    Attributes are those of :class:`~hubel.models.base.Model`; an auxiliary head reads the map of its part alone.
    """

    is_sequential = False
    takes_any_input = True
    prediction_names = ("class_map",)
    loss_weights: Mapping[str, float] = {"class": 1.0, "ohem": 0.0, "dice": 0.0, "lovasz": 0.0}

    def forward(self, images: Tensor) -> Tensor:
        """Raw class scores of images (N, C, H, W): (N, classes, H, W), or on a coarser grid."""
        scores: Tensor = self.head(self.features(images))
        return scores

    def training_outputs(
        self, images: Tensor, targets: SegmentationTargets | None = None
    ) -> Tensor | dict[str, Tensor]:
        """Scores of the head, with those of an auxiliary one if there is one."""
        if not self.auxiliary:
            return self.forward(images)
        ((read, auxiliary),) = self.auxiliary.items()
        stride_of = {name: stride for stride, (name, _) in self.feature_info.items()}
        maps, extra, signal = {}, None, images
        for name, part in self.backbone.named_children():
            signal = part(signal)
            if name in stride_of:
                maps[stride_of[name]] = signal
            if name == read:
                extra = auxiliary(signal)
        return with_auxiliary(self.head(maps), {} if extra is None else {AUXILIARY: extra})

    def predictions(self, outputs: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """The best class of every pixel of the input, int32 (N, H, W)."""
        return {"class_map": upsampled(outputs, size).argmax(1).int()}

    def mean_predictions(self, outputs: Sequence[Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """The class of the greatest mean probability at every pixel, int32 (N, H, W)."""
        probabilities = torch.stack([upsampled(each, size).softmax(1) for each in outputs])
        return {"class_map": probabilities.mean(0).argmax(1).int()}

    def losses(self, outputs: Tensor | dict[str, Tensor], targets: SegmentationTargets) -> dict[str, Tensor]:
        """Means over the pixels that count (Long et al. 2015, section 4.3, sum; their rate is that much smaller)."""
        class_maps = targets.class_maps
        size = (class_maps.shape[1], class_maps.shape[2])
        main, extra = (outputs, None) if isinstance(outputs, Tensor) else (outputs["scores"], outputs[AUXILIARY])
        scores = upsampled(main, size)
        step = slice(None, None, _LOVASZ_STEP)
        kinds: dict[str, Callable[[], Tensor]] = {
            "class": lambda: _cross_entropy(scores, targets),
            "ohem": lambda: hardest_cross_entropy(scores, class_maps, IGNORE_INDEX, targets.class_weights),
            "dice": lambda: dice(scores, class_maps, IGNORE_INDEX),
            "lovasz": lambda: lovasz_softmax(scores[:, :, step, step], class_maps[:, step, step], IGNORE_INDEX),
        }
        weights = self.loss_weights
        terms = {name: weights[name] * term() for name, term in kinds.items() if weights.get(name)}
        if extra is not None:
            terms[AUXILIARY] = self.auxiliary_weight * _cross_entropy(upsampled(extra, size), targets)
        return terms

    def training_metrics(self, outputs: Tensor | dict[str, Tensor], targets: SegmentationTargets) -> dict[str, float]:
        """Pixel accuracy of each image, summed."""
        class_maps = targets.class_maps
        scores = (outputs if isinstance(outputs, Tensor) else outputs["scores"]).detach()
        # At the grid of the scores, of which each is compared with a pixel that it stands for.
        rows, columns = (_centres(scores.shape[axis], class_maps.shape[axis - 1], scores.device) for axis in (2, 3))
        truth = class_maps[:, rows[:, None], columns]
        counted = (truth != IGNORE_INDEX).sum((1, 2)).clamp(min=1)
        return {"pixel_accuracy": float(((scores.argmax(1) == truth).sum((1, 2)) / counted).sum())}


def upsampled(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Scores (N, classes, h, w) at every pixel: what a transposed convolution with bilinear weights gives."""
    if (scores.shape[2], scores.shape[3]) == size:
        return scores.float()
    return functional.interpolate(scores.float(), size, mode="bilinear", align_corners=False)


def _centres(cells: int, pixels: int, device: torch.device) -> Tensor:
    return ((torch.arange(cells, device=device) + 0.5) * (pixels / cells)).long().clamp(max=pixels - 1)


def _cross_entropy(scores: Tensor, targets: SegmentationTargets) -> Tensor:
    class_maps, weights = targets.class_maps, targets.class_weights
    total = functional.cross_entropy(scores, class_maps, weights, ignore_index=IGNORE_INDEX, reduction="sum")
    if weights is None:
        return total / max(1.0, targets.weight)
    counted = class_maps[class_maps != IGNORE_INDEX]
    return total / weights[counted].sum().clamp(min=1e-6)


def _classes_of(state: Mapping[str, Tensor]) -> int | None:
    return next((len(tensor) for key, tensor in state.items() if key == "head.classifier.weight"), None)


CLASS_LAYERS = ClassLayers(r"(head|auxiliary\.\w+)\.(classifier|skip_classifiers|upsamplings)\.", _classes_of)
"""The layers of heads whose shape depends on the number of classes."""


def require_strides(source: Classifier, strides: Sequence[int], who: str) -> None:
    """Raise :class:`ModelError` unless a backbone has maps of these strides, which the architecture ``who`` reads."""
    if not source.feature_info.keys() >= set(strides):
        has = ", ".join(map(str, source.feature_info))
        needs = ", ".join(map(str, sorted(strides)))
        raise ModelError(f"{who} needs maps of stride {needs}; the backbone has {has}", "choose another backbone")
