"""int8 by post-training quantization with NNCF, without evaluation."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hubel.errors import MissingExtraError
from hubel.inference.engines.openvino_runtime import openvino, own_signal_stack, switch_off_telemetry

if TYPE_CHECKING:
    from openvino import Model


_STEPS = 127  # from zero to the largest weight of a filter, as NNCF quantizes symmetrically


def with_kernel_sums_kept(model: Model) -> Model:
    """A copy whose spatial kernels lie on the grid of int8, so that quantization does not change them.

    Neighbouring pixels are alike, so the effect of a kernel's rounding errors on its output is mostly their sum.
    Rounded to nearest, 9 errors add up by chance; here weights of each kernel are rounded the other way, those that
    this changes least, until the sum is right to half a step. On EfficientNet-Lite0, whose first depthwise layer made a
    third of all errors, it nearly halves the mean squared error of the int8 network's scores, at no cost in speed.

    Args:
        model: in float; it is left as it is.
    """
    opset = openvino().opset13
    copy = model.clone()
    for layer in copy.get_ordered_ops():
        grouped = layer.get_type_name() == "GroupConvolution"
        if not grouped and layer.get_type_name() != "Convolution":
            continue
        constant = layer.input_value(1).get_node()
        if constant.get_type_name() != "Constant":
            continue
        # (filters, input maps, taps); a group convolution's are (groups, filters of it, input maps, …).
        filters = int(np.prod(constant.shape[: 2 if grouped else 1]))
        maps = constant.shape[2 if grouped else 1]
        weights = np.array(constant.data, np.float32).reshape(filters, maps, -1)
        if weights.shape[2] > 1:
            rounded = opset.constant(round_keeping_sums(weights).reshape(list(constant.shape)))
            layer.input(1).replace_source_output(rounded.output(0))
    return copy


def round_keeping_sums(weights: np.ndarray) -> np.ndarray:
    """Round to the 255 levels between plus and minus the largest weight of each filter.

    Args:
        weights: float32 (filters, input maps, taps of a kernel).

    Returns:
        The same shape. The sum of each kernel is right to half a level, unless that would take it out of the levels.
    """
    step = np.abs(weights).max(axis=(1, 2), keepdims=True) / _STEPS
    step[step == 0] = 1.0
    exact = weights / step
    levels = np.rint(exact)
    error = exact - levels
    owed = np.rint(error.sum(axis=2, keepdims=True))
    up = _rank(-error) < owed
    down = _rank(error) < -owed
    levels = np.clip(levels + up - down.astype(np.float32), -_STEPS, _STEPS)
    rounded: np.ndarray = (levels * step).astype(np.float32)
    return rounded


def _rank(values: np.ndarray) -> np.ndarray:
    """Rank of each value among those of its kernel, smallest first."""
    ranks: np.ndarray = values.argsort(axis=2, kind="stable").argsort(axis=2, kind="stable")
    return ranks


def post_training_quantization(model: Model, calibration: np.ndarray, in_float: Sequence[str] = ()) -> Model:
    """Quantize layers to 8-bit integers.

    Weights have one scale per filter, feature maps one per layer, from the calibration images; the biases are then
    corrected for the mean error of each filter (Nagel et al. 2019, arXiv 1906.04721, section 4.2).

    Args:
        model: in float32, with the input ``pixels``; it is left as it is.
        calibration: uint8 (N, height, width, channels).
        in_float: names of the operations that are not quantized.

    Raises:
        MissingExtraError: NNCF is not installed.
    """
    nncf = nncf_library()
    with own_signal_stack(), _silent():
        quantized = nncf.quantize(
            with_kernel_sums_kept(model),
            nncf.Dataset([image[np.newaxis] for image in calibration]),
            subset_size=len(calibration),
            ignored_scope=nncf.IgnoredScope(names=list(in_float)) if in_float else None,
            # NNCF would give the first layer's weights 7 bits, for processors whose 16-bit sums of products overflow
            # (x86 before VNNI). That triples the mean squared error of EfficientNet-Lite0's scores; an
            # overflow here shows in the accuracy that is measured.
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.DISABLE),
        )
        gc.collect()  # NNCF's own cores must be gone before the signal stack is put back
    return quantized


def nncf_library() -> Any:
    """The package ``nncf``, without its telemetry; it takes seconds to import.

    Raises:
        MissingExtraError: it is not installed.
    """
    switch_off_telemetry()
    try:
        # It looks for CUDA's compiler, and torch warns of what it finds.
        with _without_warnings():
            import nncf
    except ImportError as error:
        raise MissingExtraError("int8", "int8") from error
    return nncf


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """NNCF draws its progress bars on stdout, where only results belong, and logs its steps."""
    with _without_warnings(), contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence loggers below errors, whatever level their libraries set meanwhile."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


@dataclass(frozen=True)
class QuantizationReport:
    """Cost of int8 in accuracy.

    Attributes:
        metric: name of the task's score.
        float_score: of the float32 network.
        int8_score: of the quantized one.
        images: held-out images that both were evaluated on.
        calibration_images: others, for calibration.
        agreement: fraction of the held-out images with the same prediction, if the task has such a figure.
        kept_in_float: the sensitive layers that were not quantized.
        layers: all layers that can be quantized.
        seconds: of quantization and evaluation.
    """

    metric: str
    float_score: float
    int8_score: float
    images: int
    calibration_images: int
    agreement: float | None
    kept_in_float: tuple[str, ...]
    layers: int
    seconds: float

    @property
    def loss(self) -> float:
        """By how much the score fell; negative if it rose."""
        return self.float_score - self.int8_score

    def line(self) -> str:
        """For the log: ``int8: top-1 0.952 → 0.948 on 250 held-out images; 3 of 74 layers kept in float``."""
        agreement = "" if self.agreement is None else f", the same answer on {self.agreement:.3f} of them"
        kept = f"{len(self.kept_in_float)} of {self.layers}" if self.kept_in_float else "none"
        return (
            f"int8: {self.metric} {self.float_score:.3f} → {self.int8_score:.3f} on {self.images} held-out images"
            f"{agreement}; {kept} of the layers kept in float; {self.seconds:.0f} s"
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {**asdict(self), "kept_in_float": list(self.kept_in_float)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> QuantizationReport:
        """The inverse of :meth:`to_json`; raises ``TypeError`` or ``KeyError`` on another row."""
        return cls(**{**row, "kept_in_float": tuple(row["kept_in_float"])})
