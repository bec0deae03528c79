"""Advice for networks that do not fit into memory, with the memory that each remedy would take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import nn

from hubel.analysis.summary import Summary, summarize
from hubel.analysis.table import format_bytes
from hubel.errors import ModelError

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """Memory available to a network: bytes, and where, for messages: ``"this machine"``, ``"cuda:0"``."""

    free: int
    device: str


def free_memory() -> Memory:
    """Free memory of the first CUDA device, else of this machine or container."""
    if torch.cuda.is_available():
        return Memory(torch.cuda.mem_get_info(0)[0], "cuda:0")
    return free_host_memory()


def free_host_memory() -> Memory:
    """Free memory of this machine or container."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or one without a limit
        return Memory(free, "this machine")
    return Memory(max(0, min(free, limit - used)), "this machine")


def largest_batch(summary: Summary, free: int) -> int:
    """Largest batch whose training step fits into ``free`` bytes; 0 if not even one image does."""
    left = free - summary.fixed_training_bytes
    return max(0, left * summary.batch // max(1, summary.saved_bytes)) if left > 0 else 0


def memory_tips(
    module: nn.Module, summary: Summary, memory: Memory, smaller: Iterable[tuple[str, nn.Module]] = ()
) -> list[str]:
    """Sentences that say what does not fit, then one remedy each; none if training fits.

    Args:
        module: the network.
        summary: of ``module``, for the batch and dtype in question.
        memory: what there is.
        smaller: further networks of the family with fewer layers or parameters, as name and module, best first.
    """
    if summary.training_bytes <= memory.free:
        return []
    images, batch = summary.batch, largest_batch(summary, memory.free)
    needs = f"Training with {_images(images)} at a time needs {format_bytes(summary.training_bytes)}; "
    advice = [f"{needs}{memory.device} has {format_bytes(memory.free)} free."]
    if summary.inference_bytes > memory.free:
        advice.append(f"Prediction does not fit either: it needs {format_bytes(summary.inference_bytes)}.")
    if batch == 0:
        needed = format_bytes(summary.training_bytes_at(1))
        advice.append(f"A smaller batch does not help: one image alone needs {needed}.")
    else:
        needed = format_bytes(summary.training_bytes_at(batch))
        advice.append(
            f"A smaller batch: {_images(batch)} at a time fit ({needed}); accumulate gradients over "
            f"{-(-images // batch)} steps to compensate."
        )
    advice += _smaller_maps(module, summary)
    if summary.dtype == "float32":
        half = summarize(module, summary.input, images, "bfloat16")
        advice.append(f"16-bit activations (mixed precision): {format_bytes(half.training_bytes)}.")
    advice += _smaller_network(summary, memory, smaller)
    if batch > 0:  # each device holds the whole network and a part of the batch
        devices = -(-images // batch)
        part = -(-images // devices)
        needed = format_bytes(summary.training_bytes_at(part))
        advice.append(f"More devices: {devices} with as much memory, {_images(part)} on each, {needed} each.")
    return advice


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _smaller_maps(module: nn.Module, summary: Summary) -> list[str]:
    channels, height, width = summary.input
    try:
        half = summarize(module, (channels, height // 2, width // 2), summary.batch, summary.dtype)
    except ModelError:  # networks with dense layers take images of one size only
        return []
    return [
        f"Images of half the size ({height // 2}×{width // 2}), or twice the stride in the first layer, which "
        f"shrinks the feature maps equally: {format_bytes(half.training_bytes)}."
    ]


def _smaller_network(summary: Summary, memory: Memory, smaller: Iterable[tuple[str, nn.Module]]) -> list[str]:
    """The first that fits, else the most frugal of them."""
    found: tuple[str, int] | None = None
    for name, module in smaller:
        needed = summarize(module, summary.input, summary.batch, summary.dtype).training_bytes
        if found is None or needed < found[1]:
            found = (name, needed)
        if needed <= memory.free:
            break
    if found is None or found[1] >= summary.training_bytes:
        return []
    return [f"Fewer layers: {found[0]} needs {format_bytes(found[1])}."]
