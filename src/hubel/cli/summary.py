"""``hubel summary``: a network layer by layer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hubel.cli.options import Batch, Json
from hubel.config import parse_assignments
from hubel.console import print_json, print_table, show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from hubel.models import Architecture

Shape = tuple[int, int, int]


def summary(
    model: Annotated[
        str,
        typer.Argument(
            help="A registered name (resnet50), a name with weights (resnet50:torchvision/IMAGENET1K_V1, not "
            "downloaded), a run folder, or a Darknet .cfg."
        ),
    ],
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Option of the architecture, e.g. se=true; may be repeated."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Classification network under a detector, localizer or segmentation network."
        ),
    ] = None,
    input_size: Annotated[
        str | None,
        typer.Option("--input", metavar="CxHxW", help="Channels, height, width.", show_default="the model's own"),
    ] = None,
    batch: Batch = 1,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"], typer.Option(help="Precision of the activations.")
    ] = "float32",
    as_json: Json = False,
) -> None:
    """List the layers of a network: output, parameters, multiplications, memory, receptive field.

    Nothing is computed and no weights are needed, so the batch size may be anything. If training would not fit into
    this machine's memory, the alternatives are listed with the memory that each needs.

    \b
    hubel summary lenet5
    hubel summary resnet50 --input 3x448x448 --batch 32 --dtype bfloat16
    hubel summary vgg16 --set batch_norm=true
    hubel summary fcn8s --backbone vgg16
    hubel summary yolov4.cfg
    """
    shape = None if input_size is None else _parse_shape(input_size)
    try:
        assigned = parse_assignments(options or [])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--set'") from error
    from hubel.models.metadata import check_exists

    check_exists(model)
    from hubel.analysis.memory_advice import free_memory, memory_tips
    from hubel.analysis.summary import summarize
    from hubel.analysis.table import layer_table
    from hubel.errors import ModelError

    module, native, row = _module(model, shape, assigned, backbone)
    try:
        result = summarize(module, shape or native, batch, dtype, name=model)
    except ModelError as error:
        if shape is None:
            raise
        raise typer.BadParameter(error.message, param_hint="'--input'") from error
    relatives = _smaller_relatives(row, result.input, result.parameters, backbone)
    advice = memory_tips(module, result, free_memory(), relatives)
    if as_json:
        print_json({**result.to_json(), "advice": advice})
        return
    print_table(layer_table(result))
    if advice:
        show("\n" + "\n  ".join(advice))


def _parse_shape(text: str) -> Shape:
    match = re.fullmatch(r"([1-9]\d*)[x×,]([1-9]\d*)[x×,]([1-9]\d*)", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not channels, height, width, e.g. 3x224x224", param_hint="'--input'")
    channels, height, width = map(int, match.groups())
    return channels, height, width


def _module(
    model: str, shape: Shape | None, options: dict[str, Any], backbone: str | None
) -> tuple[nn.Module, Shape, Architecture | None]:
    """The network, its own input size, and its row in the registry, unless it comes from a folder."""
    from hubel.models import architecture, list_models, resolve_model
    from hubel.models.cfg_reference import is_cfg, read_cfg_model, with_texts
    from hubel.models.factory import with_native_sizes
    from hubel.weights import find_entry

    name, _, weights = model.partition(":")
    if backbone is not None and name not in list_models():
        raise typer.BadParameter("the backbone of a saved model or a cfg is its own", param_hint="'--backbone'")
    if is_cfg(model):
        cfg = read_cfg_model(model)
        if options:
            raise typer.BadParameter("the options of a cfg are its own", param_hint="'--set'")
        arch = with_native_sizes(architecture(cfg.architecture), cfg.options)
        return _build(arch, shape, cfg.options), (*cfg.image,), None
    if name not in list_models():
        if options:
            raise typer.BadParameter("the options of a saved model are fixed", param_hint="'--set'")
        network, metadata = resolve_model(model)
        preprocessing = metadata.preprocessing
        return network, (metadata.in_channels, preprocessing.height, preprocessing.width), None
    row = architecture(name)
    options = with_texts(options)
    if not weights:
        return _build(row, shape, options, backbone), row.input, row
    entry = find_entry(weights, name)
    wanted = (entry.preprocessing.channels, entry.preprocessing.height, entry.preprocessing.width)
    return _build(row, shape or wanted, {**entry.settings, **options}, backbone), wanted, row


def _build(
    row: Architecture, shape: Shape | None, options: dict[str, Any] | None = None, backbone: str | None = None
) -> nn.Module:
    """The architecture without weights; an impossible ``--input`` is wrong usage."""
    from hubel.errors import ModelError
    from hubel.models.factory import build_on_meta

    try:
        return build_on_meta(row, shape, options, backbone=backbone)
    except ModelError as error:
        if shape is None:
            raise
        raise typer.BadParameter(error.message, param_hint="'--input'") from error


def _smaller_relatives(
    row: Architecture | None, shape: Shape, parameters: int, backbone: str | None
) -> Iterator[tuple[str, nn.Module]]:
    """Networks of the same family with fewer parameters, largest first, built on demand."""
    from hubel.models.registry import architecture, relatives

    if row is None:
        return
    family = [other for other in map(architecture, relatives(row.name)) if other.build is row.build]
    modules = [(other.name, _build(other, shape, backbone=backbone)) for other in family if other.name != row.name]
    sized = [(sum(p.numel() for p in module.parameters()), name, module) for name, module in modules]
    for count, name, module in sorted(sized, key=lambda entry: -entry[0]):
        if count < parameters:
            yield name, module
