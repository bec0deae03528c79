"""A network whose layers read any layers before them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from torch import Tensor, nn

from hubel.models.darknet.layers import module_of
from hubel.weights.darknet_cfg import HEADS
from hubel.weights.darknet_layers import Layer

_WITHOUT_MAPS = ("avgpool", "connected", "softmax", "cost", *HEADS)
_NONE: Mapping[int, Callable[[Tensor], Tensor]] = MappingProxyType({})


class Graph:
    """The order of computation, and which maps are needed until when; the modules are the model's own.

    Args:
        layers: of a cfg.
        given: number of the first ones that are not built, as their maps come from elsewhere.
    """

    def __init__(self, layers: Sequence[Layer], given: int = 0) -> None:
        self.layers, self._given = layers, given
        self._last_use = {source: layer.index for layer in layers for source in layer.sources}

    def modules(self) -> tuple[nn.Sequential, nn.ModuleDict]:
        """The backbone, whose parts are named ``INDEX_KIND``, and the layers whose width depends on the classes."""
        made: dict[str, OrderedDict[str, nn.Module]] = {"backbone": OrderedDict(), "head": OrderedDict()}
        for layer in self.layers[self._given :]:
            made[layer.part][layer.name] = module_of(layer)
        return nn.Sequential(made["backbone"]), nn.ModuleDict(made["head"])

    def feature_info(self) -> dict[int, tuple[str, int]]:
        """Stride → the last layer of the backbone with it, and its channels."""
        end = next((layer.index for layer in self.layers if layer.kind in _WITHOUT_MAPS[:2]), len(self.layers))
        last = {
            int(layer.stride): (layer.name, layer.output.channels)
            for layer in self.layers[:end]
            if layer.part == "backbone" and layer.kind not in _WITHOUT_MAPS and layer.stride >= 2
        }
        return dict(sorted(last.items()))

    def run(
        self,
        first: Sequence[Tensor],
        backbone: nn.Module,
        head: nn.Module,
        wanted: Collection[int],
        changes: Mapping[int, Callable[[Tensor], Tensor]] = _NONE,
    ) -> dict[int, Tensor]:
        """The outputs of some layers, by their indices; others are kept while they are read.

        ``first`` are images (N, C, H, W), or the maps of the layers that are not built; ``changes`` are applied to the
        maps of the layers with these indices.
        """
        maps = dict(enumerate(first, 0 if self._given else -1))
        for layer in self.layers[self._given : max(wanted) + 1]:
            module = (head if layer.part == "head" else backbone).get_submodule(layer.name)
            made = module(*(maps[source] for source in layer.sources))
            maps[layer.index] = changes[layer.index](made) if layer.index in changes else made
            for source in layer.sources:
                if self._last_use[source] == layer.index and source not in wanted:
                    maps.pop(source, None)
        return {index: maps[index] for index in wanted}
