"""Tiles: SAHI's grid, objects joined by plain loops, and a canvas whose objects are too small for the whole view."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

import hubel
from hubel.cli.main import app
from hubel.data.preprocessing import Preprocessing
from hubel.errors import UsageError
from hubel.inference import FailedImage
from hubel.inference.tiles import Grid, merge
from hubel.metrics.coco import PredictedObjects
from hubel.models import ModelMetadata, create_model, describe
from hubel.tasks.decoding import Thresholds
from reference_detectors import saved_detector, torchvision_detector


@pytest.mark.parametrize(
    ("size", "side", "theirs"),
    # sahi 0.12.8, get_slice_bboxes(height, width, side, side, False, 0.2, 0.2)
    [
        ((300, 200), 640, []),
        ((640, 640), 640, []),
        ((641, 640), 640, [[0, 0, 640, 640], [1, 0, 641, 640]]),
        ((1000, 700), 640, [[0, 0, 640, 640], [360, 0, 1000, 640], [0, 60, 640, 700], [360, 60, 1000, 700]]),
        ((900, 100), 333, [[0, 0, 333, 100], [267, 0, 600, 100], [534, 0, 867, 100], [567, 0, 900, 100]]),
        (
            (1152, 1153),
            640,
            [
                [0, 0, 640, 640],
                [512, 0, 1152, 640],
                [0, 512, 640, 1152],
                [512, 512, 1152, 1152],
                [0, 513, 640, 1153],
                [512, 513, 1152, 1153],
            ],
        ),
    ],
)
def test_the_grid_is_sahis_and_the_whole_image(size: tuple[int, int], side: int, theirs: list[list[int]]) -> None:
    whole, *tiles = Grid(*size, side).windows
    assert whole == (0, 0, *size) and [list(tile) for tile in tiles] == theirs


class Found(NamedTuple):
    """One object of a view."""

    box: list[float]
    score: float
    label: int
    window: tuple[int, int, int, int] = (0, 0, 0, 0)


def overlap(a: list[float], b: list[float]) -> tuple[float, float]:
    """IoU of two boxes, and the fraction of the first that is in the second."""
    width, height = (max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    of_a, of_b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (of_a + of_b - width * height), width * height / of_a


def suppressed(found: list[Found], iou: float) -> list[Found]:
    kept: list[Found] = []
    for each in sorted(found, key=lambda one: -one.score):
        if all(each.label != other.label or overlap(each.box, other.box)[0] <= iou for other in kept):
            kept.append(each)
    return kept


def plain_merge(found: list[Found], tiles: list[tuple[int, ...]], size: tuple[int, int], iou: float) -> list[Found]:
    """The four steps of :func:`hubel.inference.tiles.merge`, object by object."""
    margin = 0.02 * max(tile[2] - tile[0] for tile in tiles)
    image = (0, 0, *size)

    def sides_cut(each: Found) -> list[bool]:
        return [each.window[k] != image[k] and abs(each.box[k] - each.window[k]) <= margin for k in range(4)]

    def contains(tile: tuple[int, ...], box: list[float]) -> bool:
        low = all(tile[k] == 0 or box[k] >= tile[k] + margin for k in (0, 1))
        return low and all(tile[k] == size[k - 2] or box[k] <= tile[k] - margin for k in (2, 3))

    whole = [each for each in found if not any(sides_cut(each))]
    parts = [each for each in found if any(sides_cut(each)) and not any(contains(tile, each.box) for tile in tiles)]
    groups: list[list[Found]] = []
    for each in parts:
        mine = [group for group in groups if any(agree(each, other) for other in group)]
        groups = [group for group in groups if group not in mine] + [[each, *(one for g in mine for one in g)]]
    rest = []
    for group in groups:
        around = [choose(each.box[k] for each in group) for k, choose in enumerate((min, min, max, max))]
        is_cut = [all(sides_cut(each)[k] for each in group if abs(each.box[k] - around[k]) <= margin) for k in range(4)]
        joined = Found(around, max(each.score for each in group), group[0].label)
        (rest if any(is_cut) else whole).append(joined)
    whole = suppressed(whole, iou)
    alone = [
        each
        for each in rest
        if not any(each.label == other.label and overlap(each.box, other.box)[1] > 0.5 for other in whole)
    ]
    return sorted(whole + suppressed(alone, iou), key=lambda one: -one.score)


def agree(a: Found, b: Found) -> bool:
    if a.label != b.label or a.window == b.window:
        return False
    both = [max(a.window[k], b.window[k]) for k in (0, 1)] + [min(a.window[k], b.window[k]) for k in (2, 3)]
    seen = [
        [max(each.box[k], both[k]) for k in (0, 1)] + [min(each.box[k], both[k]) for k in (2, 3)] for each in (a, b)
    ]
    if any(box[2] <= box[0] or box[3] <= box[1] for box in seen):
        return False
    return overlap(*seen)[0] > 0.5


def merged(found: list[Found], grid: Grid, thresholds: Thresholds) -> PredictedObjects:
    boxes = np.array([each.box for each in found], np.float32).reshape(-1, 4)
    scores = np.array([each.score for each in found], np.float32)
    windows = np.array([each.window for each in found]).reshape(-1, 4)
    labels = np.array([each.label for each in found], np.int64)
    return merge(PredictedObjects(boxes, scores, labels), windows, grid, thresholds)


A, B, WHOLE = (0, 0, 500, 500), (400, 0, 900, 500), (0, 0, 900, 500)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # A part at a border, and the whole object in the next tile, also if its score is lower or it is not found.
        ([([450, 100, 499, 200], 0.9, 0, A), ([451, 99, 560, 201], 0.6, 0, B)], [([451, 99, 560, 201], 0.6)]),
        ([([450, 100, 499, 200], 0.9, 0, A)], []),
        # One at the border of the image is whole.
        ([([850, 100, 900, 200], 0.9, 0, B)], [([850, 100, 900, 200], 0.9)]),
        # Two parts of one object that is longer than the tiles overlap.
        ([([300, 100, 500, 200], 0.7, 0, A), ([400, 104, 650, 202], 0.8, 0, B)], [([300, 100, 650, 202], 0.8)]),
        # Not of one: other classes, other places.
        (
            [([300, 100, 500, 200], 0.7, 0, A), ([400, 104, 650, 202], 0.8, 1, B)],
            [([400, 104, 650, 202], 0.8), ([300, 100, 500, 200], 0.7)],
        ),
        (
            [([300, 100, 500, 200], 0.7, 0, A), ([400, 190, 650, 300], 0.8, 0, B)],
            [([400, 190, 650, 300], 0.8), ([300, 100, 500, 200], 0.7)],
        ),
        # A part in an object that the whole view has, which wins although its score is lower.
        ([([200, 5, 499, 300], 0.9, 0, A), ([180, 5, 890, 310], 0.3, 0, WHOLE)], [([180, 5, 890, 310], 0.3)]),
        # Whole objects in each other stay: their IoU is small.
        (
            [([200, 100, 260, 200], 0.9, 0, A), ([180, 5, 890, 310], 0.3, 0, WHOLE)],
            [([200, 100, 260, 200], 0.9), ([180, 5, 890, 310], 0.3)],
        ),
        # The same object in both tiles and in the whole view.
        (
            [([420, 50, 480, 90], 0.5, 0, A), ([421, 50, 481, 91], 0.8, 0, B), ([419, 49, 480, 92], 0.4, 0, WHOLE)],
            [([421, 50, 481, 91], 0.8)],
        ),
    ],
)
def test_what_is_cut_by_hand(found: list[tuple[Any, ...]], expected: list[tuple[list[float], float]]) -> None:
    grid = Grid(900, 500, 500)
    assert list(grid.windows) == [WHOLE, A, B]
    actual = merged([Found(*each) for each in found], grid, Thresholds())
    assert actual.boxes.tolist() == [box for box, _ in expected]
    assert actual.scores.tolist() == pytest.approx([score for _, score in expected])


def test_many_objects_are_merged_as_by_loops() -> None:
    """Drawn objects of all sizes, each seen with noise in the windows that it meets, and cut by them."""
    rng = np.random.default_rng(0)
    grid = Grid(1300, 900, 400)
    windows = list(grid.windows)
    found = []
    for _ in range(150):
        x, y = rng.uniform(0, 1250), rng.uniform(0, 850)
        box = np.array([x, y, min(x + rng.uniform(10, 300), 1300), min(y + rng.uniform(10, 300), 900)])
        label = int(rng.integers(0, 3))
        for window in windows:
            seen = np.concatenate((np.maximum(box[:2], window[:2]), np.minimum(box[2:], window[2:])))
            if (seen[2:] - seen[:2] > 8).all() and rng.random() < 0.8:
                noisy = np.concatenate((seen[:2] + rng.uniform(0, 4, 2), seen[2:] - rng.uniform(0, 3, 2)))
                found.append(Found(np.float32(noisy).tolist(), float(np.float32(rng.random())), label, window))
    for iou in (0.3, 0.6):
        expected = plain_merge(found, windows[1:], (1300, 900), iou)
        actual = merged(found, grid, Thresholds(iou=iou, max_detections=1000))
        assert 100 < len(expected) < len(found) / 2
        assert actual.labels.tolist() == [each.label for each in expected]
        np.testing.assert_allclose(actual.scores, [each.score for each in expected])
        np.testing.assert_allclose(actual.boxes, [each.box for each in expected])
        few = merged(found, grid, Thresholds(iou=iou, max_detections=20))
        np.testing.assert_array_equal(few.boxes, actual.boxes[:20])


@pytest.fixture(scope="module")
def yolo(data_folder: Path) -> tuple[nn.Module, ModelMetadata]:
    """A small detector that COCO was learned with."""
    folder = data_folder / "yolo_fastest" / "yolo-fastest-1.1_coco"
    cfg, weights = (folder / f"yolo-fastest-1.1.{kind}" for kind in ("cfg", "weights"))
    model = create_model("yolo_v3_tiny", cfg=cfg.read_text(), image_size=320, weights=weights).eval()
    return model, replace(describe(model), classes=(folder / "coco.names").read_text().splitlines())


@pytest.fixture(scope="module")
def canvas(data_folder: Path) -> Image.Image:
    """Fifteen photographs on grey, in which objects have a few pixels once it is scaled to 320 × 320."""
    files = json.loads((data_folder / "yolo_fastest" / "oracle_yolo-fastest-1.1.json").read_text())["detections"]
    drawn = Image.new("RGB", (1600, 900), (114, 114, 114))
    for number, file in enumerate(sorted(files)[:15]):
        photograph = Image.open(data_folder / "coco128" / "images" / file).convert("RGB")
        photograph.thumbnail((300, 280))
        drawn.paste(photograph, (320 * (number % 5) + 7 * number % 20, 300 * (number // 5) + 10))
    return drawn


def views_one_by_one(predict: hubel.Predictor, image: Image.Image, windows: list[tuple[int, ...]]) -> list[Found]:
    """What a predictor that knows no tiles finds in each crop, moved back."""
    found = []
    for window in windows:
        (objects,) = predict([image.crop(window)])
        for box, score, label in zip(objects.boxes, objects.scores, objects.labels, strict=True):
            moved = (box + np.float32([*window[:2], *window[:2]])).tolist()
            found.append(Found(moved, float(score), int(label), window))
    return found


@pytest.mark.data
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_tiles_find_what_the_whole_view_cannot(engine: str, yolo: Any, canvas: Image.Image) -> None:
    model, metadata = yolo
    options = {"metadata": metadata, "engine": engine, "precision": "fp32", "batch": 4}
    plain = hubel.Predictor(model, **options)
    (alone,) = plain([canvas])
    assert len(alone) < 5
    for tta in (False, True) if engine == "torch" else (False,):
        predict = hubel.Predictor(model, tile=400, tta=tta, **options)
        (found,) = predict([canvas])
        views = hubel.Predictor(model, tta=tta, **options)
        windows = list(Grid(1600, 900, 400).windows)
        expected = plain_merge(views_one_by_one(views, canvas, windows), windows[1:], (1600, 900), 0.6)
        assert len(expected) > 25 and {"giraffe", "zebra", "person"} <= set(found.names)
        assert found.labels.tolist() == [each.label for each in expected]
        np.testing.assert_allclose(found.scores, [each.score for each in expected], atol=1e-5)
        np.testing.assert_allclose(found.boxes, [each.box for each in expected], atol=0.01)
        assert found.names == tuple(metadata.classes[label] for label in found.labels)
        assert (found.width, found.height) == (1600, 900)
        assert "in tiles of 400 pixels" in predict.describe()
    few = canvas.crop((0, 0, 400, 380))  # one tile: one view
    (small,), (usual,) = (each([few]) for each in (hubel.Predictor(model, tile=400, **options), plain))
    np.testing.assert_allclose(small.boxes, usual.boxes, atol=1e-3)
    assert len(usual)


class Bright(nn.Module):
    """A detector that marks the brightest pixel of an input of 64 × 64."""

    prediction_names = ("boxes", "scores")

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(1).flatten(1)

    def predictions(self, outputs: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        score, place = outputs.max(1)
        x, y = (place % 64).float(), (place // 64).float()
        boxes = torch.stack((x - 3, y - 3, x + 4, y + 4), 1)[:, None]
        return {"boxes": boxes, "scores": score[:, None, None].clamp(0, 1)}


PIXELS = Preprocessing(64, 64, mean=(0, 0, 0), std=(255, 255, 255), resize="stretch", interpolation="nearest")


def bright(**options: Any) -> hubel.Predictor:
    metadata = ModelMetadata("detect", "ssd", 1, 3, 64, ["light"], PIXELS)
    return hubel.Predictor(Bright().eval(), metadata=metadata, engine="torch", precision="fp32", **options)


def with_lights(*places: tuple[int, int], size: tuple[int, int] = (300, 200)) -> np.ndarray:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for x, y in places:
        pixels[y, x] = 255
    return pixels


def test_images_videos_and_failures_stay_in_order(tmp_path: Path) -> None:
    places = [(20, 20), (150, 100), (290, 30)]
    images = [with_lights(place) for place in places]
    predict = bright(tile=64, batch=5)
    sources = [images[0], tmp_path / "missing.png", images[1], with_lights((5, 5), size=(40, 30)), images[2]]
    outcomes = list(predict.stream(sources))
    assert [isinstance(each, FailedImage) for each in outcomes] == [False, True, False, False, False]
    for place, outcome in zip(places, [outcomes[index] for index in (0, 2, 4)], strict=True):
        x, y = place
        assert outcome.boxes.tolist() == [[x - 3, y - 3, x + 4, y + 4]] and outcome.names == ("light",)
        assert np.array_equal(np.asarray(outcome.image), images[places.index(place)])
    taken = []

    def endless() -> Iterator[np.ndarray]:
        for number in count():
            taken.append(number)
            yield images[number % 3]

    first = list(islice(predict(endless()), 4))
    assert [each.boxes[0, 0] for each in first] == [17, 147, 287, 17]
    assert len(taken) < 10


def test_tiles_wait_in_small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of thousands of tiles, of which a few batches are alive at a time."""
    from hubel.inference import tiles

    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most, prepared, own = 0, 0, tiles._view

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal most, prepared
        view = own(*arguments, **named)
        alive.add(view)
        prepared += 1
        most = max(most, len(alive))
        return view

    monkeypatch.setattr(tiles, "_view", counted)
    monkeypatch.setattr(tiles.View, "__hash__", object.__hash__)
    monkeypatch.setattr(tiles.View, "__eq__", object.__eq__)
    (found,) = bright(tile=64, batch=8)([with_lights((1800, 900), (30, 1500), size=(2000, 1600))])
    assert prepared == 1 + 39 * 31 and most < 60
    assert sorted(found.boxes[:, 0].tolist()) == [27, 1797]


