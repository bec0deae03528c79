"""How networks are converted for ONNX Runtime, and how the cache holds them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from hubel.errors import MissingExtraError
from hubel.runtime.model_source import ModelSource

_FILE = "model.onnx"
_OPSET = 18  # what torch's exporter writes without converting


class OnnxFormat:
    """See :class:`hubel.runtime.conversion.Format`.

    Raises:
        MissingExtraError: the packages are not installed.
    """

    engine = "onnx"
    packages: tuple[str, ...] = ("onnx", "torch")

    def __init__(self) -> None:
        if not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))):
            raise MissingExtraError("The engine onnx", "onnx")

    def convert(self, source: ModelSource) -> bytes:
        """The network with its normalization, in float32: the bytes of an ONNX file."""
        import torch

        from hubel.runtime.deployable import INPUT_NAME, OUTPUT_NAME, capture
        from hubel.runtime.fusion import fold

        network, card = source.load()
        program = capture(fold(network).to("cpu", torch.float32), card.preprocessing)
        with _quiet():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=_OPSET,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
            )
        assert exported is not None  # it is, unless a file is asked for
        content: bytes = exported.model_proto.SerializeToString()
        return content

    def write(self, network: bytes, folder: Path) -> None:
        """Write the ONNX file."""
        (folder / _FILE).write_bytes(network)

    def read(self, folder: Path) -> bytes:
        """The ONNX file of a folder."""
        return (folder / _FILE).read_bytes()


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells what it does and what will change in torch; neither helps those who want an answer."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
