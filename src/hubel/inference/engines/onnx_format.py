"""How networks are converted for ONNX Runtime, and how the cache holds them."""

from __future__ import annotations

from pathlib import Path

from hubel.inference.engines.lazy_model import ModelSource
from hubel.inference.engines.onnx_conversion import require_onnx, to_onnx

_FILE = "model.onnx"


class OnnxFormat:
    """See :class:`hubel.inference.engines.convert.Format`.

    Raises:
        MissingExtraError: the packages are not installed.
    """

    engine = "onnx"
    packages: tuple[str, ...] = ("onnx", "torch")

    def __init__(self) -> None:
        require_onnx("The engine onnx")

    def convert(self, source: ModelSource) -> bytes:
        """The network with its normalization, in float32: the bytes of an ONNX file."""
        import torch

        from hubel.inference.engines.normalized_model import OUTPUT_NAMES
        from hubel.inference.fusion import fold

        network, metadata = source.load()
        folded = fold(network).to("cpu", torch.float32)
        content: bytes = to_onnx(folded, metadata.preprocessing, OUTPUT_NAMES[metadata.task]).SerializeToString()
        return content

    def write(self, network: bytes, folder: Path) -> None:
        """Write the ONNX file."""
        (folder / _FILE).write_bytes(network)

    def read(self, folder: Path) -> bytes:
        """The ONNX file of a folder."""
        return (folder / _FILE).read_bytes()
