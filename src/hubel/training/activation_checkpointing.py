"""Activation checkpointing: less memory, about 33 % slower.

Activations within a part of the backbone are computed again in the backward pass; only those between the parts are
kept (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174). The gradients are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hubel.analysis.costs import SavedTensors
from hubel.analysis.memory_advice import Memory, free_memory, memory_tips
from hubel.analysis.summary import DTYPES, summarize
from hubel.analysis.table import format_bytes
from hubel.analysis.tracing import Tracing, to_meta
from hubel.console import count_of
from hubel.models.base import Model

# Resident memory over the memory of the tensors, in docs/results.md, rounded up: libraries rearrange weights,
# convolutions have working memory, and the allocator holds freed blocks.
_OVERHEAD = 1.5
_MASTER_BYTES = 4  # a float32 number


def checkpointed(part: nn.Module, maps: Tensor) -> Tensor:
    """Compute ``part(maps)`` and keep only ``maps`` for the backward pass.

    Batch normalization updates its running statistics in the forward pass only, dropout drops the same units twice.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _frozen_statistics(part)

    result: Tensor = checkpoint(part, maps, use_reentrant=False, context_fn=contexts)
    return result


@contextmanager
def _frozen_statistics(part: nn.Module) -> Iterator[None]:
    """Keep batch normalization in training mode from updating its running statistics and counter."""
    norms = [module for module in part.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training step.

    Attributes:
        plain: with all activations kept for the backward pass.
        checkpointed: with those between the parts, and all activations of one part at a time.
    """

    plain: int
    checkpointed: int


def step_memory(model: Model, batch: tuple[int, int, int, int], precision: str) -> StepMemory:
    """Memory of a step with AdamW and a moving average of the weights, parameters included.

    Frozen layers have no gradients and keep no activations. The precision is that of the activations; parameters,
    gradients and their averages are float32.
    """
    network = to_meta(model, DTYPES[precision])
    network.train()
    assert isinstance(network, Model)
    constants = [*network.parameters(), *network.buffers()]
    saved = SavedTensors(constants)
    between, inside, before = 0, [], 0
    maps = torch.empty(batch, dtype=DTYPES[precision], device="meta")
    with torch.enable_grad(), saved, Tracing():
        for name, part in network.backbone.named_children():
            trained = any(parameter.requires_grad for parameter in part.parameters()) or maps.requires_grad
            between += maps.numel() * maps.element_size() if trained else 0
            maps = part(maps)
            if name in network.auxiliary:
                network.auxiliary[name](maps)
            inside.append(saved.bytes - before)
            before = saved.bytes
        network.head(maps)
    numbers = sum(tensor.numel() for tensor in constants)
    trainable = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    fixed = _MASTER_BYTES * (2 * numbers + 3 * trainable)  # twice for the average
    head = saved.bytes - before
    return StepMemory(fixed + saved.bytes, fixed + between + max(inside, default=0) + head)


def needs_checkpointing(
    model: Model,
    batch: tuple[int, int, int, int],
    precision: str,
    log: Callable[[str], None] = lambda line: None,
    memory: Memory | None = None,
) -> bool:
    """True if a step fits into the free memory only with checkpointing; logs it, with advice if it may not even so."""
    if not model.is_sequential:  # its parts are not one after the other
        return False
    memory = memory or free_memory()
    try:
        need = step_memory(model, batch, precision)
    except (RuntimeError, ValueError, NotImplementedError):  # no estimate: the step itself will show
        return False
    budget = memory.free / _OVERHEAD
    if need.plain <= budget:
        return False
    helps = need.checkpointed < need.plain
    plain, less = (format_bytes(int(size * _OVERHEAD)) for size in (need.plain, need.checkpointed))
    step = f"a step with {count_of(batch[0], 'image')} needs {plain}"
    line = f"memory: {step}, {memory.device} has {format_bytes(memory.free)} free"
    if helps:
        line += f": activations are recomputed in the backward pass, for {less} and a third more time"
    log(line)
    if not helps or need.checkpointed > budget:
        log("note: it may not fit")
        available = Memory(int(budget), memory.device)
        for line in memory_tips(model, summarize(model, batch[1:], batch[0], precision), available)[1:]:
            log(f"note: {line}")
    return helps
