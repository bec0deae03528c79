"""How an image becomes a network's input, defined in one place.

It is stored with a model's weights and used alike by training, prediction, evaluation and export.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch


def crop_box(
    width: int, height: int, network_width: int, network_height: int, crop_fraction: float
) -> tuple[float, float, float, float]:
    """The centre of a width × height image that a network's input shows, as x1, y1, x2, y2 in its pixels.

    The image is scaled until the input's size divided by ``crop_fraction`` just fits in; its centre is cut out.
    """
    # On the grid of "scale the shorter side to 256, cut out the central 224", in whole pixels as torchvision and
    # timm count them: the same samples in one pass, so that published weights give their published answers.
    inner_height, inner_width = (int(side / crop_fraction + 1e-6) for side in (network_height, network_width))
    if inner_height * width >= inner_width * height:
        scaled_height, scaled_width = inner_height, max(network_width, int(inner_height * width / height))
    else:
        scaled_height, scaled_width = max(network_height, int(inner_width * height / width)), inner_width
    left, top = round((scaled_width - network_width) / 2), round((scaled_height - network_height) / 2)
    x_scale, y_scale = width / scaled_width, height / scaled_height
    right, bottom = (left + network_width) * x_scale, (top + network_height) * y_scale
    return left * x_scale, top * y_scale, min(float(width), right), min(float(height), bottom)


def fit_box(
    width: float, height: float, network_width: int, network_height: int
) -> tuple[tuple[float, float, float, float], tuple[int, int, int, int]]:
    """A width × height image as large as it fits into a network's input, in its middle.

    Returns:
        What the input shows, as x1, y1, x2, y2 in pixels of the image, beyond which it may reach; and where the image
        lies in the input, x1, y1, x2, y2 in whole pixels of it.
    """
    scale = min(network_width / width, network_height / height)
    inner_width, inner_height = (max(1, round(side * scale)) for side in (width, height))
    left, top = round((network_width - inner_width) / 2), round((network_height - inner_height) / 2)
    x_scale, y_scale = width / inner_width, height / inner_height
    box = -left * x_scale, -top * y_scale, (network_width - left) * x_scale, (network_height - top) * y_scale
    return box, (left, top, left + inner_width, top + inner_height)


_TWO_BY_TWO = "-2x2"


def scaled_2x2(
    image: Image.Image, size: tuple[int, int], filter: Image.Resampling, box: tuple[float, float, float, float]
) -> Image.Image:
    """A part of an image, scaled by its nearest pixels alone.

    Blocks of pixels are averaged before, as long as the part has twice the size or more: of a photograph of twelve
    megapixels most pixels would not count at all, and networks have learnt from images of twice their input's size.
    """
    block = int(min((box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]) / 2)
    if block > 1:
        image, box = image.reduce(block), (box[0] / block, box[1] / block, box[2] / block, box[3] / block)
    return image.transform(size, Image.Transform.EXTENT, box, filter)


@dataclass(frozen=True)
class Preprocessing:
    """From an upright image of any size to a network's input.

    Attributes:
        height: of the network's input in pixels.
        channels: 3 for RGB, 1 for greyscale.
        mean: what is subtracted from each channel, in pixel units 0..255.
        std: what the difference is divided by, in pixel units.
        resize: ``"crop"`` scales the image until the input's size divided by ``crop_fraction`` just fits in, and
            cuts out the centre; ``"stretch"`` scales the whole image, whatever its shape; ``"fit"`` scales it until it
            just fits in, and fills what remains on both sides with ``fill``; ``"tiles"`` scales nothing: the network
            sees tiles of the input's size of an image of any size.
        crop_fraction: input over scaled image along the tighter side (ImageNet's usual 224/256 is 0.875).
        interpolation: the antialiased filter of the scaling; ``"bilinear-2x2"`` interpolates between the four nearest
            pixels, as TensorFlow and OpenCV do, and what they trained expects.
        margin: pixels of a tile on each side whose predictions are not used: their surroundings lie outside.
        scale: how many times as wide and high as its input the network's output is.
        fill: the value, 0..255, of pixels beside an image that is padded; ``mean`` if not set.
    """

    height: int
    width: int
    channels: int = 3
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    resize: Literal["crop", "stretch", "fit", "tiles"] = "crop"
    crop_fraction: float = 0.875
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "bilinear-2x2"] = "bilinear"
    margin: int = 0
    scale: int = 1
    fill: float | None = None

    @property
    def background(self) -> np.ndarray:
        """The colour beside an image: uint8 (channels,)."""
        return np.rint(self.mean if self.fill is None else [self.fill] * self.channels).astype(np.uint8)

    @property
    def is_2x2(self) -> bool:
        """True if pixels are interpolated without antialiasing."""
        return self.interpolation.endswith(_TWO_BY_TWO)

    @property
    def filter(self) -> Image.Resampling:
        """Pillow's filter of the scaling."""
        return Image.Resampling[self.interpolation.removesuffix(_TWO_BY_TWO).upper()]

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of a ``width`` × ``height`` image that the network sees, as x1, y1, x2, y2 in its pixels.

        It reaches beyond an image that is padded. Of those that see tiles the one in the middle.
        """
        if self.resize == "stretch":
            return 0.0, 0.0, float(width), float(height)
        if self.resize == "fit":
            return fit_box(width, height, self.width, self.height)[0]
        if self.resize == "tiles":
            across, down = min(width, self.width), min(height, self.height)
            left, top = (width - across) // 2, (height - down) // 2
            return float(left), float(top), float(left + across), float(top + down)
        return crop_box(width, height, self.width, self.height, self.crop_fraction)

    def reduction(self, width: int, height: int) -> float:
        """Factor by which a ``width`` × ``height`` image may be reduced before :meth:`pixels` sees it.

        Until what the network sees has twice its resolution: antialiased scaling then gives nearly the same, as it
        means over more than two pixels each way anyway. On photographs the greatest difference of an image was 14 of
        255 grey levels, the mean 1.4 (tests/inference/test_reduced_decoding.py holds them to 20 and 2).
        """
        if self.interpolation == "nearest":  # which takes single pixels
            return 1.0
        left, top, right, bottom = self.crop_box(width, height)
        return min((right - left) / self.width, (bottom - top) / self.height) / 2

    def pixels(self, image: Image.Image, original: tuple[int, int, int] | None = None) -> np.ndarray:
        """Crop and scale an upright image in one antialiased pass: uint8 (height, width, channels).

        If the image was reduced, ``original`` is the width and height of the original and how many times, as
        :class:`hubel.data.image_io.DownscaledImage` has them.
        """
        mode = "L" if self.channels == 1 else "RGB"
        if image.mode != mode:  # else Pillow would copy it
            image = image.convert(mode)
        width, height, scale = original or (*image.size, 1)
        scaling = scaled_2x2 if self.is_2x2 else Image.Image.resize
        if self.resize == "fit":
            x1, y1, x2, y2 = fit_box(width, height, self.width, self.height)[1]
            part = (0.0, 0.0, min(width / scale, float(image.width)), min(height / scale, float(image.height)))
            inner = scaling(image, (x2 - x1, y2 - y1), self.filter, part)
            if inner.size == (self.width, self.height):
                return np.asarray(inner).reshape(self.height, self.width, self.channels)
            padded = np.empty((self.height, self.width, self.channels), np.uint8)
            padded[:] = self.background
            padded[y1:y2, x1:x2] = np.asarray(inner).reshape(y2 - y1, x2 - x1, self.channels)
            return padded
        left, top, right, bottom = (side / scale for side in self.crop_box(width, height))
        box = left, top, min(right, float(image.width)), min(bottom, float(image.height))
        size = (self.width, self.height)
        scaled = scaling(image, size, self.filter, box)
        return np.asarray(scaled).reshape(self.height, self.width, self.channels)

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels (N, C, H, W), 0..255, into the float32 input of the network, same layout."""
        import torch

        mean = torch.tensor(self.mean, device=pixels.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, -1, 1, 1)
        return pixels.float().sub_(mean).div_(std)

    def antialiased(self) -> Preprocessing:
        """The same with antialiasing, as crops and augmentations are scaled."""
        return replace(self, interpolation="bilinear") if self.is_2x2 else self

    def resized(self, image_size: int) -> Preprocessing:
        """The same preprocessing for an input of the same shape, ``image_size`` pixels high."""
        return replace(self, height=image_size, width=round(image_size * self.width / self.height))

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, as it stands in ``model.json``."""
        record = {**asdict(self), "mean": list(self.mean), "std": list(self.std)}
        if self.resize != "tiles":  # as earlier versions write and read it
            del record["margin"], record["scale"]
        if self.fill is None:
            del record["fill"]
        return record

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Preprocessing:
        """The inverse of :meth:`to_json`; raises ``TypeError`` on unknown keys."""
        return cls(**{**row, "mean": tuple(row["mean"]), "std": tuple(row["std"])})
