"""Random changes of training images that keep the class of the whole image, each with a name.

They are torchvision's (``torchvision.transforms.v2``), on Pillow images, before the pixels become an array; MixUp and
CutMix blend whole batches and come after.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Target
from hubel.data.transforms.pipeline import Decoded, Transform, resolve_names

_SMALLEST_CROP = 0.35  # of the image's area
_NARROWEST_CROP = 3 / 4  # width over height
_WINDOW = 256 / 224  # what AlexNet's windows are taken from, over their size
_FLIPPED = 0.5
# Of the covariance of ImageNet's pixels in 0..1: eigenvalues, and as columns the eigenvectors (red, green, blue).
# Source: Facebook's fb.resnet.torch, datasets/imagenet.lua; MXNet's and others' are the same.
_COLOUR_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_COLOUR_EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


class Lighting:
    """PCA lighting: one shift of the colour for the whole image, along the principal components of ImageNet's colours.

    Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 4.1: the sum of
    the eigenvectors, each times its eigenvalue times a Gaussian of deviation 0.1. The eigenvalues are those of pixels
    in 0..1, as in Facebook's and MXNet's training, and the sum is scaled with the pixels: a deviation of 5.5 of 255
    along the first component. (Those of pixels in 0..255 would make every image black or white. Krizhevsky's later
    code, cuda-convnet2, takes their square roots: a deviation of 12.)
    """

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image, mode RGB, with all pixels shifted alike; greyscale (L) gets the mean of the three shifts."""
        multiples = 0.1 * torch.randn(3).numpy() * _COLOUR_EIGENVALUES
        shift = 255 * _COLOUR_EIGENVECTORS @ multiples
        if image.mode == "L":
            shift = shift.mean(keepdims=True)
        table = np.clip(np.rint(np.arange(256) + shift[:, None]), 0, 255)
        return image.point(table.astype(int).ravel().tolist())


def _random_window(size: Preprocessing) -> v2.Compose:
    """AlexNet's crops: of the central 256 × 256 pixels of an image whose shorter side is 256, any 224 × 224."""
    height, width = (round(side * _WINDOW) for side in (size.height, size.width))
    scaled = v2.Resize(max(height, width), interpolation=v2.InterpolationMode(size.interpolation))
    return v2.Compose([scaled, v2.CenterCrop((height, width)), v2.RandomCrop((size.height, size.width))])


def _random_erasing(size: Preprocessing) -> v2.Compose:
    """Of the paper's fillings the mean colour, which is zero for the network, as outside of a padded image."""
    fill = [round(value) for value in size.mean[: size.channels]]
    return v2.Compose([v2.PILToTensor(), v2.RandomErasing(p=0.5, value=fill), v2.ToPILImage()])


# What a person reads, and how to build it for a given input, in the order in which they are applied: geometry of the
# whole image, crop to the input's size, then colour.
IMAGE_AUGMENTATIONS: dict[str, tuple[str, Callable[[Preprocessing], Any]]] = {
    "rotation": (
        "rotation by up to 15 degrees",
        lambda size: v2.RandomRotation(15, interpolation=v2.InterpolationMode.BILINEAR),
    ),
    "shift": ("shift by up to 10 % of the width and height", lambda size: v2.RandomAffine(0, translate=(0.1, 0.1))),
    "window": (
        "random window of the input's size in the central square of the image, which is 8/7 as large "
        "(Krizhevsky et al. 2012, section 4.1)",
        _random_window,
    ),
    "crop": (
        "random crop of 35 to 100 % of the area, aspect ratio 3/4 to 4/3, scaled to the input "
        "(Szegedy et al. 2015, arXiv 1409.4842, section 6)",
        lambda size: v2.RandomResizedCrop(
            (size.height, size.width),
            scale=(_SMALLEST_CROP, 1.0),
            ratio=(_NARROWEST_CROP, 1 / _NARROWEST_CROP),
            interpolation=v2.InterpolationMode(size.interpolation),
        ),
    ),
    "flip": ("horizontal flip with probability 0.5", lambda size: v2.RandomHorizontalFlip(_FLIPPED)),
    "contrast": (
        "contrast and brightness changed by up to 20 %",
        lambda size: v2.ColorJitter(brightness=0.2, contrast=0.2),
    ),
    "color": (
        "saturation changed by up to 20 %, hue by up to 2 % of the circle",
        lambda size: v2.ColorJitter(saturation=0.2, hue=0.02),
    ),
    "lighting": (
        "PCA lighting: a shift along the principal components of ImageNet's colours "
        "(Krizhevsky et al. 2012, section 4.1)",
        lambda size: Lighting(),
    ),
    "randaugment": (
        "RandAugment: two of fourteen changes at magnitude 7 of 30 (Cubuk et al. 2020, arXiv 1909.13719)",
        lambda size: v2.RandAugment(num_ops=2, magnitude=7),
    ),
    "trivialaugment": (
        "TrivialAugment: one of fourteen changes at a random magnitude (Müller and Hutter 2021, arXiv 2103.10158)",
        lambda size: v2.TrivialAugmentWide(),
    ),
    "augmix": (
        "AugMix: three chains of one to three changes, mixed with the image (Hendrycks et al. 2020, arXiv 1912.02781)",
        lambda size: v2.AugMix(),
    ),
    "erasing": (
        "random erasing: with probability 0.5, a box of 2 to 33 % of the area gets the mean colour "
        "(Zhong et al. 2017, arXiv 1708.04896)",
        _random_erasing,
    ),
}

