"""Transfer learning in phases: which layers are trained when, and how BatchNorm behaves meanwhile.

First a new head is trained on a frozen backbone, so that its random gradients cannot damage the pretrained filters;
then the upper layers are unfrozen at a lower rate (Yosinski et al. 2014, arXiv 1411.1792, on why the lower ones
transfer best).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hubel.config import TrainingConfig
from hubel.errors import UsageError
from hubel.inference.fusion import fuse
from hubel.models.base import Model, with_auxiliary
from hubel.training.activation_checkpointing import checkpointed

HEAD_ONLY = "head"
_NAMED = 5  # parts that the log names: networks of a Darknet cfg have more than a hundred


@dataclass(frozen=True)
class Phase:
    """Epochs with the same trainable layers.

    Attributes:
        name: ``"head"``, ``"fine-tune"`` or ``"train"``.
        first_epoch: from 1.
        epochs: their number.
        learning_rate: at the schedule's peak.
        trainable_from: ``"head"``, a fraction of the backbone's parts counted from the top, or a layer's name.
    """

    name: str
    first_epoch: int
    epochs: int
    learning_rate: float
    trainable_from: str

    @property
    def last_epoch(self) -> int:
        """Last epoch, from 1."""
        return self.first_epoch + self.epochs - 1


def plan_phases(config: TrainingConfig) -> tuple[Phase, ...]:
    """The phases of a resolved configuration; ``epochs`` counts those of the head too."""
    epochs = config.epochs or 1
    head_epochs = min(config.head_epochs or 0, epochs)
    phases = []
    if head_epochs:
        phases.append(Phase("head", 1, head_epochs, config.head_learning_rate or 1e-2, HEAD_ONLY))
    if epochs > head_epochs:
        name, rate = "fine-tune" if head_epochs else "train", config.learning_rate or 1e-3
        phases.append(Phase(name, head_epochs + 1, epochs - head_epochs, rate, config.unfreeze_from or "1.0"))
    return tuple(phases)


def parts_with_parameters(model: Model) -> list[str]:
    """Names of the backbone's parts that have parameters, bottom first."""
    return [name for name, part in model.backbone.named_children() if any(True for _ in part.parameters())]


def _first_trainable_name(model: Model, trainable_from: str) -> str:
    """The first trainable module, as a prefix of parameter names."""
    if trainable_from == HEAD_ONLY:
        return "head."
    parts = parts_with_parameters(model)
    try:
        fraction = float(trainable_from)
    except ValueError:
        prefix = f"backbone.{trainable_from}."
        if any(name.startswith(prefix) for name, _ in model.named_parameters()):
            return prefix
        raise UsageError(
            f"--unfreeze-from {trainable_from}: the network has no layer of that name with weights",
            f"choose from {', '.join(parts)}, a layer inside one (such as {parts[-1]}.0), or a fraction 0..1",
        ) from None
    if not 0 <= fraction <= 1:
        raise UsageError(
            f"--unfreeze-from {trainable_from} is not a fraction 0..1", "use 0 to train the head only, 1 for everything"
        )
    count = round(fraction * len(parts))
    return f"backbone.{parts[-count]}." if count else "head."


def freeze_below(model: Model, trainable_from: str) -> list[str]:
    """Make parameters trainable from a layer upwards, and freeze those below.

    Parameters are taken in the order in which the network defines them, which is the order of execution.

    Returns:
        Names of the backbone's parts that are trained, at least partly.

    Raises:
        UsageError: the layer does not exist, or the fraction is not in 0..1.
    """
    prefix = _first_trainable_name(model, trainable_from)
    trainable = False
    for name, parameter in model.named_parameters():
        trainable = trainable or name.startswith(prefix)
        parameter.requires_grad_(trainable)
    backbone = dict(model.backbone.named_children())
    return [name for name in backbone if any(p.requires_grad for p in backbone[name].parameters())]


def describe_trained(model: Model, trained: Sequence[str]) -> str:
    """What :func:`freeze_below` has left to be trained, for the log: ``"the head and stage4"``."""
    parts = parts_with_parameters(model)
    if not trained:
        return "only the head"
    if all(parameter.requires_grad for parameter in model.parameters()):
        return "the whole network"
    if len(trained) <= _NAMED:
        return f"the head and {', '.join(trained)}"
    return f"the head and {len(trained)} of {len(parts)} parts, from {trained[0]} on"


def enter_training_mode(model: nn.Module, batch_norm: str) -> None:
    """Switch to training, except where layers are frozen.

    A frozen BatchNorm must not drift: its running statistics stay those of the pretraining. With
    ``batch_norm="frozen"`` those of the backbone's unfrozen layers stay too, since a small data set's batches estimate
    them worse than ImageNet did, while their scale and shift are trained; those of neck and head are new, and follow
    the batches. ``"train"`` lets all unfrozen ones do so.
    """
    model.train()
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        frozen = bool(own) and not any(parameter.requires_grad for parameter in own)
        # "parts" are those of TrainableTop; "module" is where several processes wrap it.
        pretrained = name.removeprefix("module.").removeprefix("model.").startswith(("backbone.", "parts."))
        if frozen or (pretrained and batch_norm == "frozen" and isinstance(module, nn.modules.batchnorm._BatchNorm)):
            module.eval()


