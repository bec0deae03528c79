"""Where a checkpoint has the weights: under which keys, and behind which prefix of their names.

Training scripts save parameters under ``"state_dict"``, ``"model_state_dict"``, ``"net"``, … beside the optimizer, and
tools that wrap a network put ``module.``, ``_orig_mod.``, ``model.`` before all names, in any order and depth. What a
network of the wanted architecture looks like inside tells where it is: by one name that is in every such file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubel.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

_DEEPEST = 8  # levels of mappings
# Parts of names by tools that wrap a network, or one of its modules, for several devices or for compiling.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
_COUNTERS = {"total_ops", "total_params"}  # thop's, beside each layer's weights
_AVERAGES = {"ema", "swa", "average", "averaged", "avg", "shadow", "modelema", "emamodel"}
# The last of them are the weights that Lightning averages into "state_dict".
_NOT_WEIGHTS = re.compile(r"optim|sched|scaler|callback|^loops$|^rng|hyper_?param|^current_model_state$", re.IGNORECASE)
# Keys under which training scripts store the parameters, the usual ones first.
_USUAL = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module")


@dataclass(frozen=True)
class WeightSet:
    """Tensors by name, and where they are: the keys that lead to them and the prefix of their names, with dots."""

    place: str
    tensors: dict[str, Tensor]

    @property
    def is_averaged(self) -> bool:
        """True if the place is called as an average of weights over training."""
        return _is_averaged(self.place)


def _is_averaged(place: str) -> bool:
    return not _AVERAGES.isdisjoint(re.split(r"[._]", place.lower()))


def find_weights(content: Any, path: Path, signatures: Sequence[str] = ()) -> tuple[WeightSet, list[str]]:
    """The weights in a checkpoint, and the places of others that were not taken.

    Args:
        content: what the file holds.
        path: of the file, for messages.
        signatures: names of which every file for the wanted architecture has one. Without, or where none is found,
            the mapping with the most usual key, else with the most tensors, is taken.

    Of several that fit, averages over training (EMA) are preferred to the weights that they average.

    Raises:
        WeightsError: there are no named tensors, or several sets of them that fit equally.
    """
    mappings = [found for found in _mappings(content) if found.tensors]
    if not mappings:
        raise WeightsError(
            f"{path} contains no named tensors",
            "use a .safetensors file, or a .pth file made by torch.save(model.state_dict(), ...)",
        )
    sets = [part for each in mappings for part in _parts(each, signatures)]
    if not sets:  # a mapping for each part of the network
        everything = ((_join(each.place, name), tensor) for each in mappings for name, tensor in each.tensors.items())
        sets = _parts(WeightSet("", dict(everything)), signatures)
    return _choose(sets, path) if sets else (_most_usual(mappings), [])


def _mappings(content: Any) -> Iterator[WeightSet]:
    """The tensors of each mapping, list and pickled module; what is reached by two ways comes once."""
    seen: set[int] = set()

    def visit(value: Any, place: str, depth: int) -> Iterator[WeightSet]:
        if depth > _DEEPEST or id(value) in seen or _NOT_WEIGHTS.search(place.rpartition(".")[2]):
            return
        seen.add(id(value))
        attributes = getattr(value, "__dict__", {}) if isinstance(value, Mapping) else {}
        if "_modules" in attributes and "_parameters" in attributes:
            yield WeightSet(place, _cleaned(dict(_of_module(attributes, 0))))
            return
        if isinstance(value, Mapping):
            items = [(name, inner) for name, inner in value.items() if isinstance(name, str)]
        elif isinstance(value, list | tuple) and len(value) <= 100:
            items = [(str(index), inner) for index, inner in enumerate(value) if isinstance(inner, Mapping)]
        else:
            return
        yield WeightSet(place, _cleaned({name: tensor.detach() for name, tensor in items if _is_tensor(tensor)}))
        for name, inner in items:
            yield from visit(inner, _join(place, name), depth + 1)

    yield from visit(content, "", 0)


def _of_module(attributes: Mapping[str, Any], depth: int, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers of a pickled module, as its ``state_dict`` would have them."""
    if depth > 30:
        return
    for kind in ("_parameters", "_buffers"):
        for name, tensor in dict(attributes.get(kind) or {}).items():
            if _is_tensor(tensor) and name not in (attributes.get("_non_persistent_buffers_set") or ()):
                yield f"{prefix}{name}", tensor.detach()
    for name, module in dict(attributes.get("_modules") or {}).items():
        yield from _of_module(getattr(module, "__dict__", {}), depth + 1, f"{prefix}{name}.")


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _cleaned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without profilers' counters, and with names that no wrapper has changed."""
    kept = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in _COUNTERS}
    if not any("." in name for name in kept):
        return kept
    numbers = [name for name, tensor in kept.items() if "." not in name and tensor.ndim == 0]
    kept = {name: tensor for name, tensor in kept.items() if name not in numbers}  # an epoch, EMA's n_averaged
    names = [".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in kept]
    return dict(zip(names, kept.values(), strict=True)) if len(set(names)) == len(kept) else kept


def _parts(found: WeightSet, signatures: Sequence[str]) -> list[WeightSet]:
    """The parts of a mapping that have a signature behind a common prefix."""
    prefixes = {
        name.removesuffix(signature)
        for signature in signatures
        for name in found.tensors
        if name == signature or name.endswith(f".{signature}")
    }
    # Ours have no signature; each has both of these.
    prefixes = prefixes or _before("backbone.", found.tensors) & _before("head.", found.tensors)
    outer = [
        prefix
        for prefix in sorted(prefixes)
        if not any(prefix != other and prefix.startswith(other) for other in prefixes) or _is_averaged(prefix)
    ]
    parts = []
    for prefix in outer:
        inner = tuple(other for other in outer if other != prefix and other.startswith(prefix))
        tensors = {
            name.removeprefix(prefix): tensor
            for name, tensor in found.tensors.items()
            if name.startswith(prefix) and not (inner and name.startswith(inner))
        }
        if prefix.endswith("backbone."):  # of OpenMMLab, which has the classifier beside it
            head = prefix.removesuffix("backbone.") + "head.fc."
            beside = {
                name.removeprefix(head): tensor for name, tensor in found.tensors.items() if name.startswith(head)
            }
            tensors = {f"fc.{name}": tensor for name, tensor in beside.items()} | tensors
        parts.append(WeightSet(_join(found.place, prefix.rstrip(".")).strip("."), tensors))
    return parts


def _before(part: str, names: Iterable[str]) -> set[str]:
    """What precedes a part of the names, wherever it begins one or follows a dot."""
    return {name[: found.start()] for name in names for found in re.finditer(rf"(?<![^.]){re.escape(part)}", name)}


def _choose(sets: list[WeightSet], path: Path) -> tuple[WeightSet, list[str]]:
    averaged = [each for each in sets if each.is_averaged]
    candidates = averaged or sets
    if len(candidates) > 1 and not all(_same(candidates[0], other) for other in candidates[1:]):
        places = [each.place or "the file itself" for each in candidates]
        if all(re.fullmatch(r"members\.\d+", place) for place in places):  # hubel.models.ensemble
            message = f"{path} holds an ensemble of {len(places)} networks, which cannot be trained further"
            raise WeightsError(message, "pass the weights of a single network")
        first = "".join(f"[{key!r}]" for key in candidates[-1].place.split("."))
        raise WeightsError(
            f"{path} has {len(places)} sets of weights that fit: {', '.join(places[:5])}",
            f"save the one you want alone, such as torch.save(torch.load(FILE){first}, ...)",
        )
    chosen = candidates[0]
    return chosen, [each.place or "the file itself" for each in sets if each is not chosen]


def _same(one: WeightSet, other: WeightSet) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        tensor.shape == other.tensors[name].shape and bool((tensor == other.tensors[name]).all())
        for name, tensor in one.tensors.items()
    )


def _most_usual(mappings: Sequence[WeightSet]) -> WeightSet:
    """The weights where no signature tells; names without the prefix that all of them share."""

    def rank(found: WeightSet) -> tuple[bool, int, int]:
        last = found.place.rpartition(".")[2]
        usual = len(_USUAL) - _USUAL.index(last) if last in _USUAL else 0
        return found.is_averaged, usual, len(found.tensors)

    return max(mappings, key=rank)
