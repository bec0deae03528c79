"""How networks are converted for ONNX Runtime, and how the cache holds them."""

from __future__ import annotations

from pathlib import Path

from hubel.runtime.model_source import ModelSource
from hubel.runtime.onnx_conversion import require_onnx, to_onnx

_FILE = "model.onnx"


class OnnxFormat:
    """See :class:`hubel.runtime.conversion.Format`.

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

        from hubel.runtime.deployable import OUTPUT_NAMES
        from hubel.runtime.fusion import fold

        network, card = source.load()
        folded = fold(network).to("cpu", torch.float32)
        content: bytes = to_onnx(folded, card.preprocessing, OUTPUT_NAMES[card.task]).SerializeToString()
        return content

    def write(self, network: bytes, folder: Path) -> None:
        """Write the ONNX file."""
        (folder / _FILE).write_bytes(network)

    def read(self, folder: Path) -> bytes:
        """The ONNX file of a folder."""
        return (folder / _FILE).read_bytes()
