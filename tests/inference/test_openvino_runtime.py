"""OpenVINO within a process that gets signals."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import openvino
import pytest
from openvino import opset13

from hubel.inference.engines.openvino_runtime import core, own_signal_stack


def signal_stack() -> bytes:
    """sigaltstack(2)'s record of this thread's: address, flags, size."""
    record = ctypes.create_string_buffer(24)
    assert ctypes.CDLL(None).sigaltstack(None, record) == 0
    return record.raw


def plus_one() -> openvino.Model:
    parameter = opset13.parameter([2], np.float32)
    return openvino.Model([opset13.add(parameter, np.float32(1))], [parameter])


def test_there_is_one_core_for_all():
    assert core() is core()
    np.testing.assert_array_equal(core().compile_model(plus_one(), "CPU")([np.zeros(2, np.float32)])[0], [1, 1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sigaltstack(2) of Linux")
def test_the_stack_for_signals_is_left_as_it_was():
    before = signal_stack()
    core()
    assert signal_stack() == before
    # A core that ends before one that began later leaves its stack behind.
    with own_signal_stack():
        first = openvino.Core()
        first.get_property("CPU", "FULL_DEVICE_NAME")
        second = openvino.Core()
        second.get_property("CPU", "FULL_DEVICE_NAME")
        del first, second
    assert signal_stack() == before
