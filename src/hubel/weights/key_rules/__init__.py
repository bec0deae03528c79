"""Parameter names of other libraries, a family of architectures a file: tables of data.

A format is recognized by one key that no other has, and translated by the first of its rules whose pattern
matches the whole key. Where the library also lays tensors out in another way, adaptations put that right.
"""

from __future__ import annotations

from hubel.weights.key_rules import (
    alexnet,
    cspnet,
    densenet,
    efficientnet,
    efficientnet_lite,
    googlenet,
    inception,
    mobilenet,
    resnet,
    ssd,
    vgg,
    xception,
)
from hubel.weights.key_rules.key_rules import KeyRules

FORMATS: tuple[KeyRules, ...] = (
    *alexnet.FORMATS,
    *vgg.FORMATS,
    *googlenet.FORMATS,
    *inception.FORMATS,
    *xception.FORMATS,
    *resnet.FORMATS,
    *densenet.FORMATS,
    *cspnet.FORMATS,
    *mobilenet.FORMATS,
    *efficientnet.FORMATS,
    *efficientnet_lite.FORMATS,
    *ssd.FORMATS,
)
