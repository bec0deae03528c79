"""Makes a trained network faster without changing its output.

Three steps: batch normalization goes into the weights of the convolution before it; the activation is computed by
the convolution itself, while its output is still in the processor's cache; and so is the sum with a shortcut and
the activation after it. The last two need oneDNN, which x86 builds of torch carry.
"""

from __future__ import annotations

import copy
import operator
import platform
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.padding import SameConv2d, same_padding

# Activations that oneDNN computes within the convolution: its name and its parameters. torch does not pass it Mish.
_FUSED_ACTIVATIONS: dict[type[nn.Module], tuple[str, Callable[[Any], list[float]]]] = {
    nn.Identity: ("none", lambda _: []),
    nn.ReLU: ("relu", lambda _: []),
    nn.ReLU6: ("hardtanh", lambda _: [0.0, 6.0]),
    nn.LeakyReLU: ("leaky_relu", lambda activation: [activation.negative_slope]),
    nn.SiLU: ("swish", lambda _: []),
    nn.Hardswish: ("hardswish", lambda _: []),
}


def fuse(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A copy prepared for prediction: in evaluation mode, with weights of ``dtype``, stored channels-last.

    It maps the same images (N, C, H, W) to the same output, up to rounding, and is fastest at the image size that it
    sees first.
    """
    onednn = device.type == "cpu" and _onednn_fuses(dtype)

    def replacement(unit: ConvNormActivation) -> nn.Module:
        folded = FoldedConvolution(unit)
        return OneDnnConvolution(folded, dtype) if onednn and OneDnnConvolution.fits(folded.conv) else folded

    fused = _with_units_replaced(model, replacement)
    fused = fused.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
    return _fuse_sums(fused) if onednn else fused


def fold(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose normalizations are in the weights of the convolutions before them.

    It is made of plain layers of torch, so that other engines' converters can read it.
    """
    return _with_units_replaced(model, FoldedConvolution)


def _with_units_replaced(model: nn.Module, replacement: Callable[[ConvNormActivation], nn.Module]) -> nn.Module:
    # In deepcopy's memo, the replacements take the place of the units in the copy.
    replacements = {
        id(unit): replacement(unit)
        for unit in model.modules()
        if isinstance(unit, ConvNormActivation) and _foldable(unit.norm)
    }
    return copy.deepcopy(model, dict(replacements)).eval()


def _foldable(norm: nn.Module) -> bool:
    return isinstance(norm, nn.Identity) or (isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None)


class FoldedConvolution(nn.Module):
    """``activation(conv(images))`` with the weights of a :class:`ConvNormActivation`'s normalization multiplied in.

    With γ, β, the running mean μ and variance σ² (Ioffe and Szegedy 2015, arXiv 1502.03167, algorithm 2):
    ``weight · γ / √(σ² + ε)`` and ``β + (bias - μ) · γ / √(σ² + ε)``.
    """

    def __init__(self, unit: ConvNormActivation) -> None:
        super().__init__()
        weight, norm = unit.conv.weight.detach(), unit.norm
        bias = None if unit.conv.bias is None else unit.conv.bias.detach()
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
            scale, offset = (norm.running_var + norm.eps).rsqrt(), torch.tensor(0.0)
            if norm.affine:
                scale, offset = scale * norm.weight.detach(), norm.bias.detach()
            bias = ((0 if bias is None else bias) - norm.running_mean) * scale + offset
            weight = weight * scale.view(-1, 1, 1, 1)
        # As above: the copy gets the new weight instead of a copy of the old one.
        self.conv = copy.deepcopy(unit.conv, {id(unit.conv.weight): nn.Parameter(weight, requires_grad=False)})
        self.conv.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.activation = copy.deepcopy(unit.activation)

    def forward(self, images: Tensor) -> Tensor:
        """Maps (N, out_channels, H', W') of images (N, C, H, W)."""
        maps: Tensor = self.activation(self.conv(images))
        return maps


class OneDnnConvolution(nn.Module):
    """Convolution, bias, activation, and optionally the sum with other maps before it, in one oneDNN call.

    The weights are rearranged into the order that oneDNN likes best for the image size, which is known at the first
    call. :meth:`fits` must hold for the convolution.
    """

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Check if this class supports a convolution."""
        plain = type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
        return plain or (type(conv) is SameConv2d and conv.dilation == (1, 1))

    def __init__(self, folded: FoldedConvolution, dtype: torch.dtype) -> None:
        super().__init__()
        conv = folded.conv
        self._same = isinstance(conv, SameConv2d)
        self._padding = cast(tuple[int, int], conv.padding)
        self._stride, self._dilation, self._groups = conv.stride, conv.dilation, conv.groups
        # No parameters: nn.Module would move and convert them, which rearranged weights do not survive.
        self._weight = conv.weight.detach().to(dtype)
        self._bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self._packed_weight: Tensor | None = None
        self._packed_for: torch.Size | None = None
        self._packed_padding: tuple[int, int] = (0, 0)
        self._output_size: tuple[int, ...] = (0, 0)
        self.activation = folded.activation
        fused = _FUSED_ACTIVATIONS.get(type(folded.activation))
        self._left_over = folded.activation if fused is None else None
        self._fused = ("none", []) if fused is None else (fused[0], fused[1](folded.activation))

    def forward(self, images: Tensor, addend: Tensor | None = None) -> Tensor:
        """``activation(convolution(images) + addend)``: maps (N, out_channels, H', W') of images (N, C, H, W).

        An addend is only allowed for an activation of ReLU or none. The maps are stored channels-last.
        """
        if images.shape[1:] != self._packed_for:
            self._pack(images.shape)
        name, parameters = self._fused
        geometry = (self._bias, self._packed_padding, self._stride, self._dilation, self._groups)
        call = torch.ops.mkldnn._convolution_pointwise
        if addend is None:
            maps = call(images, self._packed_weight, *geometry, name, parameters, "")
        elif addend.shape == (len(images), len(self._weight), *self._output_size):
            unary = None if name == "none" else name
            maps = call.binary(images, addend, self._packed_weight, *geometry, "add", 1.0, unary, parameters, "")
        else:  # one of the two is repeated over the other's positions
            maps = call(images, self._packed_weight, *geometry, "none", [], "") + addend
            maps = maps if name == "none" else functional.relu(maps)
        result: Tensor = maps if self._left_over is None else self._left_over(maps)
        return result

    def follow_with_relu(self) -> None:
        """Compute a ReLU after the sum; only for an activation of none."""
        self._fused = ("relu", [])

    def _pack(self, shape: torch.Size) -> None:
        """Rearrange the weights for images of one size."""
        weight = self._weight
        padding = self._padding
        if self._same:
            # oneDNN's call pads both sides alike. A kernel with a line of zeros before it needs as much padding
            # before as after, and costs less than a padded copy of the images.
            kernel = weight.shape[-2:]
            (top, bottom), (left, right) = (same_padding(shape[i + 2], kernel[i], self._stride[i]) for i in (0, 1))
            weight = functional.pad(weight, (right - left, 0, bottom - top, 0))
            padding = (bottom, right)
        self._packed_weight = torch.ops.mkldnn._reorder_convolution_weight(
            weight, padding, self._stride, self._dilation, self._groups, list(shape)
        )
        self._packed_padding = padding
        self._packed_for = shape[1:]
        # The size formula in the documentation of torch.nn.Conv2d.
        self._output_size = tuple(
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, pad, dilation, kernel, stride in zip(
                shape[2:], padding, self._dilation, weight.shape[2:], self._stride, strict=True
            )
        )


@cache
def _onednn_fuses(dtype: torch.dtype) -> bool:
    """Check if torch offers oneDNN's fused convolutions here, by running one.

    The calls are those that ``torch.compile`` makes; they are not public, so another torch may lack them or take
    other arguments.
    """
    onednn: Any = torch.backends.mkldnn
    if platform.machine() not in ("x86_64", "AMD64") or not onednn.is_available():
        return False
    unit = ConvNormActivation(16, 16, 1, norm=None).eval()
    images = torch.randn(1, 16, 2, 2)
    with torch.inference_mode():
        expected = functional.relu(unit.conv(images) + images)
        try:
            got = OneDnnConvolution(FoldedConvolution(unit), dtype)(images.to(dtype), images.to(dtype))
        except (AttributeError, RuntimeError, TypeError):
            return False
        return torch.allclose(got.float(), expected, atol=0.1, rtol=0.1)


class _Tracer(fx.Tracer):
    """Records calls of layers, not what happens within them, unless they are made of fused convolutions."""

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        if isinstance(module, OneDnnConvolution):
            return True
        composed = isinstance(module, nn.Sequential) or any(isinstance(p, OneDnnConvolution) for p in module.modules())
        return not composed and type(module).__module__.startswith(("torch.nn", "hubel.layers", __name__))


def _fuse_sums(model: nn.Module) -> nn.Module:
    """Hand sums of a convolution's output with other maps, and a ReLU after them, to the convolution."""
    try:
        graph = _Tracer().trace(model)
    except Exception:  # control flow that depends on the data: such a network keeps its sums
        return model
    traced = fx.GraphModule(model, graph)
    for node in list(graph.nodes):
        if node.op == "call_module" and type(traced.get_submodule(str(node.target))) is nn.Identity:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    position = {node: index for index, node in enumerate(graph.nodes)}
    for total in list(graph.nodes):
        if total.op != "call_function" or total.target not in (operator.add, operator.iadd, torch.add):
            continue
        operands = [operand for operand in total.args if isinstance(operand, fx.Node)]
        if len(operands) != 2 or total.kwargs or operands[0] is operands[1]:
            continue
        # The later of the two: the other must exist when the convolution runs.
        other, last = sorted(operands, key=position.__getitem__)
        convolution = _sole_module(traced, last)
        if not isinstance(convolution, OneDnnConvolution) or type(convolution.activation) is not nn.Identity:
            continue
        last.args = (*last.args, other)
        total.replace_all_uses_with(last)
        graph.erase_node(total)
        after = next(iter(last.users)) if len(last.users) == 1 else None
        if after is not None and after.op == "call_module" and type(traced.get_submodule(str(after.target))) is nn.ReLU:
            convolution.follow_with_relu()
            after.replace_all_uses_with(last)
            graph.erase_node(after)
    traced.recompile()
    return traced


def _sole_module(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that ``node`` calls, if nothing else calls it and only one other node uses what it returns."""
    if node.op != "call_module" or len(node.users) != 1:
        return None
    calls = sum(other.op == "call_module" and other.target == node.target for other in traced.graph.nodes)
    return traced.get_submodule(str(node.target)) if calls == 1 else None
