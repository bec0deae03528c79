"""From ``--device`` to a torch device that is there."""

from __future__ import annotations

import torch

from hubel.errors import ModelError


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; ``"auto"`` takes a GPU where there is one.

    Args:
        name: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.

    Raises:
        ModelError: the name is none of these, or this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ModelError(f"there is no device {name!r}", "use auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"{name}: this machine has {torch.cuda.device_count()} CUDA devices", "use --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("mps: this machine has no Metal device", "use --device cpu")
    return device
