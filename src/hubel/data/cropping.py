"""Which part of a picture a network sees.

This file uses nothing but the language: exported models carry its function, as it stands here, in their example of use
without hubel (``hubel.runtime.exporting.example``).
"""

from __future__ import annotations


def crop_box(
    width: int, height: int, network_width: int, network_height: int, crop_fraction: float
) -> tuple[float, float, float, float]:
    """The centre of a width × height picture that a network's input shows, as x1, y1, x2, y2 in its pixels.

    The picture is scaled until the input's size divided by ``crop_fraction`` just fits in; its centre is cut out.
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
