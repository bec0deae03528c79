"""JSON Lines of predictions, as ``hubel predict --json`` prints them; imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubel.inference.pipeline import FailedImage
    from hubel.results import Prediction


def json_row(outcome: Prediction | FailedImage, model: str) -> dict[str, Any]:
    """``{"source", "width", "height", "model", "task", …}``, or ``{"source", "error"}`` if it could not be read.

    Frames of a video also have ``"frame"`` and ``"time"``.
    """
    from hubel.inference.pipeline import FailedImage

    row: dict[str, Any] = {"source": None if outcome.source is None else encodable(outcome.source)}
    if outcome.frame is not None:
        row |= {"frame": outcome.frame, "time": outcome.time}
    if isinstance(outcome, FailedImage):
        return {**row, "error": encodable(outcome.error.message)}
    size = {"width": outcome.width, "height": outcome.height}
    return {**row, **size, "model": model, "task": outcome.task, **outcome.to_json()}


def encodable(name: str) -> str:
    """A file name with replacement characters for bytes that are not UTF-8, which JSON and terminals cannot show."""
    return name.encode(errors="surrogateescape").decode(errors="replace")
