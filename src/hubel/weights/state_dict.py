"""Reading weights files without executing anything in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubel.errors import WeightsError
from hubel.weights.checkpoint_layout import WeightSet, find_weights
from hubel.weights.darknet_weights import read_darknet
from hubel.weights.safetensors_files import read_safetensors
from hubel.weights.torch_files import PICKLE, ZIP, read_torch

if TYPE_CHECKING:
    from torch import Tensor

_KERAS_SUFFIXES = (".h5", ".keras")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_GRAPH_SUFFIX = ".pb"
FILE_SUFFIXES = (".pth", ".pt", ".safetensors", ".weights", _GRAPH_SUFFIX, *_KERAS_SUFFIXES)
FLAT = "flat"  # the one tensor of a Darknet file, whose layers only a cfg tells (hubel.weights.darknet_weights)


def read_state_dict(path: str | Path, architecture: str | None = None) -> dict[str, Tensor]:
    """Read the parameters in a file.

    Args:
        path: a ``.safetensors`` file, one that ``torch.save`` wrote (a state dict, bare or anywhere in a checkpoint),
            one of Keras (:mod:`hubel.weights.keras_h5`), a frozen graph of TensorFlow (``.pb``,
            :mod:`hubel.weights.tensorflow_graph`), or Darknet's ``.weights``.
        architecture: as in ``create_model(architecture)``; necessary for Keras's published files, whose
            layers have other names than Keras gives them today. Of a checkpoint, it tells which weights are meant.

    Returns:
        Name → tensor, on the CPU, in the file's order, with the file's types; without the prefixes of wrappers. Other
        entries are left out.

    Raises:
        WeightsError: the file is missing, truncated, not a weights file, without tensors, or would run code.
    """
    return read_weights(path, architecture)[0].tensors


def read_weights(path: str | Path, architecture: str | None = None) -> tuple[WeightSet, list[str]]:
    """As :func:`read_state_dict`, with the place of the weights in the file, and of others that were not taken."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"the weights file {path} does not exist", "check the path")
    try:
        content = _content(path, architecture)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}", "check its permissions") from error
    signatures: list[str] = []
    if architecture is not None:
        from hubel.weights.key_mapping import rules_for

        signatures = [rules.signature for rules in rules_for(architecture)]
    return find_weights(content, path, signatures)


def _content(path: Path, architecture: str | None) -> Any:
    """What a file holds; its first bytes tell which library wrote it, where its name does not."""
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix in _KERAS_SUFFIXES or start.startswith(_HDF5):
        from hubel.weights.catalog import keras_layers
        from hubel.weights.keras_h5 import read_keras

        return read_keras(path, keras_layers(architecture) if architecture else ())
    if path.suffix == _GRAPH_SUFFIX:
        from hubel.weights.tensorflow_graph import read_graph

        return read_graph(path)
    if is_darknet(path):
        import torch

        return {FLAT: torch.from_numpy(read_darknet(path).numbers.astype("float32"))}
    is_torch = start.startswith((ZIP, PICKLE))
    if not is_torch and (path.suffix == ".safetensors" or start[8:] == b"{"):
        return read_safetensors(path)
    return read_torch(path)


def is_darknet(path: Path) -> bool:
    """True for a file that is called as Darknet's are, and does not begin as others that may be called so."""
    with path.open("rb") as file:
        return path.suffix == ".weights" and not file.read(9).startswith((ZIP, PICKLE))