def test_commands_take_them(tmp_path: Path) -> None:
    folder = saved_detector(torchvision_detector(), tmp_path)
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (30, 45, 3), dtype=np.uint8)).resize((450, 300))
    file = tmp_path / "data" / "a.png"
    file.parent.mkdir()
    image.save(file)
    (file.parent / "labels.csv").write_text(
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,450,300,cat,10,10,60,60\n"
    )
    run, options = CliRunner().invoke, {"engine": "torch", "precision": "fp32"}
    common = ["--model", str(folder), "--engine", "torch", "--precision", "fp32"]
    more = ["--tile", "250", "--conf", "0.3", "--json", "--save", str(tmp_path / "out")]
    done = run(app, ["predict", str(file), *common, *more])
    windows = list(Grid(450, 300, 250).windows)
    views = views_one_by_one(hubel.Predictor(folder, conf=0.3, **options), image, windows)
    expected = plain_merge(views, windows[1:], (450, 300), 0.6)[:50]  # the scores of later ones are nearly equal
    objects = json.loads(done.stdout)["objects"]
    assert len(objects) == 300 and len(windows) == 5
    objects = objects[:50]
    assert [each["index"] for each in objects] == [each.label for each in expected]
    np.testing.assert_allclose([each["box"] for each in objects], [each.box for each in expected], atol=0.02)
    assert Image.open(tmp_path / "out" / "a.jpg").size == (450, 300)
    scored = hubel.evaluate(folder, file.parent, split="all", device="cpu", tile=250)
    assert "in tiles of 250 pixels" in repr(scored)
    views = views_one_by_one(hubel.Predictor(folder, conf=0.001, **options), image, windows)
    best = plain_merge(views, windows[1:], (450, 300), 0.6)[:100]
    (of_image,) = scored.evaluator.images
    np.testing.assert_allclose(of_image.found.scores, [each.score for each in best], atol=1e-4)
    refused = run(app, ["evaluate", str(folder), str(file.parent), "--split", "all", "--tile", "20"])
    assert refused.exit_code == 2


def test_other_tasks_and_small_tiles_are_refused(tmp_path: Path) -> None:
    for tile, reason in ((640, "efficientnet_lite0 sees whole images"), (0, "sees whole images")):
        with pytest.raises(UsageError, match=reason):
            hubel.Predictor("efficientnet_lite0", tile=tile)
    with pytest.raises(UsageError, match="efficientnet_lite0 sees whole images"):
        hubel.evaluate("efficientnet_lite0", tmp_path, tile=640)
    for tile in (0, -5, 63):
        with pytest.raises(UsageError, match=f"tiles of {tile} pixels are too small"):
            bright(tile=tile)
    refused = CliRunner().invoke(app, ["predict", "a.jpg", "--ray", "--out", str(tmp_path), "--tile", "640"])
    assert isinstance(refused.exception, UsageError) and "--tile" in refused.exception.message
