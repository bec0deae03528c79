"""The number formats that networks run in, by the names that commands take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubel.errors import UsageError

FORMATS = ("fp32", "bf16", "fp16", "int8")
_LONG_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class NumberFormat:
    """A number format and why it was taken.

    Attributes:
        name: one of :data:`FORMATS`.
        reason: for the log line, with the measured figure where there is one.
    """

    name: str
    reason: str


def canonical(precision: str, allowed: Sequence[str] = FORMATS) -> str:
    """The short name of a number format; ``"auto"`` stays.

    Args:
        precision: ``"auto"``, one of ``allowed``, or its long name (``"float32"``, ``"bfloat16"``, ``"float16"``).
        allowed: short names.

    Raises:
        UsageError: it is none of these.
    """
    name = _LONG_NAMES.get(precision, precision)
    if name != "auto" and name not in allowed:
        fault = "is not available with this engine and device" if name in FORMATS else "is not known"
        raise UsageError(f"precision {precision!r} {fault}", f"use auto, {', '.join(allowed)}")
    return name
