"""What is needed, besides its weights, to rebuild a model and to use it; read without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hubel
from hubel.data.preprocessing import Preprocessing
from hubel.errors import ModelError
from hubel.models.backbone_spec import Backbone

if TYPE_CHECKING:
    from torch import nn

WEIGHTS_FILE = "model.safetensors"
METADATA_FILE = "model.json"


@dataclass(frozen=True)
class ModelMetadata:
    """What is needed, besides its weights, to rebuild a model and to use it.

    Attributes:
        task: ``"classify"``, …
        architecture: name as in ``create_model(name)``.
        num_classes: as in ``create_model``.
        in_channels: as in ``create_model``.
        image_size: as in ``create_model``.
        classes: their names, in the order of the outputs.
        preprocessing: from an image to the network's input.
        options: further options of ``create_model`` that differ from the architecture's own.
        hubel: the version that wrote it.
        weights: name in the catalog of the weights that it is or started from; None if it started fresh.
        backbone: what it stands on, if that could be chosen.
    """

    task: str
    architecture: str
    num_classes: int
    in_channels: int
    image_size: int
    classes: list[str]
    preprocessing: Preprocessing
    options: dict[str, Any] = field(default_factory=dict)
    hubel: str = hubel.__version__
    weights: str | None = None
    backbone: Backbone | None = None

    def build(self, for_loading: bool = False) -> nn.Module:
        """The model that the card describes, in training mode.

        Args:
            for_loading: leave memory as it comes instead of drawing random weights; all has to be loaded then.

        Raises:
            ModelError: this version of hubel does not know the architecture or one of its options.
        """
        from hubel.models.factory import build
        from hubel.models.registry import architecture

        row = architecture(self.architecture)
        sizes = (self.num_classes, self.in_channels, self.image_size)
        return build(row, *sizes, self.options, self.backbone, for_loading=for_loading)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, as it stands in ``model.json``."""
        row = {**asdict(self), "preprocessing": self.preprocessing.to_json()}
        if self.backbone is None:  # as earlier versions write and read it
            del row["backbone"]
        return row

    @classmethod
    def from_json(cls, row: Any, origin: str = METADATA_FILE) -> ModelMetadata:
        """The inverse of :meth:`to_json`.

        Args:
            row: what the file holds.
            origin: the file, for messages.

        Raises:
            ModelError: keys are missing, unknown or of the wrong type.
        """
        again = "Train or save the model again, or take an undamaged copy."
        if not isinstance(row, dict):
            raise ModelError(f"{origin}: not a model card but {type(row).__name__}.", again)
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(row) - known)
        if unknown:
            raise ModelError(
                f"{origin}: written by hubel {row.get('hubel', '?')}, with {', '.join(unknown)}, which "
                f"hubel {hubel.__version__} does not know.",
                "Update hubel: pip install --upgrade hubel",
            )
        missing = sorted(known - set(row) - {"backbone"})
        if missing:
            raise ModelError(f"{origin}: {', '.join(missing)} is missing.", again)
        for name, fits in _FITS.items():
            if not fits(row.get(name)):
                raise ModelError(f"{origin}: {name} cannot be {row[name]!r:.60}.", again)
        if len(row["classes"]) != row["num_classes"]:
            raise ModelError(f"{origin}: names {len(row['classes'])} classes for {row['num_classes']} outputs.", again)
        try:
            preprocessing = Preprocessing.from_json(row["preprocessing"])
        except (TypeError, KeyError) as error:
            raise ModelError(f"{origin}: preprocessing cannot be read: {error}.", again) from error
        try:
            backbone = Backbone(**row["backbone"]) if row.get("backbone") else None
        except TypeError as error:
            raise ModelError(f"{origin}: backbone cannot be read: {error}.", again) from error
        return cls(**{**row, "preprocessing": preprocessing, "backbone": backbone})


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0


_FITS: dict[str, Callable[[Any], bool]] = {
    "task": _is_text,
    "architecture": _is_text,
    "num_classes": _is_count,
    "in_channels": _is_count,
    "image_size": _is_count,
    "classes": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "preprocessing": lambda value: isinstance(value, dict),
    "options": lambda value: isinstance(value, dict),
    "hubel": _is_text,
    "weights": lambda value: value is None or isinstance(value, str),
    "backbone": lambda value: value is None or (isinstance(value, dict) and _is_text(value.get("architecture"))),
}


def read_metadata(path: Path) -> ModelMetadata:
    """The card in a file.

    Raises:
        ModelError: it is missing or damaged.
    """
    if not path.is_file():
        raise ModelError(
            f"{path} is missing: {path.parent} is no saved model.",
            "Name a run folder, or a folder with model.json and model.safetensors.",
        )
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged: {error}.", "Take an undamaged copy, or train again.") from error
    return ModelMetadata.from_json(row, str(path))
