"""Precision and memory layout of training steps, chosen by timing a few real steps.

What is faster depends on the processor, the network and the batch, so it is measured: bfloat16 trains ResNet-50
1.9 times as fast where the CPU has instructions for it, and hundreds of times slower where it has not. A run that is
too short for trials takes what is most often fastest. The choice is recorded in the run's folder and, for repeats, in
the cache: the same seed then gives the same result.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import psutil
import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from hubel.inference.precision import bfloat16_pays
from hubel.layers.depthwise_gradients import fast_depthwise_gradients
from hubel.timing import per_second, tick
from hubel.training.finetune import single_values_normalized
from hubel.training.run_records import STRICT, measured_once
from hubel.training.trials import TrialBudget, machine_key, step_key

_WARM_UP_TURNS, _TIMED_TURNS = 1, 2
_COST_OF_CONTIGUOUS = 1.6  # of a step, in steps of channels-last, where it is slow
_TICKS = 10  # of the clock that a step has to last: less says little
_BUSY = 0.15  # fraction of the CPU used by other processes, above which wall-clock times say little


@dataclass(frozen=True)
class ExecutionPlan:
    """Precision and memory layout of training steps, and a sentence with the measurements.

    Attributes:
        precision: ``"float32"``, ``"bfloat16"`` or ``"float16"`` (mixed: the weights stay float32).
        channels_last: whether weights and activations lie in memory as N, H, W, C.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    precision: Annotated[str, Field(pattern=r"^(float32|bfloat16|float16)$")]
    channels_last: bool
    reason: Annotated[str, Field(max_length=500)]

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout in torch's terms."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def choose_execution(
    model: nn.Module,
    loss: Callable[[Any], Tensor],
    batch: tuple[int, int, int, int],
    device: torch.device,
    precision: str = "auto",
    budget: TrialBudget | None = None,
) -> ExecutionPlan:
    """Time a few forward and backward passes each way and take the fastest, if the budget allows it.

    Args:
        model: in training mode, on ``device``; the trial runs on a copy.
        loss: training outputs → loss.
        batch: shape (N, C, H, W).
        device: where it will train; on a GPU nothing is measured.
        precision: a fixed precision, or ``"auto"``.
        budget: of trials; without one they are always made.
    """
    budget = budget or TrialBudget()
    if device.type == "cuda":
        half: Any = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
        chosen: Any = half if precision == "auto" else precision
        return ExecutionPlan(chosen, True, f"{chosen}, channels-last: a GPU with tensor cores")
    precisions: list[Any] = [precision]
    if precision == "auto":
        probe = measured_once(f"bfloat16 {device} {machine_key()}", _Probe, lambda: _Probe(bfloat16_pays(device)))
        precisions = ["bfloat16", "float32"] if probe.bfloat16_pays else ["float32"]
    if not budget.take(len(precisions) * (_WARM_UP_TURNS + _TIMED_TURNS) * (1 + _COST_OF_CONTIGUOUS)):
        reason = f"{precisions[0]}, channels-last: the run is too short to time the alternatives"
        return ExecutionPlan(precisions[0], True, reason)
    key = step_key(model, batch, device, precision)
    return measured_once(key, ExecutionPlan, lambda: _fastest(model, loss, batch, device, precisions, budget.announce))


@dataclass(frozen=True)
class _Probe:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    bfloat16_pays: bool


def _fastest(
    model: nn.Module,
    loss: Callable[[Any], Tensor],
    batch: tuple[int, int, int, int],
    device: torch.device,
    precisions: list[Any],
    announce: Callable[[str], None],
) -> ExecutionPlan:
    timings, busy = _seconds_per_step(model, loss, batch, device, precisions, announce)
    # Fused prediction and frozen layers need channels-last: another layout has to be clearly faster.
    handicap = {(name, last): seconds * (1 if last else 1.05) for (name, last), seconds in timings.items()}
    # Steps too short for the clock to compare: the first way is as good as any.
    shortest = _TICKS * tick(time.process_time if busy else time.perf_counter)
    comparable = min(timings.values()) > shortest
    chosen, channels_last = min(handicap, key=handicap.__getitem__) if comparable else next(iter(handicap))
    measured = ", ".join(
        f"{name} {'channels-last' if last else 'contiguous'} {per_second(batch[0], time_):.1f}"
        for (name, last), time_ in timings.items()
    )
    layout = "channels-last" if channels_last else "contiguous"
    note = " (in CPU seconds, as the machine is busy with other work)" if busy else ""
    return ExecutionPlan(chosen, channels_last, f"{chosen}, {layout}; images/s measured: {measured}{note}")


def _seconds_per_step(
    model: nn.Module,
    loss: Callable[[Any], Tensor],
    batch: tuple[int, int, int, int],
    device: torch.device,
    precisions: list[Any],
    announce: Callable[[str], None],
) -> tuple[dict[tuple[Any, bool], float], bool]:
    """Seconds of a forward and backward pass by precision and whether channels-last; whether the machine was busy.

    The ways take turns and the best time of each counts, so that other work on the machine falls on all alike. Where
    there is much of it, waiting for it could still decide: the seconds are then those that this process computed,
    divided by its threads.
    """
    ways = [(precision, channels_last) for precision in precisions for channels_last in (True, False)]
    trial = copy.deepcopy(model)
    elapsed: dict[tuple[str, bool], float] = {}
    computed: dict[tuple[str, bool], float] = {}
    others = CpuContention()
    for turn in range(_WARM_UP_TURNS + _TIMED_TURNS):
        for precision, channels_last in ways:
            announce(f"{precision}, {'channels-last' if channels_last else 'contiguous'}")
            layout = torch.channels_last if channels_last else torch.contiguous_format
            trial.to(memory_format=layout)
            images = torch.rand(batch, device=device).contiguous(memory_format=layout)
            start, start_computing = time.perf_counter(), time.process_time()
            forward_and_backward(trial, loss, images, precision)
            taken = time.perf_counter() - start
            taken_computing = (time.process_time() - start_computing) / torch.get_num_threads()
            if turn >= _WARM_UP_TURNS:
                way = (precision, channels_last)
                elapsed[way] = min(taken, elapsed.get(way, taken))
                computed[way] = min(taken_computing, computed.get(way, taken_computing))
    busy = device.type == "cpu" and others.share() > _BUSY
    return (computed if busy else elapsed), busy


def forward_and_backward(model: nn.Module, loss: Callable[[Any], Tensor], images: Tensor, precision: str) -> None:
    """A training step without the optimizer's, on normalized images (N, C, H, W)."""
    with single_values_normalized(model, len(images)), fast_depthwise_gradients(images.device, precision):
        with torch.autocast(images.device.type, getattr(torch, precision), enabled=precision != "float32"):
            value = loss(model(images))
        value.backward()


class CpuContention:
    """Measures, from its creation, how much of the CPU other processes use."""

    def __init__(self) -> None:
        self._all, self._own, self._time = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        times = psutil.cpu_times()
        total = sum(getattr(times, state, 0.0) for state in ("user", "nice", "system", "steal"))
        return total, time.process_time(), time.perf_counter()

    def share(self) -> float:
        """CPU seconds of other processes over those of all cores, 0..1."""
        total, own, now = self._now()
        available = max(1e-9, (now - self._time) * (psutil.cpu_count() or 1))
        return min(1.0, max(0.0, (total - self._all) - (own - self._own)) / available)
