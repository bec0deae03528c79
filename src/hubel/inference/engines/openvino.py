"""OpenVINO: converts networks and runs them, one image per request, as many requests as the processor has streams.

It is imported when it is needed, without its telemetry, and has one core for the whole process.
"""

from __future__ import annotations

import ctypes
import json
import platform
import sys
import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hubel.data.preprocessing import Preprocessing
from hubel.errors import UsageError
from hubel.inference.engines.base import PRECISIONS, Backend, Precision, Run, RunOptions, canonical, metadata_text
from hubel.inference.engines.convolution_kernels import compile_fastest
from hubel.inference.engines.coordinates import keep_coordinates, keeps_coordinates, marks_of, selects_regions
from hubel.inference.engines.onnx import OnnxBackend
from hubel.inference.engines.processor import share_isa_limit

if TYPE_CHECKING:
    from openvino import Model
    from torch import nn

    from hubel.inference.engines.normalized_model import NormalizedModel

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
_STACK_BYTES = 64  # sigaltstack(2): a pointer, flags and a size; no platform's is larger


def switch_off_telemetry() -> None:
    """Make ``openvino_telemetry`` a package that is not installed, for this process.

    Importing OpenVINO sends an event, and every conversion another, unless that package is missing; both libraries
    then continue without it. Call this before either is imported; afterwards it does nothing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def openvino() -> Any:
    """The package ``openvino``, without its telemetry."""
    switch_off_telemetry()
    share_isa_limit()
    import openvino as library

    return library


@cache
def core() -> Any:
    """OpenVINO's ``Core``: one that stays as long as the process does.

    Loading the CPU plugin gives the thread another stack for signals, and unloading it gives back the one before,
    whichever that was: where two cores end in the order in which they began, the thread is left with a stack that is
    unmapped, and the next signal, Ctrl-C or the end of a child, kills the process (seen with OpenVINO 2026.4.1).
    """
    with own_signal_stack():
        only = openvino().Core()
        only.get_property("CPU", "FULL_DEVICE_NAME")  # the plugin is loaded at its first use
    return only


@contextmanager
def own_signal_stack() -> Iterator[None]:
    """Leave the thread's stack for signals as it was, whatever libraries do to it within."""
    if not sys.platform.startswith("linux"):
        yield
        return
    change = ctypes.CDLL(None, use_errno=True).sigaltstack
    before = ctypes.create_string_buffer(_STACK_BYTES)
    thread = threading.get_ident()
    known = change(None, before) == 0
    try:
        yield
    finally:
        if known and threading.get_ident() == thread:
            change(before, None)


def open_file(path: Path, core: Any = None, threads: int = 0) -> tuple[list[str], Run]:
    """The names of the classes, and what runs the file: from uint8 pixels (N, H, W, C) to outputs by name."""
    import sys

    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # else OpenVINO reports that it is used
    import openvino

    core = core or openvino.Core()
    model = core.read_model(path)
    about = {key: model.get_rt_info(["hubel", key]).value for key in ("classes", "inference_precision")}
    hints = {"INFERENCE_PRECISION_HINT": about["inference_precision"], "INFERENCE_NUM_THREADS": threads}  # 0: all
    network = core.compile_model(model, "CPU", hints)
    # Compiled outputs can bear names of operations within as well.
    names = [output.any_name for output in model.outputs]

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        outputs = network({"pixels": pixels})
        return {name: outputs[output] for name, output in zip(names, network.outputs, strict=True)}

    return json.loads(about["classes"]), run


