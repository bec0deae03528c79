"""Runs a network with torch, prepared once: folded, fused, channels-last, in the precision the machine is good at."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable

import numpy as np
import torch
from torch import nn

from hubel.data.preprocessing import Preprocessing
from hubel.inference.engines.base import NumberFormat
from hubel.inference.fusion import fuse

Outputs = torch.Tensor | dict[str, torch.Tensor]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """From batches of pixels to raw outputs.

    Args:
        model: a network with one output or several; it is left as it is, a copy is prepared.
        preprocessing: the model's.
        device: where to run.
        precision: the number format of weights and feature maps.
        batch: pictures that go through the network at once.
    """

    name = "torch"

    def __init__(
        self, model: nn.Module, preprocessing: Preprocessing, device: torch.device, precision: NumberFormat, batch: int
    ) -> None:
        self.device = str(device)
        self.precision = precision
        self.threads = torch.get_num_threads()
        self.batch = batch
        self._preprocessing = preprocessing
        self._dtype = DTYPES[precision.name]
        network = fuse(model, device, self._dtype)
        self._network: Callable[[torch.Tensor], Outputs] = network
        if device.type == "cuda":
            self._network = Compiled(network, batch)

    def run(self, batches: Iterable[np.ndarray]) -> Generator[tuple[np.ndarray, ...], None, None]:
        """See :meth:`hubel.inference.engines.base.Engine.run`."""
        for pixels in batches:
            yield self._outputs(pixels)

    @torch.inference_mode()
    def _outputs(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        # (N, H, W, C) in memory, seen as (N, C, H, W), is torch's channels-last: nothing is copied.
        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
        outputs = _all(self._network(self._preprocessing.normalize(images).to(self._dtype)))
        return tuple(output.float().cpu().numpy() for output in outputs)


class Compiled:
    """A network that ``torch.compile`` has made faster for batches of one size; any number of images is taken.

    Where it cannot compile (no Triton, no C++ compiler, an operation it does not know), the network runs as it is.

    Args:
        network: maps images (N, C, H, W) to an output (N, …), or a dict of such.
        batch: images that are compiled for; fewer are filled up, as each further size would be compiled anew.
    """

    def __init__(self, network: nn.Module, batch: int) -> None:
        self._plain = network
        self._batch = batch
        self._compiled: Callable[[torch.Tensor], Outputs] | None = torch.compile(network, dynamic=False)

    def __call__(self, images: torch.Tensor) -> Outputs:
        """The network's output (N, …), or outputs, of images (N, C, H, W)."""
        if self._compiled is None or not 0 < len(images) <= self._batch:
            plain: Outputs = self._plain(images)
            return plain
        filled = images.new_zeros((self._batch, *images.shape[1:])).contiguous(memory_format=torch.channels_last)
        filled[: len(images)] = images
        try:
            outputs = self._compiled(filled)
            if isinstance(outputs, torch.Tensor):
                return outputs[: len(images)]
            return {name: output[: len(images)] for name, output in outputs.items()}
        except torch.OutOfMemoryError:
            raise
        except Exception:  # the compiler may raise anything: what it cannot do must not cost the answer
            self._compiled = None
            return self(images)


def _all(outputs: Outputs) -> tuple[torch.Tensor, ...]:
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs.values())
