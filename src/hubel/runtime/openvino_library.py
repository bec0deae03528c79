"""OpenVINO, imported so that it keeps to itself."""

from __future__ import annotations

import sys
from typing import Any


def openvino() -> Any:
    """The package ``openvino``, without its telemetry.

    OpenVINO and NNCF report their use to a server through the package ``openvino_telemetry`` unless the user's home
    folder says no; without that package they do not. So for this process it is marked as one that is not there,
    which touches no file. A program that has imported it before decides for itself.

    Raises:
        ImportError: OpenVINO is not installed, or not for this processor.
    """
    keep_quiet()
    import openvino as library

    return library


def keep_quiet() -> None:
    """Keep what is imported from now on from finding ``openvino_telemetry``."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as importlib has it
