"""hubel: deep computer vision with convolutional networks.

Everything here is imported on first use, so that ``import hubel`` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hubel.errors import HubelError as HubelError
    from hubel.inference import Predictor as Predictor
    from hubel.inference import export as export
    from hubel.inference.sliding_window import slide as slide
    from hubel.inference.video_tracking import track as track
    from hubel.models import create_model as create_model
    from hubel.models import list_models as list_models
    from hubel.models import summary as summary
    from hubel.models.fully_convolutional import to_fully_convolutional as to_fully_convolutional
    from hubel.results import Classification as Classification
    from hubel.results import Detections as Detections
    from hubel.results import Tracks as Tracks
    from hubel.training import train as train

_HOME_OF = {
    "Classification": "hubel.results",
    "Detections": "hubel.results",
    "HubelError": "hubel.errors",
    "Tracks": "hubel.results",
    "Predictor": "hubel.inference",
    "create_model": "hubel.models",
    "export": "hubel.inference",
    "list_models": "hubel.models",
    "summary": "hubel.models",
    "slide": "hubel.inference.sliding_window",
    "to_fully_convolutional": "hubel.models.fully_convolutional",
    "track": "hubel.inference.video_tracking",
    "train": "hubel.training",
}

_MODULES = ("boxes", "scaling")

__all__ = ["__version__", *sorted([*_HOME_OF, *_MODULES])]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"hubel.{name}")
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'hubel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF, *_MODULES])
