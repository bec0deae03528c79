"""Tensors of ``.safetensors`` files, whose header says of each where it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hubel.errors import WeightsError
from hubel.weights.torch_files import DOWNLOAD_AGAIN, first_line

if TYPE_CHECKING:
    from torch import Tensor

_MAX_HEADER = 4 << 20  # bytes, of 40,000 tensors; the library takes 100 MB, and half a minute and 2.5 GB to read it


def read_safetensors(path: Path, hint: str = DOWNLOAD_AGAIN) -> dict[str, Tensor]:
    """The tensors by name, on the CPU.

    Raises:
        OSError: the file cannot be opened.
        WeightsError: it is damaged, or its header is far larger than a network's; ``hint`` says what to do.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > _MAX_HEADER:
        reason = f"its header would have {length:,} bytes, more than the limit of {_MAX_HEADER:,}"
        raise WeightsError(f"{path} is damaged or not a safetensors file: {reason}", hint)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise WeightsError(f"{path} is damaged or not a safetensors file: {first_line(error)}", hint) from error
    return tensors