class OpenVinoBackend(Backend):
    """OpenVINO on the CPU, and its IR files."""

    name = "openvino"
    parallel = True
    packages: tuple[str, ...] = ("openvino", "torch")
    precisions: Mapping[str, tuple[str, ...]] = {"cpu": PRECISIONS}
    export_file = "model.xml"
    example_package = "openvino"
    weight_precisions = ("fp32",)
    not_exported: Mapping[str, str] = {}
    opener = staticmethod(open_file)

    def check_nms(self, precision: str) -> None:
        """Refuse bf16; ask for ONNX, through which such graphs are converted."""
        if precision == "bf16":
            message = "bf16 is too coarse for box coordinates, and OpenVINO would compute the whole graph in it"
            raise UsageError(message, "omit --nms, or use fp32 or fp16")
        OnnxBackend().require("Exporting to OpenVINO with --nms")

    def check_selection(self, precision: str, name: str) -> None:
        """Refuse bf16 if this version of OpenVINO would compute the regions in it."""
        if precision == "bf16" and not marks_of(core()):
            message = f"bf16 is too coarse for the regions that {name} selects, and this OpenVINO computes them in it"
            raise UsageError(message, "use fp32 or fp16, or update OpenVINO")

    def convert(self, model: NormalizedModel) -> Model:
        """A model in float32 with the input ``pixels``, uint8 (N, H, W, C), and the predictions by name."""
        from hubel.inference.engines.normalized_model import INPUT_NAME, capture

        if model.static_batch:  # OpenVINO reads NMS from ONNX alone
            converted = core().read_model(OnnxBackend().convert(model).SerializeToString())
        else:
            # A trace holds the sizes of padding as TensorFlow's as constants.
            traced = _traced(model) if model.of_tiles or not model.any_size else None
            converted = traced or openvino().convert_model(capture(model))
            height, width, channels = model.input_size
            converted.reshape([-1, -1, -1, channels] if model.any_size else [-1, height, width, channels])
            converted.inputs[0].get_tensor().set_names({INPUT_NAME})
        for output, name in zip(converted.outputs, model.output_names, strict=True):
            output.get_tensor().set_names({name})
        if selects_regions(converted):
            keep_coordinates(converted, core())
        return converted

    def save(self, converted: Any, folder: Path, facts: Mapping[str, Any] | None = None, half: bool = False) -> None:
        """Write ``model.xml`` and ``model.bin``."""
        for key, value in metadata_text(facts or {}).items():
            converted.set_rt_info(value, ["hubel", key])
        try:
            openvino().save_model(converted, folder / self.export_file, compress_to_fp16=half)
        except RuntimeError as error:  # "iostream error" is all that it reports
            raise OSError(f"{str(error).strip().splitlines()[-1]} (is the disk full?)") from error

    def load(self, folder: Path) -> Model:
        """Read ``model.xml``."""
        return core().read_model(folder / self.export_file)

    def engine(self, network: Model, preprocessing: Preprocessing, options: RunOptions) -> OpenVinoEngine:
        """Compile a conversion."""
        precision = choose_precision(options.precision)
        kept = ("fp32", "bf16") if keeps_coordinates(network) else ("fp32",)
        if selects_regions(network) and precision.name not in kept:
            if options.precision != "auto":
                message = f"{options.precision} is too coarse for the regions that this network selects"
                raise UsageError(message, "omit --precision")
            precision = Precision("fp32", "the network selects regions, for which bf16 is too coarse")
        size = size_of(asdict(preprocessing))
        return OpenVinoEngine(network, precision, options.threads, options.batch or 1, options.many, size)

    def open_file(self, path: Path, threads: int = 0) -> tuple[list[str], Run]:
        """As the function, with this process's core."""
        return open_file(path, core(), threads)

    def read_facts(self, path: Path) -> Mapping[str, Any]:
        """The file's ``rt_info``."""
        model = core().read_model(path)
        return dict(model.get_rt_info(["hubel"]).value) if model.has_rt_info(["hubel"]) else {}

    def file_precision(self, precision: str) -> Precision:
        """float32 for half floats, which only store weights, and for bfloat16 on processors without it."""
        if precision == "fp16":
            return Precision("fp32", "the file's weights are fp16")
        if precision == "bf16" and choose_precision().name != "bf16":
            return Precision("fp32", "the file asks for bf16, which this processor does not have")
        return Precision(precision, "as exported")

    def file_engine(
        self, path: Path, precision: Precision, outputs: tuple[str, ...], options: RunOptions
    ) -> OpenVinoEngine:
        """Compile the file."""
        size = size_of(json.loads(self.read_facts(path)["preprocessing"]))
        return OpenVinoEngine(path, precision, options.threads, options.batch or 1, options.many, size)


def size_of(preprocessing: Mapping[str, Any]) -> tuple[int, int, int]:
    """Height, width and channels of the images that a network is shown, also where its graph takes any size."""
    return preprocessing["height"], preprocessing["width"], preprocessing["channels"]


def to_openvino(model: nn.Module, preprocessing: Preprocessing) -> Model:
    """Convert a network with its normalization and decoding, as :meth:`OpenVinoBackend.convert`."""
    from hubel.inference.engines.normalized_model import NormalizedModel

    return OpenVinoBackend().convert(NormalizedModel(model, preprocessing))


def _traced(model: NormalizedModel) -> Any:
    """The conversion of a trace, or None if the network cannot be traced.

    Tracing takes a fifth of the time of torch.export and OpenVINO's reading of it (EfficientNet-Lite0 here: 1.6 s
    instead of 9 s). A trace cannot hold control flow that depends on the pixels: torch warns about it, and then
    torch.export has to decide.
    """
    import torch

    jit: Any = torch.jit
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", category=jit.TracerWarning)
        warnings.filterwarnings("ignore", module=r"hubel\.layers\.padding")  # whose sizes are those of the input
        # Tables of anchors: what depends on the pixels could become one of Python's numbers only with another warning.
        warnings.filterwarnings("ignore", r"torch\.(tensor|from_numpy) results are registered as constants")
        try:
            trace = jit.trace(model, model.zeros(), check_trace=False)
            return openvino().convert_model(trace)
        except Exception:  # the tracer and the converter meet whatever a network does: they may raise anything
            return None


def choose_precision(precision: str = "auto") -> Precision:
    """The precision in which OpenVINO is to run: ``"auto"`` takes bfloat16 where the processor has instructions for it.

    Raises:
        UsageError: there is no such precision, or this processor cannot compute in it.
    """
    name = canonical(precision)
    capabilities = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    available = [each for each in PRECISIONS if each.upper() in capabilities]
    if name == "auto":
        if "bf16" in available:
            return Precision("bf16", "this processor has instructions for it")
        return Precision("fp32", "this processor has no bfloat16 instructions")
    if name not in available:
        message = f"this processor ({platform.machine()}) has no instructions for {name}"
        raise UsageError(message, f"use auto, or one of {', '.join(available)}")
    return Precision(name)


