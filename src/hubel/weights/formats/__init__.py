"""Parameter names of other libraries, a family of architectures a file: tables of data.

A format is recognized by one key that no other has, and translated by the first of its rules whose pattern
matches the whole key. Where the library also lays tensors out in another way, adaptations put that right.
"""

from __future__ import annotations

from hubel.weights.formats import efficientnet_lite, resnet
from hubel.weights.formats.format import Format

FORMATS: tuple[Format, ...] = (
    *resnet.FORMATS,
    *efficientnet_lite.FORMATS,
)