BATCH_AUGMENTATIONS: dict[str, str] = {
    "mixup": "MixUp: pairs of images and their labels blended, in half of the batches "
    "(Zhang et al. 2018, arXiv 1710.09412)",
    "cutmix": "CutMix: a box of one image pasted into another, labels by area, in half of the batches "
    "(Yun et al. 2019, arXiv 1905.04899)",
}

_PRESETS = {"alexnet": ("window", "flip", "lighting")}  # what a paper trained with, as one name


def check_augmentations(names: Sequence[str]) -> tuple[str, ...]:
    """The names as :func:`~hubel.data.transforms.pipeline.resolve_names` gives them."""
    return resolve_names(names, (*IMAGE_AUGMENTATIONS, *BATCH_AUGMENTATIONS), _PRESETS)


def describe_augmentations(names: Sequence[str]) -> list[str]:
    """One sentence for each augmentation, in the order of application."""
    sentences = {name: description for name, (description, _) in IMAGE_AUGMENTATIONS.items()} | BATCH_AUGMENTATIONS
    return [sentences[name] for name in check_augmentations(names)]


class ImageTransform(Transform):
    """Images of one class each; without names as for prediction. Names of batch augmentations are ignored."""

    def __init__(self, preprocessing: Preprocessing, names: Sequence[str] = ()) -> None:
        chosen = [name for name in IMAGE_AUGMENTATIONS if name in names]
        super().__init__(preprocessing, crops="crop" in chosen or "window" in chosen)
        self._only_flips = chosen == ["flip"]
        self._transforms = [IMAGE_AUGMENTATIONS[name][1](preprocessing) for name in chosen]

    def __call__(self, groups: Sequence[Sequence[Decoded]], seeds: Sequence[int]) -> tuple[np.ndarray, list[Target]]:
        """See :class:`Transform`; torch's global generator is seeded for each image, and left as it was."""
        arrays = [group[0].pixels for group in groups]
        targets = [Target(group[0].label) for group in groups]
        if not self._transforms:
            return np.stack(arrays), targets
        with torch.random.fork_rng(devices=[]):  # once per batch: it takes longer than changing a small image
            return self._augmented(arrays, seeds), targets

    def smallest_crop(self, width: int, height: int) -> float:
        """Of a random resized crop at its smallest and narrowest."""
        target = max(self.preprocessing.height, self.preprocessing.width)
        return min(width, height, math.sqrt(_SMALLEST_CROP * _NARROWEST_CROP * width * height)) / target

    def _augmented(self, arrays: Sequence[np.ndarray], seeds: Sequence[int]) -> np.ndarray:
        if not self._only_flips:
            return np.stack([self.augment(pixels, seed) for pixels, seed in zip(arrays, seeds, strict=True)])
        # The same draws and the same pixels as torchvision's flips one by one, at a tenth of the cost.
        batch = np.stack(arrays)
        seeded = torch.default_generator.manual_seed
        flipped = [float(torch.rand(1, generator=seeded(seed))) < _FLIPPED for seed in seeds]
        batch[flipped] = batch[flipped, :, ::-1]
        return batch

    def augment(self, pixels: np.ndarray, seed: int) -> np.ndarray:
        """One randomly changed image, uint8 (height, width, channels), of what :meth:`prepare` gave."""
        torch.default_generator.manual_seed(seed)
        size, transforms = self.preprocessing, self._transforms
        box: dict[str, int] | None = None
        if transforms and isinstance(transforms[0], v2.RandomResizedCrop):
            # Where the crop lies needs the image's size only: what is outside need not become an image first.
            box = transforms[0].make_params([torch.empty(1, *pixels.shape[:2], device="meta")])
            pixels = pixels[box["top"] : box["top"] + box["height"], box["left"] : box["left"] + box["width"]]
        image: Any = Image.fromarray(pixels[:, :, 0] if size.channels == 1 else pixels)
        if box is not None:
            image = transforms[0].transform(image, {**box, "top": 0, "left": 0})
        for transform in transforms[box is not None :]:
            image = transform(image)
        return np.array(image).reshape(size.height, size.width, size.channels)


class MixUpCutMix:
    """MixUp and CutMix on a training batch: in every second batch, one of those switched on.

    Draws from torch's global random generator. Calling it with images (N, C, H, W) float and labels (N,) gives
    images and targets: the labels as they came, or rows of class probabilities (N, classes).
    """

    def __init__(self, names: Sequence[str], num_classes: int) -> None:
        blends = {"mixup": v2.MixUp(alpha=0.2, num_classes=num_classes), "cutmix": v2.CutMix(num_classes=num_classes)}
        choices = [blend for name, blend in blends.items() if name in names]
        self._blend = v2.RandomApply([v2.RandomChoice(choices)], p=0.5) if choices else None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images and targets, blended or as they came."""
        if self._blend is None or len(images) < 2:
            return images, labels
        blended, targets = self._blend(images, labels)
        return blended, targets
