"""Configuration of a training run: the options of ``hubel train``, the keywords of ``hubel.train``, ``config.yaml``.

A field of :class:`TrainingConfig` is all that an option needs: its type, default, bounds and help text stand here and
nowhere else. The command line is made from the fields (:mod:`hubel.cli.options`), so this module imports nothing slow:
pydantic checks the values when there are any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from hubel.errors import UsageError
from hubel.validation import explain

if TYPE_CHECKING:
    from pydantic import TypeAdapter

DEFAULT_NETWORK = "efficientnet_lite0"
DEFAULT_DETECTOR = "ssd300_mobilenet_v2"

# Defaults of prediction, on the command line and in Python.
CONF = 0.25
"""Minimum score of a detected object."""
IOU = 0.6
"""Threshold of non-maximum suppression."""
TOLERANCE = 0.01
"""Accuracy that int8 may lose, as a fraction."""

LARGEST_IMAGE_SIZE = 4096
"""Side in pixels of the largest square input; a file that asks for more could take any amount of memory."""

ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15
"""Depth, width and resolution factors of compound scaling (Tan and Le 2019, arXiv 1905.11946)."""

# Chosen by measurement on flowers5, raccoon and bccd; docs/results.md has the figures. Random crops show boxes larger
# than they are in prediction; where there is one box per image, scale jitter shows them smaller as often. An epoch of a
# hundred images has three steps: the moving average must not reach back over most of the run. The weights of
# localization's loss are those of DETR (Carion et al. 2020, arXiv 2005.12872, appendix A.4, which has L1).
_USUAL: dict[str, Any] = {"weight_decay": 0.05, "precision": "auto"}
DEFAULTS: dict[str, dict[str, Any]] = {
    "classify": {**_USUAL, "batch": 32, "augmentation": ("crop", "flip", "mixup", "cutmix"), "average": 0.98},
    "localize": {
        **_USUAL,
        "batch": 32,
        "augmentation": ("scale", "flip", "color"),
        "average": 0.9,
        "loss_weights": {"class": 1.0, "giou": 2.0, "smooth_l1": 5.0},
    },
    "detect": {**_USUAL, "batch": 16, "augmentation": ("crop", "flip", "color"), "average": 0.98},
    "instances": {**_USUAL, "batch": 4, "augmentation": ("scale", "flip", "color"), "average": 0.98},
    "segment": {
        **_USUAL,
        "batch": 4,
        "augmentation": ("scale", "flip", "color"),
        "average": 0.98,
        "loss_weights": {"class": 1.0, "lovasz": 1.0},
    },
    # bfloat16 rounds pixels to a level of 255 or two, which is as much as is to be learnt.
    "super-resolve": {
        "batch": 8,
        "augmentation": ("flip", "turn"),
        "average": 0.999,
        "training_size": 32,
        "weight_decay": 0.0,
        "precision": "float32",
    },
}
"""Defaults that depend on the task."""

# The head learns until it is good before anything below it moves: fine-tuning from a poor head distorts the features
# (Kumar et al. 2022, arXiv 2202.10054).
_WHOLE = {"unfreeze_from": "1.0", "layer_decay": 1.0, "batch_norm": "train"}
_TRANSFER = {
    **_WHOLE,
    **{"epochs": 17, "head_epochs": 3, "learning_rate": 3e-4, "unfreeze_from": "0.67", "batch_norm": "frozen"},
}
_FROM_SCRATCH = {**_WHOLE, "epochs": 60, "head_epochs": 0, "learning_rate": 2e-3}
_CLASSES = {"head_learning_rate": 1e-2, "label_smoothing": 0.1}
_BOXES = {"head_learning_rate": 3e-3, "label_smoothing": 0.0}
_OBJECTS = ({**_FROM_SCRATCH, **_BOXES, "epochs": 60}, {**_FROM_SCRATCH, **_BOXES, "epochs": 200})
RECIPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "classify": ({**_TRANSFER, **_CLASSES}, {**_FROM_SCRATCH, **_CLASSES}),
    "localize": (
        {**_TRANSFER, **_BOXES, "epochs": 20, "learning_rate": 1e-3},
        {**_FROM_SCRATCH, **_BOXES, "epochs": 120},
    ),
    "detect": _OBJECTS,
    "instances": _OBJECTS,
    "segment": (
        {
            **_FROM_SCRATCH,
            **_BOXES,
            "epochs": 12,
            "head_epochs": 1,
            "learning_rate": 2e-3,
            "layer_decay": 0.7,
            "unfreeze_from": "0.75",
            "batch_norm": "frozen",
        },
        {**_FROM_SCRATCH, **_BOXES, "epochs": 100},
    ),
    "super-resolve": 2 * ({**_FROM_SCRATCH, **_BOXES, "epochs": 20, "learning_rate": 4e-3},),
}
"""Defaults that depend on the task and on the start: from pretrained weights, and from scratch."""


class SplitFractions(NamedTuple):
    """Fractions of the samples for training, validation and test; they sum to 1."""

    train: float = 0.75
    val: float = 0.15
    test: float = 0.10


def parse_fractions(text: str) -> SplitFractions:
    """Read ``"0.75,0.15,0.10"``: train, validation, test.

    Raises:
        ValueError: not three numbers that sum to 1, or nothing is left for training or validation; the message is
            meant for the user.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{text!r} is not three numbers for train, validation, test, such as 0.75,0.15,0.10")
    if min(numbers) < 0:
        raise ValueError(f"{text!r} has a negative fraction")
    if abs(sum(numbers) - 1) > 1e-6:
        raise ValueError(f"{text!r} sums to {sum(numbers):g}, not to 1")
    if numbers[0] == 0 or numbers[1] == 0:
        raise ValueError(f"{text!r} leaves nothing to train on or nothing to validate on")
    return SplitFractions(*numbers)


