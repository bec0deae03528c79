"""How the cache of converted networks holds them for OpenVINO: as its IR, an XML file and a file of weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hubel.inference.engines.lazy_model import ModelSource
from hubel.inference.engines.openvino_runtime import core, openvino

if TYPE_CHECKING:
    from openvino import Model

_FILE = "model.xml"


class OpenVinoFormat:
    """See :class:`hubel.inference.engines.convert.Format`."""

    engine = "openvino"
    packages: tuple[str, ...] = ("openvino", "torch")

    def convert(self, source: ModelSource) -> Model:
        """The network with its normalization, in float32."""
        from hubel.inference.engines.normalized_model import OUTPUT_NAMES
        from hubel.inference.engines.openvino_conversion import to_openvino

        network, metadata = source.load()
        return to_openvino(network, metadata.preprocessing, OUTPUT_NAMES[metadata.task])

    def write(self, network: Model, folder: Path) -> None:
        """Write the IR, its weights as they are."""
        openvino().save_model(network, folder / _FILE, compress_to_fp16=False)

    def read(self, folder: Path) -> Model:
        """The IR of a folder."""
        return core().read_model(folder / _FILE)
