"""OpenVINO and NNCF come with a package that reports their use to their maker: it stays off."""

from __future__ import annotations

import sys


def switch_off_telemetry() -> None:
    """Make ``openvino_telemetry`` a package that is not installed, for this process.

    Importing OpenVINO sends an event, and every conversion another, unless that package is missing; both libraries
    then go on without it. Call this before either is imported; afterwards it does nothing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
