"""Predictor against an independent pipeline, and its manners with many images, bad images and its arguments."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision import transforms

import hubel
from hubel.data.preprocessing import Preprocessing
from hubel.data.sources import ImageSource
from hubel.errors import ImageError, ModelError, UsageError
from hubel.inference import FailedImage, Predictor
from hubel.inference.engines.base import RunOptions
from hubel.inference.engines.convert import ModelSource
from hubel.inference.engines.selection import EngineChoice
from hubel.inference.pipeline import ordered_parallel_map
from hubel.models import ModelMetadata, create_model, resolve_model
from hubel.results import Classification


def _photographs(count: int, seed: int = 0) -> list[Image.Image]:
    """Smooth random colour images of several sizes, so that resizing matters and rounding does not."""
    generator = np.random.default_rng(seed)
    # 0.875 of the shorter side is a whole number that leaves an even rest: no box falls between pixels.
    sizes = [(304, 208), (176, 256), (224, 256), (512, 336)]
    return [
        Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
            sizes[i % len(sizes)], Image.Resampling.BICUBIC
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def lite0() -> Predictor:
    return Predictor("efficientnet_lite0", precision="float32", batch=3, top=1000)


@pytest.fixture(scope="module")
def small() -> Predictor:
    """A quick predictor of four classes with random weights."""
    torch.manual_seed(0)
    metadata = ModelMetadata(
        task="classify",
        architecture="resnet18",
        num_classes=4,
        in_channels=3,
        image_size=32,
        classes=["a", "b", "c", "d"],
        preprocessing=Preprocessing(32, 32),
    )
    return Predictor(metadata.build(), metadata=metadata, precision="float32", batch=4, top=2)


def test_probabilities_are_those_of_timm_and_torchvision(lite0: Predictor) -> None:
    ours, metadata = resolve_model("efficientnet_lite0")
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    # Both list their layers in the order of computation.
    values = [value for key, value in ours.state_dict().items()]
    keys = list(theirs.state_dict())
    assert len(keys) == len(values)
    theirs.load_state_dict(dict(zip(keys, values, strict=True)))
    # The shorter side to 256 px, antialiased, then the central 224; (x - 127) / 128.
    resize = transforms.Compose(
        [
            transforms.Resize(256, _torchvision_filter(metadata.preprocessing.interpolation)),
            transforms.CenterCrop(224),
            transforms.PILToTensor(),
        ]
    )
    photographs = _photographs(5)
    batch = torch.stack([(resize(image).float() - 127) / 128 for image in photographs])
    with torch.inference_mode():
        expected = theirs(batch).softmax(1).numpy()
    for result, row in zip(lite0(photographs), expected, strict=True):
        got = np.zeros(1000)
        for score in result.classes:
            got[score.index] = score.score
        # One pass rounds to whole grey levels once, two passes twice.
        np.testing.assert_allclose(got, row, atol=0.005)
        assert [score.index for score in result.classes][:1] == [int(row.argmax())]
        assert [score.score for score in result.classes] == sorted(got, reverse=True)


def _torchvision_filter(name: str) -> transforms.InterpolationMode:
    return transforms.InterpolationMode[name.upper()]


def test_scores_are_exactly_the_plain_networks(small: Predictor) -> None:
    network = small_network()
    images = _photographs(6)
    mean, std = (
        np.array(values) / 255 for values in (small.metadata.preprocessing.mean, small.metadata.preprocessing.std)
    )
    to_input = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean.tolist(), std.tolist())])
    scaled = [
        image.resize((32, 32), Image.Resampling.BILINEAR, box=small.metadata.preprocessing.crop_box(*image.size))
        for image in images
    ]
    with torch.inference_mode():
        expected = network(torch.stack([to_input(image) for image in scaled])).softmax(1)
    best = expected.topk(2)
    results = list(small(images))
    assert [[score.index for score in result.classes] for result in results] == best.indices.tolist()
    got = [[score.score for score in result.classes] for result in results]
    np.testing.assert_allclose(got, best.values.numpy(), atol=1e-5)
    assert [(result.width, result.height) for result in results] == [image.size for image in images]


def small_network() -> torch.nn.Module:
    """The network of the fixture ``small``, which seeds the same way."""
    torch.manual_seed(0)
    return create_model("resnet18", num_classes=4, image_size=32).eval()


def test_any_kind_of_input_alone_or_in_order(small: Predictor, tmp_path: Path) -> None:
    images = _photographs(11)
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    expected = [result.classes for result in small(images)]
    mixed = [
        (str(tmp_path / f"{number}.png"), np.asarray(image), image, tmp_path / f"{number}.png")[number % 4]
        for number, image in enumerate(images)
    ]
    results = list(small(mixed))
    assert [result.classes for result in results] == expected
    sources = [str(tmp_path / f"{n}.png") if n % 4 in (0, 3) else None for n in range(11)]
    assert [result.source for result in results] == sources
    for alone in (str(tmp_path / "2.png"), tmp_path / "2.png", np.asarray(images[2]), images[2]):
        (result,) = small(alone)
        assert result.best.score == pytest.approx(expected[2][0].score, abs=1e-6)


def test_an_endless_source_is_streamed_a_bounded_way_ahead(small: Predictor) -> None:
    taken = 0
    (image,) = _photographs(1)

    def endless() -> Iterator[Image.Image]:
        nonlocal taken
        while True:
            taken += 1
            yield image

    results = small(endless())
    for seen in range(1, 30):
        next(results)
        assert taken <= seen + 32
    results.close()
    at_close = taken
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hubel-image")]
    assert taken == at_close


def test_bad_images_raise_or_are_yielded_in_order(small: Predictor, tmp_path: Path) -> None:
    good = _photographs(5)
    missing = tmp_path / "missing.jpg"
    images = [good[0], good[1], missing, good[2], good[3], good[4]]
    seen = []
    with pytest.raises(ImageError, match="missing.jpg"):
        for result in small(images):
            seen.append(result.classes)
    expected = [result.classes for result in small(good)]
    assert seen == expected[:2]
    outcomes = list(small.stream(images))
    failed = outcomes.pop(2)
    assert isinstance(failed, FailedImage) and failed.source == str(missing)
    np.testing.assert_allclose(
        [outcome.best.score for outcome in outcomes], [classes[0].score for classes in expected], atol=1e-6
    )
    only_bad = list(small.stream([missing, missing]))
    assert [type(outcome) for outcome in only_bad] == [FailedImage, FailedImage]
    assert list(small([])) == []


def test_map_ahead_keeps_order_and_raises_in_place() -> None:
    first_may_end = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert first_may_end.wait(10)  # the first to begin is the last to end
        if number == 2:
            first_may_end.set()
        if number == 5:
            raise ValueError("five")
        return number * number

    squares = ordered_parallel_map(work, range(10), ahead=4, workers=3)
    assert [next(squares) for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match="five"):
        next(squares)


def test_a_greyscale_network_gets_grey_pixels() -> None:
    metadata = ModelMetadata(
        task="classify",
        architecture="resnet18",
        num_classes=2,
        in_channels=1,
        image_size=32,
        classes=["a", "b"],
        preprocessing=Preprocessing(32, 32, channels=1, mean=(127.5,), std=(127.5,)),
    )
    torch.manual_seed(1)
    network = metadata.build().eval()
    (image,) = _photographs(1)
    box = metadata.preprocessing.crop_box(*image.size)
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BILINEAR, box=box), np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(grey)[None, None] / 127.5 - 1).softmax(1)[0].max()
    (result,) = Predictor(network, metadata=metadata, precision="float32")(image)
    assert result.best.score == pytest.approx(float(expected), abs=1e-5)
    assert len(result.classes) == 2  # there are no five


def test_the_model_handed_over_stays_as_it_is() -> None:
    _, metadata = resolve_model("efficientnet_lite0")
    model = create_model("efficientnet_lite0").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    list(Predictor(model, metadata=metadata)(_photographs(1)))
    assert model.training and all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_created_module_brings_its_classes_and_preprocessing(lite0: Predictor) -> None:
    predict = Predictor(create_model("efficientnet_lite0", weights="default"), precision="float32", top=3)
    photographs = _photographs(2)
    for result, expected in zip(predict(photographs), lite0(photographs), strict=True):
        assert [score.name for score in result.classes] == [score.name for score in expected.classes[:3]]
        assert result.best.score == pytest.approx(expected.best.score, abs=1e-5)
    assert predict.model_name == "efficientnet_lite0"


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(UsageError, match="'tpu'"):
        Predictor("efficientnet_lite0", engine="tpu")
    with pytest.raises(UsageError, match="batch is 0"):
        Predictor("efficientnet_lite0", batch=0)
    with pytest.raises(UsageError, match="'int7'"):
        Predictor("efficientnet_lite0", precision="int7")
    with pytest.raises(UsageError, match="efficientnet_lite0 has none"):
        Predictor("efficientnet_lite0", precision="int8")
    with pytest.raises(UsageError, match="images/ is to calibrate int8, but the precision is bf16"):
        Predictor("efficientnet_lite0", precision="bf16", calibrate="images/")
    with pytest.raises(ModelError, match="Identity"):
        hubel.Predictor(torch.nn.Identity())


def test_the_allocator_is_tuned_once_asked_and_can_be_left_alone() -> None:
    code = "from hubel.system import tune_allocator; print(tune_allocator())"
    lines = [
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **extra}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for extra in ({}, {"HUBEL_MALLOC": "0"})
    ]
    assert lines == [str(platform.libc_ver()[0] == "glibc"), "False"]


def test_an_image_alone_is_prepared_without_threads_and_has_all_of_them_for_itself(small: Predictor) -> None:
    (image,) = _photographs(1)
    prepared_by = []

    def read() -> Image.Image:
        prepared_by.append(threading.current_thread().name)
        return image

    source = ImageSource(None, read)
    several = list(small.stream_sources([source] * 20))
    assert threading.main_thread().name not in prepared_by
    prepared_by.clear()
    (alone,) = small.stream_sources([source])
    assert prepared_by == [threading.main_thread().name]
    assert isinstance(alone, Classification) and isinstance(several[0], Classification)
    assert alone.best.score == pytest.approx(several[0].best.score, abs=1e-6)


def test_the_engine_for_an_image_alone_is_that_of_the_first_image_also_after_many(small: Predictor) -> None:
    torch.manual_seed(0)
    choice = EngineChoice(ModelSource(small_network(), small.metadata), "openvino", RunOptions("fp32"), None, 0.01)
    many = choice.engine_for(100)
    alone = choice.engine_for(101, at_once=1)
    assert alone is not many
    assert choice.engine_for(1) is alone and choice.engine_for(120, at_once=20) is many
