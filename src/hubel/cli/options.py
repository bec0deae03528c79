"""Options that several commands share, and options made from the fields of a configuration."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from hubel.cli.command import RUNNING
from hubel.config import Option, describe_default, make_config
from hubel.fileio import check_exists

_ENGINES = ["auto", "torch", "openvino", "onnx"]
_SUPPRESSIONS = ["standard", "agnostic", "diou", "soft", "soft-linear"]
_PRECISIONS = ["auto", "fp32", "bf16", "fp16", "int8"]


def complete_models(incomplete: str) -> list[str]:
    """What a shell offers for a model: registered names, and the folders of runs that are here."""
    from hubel.models.registry import list_models

    runs = [str(path.parent) for path in sorted(Path("runs").glob("*/best"))]
    return [name for name in [*runs, *list_models()] if name.startswith(incomplete)]


def _devices() -> list[str]:
    return ["auto", "cpu", "cuda", "mps"]


Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout and nothing else.")]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda[:N]|mps",
        help="Where the network runs.",
        rich_help_panel=RUNNING,
        autocompletion=_devices,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads of the network.", show_default="all cores", rich_help_panel=RUNNING),
]
MODEL = "A registered name (resnet50), a name with weights (resnet50:torchvision/IMAGENET1K_V2) or a run folder."
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help=f"{MODEL[:-1]}, an exported folder, or a Darknet .cfg.",
        autocompletion=complete_models,
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more: each object, and how the network runs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Write only results and errors.")]
Every = Annotated[int, typer.Option(metavar="N", min=1, help="Of a video take every N-th frame.", show_default=False)]
Batch = Annotated[int, typer.Option(min=1, help="Batch size.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be read.")]
Engine = Annotated[
    str,
    typer.Option(
        metavar="|".join(_ENGINES), help="Inference engine.", rich_help_panel=RUNNING, autocompletion=lambda: _ENGINES
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        metavar="|".join(_PRECISIONS), help="Precision.", rich_help_panel=RUNNING, autocompletion=lambda: _PRECISIONS
    ),
]
Calibrate = Annotated[
    Path | None,
    typer.Option(
        metavar="DATA",
        help="For int8: a folder of images like those to predict.",
        show_default="a run's own data",
        rich_help_panel=RUNNING,
    ),
]
Tolerance = Annotated[
    float, typer.Option(help="For int8: accuracy that may be lost, as a fraction.", rich_help_panel=RUNNING)
]
Conf = Annotated[float, typer.Option(min=0, max=1, help="Detectors: minimum score of an object.")]
Iou = Annotated[
    float,
    typer.Option(min=0, max=1, help="Detectors: maximum IoU of two objects of the same class (NMS)."),
]
Tile = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=64,
        help="Look at overlapping tiles of N pixels, for small things in large images. Detectors: also at the whole.",
    ),
]
Nms = Annotated[
    str,
    typer.Option(
        metavar="|".join(_SUPPRESSIONS),
        help="Detectors: how the worse of two boxes that overlap is suppressed: it is dropped, also if its class is "
        "another (agnostic), unless centres are apart (diou), or loses score (Soft-NMS).",
        autocompletion=lambda: _SUPPRESSIONS,
    ),
]
Tta = Annotated[
    bool,
    typer.Option(
        "--tta",
        help="Test-time augmentation: predict from each image and its mirror image together, in twice the time; "
        "segmentation also at three scales, in six times. Not for letters, digits and other things that a mirror "
        "changes.",
    ),
]
Data = Annotated[Path, typer.Argument(metavar="DATA", help="A folder of labelled images, or a label file.")]
NewFolder = Annotated[Path, typer.Option(help="A new folder; nothing is overwritten.")]
FromFormat = Annotated[
    str | None, typer.Option("--from", metavar="FORMAT", help="Annotation format.", show_default="detected")
]
Images = Annotated[
    Literal["copy", "link", "none"], typer.Option(help="Copy the images, link to them, or write only the labels.")
]


_GROUPS = {
    "Data": (
        "image_labels", "split", "augmentation", "close_mosaic", "balance", "image_size", "training_size", "cache",
        "workers", "strict",
    ),
    "Optimization": (
        "batch", "accumulate", "optimizer", "learning_rate", "head_learning_rate", "weight_decay", "schedule", "warmup",
        "head_epochs", "unfreeze_from", "staged", "batch_norm", "label_smoothing", "loss_weights", "average",
        "patience",
    ),
    RUNNING: ("precision", "device", "threads", "cache_features"),
}  # fmt: skip
"""Groups in the help of the options that are made from a configuration; the others stand first."""

_GROUP_OF = {name: group for group, names in _GROUPS.items() for name in names}


def options_of(
    config: type[Any], without: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose last parameter, ``**``, takes an option for each field of ``config`` that describes one.

    Those named in ``without`` are left out.

    Only what the user gives is passed on: the configuration has the defaults.
    """
    described = {name: option for name, option in _described(config).items() if name not in without}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(context: typer.Context, **given: Any) -> None:
            def is_given(name: str) -> bool:
                source = context.get_parameter_source(name)
                return source is not None and not source.name.startswith("DEFAULT")

            command(**{name: value for name, value in given.items() if name not in described or is_given(name)})

        own = inspect.signature(command, eval_str=True)
        *named, _ = own.parameters.values()
        arguments = [parameter for parameter in named if parameter.default is parameter.empty]
        options = [parameter for parameter in named if parameter.default is not parameter.empty]
        context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        parameters = [context, *arguments, *described.values(), *options]
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _described(config: type[Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a command that stand for the fields of ``config``."""
    hints = get_type_hints(config, include_extras=True)
    found = {}
    for field in fields(config):
        kind, *notes = get_args(hints[field.name]) if get_origin(hints[field.name]) is Annotated else (None,)
        for option in notes:
            if isinstance(option, Option):
                found[field.name] = _parameter(field, kind, option)
    return found


def _parameter(field: Field[Any], kind: Any, option: Option) -> inspect.Parameter:
    shown = option.default or describe_default(field.name)
    default = None if shown or field.default is MISSING else field.default
    names = option.names or (f"--{field.name.replace('_', '-')}",)
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    info = typer.Option(
        *names,
        help=option.help,
        metavar=option.metavar,
        min=option.min,
        max=option.max,
        show_default=shown or True,
        rich_help_panel=_GROUP_OF.get(field.name),
    )
    kind = _typed_by_hand(kind)
    if default is None:
        kind = kind | None
    annotation = Annotated[kind, info]
    return inspect.Parameter(
        field.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation
    )


def _typed_by_hand(kind: Any) -> Any:
    """The type that an option has on the command line: a list for options to be repeated, else text where needed."""
    if get_origin(kind) in (UnionType, Union):
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    if kind in (bool, int, float, str, Path) or get_origin(kind) is Literal:
        return kind
    return list[str] if kind == dict[str, Any] else str


def check_training(data: Path, config: dict[str, Any]) -> None:
    """Refuse a training that a wrong name or value tells already, before torch is imported.

    Raises :class:`UsageError` for a value, :class:`ModelError` for a network's name, :class:`DataError` for ``data``.
    """
    from hubel.models.cfg_reference import is_cfg, read_cfg_model
    from hubel.models.registry import check_name

    chosen = make_config(data=data, **config)
    if is_cfg(chosen.model):
        read_cfg_model(chosen.model)
        return check_exists(data)
    for name in (chosen.model, chosen.backbone):
        if name is not None:
            check_name(name)
    check_exists(data)
