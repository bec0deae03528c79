"""Local response normalization: a map is damped where its neighbours answer strongly."""

from __future__ import annotations

from torch import nn


def local_response_norm(size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> nn.LocalResponseNorm:
    """``b_i = a_i / (k + alpha * sum of a_j² over size neighbouring maps j) ** beta``.

    Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 3.3, whose
    constants are the defaults. torch divides its α by the number of maps, so it is given ``alpha * size``
    (TensorFlow does not divide, and calls ``size // 2`` the depth radius). Maps keep their shape (N, C, H, W).

    Args:
        size: maps in the sum; odd, centred on the map itself, fewer at the first and last maps.
        alpha: of each square in the sum.
        beta: exponent.
        k: added to the sum.
    """
    return nn.LocalResponseNorm(size, alpha * size, beta, k)
