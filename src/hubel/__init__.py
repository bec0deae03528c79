"""hubel: deep computer vision with convolutional networks.

Everything here is imported on first use, so that ``import hubel`` does not import torch.
"""

import sys as _sys
from typing import TYPE_CHECKING as _TYPE_CHECKING

__version__ = "0.1.0"

if _TYPE_CHECKING:
    from hubel.errors import HubelError as HubelError
    from hubel.exporters.export import export as export
    from hubel.inference.predictor import Predictor as Predictor
    from hubel.inference.sliding_window import slide as slide
    from hubel.inference.video_tracking import track as track
    from hubel.models import create_model as create_model
    from hubel.models import list_models as list_models
    from hubel.models import summary as summary
    from hubel.models.fully_convolutional import to_fully_convolutional as to_fully_convolutional
    from hubel.results import Classification as Classification
    from hubel.results import Detections as Detections
    from hubel.results import Instances as Instances
    from hubel.results import Tracks as Tracks
    from hubel.training import compound_scaling as scaling  # noqa: F401
    from hubel.training.evaluate import evaluate as evaluate
    from hubel.training.train import train as train
    from hubel.tuning.tune import tune as tune

_HOME_OF = {
    "Classification": "hubel.results",
    "Detections": "hubel.results",
    "Instances": "hubel.results",
    "HubelError": "hubel.errors",
    "Tracks": "hubel.results",
    "Predictor": "hubel.inference.predictor",
    "create_model": "hubel.models",
    "evaluate": "hubel.training.evaluate",
    "export": "hubel.exporters.export",
    "list_models": "hubel.models",
    "summary": "hubel.models",
    "slide": "hubel.inference.sliding_window",
    "to_fully_convolutional": "hubel.models.fully_convolutional",
    "track": "hubel.inference.video_tracking",
    "train": "hubel.training.train",
    "tune": "hubel.tuning.tune",
}

_MODULES = {"boxes": "hubel.boxes", "scaling": "hubel.training.compound_scaling"}

__all__ = ["__version__", *sorted([*_HOME_OF, *_MODULES])]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'hubel' has no attribute {name!r}", name=name, obj=_sys.modules[__name__])


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__file__", "__name__", "__path__"]