class OpenVinoEngine:
    """Runs a model of :meth:`OpenVinoBackend.convert`, which is left as it is, or the XML file of one.

    Graphs that take any size are compiled for one ``size``: height, width and channels.

    Each image is a request of its own: its feature maps then stay in the processor's cache, which made
    EfficientNet-Lite0 three times as fast here as 16 images at once. With ``many``, several images run in parallel;
    otherwise all threads work on one.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self,
        model: Model | Path,
        precision: Precision,
        threads: int | None = None,
        batch: int = 1,
        many: bool = True,
        size: Sequence[int] | None = None,
    ) -> None:
        network = core().read_model(model) if isinstance(model, Path) else model.clone()
        _, *sides = network.inputs[0].partial_shape
        sides = [side if side.is_static else own for side, own in zip(sides, size or sides, strict=True)]
        network.reshape([batch, *sides])
        self.precision = precision
        self.batch = batch
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "THROUGHPUT" if many else "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[precision.name],
            # Where many images come, the threads that decode them need the cores too.
            "ENABLE_CPU_PINNING": not many,
        }
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        if many and precision.name == "fp32":
            self._compiled, note = compile_fastest(core(), network, options)
            if note:
                self.precision = replace(precision, reason=f"{precision.reason}; {note}")
        else:  # for one image, the choice of kernels would take longer than they gain
            self._compiled = core().compile_model(network, "CPU", options)
        self.threads = int(self._compiled.get_property("INFERENCE_NUM_THREADS"))
        # One more than there are streams waits its turn: none is idle while this thread collects a result. Where
        # there is only one, for images that come one at a time, handing it over to another thread would cost time.
        streams = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._max_requests = streams + 1 if many else 1
        # Compiled outputs can bear names of operations within as well.
        names = [output.any_name for output in network.outputs]
        self._outputs = {
            name: _Output(
                tuple(length.get_length() for length in tuple(output.get_partial_shape())[1:]),
                output.get_element_type().to_dtype(),
            )
            for name, output in zip(names, self._compiled.outputs, strict=True)
        }
        self.outputs = tuple(self._outputs)
        self._free: list[_Request] = []

    def run(self, batches: Iterable[np.ndarray]) -> Generator[dict[str, np.ndarray], None, None]:
        """See :meth:`hubel.inference.engines.base.Engine.run`."""
        running: deque[_Request] = deque()
        results: deque[_Result] = deque()
        try:
            for pixels in batches:
                results.append(_Result(len(pixels), self._outputs))
                for start in range(0, len(pixels), self.batch):
                    if len(running) == self._max_requests:
                        self._collect(running)
                    running.append(self._free.pop() if self._free else _Request(self._compiled, self._max_requests > 1))
                    running[-1].start(pixels[start : start + self.batch], results[-1], start)
                # While the caller has a result, all requests have work.
                while results[0].missing == 0 and len(results) > 1:
                    yield results.popleft().arrays
            while results:
                while results[0].missing:
                    self._collect(running)
                yield results.popleft().arrays
        finally:
            while running:
                self._collect(running)

    def _collect(self, running: deque[_Request]) -> None:
        """Wait for the oldest request, which is then free for other images."""
        request = running.popleft()
        request.finish()
        self._free.append(request)


class _Output(NamedTuple):
    """Shape of an image's predictions of one kind, and their type."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _Result:
    """Predictions of a batch: ``missing`` counts the images that have none yet."""

    def __init__(self, images: int, outputs: Mapping[str, _Output]) -> None:
        self.arrays = {name: np.empty((images, *each.shape), each.dtype) for name, each in outputs.items()}
        self.missing = images


class _Request:
    """One of the requests that run side by side, with its own memory for pixels and outputs.

    It is waited for by the thread that started it. A callback, which OpenVINO calls in a thread of its own, would cost
    more, and where the interpreter ends before that thread has left it, the process aborts.
    """

    def __init__(self, compiled: Any, asynchronous: bool) -> None:
        self._request = compiled.create_infer_request()
        self._asynchronous = asynchronous
        self._pixels = self._request.get_input_tensor().data
        self._outputs = [tensor.data for tensor in self._request.output_tensors]

    def start(self, pixels: np.ndarray, result: _Result, start: int) -> None:
        """Begin to compute the outputs of some images: rows of ``result`` from ``start`` on."""
        self._pixels[: len(pixels)] = pixels
        self._result, self._rows = result, slice(start, start + len(pixels))
        if self._asynchronous:
            self._request.start_async()
        else:
            self._request.infer(share_outputs=True)

    def finish(self) -> None:
        """Wait, and copy the outputs into the result."""
        if self._asynchronous:
            self._request.wait()
        rows = self._rows.stop - self._rows.start
        for array, output in zip(self._result.arrays.values(), self._outputs, strict=True):
            array[self._rows] = output[:rows]
        self._result.missing -= rows
