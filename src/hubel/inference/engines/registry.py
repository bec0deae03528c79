"""The engines by name, in the order in which they are preferred; importing this imports none of their libraries."""

from __future__ import annotations

from hubel.inference.engines.base import Backend
from hubel.inference.engines.onnx import OnnxBackend
from hubel.inference.engines.openvino import OpenVinoBackend
from hubel.inference.engines.torch import TorchBackend

_BACKENDS: tuple[Backend, ...] = (TorchBackend(), OpenVinoBackend(), OnnxBackend())
BACKENDS = {backend.name: backend for backend in _BACKENDS}
