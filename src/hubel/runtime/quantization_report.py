"""What quantization has cost, in the task's own score."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class QuantizationReport:
    """What int8 costs.

    Attributes:
        metric: the task's score.
        float_score: of the float32 network.
        int8_score: of the quantized one.
        images: held-out images that both were scored on.
        calibration_images: others, that the quantizers were set on.
        agreement: share of the held-out images with the same answer, if the task has such a figure.
        kept_in_float: the layers that hurt and so stay as they were.
        layers: how many there are that could be quantized.
        seconds: it all took.
    """

    metric: str
    float_score: float
    int8_score: float
    images: int
    calibration_images: int
    agreement: float | None
    kept_in_float: tuple[str, ...]
    layers: int
    seconds: float

    @property
    def loss(self) -> float:
        """By how much the score fell; negative if it rose."""
        return self.float_score - self.int8_score

    def line(self) -> str:
        """For the log: ``int8: top-1 0.952 → 0.948 on 250 held-out images; 3 of 74 layers kept in float``."""
        agreement = "" if self.agreement is None else f", the same answer on {self.agreement:.3f} of them"
        kept = f"{len(self.kept_in_float)} of {self.layers}" if self.kept_in_float else "none"
        return (
            f"int8: {self.metric} {self.float_score:.3f} → {self.int8_score:.3f} on {self.images} held-out images"
            f"{agreement}; {kept} of the layers kept in float; {self.seconds:.0f} s"
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {**asdict(self), "kept_in_float": list(self.kept_in_float)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> QuantizationReport:
        """The inverse of :meth:`to_json`; raises ``TypeError`` or ``KeyError`` on another row."""
        return cls(**{**row, "kept_in_float": tuple(row["kept_in_float"])})