def parse_assignments(words: list[str]) -> dict[str, Any]:
    """``["se=true", "width=0.5"]`` → ``{"se": True, "width": 0.5}``; values as YAML reads them.

    Raises:
        ValueError: an element is not ``NAME=VALUE``, or its value is not valid YAML.
    """
    from hubel.bounded import BoundError, load_yaml

    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise ValueError(f"{word!r} is not NAME=VALUE")
        try:
            options[name.strip()] = load_yaml(value)
        except BoundError as error:
            raise ValueError(f"{value!r} is not a value") from error
    return options


def _fractions(value: Any) -> Any:
    return parse_fractions(value) if isinstance(value, str) else value


def _assignments(value: Any) -> Any:
    if isinstance(value, list) and not all(isinstance(word, str) for word in value):
        raise ValueError("not a list of NAME=VALUE")
    return parse_assignments(value) if isinstance(value, list) else value


def _names(value: Any) -> Any:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ValueError("it is not a list of names")
    names: Sequence[str] = value
    return [name.strip() for name in names if name.strip() not in ("", "none")]


def _numbers_by_name(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
    try:
        return {name.strip(): float(number) for name, _, number in pairs}
    except ValueError:
        raise ValueError(f"{value!r} is not NAME=NUMBER,…") from None


@dataclass(frozen=True)
class Option:
    """A field's help text and bounds, and its spelling on the command line.

    Attributes:
        help: for ``hubel train --help``.
        names: of the option, where it is not ``--field-name``.
        metavar: stands for the value in the help.
        default: text for a default that is not a fixed value. The option is then not passed on unless given.
        min, max: bounds, inclusive.
        above, below: bounds, exclusive.
        parse: makes the value of what the command line or YAML gives; leaves a value of the field's type as it is.
    """

    help: str
    names: tuple[str, ...] = ()
    metavar: str | None = None
    default: str | None = None
    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None
    parse: Callable[[Any], Any] | None = None

    # As annotated_types.GroupedMetadata, pydantic takes the constraints of a field from iterating over it.
    __is_annotated_types_grouped_metadata__: ClassVar[Literal[True]] = True

    def __iter__(self) -> Iterator[Any]:
        from annotated_types import Ge, Gt, Le, Lt
        from pydantic import BeforeValidator

        for kind, bound in ((Ge, self.min), (Le, self.max), (Gt, self.above), (Lt, self.below)):
            if bound is not None:
                yield kind(bound)
        if self.parse is not None:
            yield BeforeValidator(self._parsed)

    def _parsed(self, value: Any) -> Any:
        """The value as ``parse`` makes it; ``config.yaml`` may have one of any type in its place."""
        assert self.parse is not None
        try:
            return self.parse(value)
        except (AttributeError, TypeError) as error:
            raise ValueError("has the wrong type") from error


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Options of a training run; :func:`make_config` checks them and fills in the task's defaults.

    ``None`` stands for a value that depends on whether training starts from pretrained weights: see :meth:`resolved`.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    data: Path
    task: Annotated[
        Literal["classify", "localize", "detect", "segment", "instances", "super-resolve"],
        Option(
            "classify: one class per image. localize: one class and box. detect: all objects with their boxes. "
            "segment: the class of every pixel. instances: all objects with their masks. "
            "super-resolve: enlarge images; any photographs will do.",
            default="detected: classify, detect, segment or instances",
        ),
    ] = "classify"
    model: Annotated[
        str,
        Option(
            "Architecture; hubel models lists them.", ("--model", "-m"), default=f"{DEFAULT_NETWORK}; detect: one_stage"
        ),
    ] = DEFAULT_NETWORK
    backbone: Annotated[
        str | None, Option("Classification network under a localizer or detector.", default=DEFAULT_NETWORK)
    ] = None
    weights: Annotated[str | None, Option("Weights to start from: a name from the catalog or a file.")] = "default"
    options: Annotated[
        dict[str, Any],
        Option(
            "Option of the architecture, e.g. se=true; may be repeated.",
            ("--set",),
            metavar="NAME=VALUE",
            parse=_assignments,
        ),
    ] = field(default_factory=dict)
    image_labels: Annotated[
        Path | None,
        Option("Class folders of images without boxes, to detect their classes, too (yolo_9000).", metavar="FOLDER"),
    ] = None
    epochs: Annotated[int | None, Option("Number of epochs.", min=1)] = None
    head_epochs: Annotated[
        int | None, Option("The first epochs, included in --epochs, in which only the head is trained.", min=0)
    ] = None
    image_size: Annotated[
        int | None,
        Option(
            "Side of the network's input in pixels.", default="the architecture's own", min=8, max=LARGEST_IMAGE_SIZE
        ),
    ] = None
    training_size: Annotated[
        int | None,
        Option(
            "Side of the training crops in pixels.",
            default="6/7 of the image size for transfer learning; super-resolve: 32",
            min=8,
            max=LARGEST_IMAGE_SIZE,
        ),
    ] = None
    batch: Annotated[int, Option("Batch size, over all processes.", min=1)]
    accumulate: Annotated[int, Option("Accumulate the gradients of this many batches per update.", min=1)] = 1
    split: Annotated[
        tuple[float, float, float],
        Option("Fractions of train,validation,test for a data set that is not split.", parse=_fractions),
    ] = SplitFractions()
    seed: Annotated[int, Option("Random seed; the same seed repeats a run.")] = 0
    optimizer: Annotated[Literal["adamw", "sgd"], Option("Optimizer.")] = "adamw"
    learning_rate: Annotated[
        float | None,
        Option("Peak learning rate once the whole network is trained.", ("--learning-rate", "--lr"), above=0),
    ] = None
    head_learning_rate: Annotated[
        float | None, Option("Peak learning rate while only the head is trained.", above=0)
    ] = None
    layer_decay: Annotated[
        float | None,
        Option("The learning rate of each part of the network over that of the part above.", above=0, max=1),
    ] = None
    weight_decay: Annotated[float, Option("Weight decay.", min=0)]
    schedule: Annotated[Literal["cosine", "one-cycle", "constant"], Option("Learning rate schedule.")] = "cosine"
    warmup: Annotated[float, Option("Epochs of linear warm-up.", min=0)] = 1.0
    unfreeze_from: Annotated[
        str | None,
        Option("Part trained after the head epochs: from this layer to the head, or a fraction counted from the top."),
    ] = None
    staged: Annotated[
        bool,
        Option(
            "Train in the stages of the network's paper, each with --epochs and from the one before: fcn8s, fcn16s.",
        ),
    ] = False
    batch_norm: Annotated[
        Literal["frozen", "train"] | None, Option("Statistics of unfrozen BatchNorm layers: kept or updated.")
    ] = None
    label_smoothing: Annotated[float | None, Option("Label smoothing, for classification.", min=0, below=1)] = None
    loss_weights: Annotated[
        dict[str, float],
        Option(
            "Weights of a localizer's losses: class, giou, smooth_l1, mse; of a detector's: class, box, …; of "
            "super-resolution's: l1, charbonnier, mse.",
            metavar="LOSS=WEIGHT,…",
            parse=_numbers_by_name,
        ),
    ] = field(default_factory=dict)
    augmentation: Annotated[
        tuple[str, ...],
        Option(
            "Comma-separated: rotation, shift, window, crop, flip, contrast, color, lighting, randaugment, "
            "trivialaugment, augmix, erasing, mixup, cutmix; preset alexnet (window, flip, lighting). For boxes: "
            "mosaic, zoom, scale, crop, flip, copy-paste (instances only), color, multiscale; preset ssd. For "
            "super-resolution: flip, turn, jpeg. Or none.",
            ("--augment",),
            parse=_names,
        ),
    ]
    close_mosaic: Annotated[int, Option("The last epochs, without mosaics and pasted objects.", min=0)] = 0
    average: Annotated[
        float, Option("Decay of the exponential moving average of the weights; 0 turns it off.", min=0, below=1)
    ]
    balance: Annotated[
        Literal["auto", "none", "sampling", "loss", "smote"],
        Option("Class imbalance: smote creates synthetic features for a head on a frozen backbone (--augment none)."),
    ] = "auto"
    patience: Annotated[int, Option("Stop after this many epochs without improvement.", min=1)] = 10
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Option("Precision of the computation; auto measures which is fastest."),
    ]
    device: Annotated[str, Option("auto, cpu, cuda, cuda:N or mps.")] = "auto"
    threads: Annotated[int | None, Option("CPU threads of the network.", default="all cores", min=1)] = None
    workers: Annotated[int | None, Option("Data-loading processes.", default="measured", min=0)] = None
    cache: Annotated[
        Literal["auto", "ram", "disk", "none"],
        Option("Where decoded images are cached; auto: in RAM, else on disk, up to a quarter of what is free."),
    ] = "auto"
    cache_features: Annotated[
        bool,
        Option(
            "Train only the head, on cached features of images without augmentation; the default with --augment none."
        ),
    ] = False
    tensorboard: Annotated[bool, Option("Also write TensorBoard event files.")] = False
    wandb: Annotated[bool, Option("Also log to Weights & Biases.")] = False
    mlflow: Annotated[bool, Option("Also log to MLflow.")] = False
    log_steps: Annotated[bool, Option("Also write steps.csv: loss and learning rate of every step.")] = False
    strict: Annotated[bool, Option("Stop if an image cannot be read.")] = False

    @property
    def pretrained(self) -> bool:
        """True if training starts from given weights."""
        return self.weights is not None

    def resolved(self, has_weights: bool) -> TrainingConfig:
        """Fill in the defaults that depend on the start: from weights, if the architecture has any, or from scratch."""
        start = RECIPES[self.task][0 if self.pretrained and has_weights else 1]
        missing = {key: value for key, value in start.items() if getattr(self, key) is None}
        if not has_weights:
            missing["weights"] = None
        elif self.balance == "smote" and "head_epochs" in missing and self.unfreeze_from is None:
            missing["head_epochs"] = self.epochs or start["epochs"]  # SMOTE is for a head on fixed features
        return replace(self, **missing)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON and YAML hold them."""
        values: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return values


@cache
def _adapter() -> TypeAdapter[TrainingConfig]:
    from pydantic import TypeAdapter

    return TypeAdapter(TrainingConfig)


def make_config(**values: Any) -> TrainingConfig:
    """Check the values and build the configuration; raises :class:`UsageError`, which names the wrong option."""
    from pydantic import ValidationError

    task = values.get("task", TrainingConfig.task)
    by_task = DEFAULTS.get(task, {}) if isinstance(task, str) else {}
    try:
        return _adapter().validate_python({**by_task, **values})
    except ValidationError as error:
        names = [each.name for each in fields(TrainingConfig)]
        raise UsageError(*explain(error, names, "see hubel train --help")) from error


def describe_default(name: str) -> str | None:
    """A default that depends on the task or the start, in words: ``17 (60 from scratch); localize: 20 (…)``."""
    tasks: dict[str, list[str]] = {}
    for task, (pretrained, scratch) in RECIPES.items():
        if name in pretrained:
            begin, other = _text(pretrained[name]), _text(scratch[name])
            text = begin if begin == other else f"{begin} ({other} from scratch)"
        elif name in DEFAULTS[task]:
            text = _text(DEFAULTS[task][name])
        else:
            continue
        tasks.setdefault(text, []).append(task)
    named = [text if "classify" in of else f"{', '.join(of)}: {text}" for text, of in tasks.items()]
    return "; ".join(named) or None


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={_text(number)}" for name, number in value.items())
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
