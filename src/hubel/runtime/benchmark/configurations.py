"""Which combinations of engine, number format and batch are measured, and which are left out and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubel.errors import UsageError
from hubel.runtime.engine import NAMES
from hubel.runtime.number_formats import FORMATS, canonical

BATCHES = (1, 16)
# What each engine can run in, and which of it is measured unless somebody asks for more.
_FORMATS = {"torch": ("fp32", "bf16", "fp16"), "openvino": ("fp32", "bf16", "fp16", "int8"), "onnx": ("fp32",)}
_MEASURED = ("fp32", "bf16", "int8")


@dataclass(frozen=True)
class Runner:
    """What runs a model.

    Attributes:
        engine: one of :data:`hubel.runtime.engine.NAMES`.
        precision: one of :data:`hubel.runtime.number_formats.FORMATS`.
    """

    engine: str
    precision: str


@dataclass(frozen=True)
class Plan:
    """What is to be measured of every model.

    Attributes:
        runners: engines and formats.
        batches: how many pictures go through the network at once.
        left_out: reasons, for what was asked for or would be measured by default, but cannot be had.
    """

    runners: tuple[Runner, ...]
    batches: tuple[int, ...]
    left_out: dict[Runner, str]


def plan(
    engines: Sequence[str] = (),
    precisions: Sequence[str] = (),
    batches: Sequence[int] = (),
    bf16_pays: bool = True,
) -> Plan:
    """Put together what is to be measured.

    Args:
        engines: their names; all by default.
        precisions: by their short or long names; by default fp32, bf16 and int8, where the engine has them.
        batches: numbers of pictures; 1 and 16 by default.
        bf16_pays: whether this machine computes in bfloat16; if not, it is measured only where it is asked for, as
            emulation may take hundreds of times as long.

    Raises:
        UsageError: an engine or number format that there is not, or a batch of none.
    """
    for name in engines:
        if name not in NAMES:
            raise UsageError(f"there is no engine {name!r}", f"use {', '.join(NAMES)}")
    formats = [canonical(name) for name in precisions]
    if "auto" in formats:
        raise UsageError("precision auto is none that can be compared", f"use {', '.join(FORMATS)}")
    if any(batch < 1 for batch in batches):
        raise UsageError(f"batch is {min(batches)}", "use 1 or more")
    runners: list[Runner] = []
    left_out: dict[Runner, str] = {}
    for engine in dict.fromkeys(engines or NAMES):
        for precision in dict.fromkeys(formats or _MEASURED):
            runner = Runner(engine, precision)
            if precision not in _FORMATS[engine]:
                if formats:
                    left_out[runner] = f"{engine} does not compute in {precision} here"
            elif precision == "bf16" and not formats and not bf16_pays:
                left_out[runner] = "this processor has no instructions for bf16"
            else:
                runners.append(runner)
    return Plan(tuple(runners), tuple(dict.fromkeys(batches or BATCHES)), left_out)
