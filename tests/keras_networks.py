"""Keras's applications with random weights that show errors, saved as Keras saves them, and what they answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import h5py
import keras
import numpy as np
import torch
from keras.src.legacy.saving import legacy_h5_format
from torch import Tensor

KINDS = (".weights.h5", ".keras", ".h5", "_published.h5")


def keras_application(name: str, size: int = 64, seed: int = 0, **arguments: Any) -> keras.Model:
    """An application such as ``"ResNet50"`` for images of ``size`` pixels, which gives logits.

    Random weights, He's rather than Keras's Glorot, so that signals reach the end without normalization too.
    Biases are random. Batch normalizations have the statistics of a batch of noise, then shaken, and random
    scales and shifts: fresh ones are the identity, under which wrong epsilons, orders and keys go unseen.
    Layers that rescale pixels are switched off, so that the network takes what ours takes.

    Args:
        name: of a function in ``keras.applications``.
        size: side of the images in pixels; most applications want 32, the Inceptions 75 at least.
        seed: of the random weights.
        arguments: further ones of the function, e.g. ``alpha=0.5``, ``include_preprocessing=False``.
    """
    keras.utils.set_random_seed(seed)
    defaults = {"weights": None, "classifier_activation": None, "input_shape": (size, size, 3)}
    model = getattr(keras.applications, name)(**{**defaults, **arguments})
    noise = np.random.default_rng(seed)
    norms = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Rescaling):
            layer.scale, layer.offset = 1.0, 0.0
        if isinstance(layer, keras.layers.BatchNormalization):
            norms.append(layer)
            continue
        if type(layer) in (keras.layers.Conv2D, keras.layers.Dense):
            layer.kernel.assign(layer.kernel * 2**0.5)
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(noise.normal(0, 0.1, layer.bias.shape))
    _give_statistics(model, norms, noise)
    return model


def _give_statistics(model: keras.Model, norms: list[Any], noise: np.random.Generator) -> None:
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # what counts is the last batch
    with torch.no_grad():
        model(noise.normal(size=(4, *model.input_shape[1:])).astype(np.float32), training=bool(norms))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        mean, variance = (keras.ops.convert_to_numpy(v) for v in (norm.moving_mean, norm.moving_variance))
        norm.moving_mean.assign(mean + 0.1 * np.sqrt(variance) * noise.normal(size=mean.shape))
        norm.moving_variance.assign(variance * noise.uniform(0.8, 1.25, variance.shape))
        if norm.scale:
            norm.gamma.assign(noise.uniform(0.3, 0.9, mean.shape))
        if norm.center:
            norm.beta.assign(noise.normal(0, 0.1, mean.shape))


def keras_file(model: keras.Model, folder: Path, kind: str = ".weights.h5") -> Path:
    """Save a model, and say where.

    Args:
        model: as :func:`keras_application` gives it.
        folder: an existing one, such as ``tmp_path``.
        kind: one of ``KINDS``: weights alone, a whole model, a whole model as Keras 2 saved it, and weights alone
            as Keras 2 saved them, which is what ``weights="imagenet"`` downloads to this day.
    """
    path = folder / f"{model.name}{kind}"
    if kind == ".weights.h5":
        model.save_weights(path)
    elif kind == "_published.h5":
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)
    else:
        model.save(path)
    return path


def keras_logits(model: keras.Model, images: Tensor) -> Tensor:
    """What a Keras model answers in evaluation (N, classes) to images (N, C, H, W) that are normalized already."""
    with torch.no_grad():
        scores = model(images.permute(0, 2, 3, 1).contiguous(), training=False)
    return scores.detach().cpu()
