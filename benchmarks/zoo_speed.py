"""Forward pass and training step of every classifier, compared with the same kind of network of torchvision or timm.

    python benchmarks/zoo_speed.py --match 'resnet*' --out zoo.jsonl      # one part; again: what is missing in the file
    python benchmarks/zoo_speed.py --table zoo.jsonl                      # the table of all parts, in Markdown

Both sides have random weights, float32, channels-last, the same batch, and images of the architecture's own size, of
224 pixels at most (both sides accept any; ratios of the large ones would take minutes per step). A training step is
forward, cross-entropy (of auxiliary classifiers too), backward and a step of plain SGD.

The allocator has the settings of hubel's commands, for both sides: by default, glibc takes memory from the kernel and
returns it around each large feature map, and which map that affects depends on the order in which a network frees them.
(It made our Xception, whose modules hold their input a little longer, 11 % slower, and others faster.)

Each architecture has a process of its own, in which the two networks take turns, step by step: ours, theirs, theirs,
ours. Such a round gives one ratio, in which a steady drift cancels out. There are as many rounds as fit into the given
seconds, but at least six. The ratio is the median over the rounds, with its 95 % interval by order statistics, which
assumes nothing but independent rounds. It is printed for wall-clock seconds and for processor seconds: on a machine
with other work, the latter vary less. A row counts as too slow if even the lower end of its interval is above 1.05.
Exit status 1: one was too slow, or one failed.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

BAR = 1.05
LARGEST_SIDE = 224
FEWEST_ROUNDS = 6  # with fewer, not even the whole range of the ratios is a 95 % interval
KINDS = ("forward", "training")


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
    """Measure each architecture in a process of its own, or print the table of the measurements."""
    arguments = _arguments()
    if arguments.only:
        print(json.dumps(_measured(arguments)))
        return 0
    if arguments.table:
        rows = _read(arguments.table)
        print(table(rows))
        return 1 if slower(rows) else 0
    from hubel import list_models

    done = {row["name"] for row in _read(arguments.out)} if arguments.out else set()
    rows, failed = [], []
    for name in list_models("classify", match=arguments.match):
        if name in done or (arguments.compared and name not in COUNTERPARTS):
            continue
        options = {"--seconds": arguments.seconds, "--batch": arguments.batch, "--threads": arguments.threads}
        options |= {"--only": name, "--image-size": arguments.image_size}
        command = [sys.executable, __file__, *(str(word) for option in options.items() for word in option)]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if child.returncode:
            failed.append(name)
            continue
        line = child.stdout.splitlines()[-1]
        rows.append(json.loads(line))
        print(_format_row(rows[-1]), file=sys.stderr, flush=True)
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(line + "\n")
    if not arguments.out:
        print(table(rows))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or slower(rows) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--match", default="*", help="pattern of the architectures' names")
    parser.add_argument("--compared", action="store_true", help="measure only those with a counterpart")
    parser.add_argument("--seconds", type=float, default=20, help="for each kind of step of each architecture")
    parser.add_argument("--batch", type=int, default=4, help="images in a batch")
    parser.add_argument("--image-size", type=int, default=LARGEST_SIDE, help="maximum side of the images in pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, help="JSON Lines, one network per line; networks in the file are not measured again"
    )
    parser.add_argument("--table", type=Path, help="print such a file as a table and measure nothing")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    return parser.parse_args()


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; none if the file does not exist yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(": ")[1] for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def ratios(seconds: dict[str, list[float]]) -> list[float]:
    """Ours over theirs, one per round of two steps each."""
    ours, theirs = seconds["hubel"], seconds.get("theirs", [])
    return [sum(ours[i : i + 2]) / sum(theirs[i : i + 2]) for i in range(0, len(theirs), 2)]


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Bounds of the median of the distribution that independent values come from.

    The k-th smallest and the k-th largest hold it with probability 1 - 2 P(Binomial(n, 1/2) < k): the largest k that
    is confident enough is taken, or the whole range.
    """
    ordered, n = sorted(values), len(values)
    below, k = 0.0, 0
    while k < n // 2 and 1 - 2 * (below + math.comb(n, k) / 2**n) >= confidence:
        below += math.comb(n, k) / 2**n
        k += 1
    k = max(k, 1)
    return ordered[k - 1], ordered[n - k]


