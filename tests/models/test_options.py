"""Every option of every architecture: what it cannot be is refused by name and range, and what it can be works."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
import torch

from hubel.errors import ModelError
from hubel.models import architecture, create_model, list_models
from hubel.models.config_schema import with_options

NAN, INF = math.nan, math.inf
NO_FLAG = (2, 0.5, "yes", None, [True])
NO_SHARE = (-0.1, 1, 1.5, "half", True, None, NAN, [0.5])
NO_FACTOR = (0, -1, NAN, INF, "wide", True, None, [1.0])
NO_COUNT = (0, -1, 1.5, "many", True, INF, [1])
NO_COUNTS = ((), 3, "deep", None, [1, 2, 0, 1], [1, 1, -1, 1, 1], [1, 1.5, 1, 1], [True] * 4, [[1]] * 4)
# By the name of an option: what it cannot be in any family. An option that is missing here fails the first test.
WRONG: dict[str, tuple[object, ...]] = {
    "at_once": NO_FLAG,
    "branch_channels": (*NO_COUNT, None),
    "decoder_channels": (*NO_COUNT, None),
    "image_pooling": NO_FLAG,
    "output_stride": (4, 64, "16", None, True),
    "pyramid": NO_FLAG,
    "rates": ((), 6, [0, 6], ["wide"], [1.5]),
    "skip_channels": (*NO_COUNT, None),
    "skips": ((), 4, [4, 16], ["fine"]),
    "stride": (4, 64, "8", None),
    "widths": ((), 64, [256, 0], ["wide"]),
    "anchor": NO_FACTOR,
    "activation": ("gelu", None, 1, ["relu"]),
    "auxiliary": NO_FLAG,
    "avg_down": NO_FLAG,
    "auxiliary_pool": ("7x7", 5, None),
    "batch_norm": NO_FLAG,
    "bins": (*NO_COUNT, 1, None),
    "dense": (*NO_COUNT, None),
    "first_convolutions": (*NO_COUNT, None),
    "candidates": NO_COUNT,
    "least_objectness": NO_SHARE,
    "least_score": NO_SHARE,
    "mask_features": (*NO_COUNT, None),
    "mask_norm": NO_FLAG,
    "origin": ("middle", 0, None),
    "proposals": (*NO_COUNT, None),
    "pyramid_norm": NO_FLAG,
    "regions": (*NO_COUNT, None),
    "second_convolutions": (-1, 1.5, "many", True, None),
    "training_proposals": (*NO_COUNT, None),
    "blocks": (-1, 1.5, "many", True, None),
    "bottleneck": (*NO_COUNT, None),
    "cfg": (1, None, "", "layers", "[net]\n[lstm]\n", "[net]\n[convolutional]\nfilters=3\n"),
    "channels": (*NO_COUNTS, [96, 256, 384, 384], [96, 0, 384, 384, 256], [97, 256, 384, 384, 256.5]),
    "compression": (0, -0.5, 1.5, NAN, "half", True, None),
    "connections": ("half", True),
    "convolutions": (*NO_COUNT, None),
    "count_padding": NO_FLAG,
    "depth": NO_FACTOR,
    "depths": NO_COUNTS,
    "dropout": NO_SHARE,
    "drop_block": NO_SHARE,
    "dropout_before": NO_FLAG,
    "edition": ("draft", 1, None),
    "extras": ((), 3, "deep", [0], [[256, 512, 3, 2]], [1.5], [[256, 512, 0, 2, 1]], [["wide"]]),
    "features": (*NO_COUNT, None),
    "reduce_first": NO_FLAG,
    "fusion": ("mean", 1, None),
    "grid": NO_COUNT,
    "head_layers": (*NO_COUNT, None),
    "base_width": (*NO_COUNT, None),
    "groups": (*NO_COUNT, None),
    "growth": (*NO_COUNT, None),
    "hidden": (*NO_COUNT, None),
    "initialization": ("he", 0),
    "kernel": (*NO_COUNT, 4, None),
    "largest": NO_FACTOR,
    "last_pool": (0, 1, 4, "3", True, None),
    "layers": (*NO_COUNT, None),
    "leaky_slope": NO_SHARE,
    "mappings": (-1, 1.5, "many", True, None),
    "norm_eps": NO_FACTOR,
    "neck": (1, None, "layers", "[lstm]\n"),
    "normalized": NO_FLAG,
    "objectness": ("softmax", 1, None),
    "output": ("softmax", 10),
    "padding": (-1, 6, 1.5, "same", True, None),
    "per_octave": (*NO_COUNT, None),
    "places": (*NO_COUNT, None),
    "pool_ceil_mode": NO_FLAG,
    "pyramid_channels": (*NO_COUNT, None),
    "downsample_kernel": (*NO_COUNT, 2, None),
    "ratios": ((), 2, [0.0, 2.0], ["wide"], [NAN]),
    "residual": NO_FLAG,
    "same": NO_FLAG,
    "scale": (0, 1, 5, 2.5, "2x", None),
    "scales": ((), 0.1, [0.1, 0.2], [0.1, 0, 0.2], [0.1, 0.1, 1.5], [NAN, 0.1, 0.1], ["a", "b", "c"]),
    "se": NO_FLAG,
    "separable_stem": NO_FLAG,
    "shrunk": (*NO_COUNT, None),
    "sizes": ("logarithm", 1, None),
    "smallest": NO_FACTOR,
    "stages": ((), 4, "deep", [3, 3, 5, 2], [[3, 64, 128]], [[3, 64, 128, 0]], [[3, 64, 128, "wide"]]),
    "stem": ("5x5", 7, None),
    "steps": ((), 8, [8, 16], [8, 16, 32, 64, 100, 0], [8, 16, 32, 64, 100, 1.5]),
    "stochastic_depth": NO_SHARE,
    "stride_in": ("5x5", 1, None),
    "subsampling": ("sum", True),
    "unit": ("light", 1, None),
    "units": ((), 3, "deep", [1, 0, 1], [1, 1], [[3, 16, 16, "SE", "RE"]], [[3, 16, 16, "SE", "RE", 3]]),
    "tree": (1, None, "animal", "animal 0\n", "animal -1\nanimal 0\n"),
    "map": (1, None, "0\n"),
    "width": NO_FACTOR,
    "window": (*NO_COUNT, None),
}
# Values that differ from a row's own and are as right.
RIGHT: dict[str, object] = {
    "compression": 0.001,  # a transition keeps one map
    "stages": [[1, 8, 8, 16], [2, 12, 8, 16]],
    "width": 0.01,
    "base_width": 1,
    "kernel": 3,
    "downsample_kernel": 3,
    "grid": 2,
    "leaky_slope": 0.2,
}
NAMES = [name for name in list_models() if name not in ("resnet18", "resnet34")]  # basic units have no groups
OPTIONS = [(name, field.name) for name in NAMES for field in fields(architecture(name).config)]


def one_of_each_family() -> dict[tuple[str, str], str]:
    """Family and option → the first network that has it."""
    chosen: dict[tuple[str, str], str] = {}
    for name, option in OPTIONS:
        config = type(architecture(name).config)
        chosen.setdefault((f"{config.__module__.rpartition('.')[2]}.{config.__name__}", option), name)
    return chosen


def test_every_option_is_in_the_table() -> None:
    assert {option for _, option in OPTIONS} == set(WRONG)


@pytest.mark.parametrize(("family_option", "name"), one_of_each_family().items(), ids=lambda each: str(each))
def test_what_an_option_cannot_be_is_refused(family_option: tuple[str, str], name: str) -> None:
    _, option = family_option
    own = getattr(architecture(name).config, option)
    for value in WRONG[option]:
        with pytest.raises(ModelError) as raised, torch.device("meta"):
            create_model(name, **{option: value})
        error = raised.value
        if option in ("cfg", "neck", "tree", "map") and isinstance(
            value, str
        ):  # what is wrong with a text is told by its line
            assert error.hint
            continue
        assert error.message.startswith(f"{name} cannot be built with {option}="), value
        assert error.hint.startswith(f"{option} is ") and f"the network's own is {option}={own!r}"[:200] in error.hint


@pytest.mark.parametrize(("family_option", "name"), one_of_each_family().items(), ids=lambda each: str(each))
def test_what_an_option_can_be_makes_a_network(family_option: tuple[str, str], name: str) -> None:
    _, option = family_option
    row = architecture(name)
    own: Any = getattr(row.config, option)
    value = RIGHT.get(option, (not own) if isinstance(own, bool) else own)
    with torch.device("cpu" if name == "lenet5" else "meta"):  # its digits' codes are real
        model = create_model(name, **{option: value}).eval()
        outputs = model(torch.zeros(2, *row.input))
    if row.task == "classify":
        assert outputs.shape == (2, row.num_classes)
    elif row.task == "localize":
        assert (outputs["scores"].shape, outputs["box"].shape) == ((2, row.num_classes), (2, 4))
    elif row.task == "segment":
        assert outputs.shape[:2] == (2, row.num_classes)
    elif row.task == "super-resolve":
        assert outputs.shape == (2, 3, *(model.scale * side for side in row.input[1:]))
    else:  # SSD scores the background, too
        scores = outputs["scores"]
        assert (len(scores), scores.shape[-1] - row.num_classes) in ((2, 0), (2, 1))
    assert all(tensor.numel() for tensor in model.state_dict().values())


@pytest.mark.parametrize(("option", "value"), [("groups", 2), ("base_width", 4), ("reduce_first", True)])
def test_basic_units_have_no_groups(option: str, value: object) -> None:
    with pytest.raises(ModelError, match=rf"{option}.*bottleneck blocks"):
        create_model("resnet18", **{option: value})


@pytest.mark.parametrize("name", ["alexnet", "cspresnet50", "senet154"])
def test_groups_that_do_not_divide_are_refused(name: str) -> None:
    with pytest.raises(ModelError) as raised, torch.device("meta"):
        create_model(name, groups=7, **({"width": 0.01} if name == "senet154" else {}))
    assert raised.value.message.startswith(f"{name} cannot be built with groups=7")
    assert "that divides the channels of all grouped convolutions" in raised.value.hint


def test_ranges_are_described_in_words() -> None:
    messages = {
        ("densenet121", "growth", 0): "growth is a whole number of at least 1; the network's own is growth=32",
        ("resnet50", "stem", "5x5"): "stem is '7x7' or '3x3' or 'deep'; the network's own is stem='7x7'",
        ("vgg16", "grid", 0): "grid is a whole number of at least 1 or nothing; the network's own is grid=None",
        ("vgg16", "batch_norm", 3): "batch_norm is true or false; the network's own is batch_norm=False",
        ("inception_resnet_v2", "scales", 3): (
            "scales is 3 values, each a number above 0, at most 1; the network's own is scales=(0.17, 0.1, 0.2)"
        ),
        ("densenet121", "depths", 3): (
            "depths is one or more values, each a whole number of at least 1; "
            "the network's own is depths=(6, 12, 24, 16)"
        ),
    }
    for (name, option, value), words in messages.items():
        with pytest.raises(ModelError) as raised:
            create_model(name, **{option: value})
        assert raised.value.hint == words
    with pytest.raises(ModelError, match="each a row of units .a whole number of at least 1., narrow"):
        create_model("cspresnet50", stages=3)


def test_rows_of_tables_may_come_from_json() -> None:
    # A CSPResNet of one stage, counted by hand: the stem 7·7·3·4·64 / 4, and two numbers of each normalization.
    with torch.device("meta"):
        model = create_model("cspresnet50", stages=[[1, 8, 16, 32]], num_classes=10)
    convolutions = (7 * 7 * 3 * 64, 64 * 32, 16 * 8, 9 * 8 * 8, 8 * 16, 16 * 16, 32 * 32)
    normalized = 64 + 32 + 8 + 8 + 16 + 16 + 32
    assert sum(p.numel() for p in model.parameters()) == sum(convolutions) + 2 * normalized + 32 * 10 + 10


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("group_width", "base_width", 4),
        ("first_halved", "reduce_first", True),
        ("projection", "downsample_kernel", 3),
        ("pool_past_end", "pool_ceil_mode", True),
    ],
)
def test_options_of_saved_models_keep_their_first_spelling(old: str, new: str, value: object) -> None:
    """They stand in the model.json of models that earlier versions saved."""
    arch = architecture("resnet50")
    assert with_options(arch, {old: value}) == with_options(arch, {new: value}) != arch.config
    with pytest.raises(ModelError) as raised:
        with_options(arch, {old: "?"})
    assert f"{new}='?'" in raised.value.message


@pytest.mark.parametrize(
    ("given", "meant"), [("num_clases", "num_classes"), ("imagesize", "image_size"), ("stride_on", "stride_in")]
)
def test_a_misspelled_option_gets_a_suggestion(given: str, meant: str) -> None:
    with pytest.raises(ModelError) as raised:
        create_model("resnet18", **{given: 5})
    assert raised.value.hint == f"did you mean {meant}?"
