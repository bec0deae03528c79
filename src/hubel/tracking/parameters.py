"""Parameters of trackers: what they may be, and what people write for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from hubel.errors import UsageError

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def at_least(name: str, value: float, least: float) -> None:
    """Raise :class:`UsageError` unless ``value`` is a number of ``least`` or more."""
    if not value >= least:
        raise UsageError(f"{name} is {value}", f"use {least} or more")


def fraction(name: str, value: float) -> None:
    """Raise :class:`UsageError` unless ``value`` is from 0 to 1."""
    if not 0 <= value <= 1:
        raise UsageError(f"{name} is {value}", "use a fraction from 0 to 1")


def describe(kind: Any) -> str:
    """The parameters of a dataclass with their defaults: ``max_age=1, min_hits=3``."""
    return ", ".join(f"{field.name}={field.default}" for field in fields(kind))


def parse(kind: Any, assignments: Iterable[str]) -> dict[str, Any]:
    """Parameters from ``NAME=VALUE``, each of the type of its default.

    Args:
        kind: dataclass of the parameters.
        assignments: as a person writes them.

    Raises:
        UsageError: no such parameter, or its value is of another type.
    """
    defaults = {field.name: field.default for field in fields(kind)}
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or name not in defaults:
            raise UsageError(f"--set {assignment} sets nothing that there is", f"use --set with {describe(kind)}")
        values[name] = _read(name, text, defaults[name])
    return values


def _read(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in _WORDS:
            raise UsageError(f"{name} is {text!r}", "use true or false")
        return _WORDS[text.lower()]
    try:
        return int(text) if isinstance(default, int) else float(text)
    except ValueError as error:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise UsageError(f"{name} is {text!r}", f"use {kind}, such as {default}") from error
