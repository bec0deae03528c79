"""Output shapes and cost of a network, layer by layer, without computing a single pixel."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from hubel.analysis.costs import LiveTensors, MultiplicationCounter, SavedTensors
from hubel.analysis.layer_recorder import LayerRecorder, LayerRow
from hubel.analysis.receptive_field import ReceptiveFields
from hubel.analysis.table import layer_table
from hubel.analysis.tracing import Tracing, to_meta
from hubel.errors import ModelError
from hubel.tables import terminal_width

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_MASTER_BYTES = 4  # mixed precision keeps parameters, gradients and optimizer state in float32
_ADAMW_STATES = 2  # running means of the gradient and of its square (Kingma and Ba 2015, algorithm 1)


@dataclass(frozen=True, repr=False)
class Summary:
    """A network's layers and totals. Bytes are those of a batch of ``batch`` images in ``dtype``.

    Attributes:
        input: channels, height, width.
        dtype: of the activations; of the parameters too, except in training.
        rows: the layers in the order of execution.
        parameters: of the whole network, also of parts that this input does not reach.
        multiplications: multiply-accumulates for one image.
        parameter_bytes: parameters and buffers in ``dtype``.
        peak_activation_bytes: the largest set of tensors alive at one moment in prediction, the input included,
            which the caller holds; in a plain chain the outputs of two consecutive layers.
        saved_bytes: what the forward pass keeps for the backward pass.
        master_bytes: parameters and buffers in training: float32 always; with a ``dtype`` of 16 bits, as mixed
            precision has it, the 16-bit copy of the parameters too.
        gradient_bytes: a float32 number for each trainable parameter.
        optimizer_bytes: AdamW's two float32 numbers for each trainable parameter.
    """

    model: str
    input: tuple[int, int, int]
    batch: int
    dtype: str
    rows: tuple[LayerRow, ...]
    parameters: int
    multiplications: int
    parameter_bytes: int
    peak_activation_bytes: int
    saved_bytes: int
    master_bytes: int
    gradient_bytes: int
    optimizer_bytes: int

    @property
    def inference_bytes(self) -> int:
        """Memory for prediction: parameters, buffers and the largest set of tensors alive at one moment."""
        return self.parameter_bytes + self.peak_activation_bytes

    @property
    def training_bytes(self) -> int:
        """Memory for a training step: parameters, gradients, optimizer state and what backpropagation keeps."""
        return self.training_bytes_at(self.batch)

    @property
    def fixed_training_bytes(self) -> int:
        """The part of :attr:`training_bytes` that does not grow with the batch."""
        return self.master_bytes + self.gradient_bytes + self.optimizer_bytes

    def training_bytes_at(self, batch: int) -> int:
        """:attr:`training_bytes` with another number of images at a time."""
        return self.fixed_training_bytes + self.saved_bytes * batch // self.batch

    def __repr__(self) -> str:
        return layer_table(self).text(terminal_width())

    def _repr_html_(self) -> str:
        return layer_table(self).html()

    def to_json(self) -> dict[str, Any]:
        """The output of ``hubel summary --json``."""
        totals = (
            "parameters", "multiplications", "inference_bytes", "training_bytes", "parameter_bytes",
            "peak_activation_bytes", "saved_bytes", "master_bytes", "gradient_bytes", "optimizer_bytes",
        )  # fmt: skip
        return {
            "model": self.model,
            "input": list(self.input),
            "batch": self.batch,
            "dtype": self.dtype,
            "layers": [
                {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(row).items()}
                for row in self.rows
            ],
            **{total: getattr(self, total) for total in totals},
        }


def summarize(
    module: nn.Module,
    input_shape: tuple[int, int, int],
    batch: int = 1,
    dtype: str = "float32",
    name: str | None = None,
) -> Summary:
    """Run a network on tensors without content and note what every layer does and costs.

    Args:
        module: any network that takes one batch of images (N, C, H, W); it is left as it is. A network on the meta
            device will do.
        input_shape: channels, height, width.
        batch: number of images.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        name: for :attr:`Summary.model`; by default the module's class.

    Raises:
        ModelError: an unknown dtype, a batch below 1, or an input that does not go through the network.
    """
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}", f"choose one of {', '.join(DTYPES)}")
    if batch < 1 or any(size < 1 for size in input_shape):
        raise ModelError(f"a batch of {batch} images of {input_shape} is empty", "use sizes of 1 or more")
    name = name or type(module).__name__
    network = to_meta(module, DTYPES[dtype])
    images = torch.empty(batch, *input_shape, dtype=DTYPES[dtype], device="meta")
    constants = [*network.parameters(), *network.buffers()]
    try:
        saved_bytes = _saved_bytes(network, images)
        live = LiveTensors(constants, given=images)
        fields = ReceptiveFields(images)
        counter = MultiplicationCounter(network)
        recorder = LayerRecorder(network, fields, counter)
        with torch.no_grad(), Tracing(live, fields, counter, recorder):
            network.eval()(images)
    except (RuntimeError, ValueError, IndexError, NotImplementedError, ModelError) as error:
        raise _misfit(name, input_shape, error) from error
    trainable = sum(tensor.numel() for tensor in network.parameters() if tensor.requires_grad)
    parameter_bytes = sum(tensor.numel() * tensor.element_size() for tensor in constants)
    numbers = sum(tensor.numel() for tensor in constants)
    return Summary(
        model=name,
        input=input_shape,
        batch=batch,
        dtype=dtype,
        rows=recorder.rows(batch),
        parameters=sum(tensor.numel() for tensor in network.parameters()),
        multiplications=counter.total // batch,
        parameter_bytes=parameter_bytes,
        peak_activation_bytes=live.peak,
        saved_bytes=saved_bytes,
        master_bytes=parameter_bytes if dtype == "float32" else parameter_bytes + numbers * _MASTER_BYTES,
        gradient_bytes=trainable * _MASTER_BYTES,
        optimizer_bytes=trainable * _MASTER_BYTES * _ADAMW_STATES,
    )


def count_multiplications(module: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of a network for one image (channels, height, width), without its layers: quicker.

    A network on the meta device is run as it is, in evaluation mode, instead of a copy, which takes most of the time.
    """
    on_meta = all(parameter.is_meta for parameter in module.parameters())
    network = module if on_meta else to_meta(module, torch.float32)
    counter = MultiplicationCounter(network)
    with torch.no_grad(), Tracing(counter):
        network.eval()(torch.empty(1, *input_shape, device="meta"))
    return counter.total


def _saved_bytes(network: nn.Module, images: torch.Tensor) -> int:
    """Bytes that a training step on these images saves for its backward pass, without the loss.

    Auxiliary classifiers run in training alone; a network that has some is asked for their scores too.
    """
    network.train()
    if len(images) == 1:
        # One image may leave one value a channel, which batch normalization refuses to train on.
        for part in network.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
    saved = SavedTensors([*network.parameters(), *network.buffers()])
    step = getattr(network, "training_outputs", network)
    with torch.enable_grad(), saved, Tracing():
        step(images)
    return saved.bytes


def _misfit(name: str, input_shape: tuple[int, int, int], error: Exception) -> ModelError:
    shape = "×".join(str(size) for size in input_shape)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ModelError(
        f"an input of {shape} does not fit {name}: {reason}",
        "use channels, height and width that the network accepts, e.g. 3x224x224",
    )