def _statistics(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Median milliseconds of either side; ratio, interval and rounds where there is a counterpart."""
    figures: dict[str, Any] = {side: round(1000 * statistics.median(each), 2) for side, each in seconds.items()}
    found = ratios(seconds)
    if found:
        low, high = interval(found)
        figures |= {"ratio": round(statistics.median(found), 4), "low": round(low, 4), "high": round(high, 4)}
        figures["rounds"] = len(found)
    return figures


def slower(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Names whose ratio is significantly above the limit, in wall-clock or in processor seconds."""
    clocks = ("by_clock", "computed")
    return [
        row["name"] for row in rows if any(row[kind][clock].get("low", 0) > BAR for kind in KINDS for clock in clocks)
    ]


def _format_row(row: dict[str, Any]) -> str:
    parts = [f"{kind} {_cell(row[kind]['by_clock'])} (computed {_cell(row[kind]['computed'])})" for kind in KINDS]
    return f"{row['name']}: {', '.join(parts)}"


def _cell(figures: dict[str, Any]) -> str:
    if "ratio" not in figures:
        return f"{figures['hubel']:.1f} ms"
    return f"{figures['ratio']:.3f} [{figures['low']:.3f}, {figures['high']:.3f}]"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: milliseconds and ratios of every row, then a summary."""
    settings = list(dict.fromkeys(f"{row['machine']}; {row['threads']} threads; {row['versions']}" for row in rows))
    heads = [f"{kind}: ms | ratio by the clock | ratio of seconds computed" for kind in KINDS]
    lines = [*settings, "", f"| architecture | counterpart | images | {' | '.join(heads)} |"]
    lines.append("| --- " * 9 + "|")
    for row in rows:
        cells = [row["name"], row["counterpart"] or "none", f"{row['batch']} × {'×'.join(map(str, row['input']))}"]
        for kind in KINDS:
            by_clock, computed = row[kind]["by_clock"], row[kind]["computed"]
            cells.append(" / ".join(f"{by_clock[side]:.1f}" for side in ("hubel", "theirs") if side in by_clock))
            cells += [_cell(each) if "ratio" in each else "" for each in (by_clock, computed)]
        lines.append(f"| {' | '.join(cells)} |")
    compared = [row for row in rows if row["counterpart"]]
    lines.append("")
    for kind in KINDS:
        if compared:
            middle = statistics.median(row[kind]["by_clock"]["ratio"] for row in compared)
            lines.append(f"{kind}: median ratio {middle:.3f} over {len(compared)} networks")
    certain = slower(rows)
    lines.append(f"above {BAR} for certain: {', '.join(certain) if certain else 'none'}")
    return "\n".join(lines)


def _measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one architecture: a row of the file."""
    import torch

    from hubel.models import architecture, create_model
    from hubel.system import tune_allocator

    tune_allocator()
    torch.set_num_threads(arguments.threads)
    # Without training, activations vanish in deep networks, and processors are slow with subnormal numbers: an
    # effect of the random weights that trained networks do not have.
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    name = arguments.only
    row, other = architecture(name), COUNTERPARTS.get(name)
    # Inception-v3's auxiliary classifier cannot process smaller images than its own.
    side = row.input[1] if name == "inception_v3" else min(row.input[1], arguments.image_size)
    networks = {"hubel": create_model(name, image_size=side, **(other.options if other else {}))}
    if other:
        networks["theirs"] = built(other)
        ours, theirs = (sum(p.numel() for p in network.parameters()) for network in networks.values())
        if ours != theirs:
            print(f"{name}: {ours:,} parameters, {other.library}'s {other.name} {theirs:,}", file=sys.stderr)
    shape = (row.input[0], side, side)
    images = torch.randn(arguments.batch, *shape).to(memory_format=torch.channels_last)
    labels = torch.randint(row.num_classes, (arguments.batch,))
    steps: dict[str, dict[str, Callable[[], None]]] = {kind: {} for kind in KINDS}
    for who, network in networks.items():
        network.to(memory_format=torch.channels_last)
        steps["forward"][who] = _forward_step(network, images)
        steps["training"][who] = _training_step(network, images, labels)
    measured = {kind: _in_turns(sides, arguments.seconds) for kind, sides in steps.items()}
    return {
        "name": name,
        "counterpart": f"{other.library}: {other.name}" if other else None,
        "batch": arguments.batch,
        "input": list(shape),
        "threads": arguments.threads,
        "machine": _processor(),
        "versions": ", ".join(f"{library} {version(library)}" for library in ("torch", "torchvision", "timm")),
        **{
            kind: {clock: _statistics(seconds) for clock, seconds in of_kind.items()}
            for kind, of_kind in measured.items()
        },
    }


def built(other: Counterpart) -> Any:
    """The other library's network with random weights."""
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


def objective(network: Any, images: Any, labels: Any) -> Any:
    """Cross-entropy of the outputs of a network in training mode, including those of its auxiliary classifiers."""
    import torch

    from hubel.models import Classifier

    if isinstance(network, Classifier):
        given = network.training_outputs(images)
        outputs = [given] if isinstance(given, torch.Tensor) else list(given.values())
    else:
        given = network(images)
        outputs = [given] if isinstance(given, torch.Tensor) else [each for each in given if each is not None]
    return sum(torch.nn.functional.cross_entropy(each, labels) for each in outputs)


def _training_step(network: Any, images: Any, labels: Any) -> Callable[[], None]:
    import torch

    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def step() -> None:
        network.train()
        loss = objective(network, images, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _in_turns(sides: dict[str, Callable[[], None]], budget: float) -> dict[str, dict[str, list[float]]]:
    """Seconds of every step, wall-clock and processor time, by side: ours, theirs, theirs, ours, and so on."""
    clocks = {"by_clock": time.perf_counter, "computed": time.process_time}
    seconds: dict[str, dict[str, list[float]]] = {clock: {side: [] for side in sides} for clock in clocks}
    for step in [*sides.values()] * 2:
        step()  # the first steps allocate memory and choose kernels
    gc.collect()
    gc.disable()
    begun, rounds = time.perf_counter(), 0
    while rounds < FEWEST_ROUNDS or time.perf_counter() - begun < budget:
        for side in (*sides, *reversed(sides)):
            start = {clock: now() for clock, now in clocks.items()}
            sides[side]()
            for clock, now in clocks.items():
                seconds[clock][side].append(now() - start[clock])
        rounds += 1
    return seconds


if __name__ == "__main__":
    sys.exit(main())
