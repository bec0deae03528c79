"""Weights are loaded into a model only if all of them fit it: their names, shapes, types and values."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from hubel.errors import WeightsError


def load_checked(
    model: nn.Module, state: Mapping[str, Tensor], origin: str, may_be_fresh: Collection[str] = ()
) -> None:
    """Load a state dictionary from a file ``origin``; keys in ``may_be_fresh`` may be missing.

    Raises:
        WeightsError: keys are missing or unknown, shapes or types differ, or values are not finite; lists the first of
            them.
    """
    own = model.state_dict()
    # Files from before 2018 lack the counters of batches; a new model's are at 0. Other programs write lists of one.
    counters = ".num_batches_tracked"
    state = {
        key: tensor.reshape(()) if key.endswith(counters) and tensor.shape == (1,) else tensor
        for key, tensor in state.items()
    }
    missing = [key for key in own if key not in state and key not in may_be_fresh and not key.endswith(counters)]
    unexpected = [key for key in state if key not in own]
    misshapen = [
        f"{key} {tuple(tensor.shape)} for {tuple(own[key].shape)}"
        for key, tensor in state.items()
        if key in own and own[key].shape != tensor.shape
    ]
    mistyped = [
        f"{key} ({str(tensor.dtype).removeprefix('torch.')})"
        for key, tensor in state.items()
        if key in own and not _is_number_of(tensor, own[key].is_floating_point())
    ]
    comparable = {} if mistyped else {key: tensor for key, tensor in state.items() if key in own}
    other_tables = [key for key, tensor in comparable.items() if _is_other_table(tensor, own[key])]
    wrong_values = [key for key, tensor in comparable.items() if not is_finite(tensor)]
    mismatches = (
        ("misses", missing),
        ("has unknown", unexpected),
        ("has other shapes:", misshapen),
        ("has other types of numbers:", mistyped),
        ("has other constants:", other_tables),
        ("has values that are not numbers (NaN) or infinite:", wrong_values),
    )
    messages = [f"{verb} {_first_three(keys)}" for verb, keys in mismatches if keys]
    if messages:
        diverged = "use the weights of before training diverged, or train again with a lower learning rate"
        other = "use the architecture and options that the file was made for, or start without weights (--from-scratch)"
        raise WeightsError(
            f"{origin} does not fit the model: it {'; it '.join(messages)}",
            diverged if wrong_values and len(messages) == 1 else other,
        )
    model.load_state_dict(state, strict=False)


def _is_number_of(tensor: Tensor, floating: bool) -> bool:
    """True for a plain tensor of floats; where integers are expected (counters of batches), of either.

    ``{name: value.float() …}``, as people convert checkpoints, makes floats of the counters, too.
    """
    plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
    whole = tensor.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    return plain and (tensor.is_floating_point() or (whole and not floating))


def _is_other_table(tensor: Tensor, own: Tensor) -> bool:
    """True for whole numbers that are not the model's own: tables of indices are not learnt. Counters have no axis."""
    if own.is_floating_point() or own.ndim == 0 or own.shape != tensor.shape:
        return False
    return not torch.equal(tensor.to(own), own)


def is_finite(tensor: Tensor) -> bool:
    """True if no value is NaN or infinite."""
    # The extremes are NaN where any value is; they take a fraction of the time and memory of isfinite.
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    least, greatest = torch.aminmax(tensor.float() if tensor.element_size() < 2 else tensor)
    return math.isfinite(least.item()) and math.isfinite(greatest.item())


def _first_three(keys: list[str]) -> str:
    more = len(keys) - 3
    return ", ".join(keys[:3]) + (f" and {more} more" if more > 0 else "")
