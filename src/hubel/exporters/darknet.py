"""``hubel export --format darknet``: a network of a Darknet cfg as ``.cfg``, ``.weights`` and ``.names``.

One with a tree of classes has its ``.tree``, too, and the ``.map`` of those that it names.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from hubel.errors import ModelError, UsageError
from hubel.fileio import rename_unique, staged_directory, write_text
from hubel.models.checkpoint import resolve_model
from hubel.models.darknet.word_tree import WordTree
from hubel.models.metadata import ModelMetadata
from hubel.weights.darknet_cfg import Section, to_text
from hubel.weights.darknet_tree import to_text as tree_text
from hubel.weights.darknet_weights import in_order, write_darknet

CFG, WEIGHTS, NAMES = "model.cfg", "model.weights", "model.names"


def require_darknet(network: nn.Module, name: str) -> None:
    """Raise ``UsageError`` unless a network was made of a cfg."""
    if not hasattr(network, "sections"):
        message = f"{name} cannot be written for Darknet: it was not made of a Darknet cfg"
        raise UsageError(message, "use --format onnx, openvino or torch")


def export_darknet(network: nn.Module, metadata: ModelMetadata, folder_name: Path) -> tuple[Path, int, float]:
    """Write the files, and read them again.

    Returns:
        The cfg's path, the bytes of all files, and the greatest difference of a raw output from the network's.

    Raises:
        ModelError: what was read again gives other outputs.
    """
    size = (metadata.preprocessing.height, metadata.preprocessing.width)
    sections = _of_size(network.sections, size, metadata.in_channels)  # type: ignore[arg-type]
    with staged_directory(folder_name.absolute()) as folder:
        for option, text in _tree_texts(network).items():
            write_text(folder / f"model.{option}", text)
            sections = _naming(sections, option)
        write_text(folder / CFG, to_text(sections))
        write_darknet(folder / WEIGHTS, in_order(network.state_dict(), network.graph.layers))  # type: ignore[arg-type, union-attr]
        write_text(folder / NAMES, "".join(f"{name}\n" for name in metadata.classes))
        again, _ = resolve_model(folder / CFG)
        images = torch.rand(1, metadata.in_channels, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            ours, theirs = (_flat(each.eval()(images)) for each in (network, again))
        difference = float((ours - theirs).abs().max())
        if not difference <= 1e-4 * max(float(ours.abs().max()), 1.0):
            raise ModelError(f"{CFG} differs from the model by {difference:.2g}", "please report this")
        written = sum(path.stat().st_size for path in folder.iterdir())
        placed = rename_unique(folder, folder_name)
    return placed / CFG, written, difference


def _of_size(sections: list[Section], size: tuple[int, int], channels: int) -> list[Section]:
    changed = {"height": str(size[0]), "width": str(size[1]), "channels": str(channels)}
    return [replace(sections[0], options={**sections[0].options, **changed}), *sections[1:]]


def _tree_texts(network: nn.Module) -> dict[str, str]:
    """The texts of the files that a network's cfg names."""
    words = getattr(network, "tree", None)
    if not isinstance(words, WordTree):
        return {}
    texts = {"tree": tree_text(words.tree.names, words.tree.parents)}
    return texts if words.mapped is None else {**texts, "map": "".join(f"{index}\n" for index in words.mapped)}


def _naming(sections: list[Section], option: str) -> list[Section]:
    """The cfg whose boxes, or last softmax, have ``option=model.OPTION``."""
    last = max(index for index, each in enumerate(sections) if each.kind in ("region", "softmax"))
    changed = replace(sections[last], options={**sections[last].options, option: f"model.{option}"})
    return [*sections[:last], changed, *sections[last + 1 :]]


def _flat(outputs: torch.Tensor | dict[str, torch.Tensor]) -> torch.Tensor:
    parts = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs.values())
    return torch.cat([part.flatten() for part in parts])
