"""Forward and training step of every classifier against torchvision's or timm's network of the same kind.

    python benchmarks/zoo_speed.py [--match 'resnet*'] [--rounds 9] [--batch 4] [--threads 2]

Both sides have random weights, float32, channels-last, the architecture's own image size, and the same batch: by
default the largest of 8, 4 and 2 whose training step fits into 3 GB. A training step is forward, cross-entropy (of
auxiliary classifiers too), backward and a step of plain SGD. Each architecture has a process of its own, in which the
two networks take turns, step by step, and change places every round. Milliseconds are medians; the ratio, ours by
theirs, is the median over the rounds. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

MEMORY = 3e9


@dataclass(frozen=True)
class Counterpart:
    """Another library's network: its name there, arguments of its function, and options that make ours the same."""

    library: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


_SAME_IN_TORCHVISION = (
    *(f"vgg{depth}" for depth in (11, 13, 16, 19)),
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *("resnext50_32x4d", "resnext101_32x8d", "densenet121", "densenet169", "densenet201"),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
)
_SAME_IN_TIMM = ("inception_v4", "inception_resnet_v2", "senet154", "cspresnet50", "cspresnext50", "cspdarknet53")
COUNTERPARTS = {
    "alexnet_owt": Counterpart("torchvision", "alexnet"),
    "googlenet_bn": Counterpart("torchvision", "googlenet", {"aux_logits": True, "init_weights": False}),
    "inception_v3": Counterpart("torchvision", "inception_v3", {"aux_logits": True, "init_weights": False}),
    "densenet264": Counterpart("torchvision", "DenseNet", {"block_config": (6, 12, 64, 48)}),
    "xception": Counterpart("timm", "legacy_xception"),
    "mobilenet_v1": Counterpart("timm", "mobilenetv1_100"),
    **{name: Counterpart("torchvision", name) for name in _SAME_IN_TORCHVISION},
    **{name: Counterpart("timm", name) for name in _SAME_IN_TIMM},
    **{f"se_resnet{depth}": Counterpart("timm", f"seresnet{depth}") for depth in (50, 101, 152)},
    **{f"efficientnet_b{n}": Counterpart("torchvision", f"efficientnet_b{n}") for n in range(8)},
    **{f"efficientnet_lite{n}": Counterpart("timm", f"tf_efficientnet_lite{n}") for n in range(5)},
}


def main() -> int:
    """Measure each architecture in a process of its own; 1 if one of them failed."""
    arguments = _arguments()
    if arguments.only:
        print(json.dumps(_measured(arguments.only, arguments.batch, arguments.rounds, arguments.threads)))
        return 0
    from hubel import list_models

    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm"))
    print(f"{_processor()}, {arguments.threads} threads; {libraries}; {arguments.rounds} rounds; ours / theirs in ms\n")
    print("| architecture | counterpart | batch | forward | ratio | training step | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    failed = []
    for name in list_models("classify", match=arguments.match):
        batch = arguments.batch or _batch_that_fits(name)
        command = [sys.executable, __file__, "--only", name, "--batch", str(batch)]
        command += ["--rounds", str(arguments.rounds), "--threads", str(arguments.threads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            failed.append(name)
        else:
            print(_row(name, batch, json.loads(done.stdout.splitlines()[-1])), flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--match", default="*", help="pattern of the architectures' names")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, help="images in a batch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    return parser.parse_args()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(": ")[1] for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _batch_that_fits(name: str) -> int:
    import hubel

    return next((batch for batch in (8, 4) if hubel.summary(name, batch=batch).training_bytes <= MEMORY), 2)


def _row(name: str, batch: int, result: dict[str, Any]) -> str:
    other = COUNTERPARTS.get(name)
    cells = [name, f"{other.library}: {other.name}" if other else "no counterpart", str(batch)]
    for kind in ("forward", "training"):
        ours, theirs = result[kind]["hubel"], result[kind].get("theirs")
        medians = [f"{1000 * statistics.median(times):.1f}" for times in (ours, theirs) if times]
        cells.append(" / ".join(medians))
        ratios = [mine / other for mine, other in zip(ours, theirs or [], strict=False)]
        cells.append(f"{statistics.median(ratios):.3f}" if ratios else "")
    return f"| {' | '.join(cells)} |"


def _measured(name: str, batch: int, rounds: int, threads: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of every step, by kind of step and by side."""
    import torch

    from hubel.models import architecture, create_model

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    row, other = architecture(name), COUNTERPARTS.get(name)
    networks = {"hubel": create_model(name, **(other.options if other else {}))}
    if other:
        networks["theirs"] = _built(other)
        ours, theirs = (sum(p.numel() for p in network.parameters()) for network in networks.values())
        if ours != theirs:
            print(f"{name}: {ours:,} parameters, {other.library}'s {other.name} {theirs:,}", file=sys.stderr)
    images = torch.randn(batch, *row.input).to(memory_format=torch.channels_last)
    labels = torch.randint(row.num_classes, (batch,))
    steps: dict[str, dict[str, Callable[[], None]]] = {"forward": {}, "training": {}}
    for side, network in networks.items():
        network.to(memory_format=torch.channels_last)
        steps["forward"][side] = _forward_step(network, images)
        steps["training"][side] = _training_step(network, images, labels)
    return {kind: _in_turns(sides, rounds) for kind, sides in steps.items()}


def _built(other: Counterpart) -> Any:
    if other.library == "timm":
        import timm

        return timm.create_model(other.name, **other.arguments)
    import torchvision

    return getattr(torchvision.models, other.name)(**other.arguments)


def _forward_step(network: Any, images: Any) -> Callable[[], None]:
    import torch

    def step() -> None:
        network.eval()
        with torch.inference_mode():
            network(images)

    return step


def _training_step(network: Any, images: Any, labels: Any) -> Callable[[], None]:
    import torch

    from hubel.models import Classifier

    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def step() -> None:
        network.train()
        if isinstance(network, Classifier):
            scores, auxiliary = network.scores_with_auxiliary(images)
            outputs = [scores, *auxiliary]
        else:
            given = network(images)
            outputs = [given] if isinstance(given, torch.Tensor) else [each for each in given if each is not None]
        loss = sum(torch.nn.functional.cross_entropy(each, labels) for each in outputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _in_turns(sides: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    order = list(sides)
    for step in sides.values():
        step()  # the first allocates and chooses kernels
    for _ in range(rounds):
        for side in order:
            start = time.perf_counter()
            sides[side]()
            seconds[side].append(time.perf_counter() - start)
        order.reverse()
    return seconds


if __name__ == "__main__":
    sys.exit(main())
