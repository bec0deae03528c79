"""The one definition of how an image becomes a network's input.

It is stored with a model's weights and used alike by training (for validation), prediction, evaluation and
export, so that they cannot drift apart.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """From an upright image of any size to a network's input.

    Attributes:
        height: of the network's input in pixels.
        width: of the network's input in pixels.
        channels: 3 for RGB, 1 for greyscale.
        mean: what is subtracted from each channel, in pixel units 0..255.
        std: what the difference is divided by, in pixel units.
        resize: ``"crop"`` scales the image until the input's size divided by ``crop_fraction`` just fits in, and
            cuts out the centre; ``"stretch"`` scales the whole image, whatever its shape.
        crop_fraction: input over scaled image along the tighter side (ImageNet's usual 224/256 is 0.875).
        interpolation: the antialiased filter of the scaling: nearest, bilinear, bicubic, lanczos.
    """

    height: int
    width: int
    channels: int = 3
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    resize: Literal["crop", "stretch"] = "crop"
    crop_fraction: float = 0.875
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of a ``width`` × ``height`` image that the network sees, as x1, y1, x2, y2 in its pixels."""
        if self.resize == "stretch":
            return 0.0, 0.0, float(width), float(height)
        # On the grid of "scale the shorter side to 256, cut out the central 224", in whole pixels as torchvision and
        # timm count them: the same samples in one pass, so that published weights give their published answers.
        inner_height, inner_width = (int(side / self.crop_fraction + 1e-6) for side in (self.height, self.width))
        if inner_height * width >= inner_width * height:
            scaled_height, scaled_width = inner_height, max(self.width, int(inner_height * width / height))
        else:
            scaled_height, scaled_width = max(self.height, int(inner_width * height / width)), inner_width
        left, top = round((scaled_width - self.width) / 2), round((scaled_height - self.height) / 2)
        x_scale, y_scale = width / scaled_width, height / scaled_height
        right, bottom = (left + self.width) * x_scale, (top + self.height) * y_scale
        return left * x_scale, top * y_scale, min(float(width), right), min(float(height), bottom)

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Crop and scale in one antialiased pass.

        Args:
            image: upright, mode RGB (or L), any size.

        Returns:
            uint8 array (height, width, channels), 0..255.
        """
        wanted = "L" if self.channels == 1 else "RGB"
        if image.mode != wanted:
            image = image.convert(wanted)
        box = self.crop_box(*image.size)
        scaled = image.resize((self.width, self.height), _FILTERS[self.interpolation], box=box)
        return np.asarray(scaled).reshape(self.height, self.width, self.channels)

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels (N, C, H, W), 0..255, into the float32 input of the network, same layout."""
        import torch

        mean = torch.tensor(self.mean, device=pixels.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, -1, 1, 1)
        return pixels.float().sub_(mean).div_(std)

    def resized(self, image_size: int) -> Preprocessing:
        """The same preprocessing for a square input of ``image_size`` pixels."""
        return replace(self, height=image_size, width=image_size)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, as it stands in ``model.json``."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Preprocessing:
        """The inverse of :meth:`to_json`; raises ``TypeError`` on unknown keys."""
        return cls(**{**row, "mean": tuple(row["mean"]), "std": tuple(row["std"])})
