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
        resize: ``"crop"`` takes the largest centred box of the input's aspect ratio, shrunk by
            ``crop_fraction``, and scales it to the input; ``"stretch"`` scales the whole image.
        crop_fraction: share of the largest centred box that is kept (ImageNet's usual 224/256 is 0.875).
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
        scale = min(width / self.width, height / self.height) * self.crop_fraction
        box_width, box_height = self.width * scale, self.height * scale
        # Rounding may put a box of the whole width a hair outside the image.
        left, top = max(0.0, (width - box_width) / 2), max(0.0, (height - box_height) / 2)
        return left, top, min(float(width), left + box_width), min(float(height), top + box_height)

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
