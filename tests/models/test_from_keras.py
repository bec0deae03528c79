"""docs/from-keras.md tells the truth: its expressions run, and give what Keras gives where the page says so.

Keras runs on its PyTorch backend. The right side of each comparison is read from the page.
"""

from __future__ import annotations

import ast
import os
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import pytest
import sklearn.datasets
import torch
from keras import layers, losses, metrics, ops, optimizers
from keras.applications.imagenet_utils import preprocess_input
from keras.src.utils.dataset_utils import index_directory
from keras.utils import bounding_boxes
from torch import Tensor, nn
from torchvision.transforms import v2

from drawn_shapes import write_shapes
from hubel.data.image_folder import read_class_folders
from hubel.tasks.registry import get_task
from hubel.training.checkpoint import Progress

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "from-keras.md"
sys.path.insert(0, str(ROOT / "docs"))

from run_pages import script_of  # noqa: E402

CHECKED = "✓ "


def rows_of_page() -> dict[str, tuple[bool, str]]:
    """First cell without marks → whether it promises equality, and the first code of the middle cell."""
    rows: dict[str, tuple[bool, str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and cells[0] not in ("Keras", "---"):
            name = cells[0].removeprefix(CHECKED).replace("`", "")
            assert name not in rows, f"two rows for {name}"
            code = re.search(r"`([^`]+)`", cells[1])
            rows[name] = (cells[0].startswith(CHECKED), code[1] if code else "")
    return rows


ON_PAGE = rows_of_page()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The names that the page defines, and as ``here`` what each expression of a middle column gives."""
    folder = tmp_path_factory.mktemp("page")
    photographs = Path(sklearn.datasets.__file__).parent / "images"
    shutil.copyfile(photographs / "china.jpg", folder / "china.jpg")
    lines = [script_of(PAGE), "here = {}"]
    for name, (_, code) in ON_PAGE.items():
        if code and not code.startswith("hubel "):
            ast.parse(code, mode="eval")
            lines.append(f"here[{name!r}] = {code}")
    script = folder / "page.py"
    script.write_text("\n".join(lines), encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        return SimpleNamespace(**runpy.run_path(str(script), run_name="page"))
    finally:
        os.chdir(before)


def channels_last(maps: Tensor) -> Tensor:
    return maps.movedim(1, -1)


def channels_first(maps: Tensor) -> Tensor:
    return maps.detach().movedim(-1, 1)


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: the first cell on the page.
        keras: from the page's names to a Keras layer, which is fed ``page.images``, or to a value.
        tolerance: largest difference.
    """

    name: str
    keras: Callable[[SimpleNamespace], Any]
    tolerance: float = 1e-5


def depth_max_pool(x: Tensor) -> Tensor:
    return ops.max(ops.reshape(x, (*x.shape[:-1], x.shape[-1] // 3, 3)), axis=-1)


def local_response_normalization(x: Tensor) -> Tensor:
    """TensorFlow's definition, tf.nn.local_response_normalization, by arithmetic in NumPy."""
    values = x.double().numpy()
    out = np.empty_like(values)
    for channel in range(values.shape[-1]):
        window = values[..., max(0, channel - 2) : channel + 3]
        out[..., channel] = values[..., channel] / (2.0 + 1e-4 * (window**2).sum(-1)) ** 0.75
    return torch.from_numpy(out).float()


ROWS = (
    Row("Flatten()", lambda page: layers.Flatten()(channels_last(page.images))),
    Row("Conv2D(8, 3)", lambda page: layers.Conv2D(8, 3)),
    Row('Conv2D(8, 4, padding="same")', lambda page: layers.Conv2D(8, 4, padding="same")),
    Row('Conv2D(8, 3, strides=2, padding="same")', lambda page: layers.Conv2D(8, 3, strides=2, padding="same")),
    Row("Conv2D(8, 3, dilation_rate=2)", lambda page: layers.Conv2D(8, 3, dilation_rate=2)),
    Row("Conv2D(6, 3, groups=3)", lambda page: layers.Conv2D(6, 3, groups=3)),
    Row("DepthwiseConv2D(3, depth_multiplier=2)", lambda page: layers.DepthwiseConv2D(3, depth_multiplier=2)),
    Row('SeparableConv2D(8, 3, padding="same")', lambda page: layers.SeparableConv2D(8, 3, padding="same")),
    Row("Conv2DTranspose(8, 2, strides=2)", lambda page: layers.Conv2DTranspose(8, 2, strides=2)),
    Row(
        'Conv2DTranspose(8, 4, strides=2, padding="same")',
        lambda page: layers.Conv2DTranspose(8, 4, strides=2, padding="same"),
    ),
    Row(
        'Conv2DTranspose(8, 3, strides=2, padding="same")',
        lambda page: layers.Conv2DTranspose(8, 3, strides=2, padding="same"),
    ),
    Row(
        'ops.conv(x, kernel, padding="same")',
        lambda page: channels_first(
            ops.conv(channels_last(page.images), page.kernel.permute(2, 3, 1, 0), padding="same")
        ),
    ),
    Row("ZeroPadding2D(((1, 2), (3, 4)))", lambda page: layers.ZeroPadding2D(((1, 2), (3, 4)))),
    Row("Cropping2D(1)", lambda page: layers.Cropping2D(1)),
    Row("UpSampling2D(2)", lambda page: layers.UpSampling2D(2)),
    Row('UpSampling2D(2, interpolation="bilinear")', lambda page: layers.UpSampling2D(2, interpolation="bilinear")),
    Row("MaxPool2D(2)", lambda page: layers.MaxPool2D(2)),
    Row('MaxPool2D(2, padding="same")', lambda page: layers.MaxPool2D(2, padding="same")),
    Row('MaxPool2D(3, strides=2, padding="same")', lambda page: layers.MaxPool2D(3, strides=2, padding="same")),
    Row("AveragePooling2D(2)", lambda page: layers.AveragePooling2D(2)),
    Row('AveragePooling2D(2, padding="same")', lambda page: layers.AveragePooling2D(2, padding="same")),
    Row("DepthMaxPool(3)", lambda page: depth_max_pool),
    Row("GlobalAvgPool2D()", lambda page: layers.GlobalAvgPool2D()),
    Row("GlobalAvgPool2D(keepdims=True)", lambda page: layers.GlobalAvgPool2D(keepdims=True)),
    Row("GlobalMaxPool2D()", lambda page: layers.GlobalMaxPool2D()),
    Row("BatchNormalization()", lambda page: layers.BatchNormalization()),
    Row("local_response_normalization(x, 2, 2.0, 1e-4, 0.75)", lambda page: local_response_normalization),
    Row("ReLU(max_value=6)", lambda page: layers.ReLU(max_value=6)),
    Row("LeakyReLU()", lambda page: layers.LeakyReLU()),
    Row('Activation("swish")', lambda page: layers.Activation("swish")),
    Row('Activation("hard_sigmoid")', lambda page: layers.Activation("hard_sigmoid")),
    Row("Softmax()", lambda page: layers.Softmax()),
    Row("add([a, b])", lambda page: layers.add([page.images, page.images])),
    Row("Rescaling(1 / 255)", lambda page: layers.Rescaling(1 / 255)(page.pixels)),
    Row("Rescaling(1 / 127.5, offset=-1)", lambda page: layers.Rescaling(1 / 127.5, offset=-1)(page.pixels)),
    Row(
        "Normalization(mean=[0.5, 0.4, 0.3], variance=[0.04, 0.05, 0.06])",
        lambda page: layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[0.04, 0.05, 0.06]),
    ),
    Row("Resizing(20, 24)", lambda page: layers.Resizing(20, 24)),
    Row("CenterCrop(20, 24)", lambda page: layers.CenterCrop(20, 24)),
    *(
        Row(
            f'preprocess_input, mode "{mode}"',
            lambda page, mode=mode: channels_first(
                torch.as_tensor(preprocess_input(channels_last(page.pixels).float(), mode=mode))
            ),
            1e-4,
        )
        for mode in ("tf", "torch", "caffe")
    ),
    Row(
        "class_weight={2: 2.0, 3: 5.0}",
        lambda page: losses.SparseCategoricalCrossentropy(from_logits=True)(
            page.labels, page.scores, sample_weight=page.class_weights[page.labels]
        ),
    ),
    Row(
        "sparse_categorical_crossentropy(labels, scores, from_logits=True)",
        lambda page: losses.sparse_categorical_crossentropy(page.labels, page.scores, from_logits=True).mean(),
    ),
    Row(
        "sparse_categorical_crossentropy(labels, probabilities)",
        lambda page: losses.sparse_categorical_crossentropy(page.labels, page.probabilities).mean(),
    ),
    Row(
        "categorical_crossentropy(targets, scores, from_logits=True, label_smoothing=0.1)",
        lambda page: losses.categorical_crossentropy(
            page.targets, page.scores, from_logits=True, label_smoothing=0.1
        ).mean(),
    ),
    Row(
        "binary_crossentropy(targets, scores, from_logits=True)",
        lambda page: losses.binary_crossentropy(page.targets, page.scores, from_logits=True).mean(),
    ),
    Row(
        "mean_squared_error(targets, scores)",
        lambda page: losses.mean_squared_error(page.targets, page.scores).mean(),
    ),
    Row("SparseCategoricalAccuracy()", lambda page: metrics.SparseCategoricalAccuracy()(page.labels, page.scores)),
    Row(
        "SparseTopKCategoricalAccuracy(k=3)",
        lambda page: metrics.SparseTopKCategoricalAccuracy(k=3)(page.labels, page.scores),
    ),
    Row("MeanIoU(num_classes=3)", lambda page: metrics.MeanIoU(num_classes=3)(page.truth, page.predicted)),
    Row(
        'compute_iou(boxes, boxes, "xyxy")',
        lambda page: bounding_boxes.compute_iou(page.boxes, page.boxes, "xyxy"),
    ),
)

# Compared by tests of their own, below.
OTHERS = {
    "Conv2D.kernel",
    "Dense.kernel",
    'image_dataset_from_directory("flowers")',
    'RandomFlip("horizontal")',
    "RandomRotation(0.1)",
    'RandomZoom((-0.2, 0.25), fill_mode="constant")',
    'RandomTranslation(0.1, 0.2, fill_mode="constant")',
    "RandomContrast((0.2, 0.2))",
    'EarlyStopping(monitor="val_accuracy", patience=2)',
    "ReduceLROnPlateau(patience=3)",
}
INITIALIZERS = {
    '"glorot_uniform"': "glorot_uniform",
    '"glorot_normal"': "glorot_normal",
    '"he_normal"': "he_normal",
    '"he_uniform"': "he_uniform",
    '"lecun_normal"': "lecun_normal",
    '"lecun_uniform"': "lecun_uniform",
    "RandomNormal(stddev=0.01)": keras.initializers.RandomNormal(stddev=0.01),
}
SCHEDULES = {
    "CosineDecay(0.1, 100)": optimizers.schedules.CosineDecay(0.1, 100),
    "ExponentialDecay(0.1, decay_steps=20, decay_rate=0.5)": optimizers.schedules.ExponentialDecay(0.1, 20, 0.5),
    "PiecewiseConstantDecay([50, 80], [0.1, 0.01, 0.001])": optimizers.schedules.PiecewiseConstantDecay(
        [50, 80], [0.1, 0.01, 0.001]
    ),
}
OPTIMIZERS = {
    "SGD(0.1, momentum=0.9, nesterov=True)": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "Adam(1e-3)": lambda: optimizers.Adam(1e-3),
    "AdamW(1e-3, weight_decay=0.05)": lambda: optimizers.AdamW(1e-3, weight_decay=0.05),
    "Nadam(1e-3)": lambda: optimizers.Nadam(1e-3),
    "RMSprop(1e-3)": lambda: optimizers.RMSprop(1e-3),
}


def test_every_promise_of_equality_is_kept_by_a_comparison() -> None:
    promised = {name for name, (checked, _) in ON_PAGE.items() if checked}
    compared = {row.name for row in ROWS} | OTHERS | set(INITIALIZERS) | set(SCHEDULES) | set(OPTIMIZERS)
    assert promised == compared


_AXES = {  # of a Keras kernel, in torch's order
    "kernel": (3, 2, 0, 1),
    "pointwise_kernel": (3, 2, 0, 1),
    "depthwise_kernel": (2, 3, 0, 1),  # in a SeparableConv2D; the kernels of one channel are neighbours
}


def carry_weights(layer: Any, module: nn.Module) -> None:
    """Random weights and statistics for a Keras layer, and the same for ours."""
    own = [tensor for name, tensor in module.state_dict().items() if not name.endswith("num_batches_tracked")]
    values = np.random.default_rng(0)
    for variable, tensor in zip(layer.weights, own, strict=True):
        variable.assign(values.uniform(0.2, 1.0, variable.shape))
        value = torch.as_tensor(variable.value).detach()
        name = variable.name
        if name == "kernel" and isinstance(layer, layers.DepthwiseConv2D):
            name = "depthwise_kernel"
        if name in _AXES:
            value = value.permute(_AXES[name])
        tensor.copy_(value.reshape(tensor.shape))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_are_equal(row: Row, page: SimpleNamespace) -> None:
    ours, theirs = page.here[row.name], row.keras(page)
    if callable(theirs) and not isinstance(theirs, Tensor):
        images = channels_last(page.images).contiguous()
        if isinstance(theirs, keras.Layer):
            theirs.build(images.shape)
            if theirs.weights:
                carry_weights(theirs, ours)
        theirs = theirs(images)
        theirs = channels_first(theirs) if theirs.ndim == 4 else theirs.detach()
        with torch.no_grad():
            ours = (ours.eval() if isinstance(ours, nn.Module) else ours)(page.images)
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < row.tolerance


def test_kernels_are_laid_out_as_the_page_says(page: SimpleNamespace) -> None:
    layer = layers.Conv2D(8, 3, use_bias=False)
    layer.build((None, 33, 36, 3))
    layer.kernel.assign(page.here["Conv2D.kernel"])
    theirs = channels_first(layer(channels_last(page.images)))
    assert (torch.nn.functional.conv2d(page.images, page.kernel) - theirs).abs().max() < 1e-4
    dense, ours = layers.Dense(5), nn.Linear(6, 5)
    dense.build((None, 6))
    assert page.here["Dense.kernel"].shape == tuple(dense.kernel.shape)
    dense.kernel.assign(ours.weight.detach().T)
    dense.bias.assign(ours.bias.detach())
    signal = torch.rand(4, 6)
    assert (dense(signal) - ours(signal)).abs().max() < 1e-5


def test_the_usual_paddings_read_other_pixels(page: SimpleNamespace) -> None:
    """What the page warns of: right shapes, wrong values."""
    even = page.images[:, :, :32]
    conv, ours = layers.Conv2D(8, 3, strides=2, padding="same"), nn.Conv2d(3, 8, 3, stride=2, padding=1)
    conv.build((None, 32, 36, 3))
    carry_weights(conv, ours)
    theirs = channels_first(conv(channels_last(even)))
    assert theirs.shape == ours(even).shape and (theirs - ours(even)).abs().max() > 0.1
    up = layers.Conv2DTranspose(8, 3, strides=2, padding="same")
    mine = nn.ConvTranspose2d(3, 8, 3, stride=2, padding=1, output_padding=1)
    up.build((None, 32, 36, 3))
    carry_weights(up, mine)
    theirs = channels_first(up(channels_last(even)))
    assert theirs.shape == mine(even).shape
    assert (theirs[:, :, 1:, 1:] - mine(even)[:, :, :-1, :-1]).abs().max() < 1e-4  # shifted by a pixel


def test_batch_normalization_in_training(page: SimpleNamespace) -> None:
    theirs, ours = layers.BatchNormalization(), page.here["BatchNormalization()"]
    theirs.build((None, 33, 36, 3))
    carry_weights(theirs, ours)
    ours.train()
    before = ours.running_var.clone()
    out = theirs(channels_last(page.images), training=True)
    assert (channels_first(out) - ours(page.images)).abs().max() < 1e-4
    assert torch.allclose(torch.as_tensor(theirs.moving_mean.value), ours.running_mean, atol=1e-6)
    count = page.images.numel() / 3
    new = (torch.as_tensor(theirs.moving_variance.value) - 0.99 * before) / 0.01  # what Keras took in
    assert torch.allclose((ours.running_var - 0.99 * before) / 0.01, new * count / (count - 1), rtol=1e-3)
    ours.eval()


def test_frozen_batch_normalization_is_in_inference_mode_in_keras_only(page: SimpleNamespace) -> None:
    theirs, ours = layers.BatchNormalization(), nn.BatchNorm2d(3).requires_grad_(False)
    theirs.build((None, 33, 36, 3))
    theirs.trainable = False
    theirs(channels_last(page.images), training=True)
    ours.train()(page.images)
    assert float(ops.max(theirs.moving_mean)) == 0
    assert float(ours.running_mean.abs().min()) > 0.01


def test_odd_margins_of_centre_crops() -> None:
    image = torch.arange(11.0).expand(1, 3, 11, 11)
    theirs = channels_first(layers.CenterCrop(8, 8)(channels_last(image)))[0, 0, 0]
    assert theirs[0] == 1 and v2.CenterCrop(8)(image)[0, 0, 0, 0] == 2  # 3 pixels: one or two to the left
    image = torch.arange(9.0).expand(1, 3, 9, 9)
    theirs = channels_first(layers.CenterCrop(8, 8)(channels_last(image)))[0, 0, 0]
    assert theirs[0] == 0 and v2.CenterCrop(8)(image)[0, 0, 0, 0] == 0


def test_flips_turn_half_of_the_images(page: SimpleNamespace) -> None:
    many = page.images[:1].expand(200, -1, -1, -1)
    flipped = channels_first(layers.RandomFlip("horizontal", seed=1)(channels_last(many), training=True))
    ours = torch.stack([page.here['RandomFlip("horizontal")'](image) for image in many])
    for some in (flipped, ours):
        turned = (some == many.flip(3)).all((1, 2, 3))
        assert ((some == many).all((1, 2, 3)) | turned).all() and 70 < int(turned.sum()) < 130


def inner(maps: Tensor) -> Tensor:
    return maps[:, :, 10:-10, 10:-10]


def test_rotation_by_shares_of_a_turn(page: SimpleNamespace) -> None:
    ours = page.here["RandomRotation(0.1)"]
    assert [360 * share for share in layers.RandomRotation(0.1).factor] == pytest.approx(ours.degrees)
    square = torch.rand(2, 3, 33, 33)
    for share in (0.05, 0.25):
        fixed = layers.RandomRotation((share, share))
        theirs = channels_first(fixed(channels_last(square), training=True))
        turned = v2.functional.rotate(square, 360 * share, interpolation=ours.interpolation)
        assert (inner(theirs) - inner(turned)).abs().max() < 1e-4


def test_zoom_and_scale_are_inverse(page: SimpleNamespace) -> None:
    ours = page.here['RandomZoom((-0.2, 0.25), fill_mode="constant")']
    for factor, scale in zip((0.25, -0.2), ours.scale, strict=True):
        fixed = layers.RandomZoom((factor, factor), fill_mode="constant")
        theirs = channels_first(fixed(channels_last(page.images), training=True))
        scaled = v2.functional.affine(page.images, 0.0, [0, 0], scale, [0.0, 0.0], interpolation=ours.interpolation)
        assert (inner(theirs) - inner(scaled)).abs().max() < 1e-4


def test_translation_is_height_first_in_keras() -> None:
    images = torch.rand(1, 3, 40, 50)
    fixed = layers.RandomTranslation((0.1, 0.1), (0.2, 0.2), fill_mode="constant")
    theirs = channels_first(fixed(channels_last(images), training=True))
    moved = v2.functional.affine(images, 0.0, [round(0.2 * 50), round(0.1 * 40)], 1.0, [0.0, 0.0])
    assert (theirs - moved).abs().max() < 1e-5


def test_translation_on_the_page_takes_the_same_shares(page: SimpleNamespace) -> None:
    theirs = layers.RandomTranslation(0.1, 0.2)
    ours = page.here['RandomTranslation(0.1, 0.2, fill_mode="constant")']
    assert ours.translate == (theirs.width_upper, theirs.height_upper)


def test_contrast_of_greyscale(page: SimpleNamespace) -> None:
    ours, theirs = page.here["RandomContrast((0.2, 0.2))"], layers.RandomContrast((0.2, 0.2), value_range=(0, 1))
    assert layers.RandomContrast(0.2).factor == (0, 0.2)
    assert ours.contrast == pytest.approx((1 - theirs.factor[0], 1 + theirs.factor[1]))
    grey = page.images[:1, :1]
    factor = {"contrast_factor": torch.full((1, 1, 1, 1), 0.85)}
    stretched = channels_first(theirs.transform_images(channels_last(grey), factor, training=True))
    assert (stretched - v2.functional.adjust_contrast(grey, 0.85)).abs().max() < 1e-5


def test_classes_are_numbered_alike(tmp_path: Path) -> None:
    write_shapes(tmp_path, {"disc": 1, "Frame": 1, "cross10": 1, "cross2": 1})
    names = index_directory(str(tmp_path), "inferred", (".png",), shuffle=False, verbose=False)[2]
    assert list(read_class_folders(tmp_path).classes) == names


def test_fans_and_deviations_of_initializers() -> None:
    """Deviation and largest weight of 295,000 drawn; only the cut of Keras's normal distributions differs."""
    torch.manual_seed(0)
    for name, initializer in INITIALIZERS.items():
        theirs = keras.initializers.get(initializer)((3, 3, 128, 256)).detach()
        large = torch.empty(256, 128, 3, 3)
        draw, options = _draw(ON_PAGE[name][1])
        ours = draw(large, **options)
        assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.01), name
        if "uniform" in name:
            assert float(ours.max()) == pytest.approx(float(theirs.max()), rel=0.001), name
        elif name != "RandomNormal(stddev=0.01)":
            largest = [
                float(weights.abs().flatten().topk(300).values[-1] / weights.std()) for weights in (theirs, ours)
            ]
            assert largest == pytest.approx([2 / 0.8796, 3.28], rel=0.02), name  # one in a thousand is larger


def _draw(expression: str) -> tuple[Callable[..., Tensor], dict[str, Any]]:
    """``init.normal_(kernel, std=0.01)`` as function and keywords."""
    call = ast.parse(expression, mode="eval").body
    assert isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
    options = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    return getattr(nn.init, call.func.attr), options


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str, page: SimpleNamespace) -> None:
    scheduler = page.here[name]
    fresh = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    options = {key: value for key, value in vars(scheduler).items() if key in ("T_max", "gamma", "milestones")}
    if "milestones" in options:
        options["milestones"] = sorted(options["milestones"])
    again = type(scheduler)(fresh, **options)
    rates = []
    for _ in range(100):
        rates.append(fresh.param_groups[0]["lr"])
        fresh.step()
        again.step()
    assert rates == pytest.approx([float(SCHEDULES[name](step)) for step in range(100)], rel=1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str, page: SimpleNamespace) -> None:
    """Twenty steps on the same gradients."""
    theirs, template = OPTIMIZERS[name](), page.here[name]
    variable = keras.Variable(np.ones(3, dtype=np.float32))
    parameter = nn.Parameter(torch.ones(3))
    options = {key: value for key, value in template.defaults.items() if key != "decoupled_weight_decay"}
    ours = type(template)([parameter], **options)
    gradients = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    for gradient in gradients:
        theirs.apply([gradient.clone()], [variable])
        parameter.grad = gradient.clone()
        ours.step()
    moved = (parameter.detach() - 1).abs().max()
    assert (torch.as_tensor(variable.value).detach() - parameter.detach()).abs().max() < 1e-4 * moved


def test_early_stopping_counts_alike(page: SimpleNamespace) -> None:
    accuracies = [0.5, 0.7, 0.6, 0.8, 0.75, 0.79, 0.9]
    callback = keras.callbacks.EarlyStopping(monitor="val_accuracy", patience=2, mode="max")
    callback.set_model(SimpleNamespace(stop_training=False))
    callback.on_train_begin()
    progress = Progress()
    for epoch, accuracy in enumerate(accuracies):
        callback.on_epoch_end(epoch, {"val_accuracy": accuracy})
        row = {"epoch": epoch + 1, "val_top1": accuracy, "val_loss": 1.0}
        progress.add(row, get_task("classify").monitor)
        assert progress.should_stop_early(2, get_task("classify").monitor) == callback.model.stop_training
        if callback.model.stop_training:
            break
    assert progress.best_epoch == 4 and callback.stopped_epoch == 5  # Keras counts from 0


def test_plateaus_are_counted_one_epoch_apart(page: SimpleNamespace) -> None:
    callback = keras.callbacks.ReduceLROnPlateau(patience=3, mode="min")
    callback.set_model(SimpleNamespace(optimizer=optimizers.SGD(0.1)))
    callback.on_train_begin()
    template = page.here["ReduceLROnPlateau(patience=3)"]
    ours = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    options = {key: getattr(template, key) for key in ("factor", "patience", "threshold", "threshold_mode")}
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(ours, **options)
    for epoch, loss in enumerate([1.0, 0.9, 0.9, 0.95, 0.92, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        scheduler.step(loss)
        theirs = float(callback.model.optimizer.learning_rate)
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs, rel=1e-4), epoch
    assert theirs < 0.002


def test_weighted_means_differ_by_the_weights(page: SimpleNamespace) -> None:
    keras_mean = page.here["class_weight={2: 2.0, 3: 5.0}"]
    ours = nn.functional.cross_entropy(page.scores, page.labels, weight=page.class_weights)
    drawn = page.class_weights[page.labels]
    assert float(ours * drawn.sum() / len(drawn)) == pytest.approx(float(keras_mean), rel=1e-5)


def test_depthwise_fans_differ() -> None:
    theirs = keras.initializers.get("he_uniform")((3, 3, 64, 1)).detach().abs().max()
    ours = nn.init.kaiming_uniform_(torch.empty(64, 1, 3, 3)).abs().max()
    assert float(ours / theirs) == pytest.approx(8, rel=0.05)  # the root of 64 channels
