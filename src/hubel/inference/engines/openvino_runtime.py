"""OpenVINO, imported when it is needed, without its telemetry, with one core for the whole process."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


def switch_off_telemetry() -> None:
    """Make ``openvino_telemetry`` a package that is not installed, for this process.

    Importing OpenVINO sends an event, and every conversion another, unless that package is missing; both libraries
    then go on without it. Call this before either is imported; afterwards it does nothing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


# sigaltstack(2): a pointer, flags and a size; no platform's is larger.
_STACK_BYTES = 64


def openvino() -> Any:
    """The package ``openvino``."""
    switch_off_telemetry()
    import openvino as library

    return library


@cache
def core() -> Any:
    """OpenVINO's ``Core``: one that stays as long as the process does.

    Loading the CPU plugin gives the thread another stack for signals, and unloading it gives back the one before,
    whichever that was: where two cores end in the order in which they began, the thread is left with a stack that is
    unmapped, and the next signal, Ctrl-C or the end of a child, kills the process (seen with OpenVINO 2026.4.1).
    """
    with own_signal_stack():
        only = openvino().Core()
        only.get_property("CPU", "FULL_DEVICE_NAME")  # the plugin is loaded at its first use
    return only


@contextmanager
def own_signal_stack() -> Iterator[None]:
    """Leave the thread's stack for signals as it was, whatever libraries do to it within."""
    if not sys.platform.startswith("linux"):
        yield
        return
    change = ctypes.CDLL(None, use_errno=True).sigaltstack
    before = ctypes.create_string_buffer(_STACK_BYTES)
    thread = threading.get_ident()
    known = change(None, before) == 0
    try:
        yield
    finally:
        if known and threading.get_ident() == thread:
            change(before, None)
