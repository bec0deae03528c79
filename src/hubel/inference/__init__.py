"""Fast prediction: engines, precision, the pipeline from images to results.

Names are imported on first use: the allocator and the annotated files need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubel.inference.pipeline import FailedImage as FailedImage
    from hubel.inference.predictor import Predictor as Predictor
    from hubel.system import tune_allocator as tune_allocator

_MODULE_OF = {
    "FailedImage": "hubel.inference.pipeline",
    "Predictor": "hubel.inference.predictor",
    "tune_allocator": "hubel.system",
}

__all__ = ["FailedImage", "Predictor", "tune_allocator"]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'hubel.inference' has no attribute {name!r}")
