"""Parts of photographs as pairs: a small one, for the network, and the large one that it should make of it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from hubel.data.photographs import reduced, whole_blocks
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Target
from hubel.data.transforms.pipeline import Decoded, Transform, resolve_names

PAIR_AUGMENTATIONS = {
    "jpeg": "the small image is damaged by JPEG, of a random quality from 30 to 95, in half of the cases",
    "flip": "flips from left to right and upside down, each with probability 0.5",
    "turn": "a quarter turn with probability 0.5",
}
"""What changes a pair, in the order of application, with a sentence for a person."""

PARTS = 4
"""Parts of each image in a batch: what is read and decoded once is used more than once."""

_QUALITIES = (30, 96)


def check_pair_augmentations(names: Sequence[str]) -> tuple[str, ...]:
    """The names as :func:`~hubel.data.transforms.pipeline.resolve_names` gives them."""
    return resolve_names(names, tuple(PAIR_AUGMENTATIONS), {})


class PairTransform(Transform):
    """:data:`PARTS` square parts of each image, with targets that hold the large parts.

    In training (``random``) the parts are anywhere, in validation around the centre, a row of two above a row of two.
    Images that are smaller than a part are mirrored at their borders.
    """

    def __init__(self, preprocessing: Preprocessing, names: Sequence[str] = (), random: bool = False) -> None:
        super().__init__(preprocessing, crops=True)
        self.scale, self.random = preprocessing.scale, random
        self._names = check_pair_augmentations(names)

    def reduction(self, width: int, height: int) -> float:
        """Images are never reduced: the finest pixels are what is to be learnt."""
        return 1.0

    def dummy_target(self) -> Target:
        """A black image."""
        height, width, channels = self.shape
        return Target(image=np.zeros((height * self.scale, width * self.scale, channels), np.uint8))

    def __call__(self, groups: Sequence[Sequence[Decoded]], seeds: Sequence[int]) -> tuple[np.ndarray, list[Target]]:
        """See :class:`Transform`: small parts, and targets with the large ones."""
        smalls: list[np.ndarray] = []
        targets: list[Target] = []
        for group, seed in zip(groups, seeds, strict=True):
            pixels = self._at_least_a_part(group[0].pixels)
            generator = np.random.default_rng(seed)
            for part in range(PARTS):
                small, large = self._pair(pixels, part, generator)
                smalls.append(small)
                targets.append(Target(image=large))
        return np.stack(smalls), targets

    def _at_least_a_part(self, pixels: np.ndarray) -> np.ndarray:
        missing = [max(0, self.scale * side - has) for side, has in zip(self.shape, pixels.shape[:2], strict=False)]
        if any(missing):
            pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
        return whole_blocks(pixels, self.scale)

    def _pair(self, pixels: np.ndarray, part: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        side, scale = self.shape[0], self.scale
        free = pixels.shape[0] // scale - side, pixels.shape[1] // scale - side
        if self.random:
            y, x = (int(generator.integers(most + 1)) for most in free)
        else:
            y, x = ((most * (1 + 2 * place)) // 4 for most, place in zip(free, divmod(part, 2), strict=True))
        large = pixels[y * scale : (y + side) * scale, x * scale : (x + side) * scale]
        small = reduced(pixels, scale, (x, y, x + side, y + side)).reshape(side, side, -1)
        if "jpeg" in self._names and generator.random() < 0.5:
            small = through_jpeg(small, int(generator.integers(*_QUALITIES)))
        if "flip" in self._names:
            for axis in (0, 1):
                if generator.random() < 0.5:
                    small, large = np.flip(small, axis), np.flip(large, axis)
        if "turn" in self._names and generator.random() < 0.5:
            small, large = np.rot90(small), np.rot90(large)
        return np.ascontiguousarray(small), np.ascontiguousarray(large)


def through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Pixels (H, W, C) after they have been a JPEG file of a quality from 1 to 95."""
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(pixels.shape)