def make_optimizer(model: Model, config: TrainingConfig, learning_rate: float) -> torch.optim.Optimizer:
    """Optimizer of the trainable parameters; :func:`set_learning_rate` changes the rate.

    Biases and normalization are not decayed (He et al. 2019, arXiv 1812.01187, section 3.1). With ``layer_decay`` the
    rate falls by that factor from each part of the backbone to the one below: lower layers are more general, and need
    to change less (discriminative fine-tuning, Howard and Ruder 2018, arXiv 1801.06146, section 3.2).
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    depths = {name: depth for depth, name in enumerate(reversed(parts_with_parameters(model)), 1)}
    for decayed in (True, False):
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and (parameter.ndim > 1) is decayed:
                place, _, rest = name.partition(".")
                depth = depths[rest.partition(".")[0]] if place == "backbone" else 0
                groups.setdefault(((config.layer_decay or 1.0) ** depth, decayed), []).append(parameter)
    options: list[dict[str, Any]] = [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if decayed else 0.0,
            "lr": learning_rate * factor,
            _FACTOR: factor,
        }
        for (factor, decayed), parameters in groups.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(options, lr=learning_rate, momentum=0.9, nesterov=True, fused=True)
    return torch.optim.AdamW(options, lr=learning_rate, fused=True)


_FACTOR = "rate_factor"


def set_learning_rate(optimizer: Any, rate: float) -> None:
    """Set the rate of the uppermost layers, and in proportion those of the layers below."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[_FACTOR]


@contextmanager
def single_values_normalized(network: nn.Module, images: int) -> Iterator[None]:
    """For a step on one image: BatchNorm uses its running statistics where it sees a single value per channel.

    Maps of one pixel, as at the end of a network of small images or after global pooling, have no variance then. The
    step is to be done within this context, backward pass included: recomputed activations pass through it, too.
    """
    if images != 1:
        yield
        return

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training and inputs[0].numel() == inputs[0].shape[1]:
            module.training = False
            kept.add(module)

    def after(module: nn.Module, *_: Any) -> None:
        if module in kept:
            module.training = True
            kept.discard(module)

    kept: set[nn.Module] = set()
    hooks = []
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            hooks += [module.register_forward_pre_hook(before)]
            hooks += [module.register_forward_hook(after, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class TrainableTop(nn.Module):
    """The parts of a network from ``first`` on, its head, and the auxiliary heads of those parts.

    It shares their weights, and maps the output of the parts below, (N, C, H, W), to the model's raw outputs; in
    training mode to its training outputs.

    With ``recompute``, activations within a part are not kept for the backward pass, but computed again in it.
    """

    def __init__(self, model: Model, first: int, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        parts = list(model.backbone.named_children())[first:]
        self.parts = nn.Sequential(OrderedDict(parts))
        self.head = model.head
        self.auxiliary = nn.ModuleDict({name: model.auxiliary[name] for name, _ in parts if name in model.auxiliary})

    def forward(self, maps: Tensor, targets: Any = None) -> Any:
        """Raw outputs; ``targets`` are not needed."""
        auxiliary = {}
        for name, part in self.parts.named_children():
            maps = checkpointed(part, maps) if self.recompute and self.training else part(maps)
            if self.training and name in self.auxiliary:
                auxiliary[name] = self.auxiliary[name](maps)
        return with_auxiliary(self.head(maps), auxiliary)


class WholeNetwork(nn.Module):
    """A network that cannot be cut between two parts."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, targets: Any = None) -> Any:
        """Raw outputs of images (N, C, H, W); in training mode the training outputs."""
        return self.model.training_outputs(images, targets) if self.training else self.model(images)


def trainable_top(model: Model, first: int = 0, recompute: bool = False) -> nn.Module:
    """The part of a network that is trained: from images, or the maps of its frozen lower part, to raw outputs."""
    return TrainableTop(model, first, recompute) if model.is_sequential else WholeNetwork(model)


@dataclass(frozen=True)
class FrozenBackbone:
    """The lowest, frozen parts of a backbone, fused.

    Attributes:
        parts: their number.
        dtype: of the network's weights and input. Autocast, which casts for layers, does not know the fused ones.
    """

    parts: int
    network: nn.Module
    dtype: torch.dtype = torch.float32

    def __call__(self, images: Tensor) -> Tensor:
        """From images (N, C, H, W) to maps, without a gradient."""
        with torch.no_grad():
            maps: Tensor = self.network(images.to(self.dtype))
        return maps


def freeze_backbone(model: Model, device: torch.device, dtype: torch.dtype) -> FrozenBackbone:
    """The parts below the first that is trained, wholly or partly."""
    children = list(model.backbone.children())
    trained = [any(parameter.requires_grad for parameter in part.parameters()) for part in children]
    first = [*trained, True].index(True) if model.is_sequential else 0
    if not first:
        return FrozenBackbone(0, nn.Identity())
    return FrozenBackbone(first, fuse(nn.Sequential(*children[:first]).eval(), device, dtype), dtype)
