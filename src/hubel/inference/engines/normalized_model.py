"""Normalization, network and decoding as one graph, from uint8 pixels to predictions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hubel.data.preprocessing import Preprocessing
from hubel.inference.fusion import fold

INPUT_NAME = "pixels"
SMALLEST_INPUT = 33
"""Pixels of a side where images may have any: maps of stride 32 have two then, and torch.export takes one as fixed."""

Decode = Callable[[Any, tuple[int, int]], dict[str, Tensor]]
"""From raw outputs, and height and width of the images, to predictions by name."""


def decoding_of(model: nn.Module) -> tuple[tuple[str, ...], Decode]:
    """Names of a model's predictions, and the function that decodes its raw outputs.

    A module without :meth:`~hubel.models.base.Model.predictions` is taken for a classifier that gives raw scores
    (N, classes).
    """
    names: tuple[str, ...] = getattr(model, "prediction_names", ())
    if not names:
        return ("probabilities",), lambda scores, _: {"probabilities": torch.softmax(scores.float(), 1)}
    decode: Decode = model.predictions  # type: ignore[assignment]
    return names, decode


class NormalizedModel(nn.Module):
    """The graph that engines convert and that is exported; its predictions are float32, whatever the weights.

    Cropping and scaling stay outside, as a graph has no antialiased resizing that equals Pillow's: they travel beside
    it, as :meth:`~hubel.data.preprocessing.Preprocessing.to_json` writes them.
    The module maps images (N, C, H, W) to raw outputs. It is left as it is; a copy is prepared for prediction: in
    evaluation mode, on the CPU, normalization in the weights before it, without what only training needs. Normalization
    and decoding are computed in float32, also where weights and feature maps have another ``dtype``.

    Attributes:
        output_names: in the order of the outputs.
        input_size: height, width and channels of the pixels.
        static_batch: the graph takes exactly one image.
        any_size: the graph takes images of any height and width, of at least ``smallest`` pixels.
        selects_regions: see :class:`~hubel.models.base.Model`.
    """

    mean: Tensor
    std: Tensor
    static_batch = False

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        dtype: torch.dtype = torch.float32,
        any_size: bool = False,
    ) -> None:
        super().__init__()
        self.model = fold(model).cpu().requires_grad_(False)
        if hasattr(self.model, "auxiliary"):
            self.model.auxiliary = nn.ModuleDict()
        self.output_names, self._decode = decoding_of(self.model)
        self.of_tiles = preprocessing.resize == "tiles"
        self.any_size = any_size or self.of_tiles
        self.smallest = 2 if self.of_tiles else SMALLEST_INPUT
        self.selects_regions: bool = getattr(model, "selects_regions", False)
        if self.selects_regions:
            import torchvision  # noqa: F401 – registers its operators, which it cannot do while a graph is recorded
        self.input_size = (preprocessing.height, preprocessing.width, preprocessing.channels)
        self.model.to(dtype)
        if dtype != torch.float32:
            _protect_squares(self.model)
        self._dtype = dtype
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))

    def predict(self, pixels: Tensor) -> dict[str, Tensor]:
        """Predictions by name of uint8 pixels (N, H, W, C), as :meth:`Preprocessing.pixels` gives them, stacked."""
        images = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return self._decode(self.model(images.to(self._dtype)), self._size_of(pixels))

    def _size_of(self, pixels: Tensor) -> tuple[int, int]:
        return (pixels.shape[1], pixels.shape[2]) if self.any_size else self.input_size[:2]

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The predictions in the order of their names, or the only one."""
        predictions = self.predict(pixels)
        outputs = tuple(predictions[name] for name in self.output_names)
        return outputs[0] if len(outputs) == 1 else outputs

    def zeros(self) -> Tensor:
        """Black images to trace with: two, as ``torch.export`` would take a batch of one for a constant."""
        return torch.zeros(1 if self.static_batch else 2, *self.input_size, dtype=torch.uint8)


class _InFloat32(nn.Module):
    """A layer that computes in float32 whatever it is given, and gives back the same dtype."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, maps: Tensor) -> Tensor:
        result: Tensor = self.layer(maps.float()).to(maps.dtype)
        return result


def _protect_squares(network: nn.Module) -> None:
    """Compute local response normalization in float32: torch has no other on CPUs.

    It squares the maps, too, and half floats end at 65504, which is less than 256².
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LocalResponseNorm):
                setattr(parent, name, _InFloat32(child))


def capture(model: NormalizedModel) -> torch.export.ExportedProgram:
    """The graph for any number of images, or exactly one with ``static_batch``; of any size with ``any_size``."""
    sides = ((1, "height"), (2, "width")) if model.any_size else ()
    sizes = {axis: torch.export.Dim(name, min=model.smallest) for axis, name in sides}
    batch = None if model.static_batch else {INPUT_NAME: {0: torch.export.Dim("batch", min=1), **sizes}}
    with torch.no_grad(), warnings.catch_warnings():
        # torchvision's NMS calls by its old name what torch has renamed.
        warnings.filterwarnings(
            "ignore", "`create_unbacked_symint`", FutureWarning, r"torchvision\._meta_registrations"
        )
        if not sizes:
            return torch.export.export(model, (model.zeros(),), dynamic_shapes=batch)
        # That the maps of two strides fit each other at every size is true, but more than torch can prove: it would
        # refuse. What it puts into the graph instead, to be checked there, other libraries do not know.
        program = torch.export.export(
            model, (model.zeros(),), dynamic_shapes=batch, prefer_deferred_runtime_asserts_over_guards=True
        )
    for node in reversed(program.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program
