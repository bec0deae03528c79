"""How every command speaks: results on stdout, everything else on stderr, errors in two lines."""

from __future__ import annotations

import json
import sys
from typing import Any


def say(line: str) -> None:
    """Write one line for the person at the terminal to stderr."""
    print(line, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Write one JSON document in one line to stdout; NaN becomes null, as JSON knows none."""
    print(json.dumps(_without_nan(value), ensure_ascii=False, allow_nan=False), flush=True)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def report_error(fault: str, remedy: str) -> None:
    """One line that names the fault, one that names the way out, on stderr."""
    say(f"error: {fault}")
    say(f"hint:  {remedy}")
