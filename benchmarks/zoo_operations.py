"""Operations in a training step of every classifier, compared with the same kind of network of torchvision or timm.

    python benchmarks/zoo_operations.py [--match 'resnet*'] [--image-size 96] [--batch 2]

Counts instead of times, which other work on the machine does not change: operations that torch executes in forward,
cross-entropy and backward pass; megabytes that they write; megabytes that are saved for the backward pass; and
operations on images or maps that are not channels-last. If no count exceeds the other side's, differences in time are
chance, or due to the order of the modules' Python. Prints a Markdown table, ours / theirs.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hubel.models import architecture, create_model, list_models
from zoo_speed import COUNTERPARTS, built, objective

# Families whose dense layers or auxiliary classifiers need the input size of their counterparts.
FIXED = ("alexnet", "vgg", "zfnet", "inception_v3")


@dataclass
class Executed:
    """Counts of executed operations; bytes are those of the results, none for a view."""

    operations: int = 0
    written: int = 0
    kept: int = 0
    elsewhere: int = 0


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.executed = Executed()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        read = {each.untyped_storage().data_ptr() for each in args if isinstance(each, Tensor)}
        given = result if isinstance(result, tuple | list) else [result]
        results = [each for each in given if isinstance(each, Tensor)]
        in_place = operation._schema.name.endswith("_")
        self.executed.operations += 1
        for each in results:
            if in_place or each.untyped_storage().data_ptr() not in read:
                self.executed.written += each.numel() * each.element_size()
        self.executed.elsewhere += any(_elsewhere(each) for each in (*args, *results) if isinstance(each, Tensor))
        return result


def _elsewhere(tensor: Tensor) -> bool:
    """Images or maps of more than one pixel and channel that are not channels-last. Slices of such are."""
    if tensor.ndim != 4 or min(tensor.shape[1], tensor.shape[2] * tensor.shape[3]) == 1:
        return False
    return tensor.stride(1) != 1


def executed(network: Any, images: Tensor, labels: Tensor) -> Executed:
    """The operations of a training step without the optimizer's."""
    network.train().to(memory_format=torch.channels_last)
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with _Watch() as watch, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        objective(network, images.contiguous(memory_format=torch.channels_last), labels).backward()
    watch.executed.kept = sum(storages.values())
    return watch.executed


def compared(name: str, image_size: int, batch: int) -> tuple[Executed, Executed]:
    """The counts of both sides."""
    row, other = architecture(name), COUNTERPARTS[name]
    side = row.input[1] if name.startswith(FIXED) else image_size
    torch.manual_seed(0)
    images, labels = torch.randn(batch, 3, side, side), torch.arange(batch)
    ours = executed(create_model(name, image_size=side, **other.options), images, labels)
    return ours, executed(built(other), images, labels)


def _cells(counts: Executed) -> list[str]:
    operations, written, kept, elsewhere = astuple(counts)
    return [str(operations), f"{written / 1e6:.1f}", f"{kept / 1e6:.1f}", str(elsewhere)]


def main() -> int:
    """Print a row for each architecture with a counterpart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--match", default="*", help="pattern of the architectures' names")
    parser.add_argument("--image-size", type=int, default=96, help="unless the dense layers need another")
    parser.add_argument("--batch", type=int, default=2)
    arguments = parser.parse_args()
    print("| architecture | counterpart | operations | written, MB | saved, MB | not channels-last |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for name in list_models("classify", match=arguments.match):
        if name in COUNTERPARTS:
            ours, theirs = compared(name, arguments.image_size, arguments.batch)
            cells = [" / ".join(pair) for pair in zip(_cells(ours), _cells(theirs), strict=True)]
            print(f"| {name} | {COUNTERPARTS[name].library} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
