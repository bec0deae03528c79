"""OpenVINO, imported when it is needed and without its telemetry."""

from __future__ import annotations

from typing import Any

from hubel.runtime.telemetry import switch_off_telemetry


def openvino() -> Any:
    """The package ``openvino``."""
    switch_off_telemetry()
    import openvino as library

    return library
