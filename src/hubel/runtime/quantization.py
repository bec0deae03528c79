"""int8 by post-training quantization with NNCF: what it does to a network, without judging it."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hubel.errors import MissingExtraError
from hubel.runtime.openvino_library import own_signal_stack
from hubel.runtime.telemetry import switch_off_telemetry
from hubel.runtime.weight_rounding import with_kernel_sums_kept

if TYPE_CHECKING:
    from openvino import Model


def post_training_quantization(model: Model, calibration: np.ndarray, in_float: Sequence[str] = ()) -> Model:
    """Let layers compute with 8-bit integers.

    Weights get a scale a filter, feature maps one a layer, from what the calibration images make of them; the biases
    are then corrected for the mean error of each filter (Nagel et al. 2019, arXiv 1906.04721, section 4.2).

    Args:
        model: in float32, with the input ``pixels``; it is left as it is.
        calibration: uint8 (N, height, width, channels).
        in_float: names of the operations that stay as they are.

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
            # (x86 before VNNI). That triples the mean squared error of EfficientNet-Lite0's scores; what overflows
            # here, the guard measures.
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
        # It looks for CUDA's compiler, and torch warns of what is found: nothing to the person who waits.
        with _without_warnings():
            import nncf
    except ImportError as error:
        raise MissingExtraError("int8", "int8") from error
    return nncf


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """NNCF draws its progress bars on stdout, where only results belong, and logs what it does."""
    with _without_warnings(), contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Let loggers pass nothing below errors, whatever level their libraries give them meanwhile."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
