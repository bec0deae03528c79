"""An epoch's figures as TensorBoard events, for those who ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubel.errors import MissingExtraError


def require_tensorboard() -> None:
    """Raise :class:`MissingExtraError` where TensorBoard is not installed."""
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise MissingExtraError("--tensorboard", "tensorboard") from None


def write_scalars(folder: Path, row: dict[str, Any]) -> None:
    """Append the numbers of one epoch's row to the event files in ``folder``."""
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for name, value in row.items():
            if isinstance(value, int | float) and name != "epoch":
                writer.add_scalar(name, value, row["epoch"])
