"""What all networks for super-resolution have in common: colours, targets, losses, and the enlarged image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from hubel.errors import ModelError
from hubel.layers.sub_pixel import BicubicUpsampling
from hubel.models.base import Model

LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
"""Weights of red, green and blue in the luma Y of ITU-R BT.601, which is 16 to 235 of 255 (MATLAB's ``rgb2ycbcr``)."""
_BLACK, _RANGE = 16 / 255, 219 / 255

_CHARBONNIER = 1e-3
"""Of pixel values 0..1: where Charbonnier's loss turns from a parabola into an absolute value."""


@dataclass(frozen=True)
class EnlargedTargets:
    """The images that enlarged ones should be: float (N, C, scale · H, scale · W), 0..1."""

    images: Tensor

    @property
    def weight(self) -> float:
        """The images."""
        return float(len(self.images))


class Enlarger(Model):
    """A network that enlarges images by :attr:`scale`.

    Images, small and enlarged, are RGB or grey, float 0..1. A network of luma (``of_luma``) sees and gives the Y of
    BT.601 alone, as its paper does, and the other two channels of Y, Cb and Cr are interpolated; in RGB this adds to
    each channel of the interpolated image by how much the network's Y differs from the interpolated Y.

    With ``residual`` the network gives what is added to bicubic interpolation; otherwise the image itself.

    Targets are :class:`EnlargedTargets`.
    """

    is_sequential = False
    takes_any_input = True
    prediction_names = ("image",)
    loss_weights: Mapping[str, float] = {"l1": 1.0, "charbonnier": 0.0, "mse": 0.0}

    def __init__(
        self,
        backbone: nn.Sequential,
        head: nn.Module,
        scale: int,
        in_channels: int,
        map_channels: int,
        of_luma: bool,
        residual: bool,
    ) -> None:
        last = [name for name, _ in backbone.named_children()][-1]
        super().__init__(backbone, head, {1: (last, map_channels)})
        self.scale, self.of_luma, self.residual = scale, of_luma, residual
        if in_channels not in (1, 3):
            raise ModelError(f"images of {in_channels} channels cannot be enlarged", "use 3 (RGB) or 1 (grey)")
        self.bicubic = BicubicUpsampling(in_channels, scale)

    def _network_input(self, images: Tensor) -> Tensor:
        return self._luma(images) if self.of_luma else images

    def _luma(self, images: Tensor) -> Tensor:
        return luma(images) if self.bicubic.channels == 3 else images * _RANGE + _BLACK

    def forward(self, images: Tensor) -> Tensor:
        """Enlarged images (N, C, scale · H, scale · W) of images (N, C, H, W); values may leave 0..1 a little."""
        enlarged: Tensor = self.head(self.backbone(self._network_input(images)))
        if not self.of_luma:
            return self.bicubic(images) + enlarged if self.residual else enlarged
        interpolated: Tensor = self.bicubic(images)
        change = enlarged if self.residual else enlarged - self._luma(interpolated)
        return interpolated + change / _RANGE

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """The last maps at the resolution of the small image: ``{1: (N, channels, H, W)}``."""
        return super().features(self._network_input(images))

    def predictions(self, outputs: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """``"image"``: float32 (N, scale · H, scale · W, C), 0..255, not rounded."""
        return {"image": (outputs.float().clamp(0, 1) * 255).permute(0, 2, 3, 1)}

    def losses(self, outputs: Tensor, targets: EnlargedTargets) -> dict[str, Tensor]:
        """Mean differences of pixels: absolute, Charbonnier's (Lai et al. 2017, arXiv 1704.03915, eq. 2), or squared.

        Of luma networks those of Y; without borders of ``scale`` pixels, whose surroundings the network does not see.
        """
        border = slice(self.scale, -self.scale)
        one, other = outputs[:, :, border, border], targets.images[:, :, border, border]
        if self.of_luma:
            one, other = self._luma(one), self._luma(other)
        terms = {
            "l1": lambda: functional.l1_loss(one, other),
            "charbonnier": lambda: ((one - other).square() + _CHARBONNIER**2).sqrt().mean(),
            "mse": lambda: functional.mse_loss(one, other),
        }
        return {name: weight * terms[name]() for name, weight in self.loss_weights.items() if weight}


def luma(images: Tensor) -> Tensor:
    """The Y of BT.601 (N, 1, H, W), 16/255 to 235/255, of RGB images (N, 3, H, W), 0..1."""
    red, green, blue = (weight * images[:, channel : channel + 1] for channel, weight in enumerate(LUMA))
    return red + green + blue + _BLACK
