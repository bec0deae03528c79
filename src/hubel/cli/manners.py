"""How every command speaks: results on stdout, everything else on stderr, errors in two lines."""

from __future__ import annotations

import sys
from typing import Any

from hubel.writing import json_line


def say(line: str) -> None:
    """Write one line for the person at the terminal to stderr."""
    print(line, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Write one JSON document in one line to stdout; NaN becomes null, as JSON knows none."""
    print(json_line(value), flush=True)


def report_error(fault: str, remedy: str) -> None:
    """One line that names the fault, one that names the way out, on stderr."""
    say(f"error: {fault}")
    say(f"hint:  {remedy}")
