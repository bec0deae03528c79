"""``torch.export``: writing a program and running it with torch alone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hubel.data.preprocessing import Preprocessing
from hubel.inference.engines.normalized_model import capture

FILE = "model.pt2"
METADATA = "metadata.json"
"""The name among the program's extra files."""


def write(
    network: nn.Module, preprocessing: Preprocessing, facts: dict[str, Any], folder: Path, alone: bool = False
) -> None:
    """Write ``model.pt2``.

    Args:
        network: maps normalized images (N, C, H, W) to its outputs.
        preprocessing: the model's; its normalization becomes part of the graph.
        facts: the metadata.
        folder: where.
        alone: the program takes one image at a time.

    Raises:
        OSError: the file cannot be written.
    """
    program = capture(network, preprocessing, alone)
    program.example_inputs = None
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # where in whose file it comes from
    written = io.BytesIO()
    # By way of memory: told a file, torch aborts the whole process when the disk is full.
    torch.export.save(program, written, extra_files={METADATA: json.dumps(facts, ensure_ascii=False)})
    (folder / FILE).write_bytes(written.getbuffer())


def load(folder: Path, outputs: Sequence[str]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The written file, read by torch: from uint8 pixels (N, H, W, C) to outputs by name."""
    program = torch.export.load(folder / FILE).module()

    @torch.inference_mode()
    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        answers = program(torch.from_numpy(pixels))
        answers = (answers,) if isinstance(answers, torch.Tensor) else answers
        return {name: answer.numpy() for name, answer in zip(outputs, answers, strict=True)}

    return run
