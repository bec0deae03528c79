"""The memory that ``hubel summary`` states, compared with the tensors that are alive and with the whole process.

    python benchmarks/memory.py --batch 8

Three new processes for each architecture. One counts the tensors that are alive: in prediction with torch's allocation
profiler (parameters, buffers and the peak at the end of an operation), in a training step with torch's saved-tensor
hooks (parameters, buffers, gradients, AdamW's numbers, and the tensors saved for the backward pass). One predicts a
batch and one trains two steps, and both report their peak resident memory, before the network was built and in total.
The memory of the processes beyond the tensors is what operations need while they run (mostly copies of weights in
oneDNN's layout), the gradients during the backward pass, and what the allocator keeps.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

ARCHITECTURES = ("resnet18", "densenet121", "mobilenet_v2", "vgg11", "googlenet_bn")


def _resident() -> int:
    """Peak resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def alive(name: str, size: int, batch: int) -> dict[str, int]:
    """Bytes that the summary states, and bytes of the tensors that are alive."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    import hubel

    model = hubel.create_model(name, image_size=size).eval()
    stated = hubel.summary(model, (3, size, size), batch=batch)
    images = torch.rand(batch, 3, size, size)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        model(images)
    ended = sorted(profiler.events(), key=lambda event: event.time_range.end)
    signals = max(itertools.accumulate(event.self_cpu_memory_usage for event in ended)) + images.nbytes
    constants = [*model.parameters(), *model.buffers()]
    held = sum(tensor.nbytes for tensor in constants)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    optimizer = torch.optim.AdamW(model.parameters())
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = _loss(model.train(), images)
    loss.backward()
    optimizer.step()
    for tensor in constants:
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    states = [value for state in optimizer.state.values() for value in state.values()]
    trained = [*states, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]
    return {
        "stated_predict": stated.inference_bytes,
        "alive_predict": held + signals,
        "stated_train": stated.training_bytes,
        "alive_train": held + sum(tensor.nbytes for tensor in trained) + sum(kept.values()),
    }


def predict(name: str, size: int, batch: int) -> dict[str, int]:
    """Resident bytes before and after a prediction."""
    import torch

    import hubel

    before = _resident()
    model = hubel.create_model(name, image_size=size).eval()
    with torch.no_grad():
        model(torch.rand(batch, 3, size, size))
    return {"libraries": before, "resident_predict": _resident()}


def train(name: str, size: int, batch: int) -> dict[str, int]:
    """Resident bytes after two training steps."""
    import torch

    import hubel

    model = hubel.create_model(name, image_size=size)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        _loss(model, torch.rand(batch, 3, size, size)).backward()
        optimizer.step()
    return {"resident_train": _resident()}


def _loss(model: Any, images: Any) -> Any:
    """The loss of ``hubel train``, which includes auxiliary classifiers."""
    from hubel.models.base import ClassTargets

    targets = ClassTargets(images.new_zeros(len(images)).long())
    return sum(model.losses(model.training_outputs(images, targets), targets).values())


PARTS: dict[str, Callable[[str, int, int], dict[str, int]]] = {"alive": alive, "predict": predict, "train": train}


def main() -> None:
    """Measure each architecture in processes of its own and print a table in MB (1,000,000 bytes)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=ARCHITECTURES, metavar="ARCHITECTURE")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](arguments.names[0], arguments.size, arguments.batch)))
        return
    print(f"MB with {arguments.batch} images of {arguments.size} × {arguments.size} pixels in float32\n")
    print("| architecture | predict: stated | alive | resident | train: stated | alive | resident | libraries |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in arguments.names:
        found: dict[str, int] = {}
        for part in PARTS:
            command = [sys.executable, __file__, name, "--part", part]
            command += ["--size", str(arguments.size), "--batch", str(arguments.batch)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            found |= json.loads(done.stdout.splitlines()[-1])
        columns = [f"{found[f'{what}_{when}'] / 1e6:.0f}" for when in ("predict", "train") for what in
                   ("stated", "alive", "resident")]  # fmt: skip
        print(f"| {name} | {' | '.join(columns)} | {found['libraries'] / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    main()
