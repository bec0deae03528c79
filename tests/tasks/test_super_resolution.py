"""Super-resolution from a folder of images to a report, an enlarged image, and what is wrong with the data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from typer.testing import CliRunner

import hubel
from hubel.cli.main import app
from hubel.data.image_io import read_image
from hubel.data.loader import BatchDataset
from hubel.data.photographs import read_photographs, reduced, whole_blocks
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Sample
from hubel.data.sources import sample_photographs
from hubel.data.transforms.small_and_large import PARTS, PairTransform, through_jpeg
from hubel.errors import DataError, ImageError, ModelError, UsageError
from hubel.exporters.export import export
from hubel.inference.enlarge import StoredRows
from hubel.metrics.image_quality import compare
from hubel.models import create_model, describe, load_model
from hubel.tasks.super_resolution.task import small_image
from hubel.training.evaluate import evaluate
from hubel.training.train import train

PHOTOGRAPHS = [np.asarray(read_image(path)) for path in sample_photographs()]


def photographs(root: Path, counts: dict[str, int], side: int = 120) -> Path:
    """Parts of scikit-learn's photographs, in folders inside the splits' folders."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        folder = root / split / "some" / "where"
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = PHOTOGRAPHS[number % 2]
            y, x = (int(rng.integers(length - side)) for length in pixels.shape[:2])
            Image.fromarray(pixels[y : y + side, x : x + side + number % 3]).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of a few seconds on parts of two photographs, and its data."""
    folder = tmp_path_factory.mktemp("enlarge")
    data = photographs(folder / "photos", {"train": 24, "val": 4})
    options = {"epochs": 10, "batch": 4, "threads": 1, "workers": 0, "average": 0.9, "seed": 0}
    return data, train(data, task="super-resolve", model="espcn_x2", out=folder / "run", **options)


def test_a_run_gains_on_bicubic_and_is_reported(run: Any) -> None:
    data, result = run
    document = result.to_json()
    assert document["task"] == "super-resolve" and document["per_class"] == []
    metrics = document["metrics"]
    assert set(metrics) == {"psnr", "ssim", "bicubic_psnr", "bicubic_ssim"}
    assert metrics["psnr"] > metrics["bicubic_psnr"] + 0.02 and metrics["ssim"] > metrics["bicubic_ssim"]
    again = evaluate(result.folder, data).metrics
    assert again == pytest.approx(metrics)
    # By hand: reduce, enlarge by Pillow, compare.
    scores = []
    for path in sorted((data / "val").rglob("*.png")):
        truth = whole_blocks(np.asarray(Image.open(path)), 2)
        small = Image.fromarray(truth).resize((truth.shape[1] // 2, truth.shape[0] // 2), Image.Resampling.BICUBIC)
        bicubic = small.resize((truth.shape[1], truth.shape[0]), Image.Resampling.BICUBIC)
        scores.append(compare(np.asarray(bicubic), truth, 2))
    assert (metrics["bicubic_psnr"], metrics["bicubic_ssim"]) == pytest.approx(tuple(np.mean(scores, 0)))
    rows = [json.loads(line) for line in (result.folder / "predictions.jsonl").read_text().splitlines()]
    assert np.mean([row["psnr"] for row in rows]) == pytest.approx(metrics["psnr"], abs=1e-4)
    report = (result.folder / "report.html").read_text(encoding="utf-8")
    assert "nearest · bicubic · this network · the image itself" in report and f"{metrics['psnr']:.2f} dB" in report
    assert f"{metrics['bicubic_psnr']:.2f}" in result.headline()


def whole(model: Any, pixels: np.ndarray, margin: int) -> np.ndarray:
    """The enlarged image as the network makes it of the whole one, bordered by its nearest pixels: float (H, W, 3)."""
    images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        enlarged = model(F.pad(images, 4 * [margin], mode="replicate"))
        border = margin * model.scale
        values = model.predictions(enlarged, (0, 0))["image"][0, border:-border, border:-border]
    return values.numpy()


@pytest.mark.parametrize("name", ["fsrcnn_x3", "espcn_x2", "srresnet_x4"])
def test_tiles_are_the_whole(name: str) -> None:
    torch.manual_seed(0)
    options = {"blocks": 1} if "srresnet" in name else {}
    model = create_model(name, image_size=48, **options).eval()
    for parameter in model.head.parameters():  # so that it is not bicubic interpolation
        torch.nn.init.normal_(parameter, std=0.03)
    margin = describe(model).preprocessing.margin
    pixels = PHOTOGRAPHS[0][100:203, 200:305]
    (result,) = hubel.Predictor(model, engine="torch", precision="fp32")([pixels])
    expected = whole(model, pixels, margin)
    assert result.image.size == (105 * model.scale, 103 * model.scale)
    assert np.abs(np.asarray(result.image) - expected).max() < 0.5 + 1e-3  # rounded to bytes
    assert (np.asarray(result.image) == np.rint(expected)).mean() > 0.9999


def test_engines_exports_and_tta_agree(run: Any, tmp_path: Path) -> None:
    _, result = run
    pixels = PHOTOGRAPHS[1][:150, :170]
    (expected,) = hubel.Predictor(result.folder, engine="torch", precision="fp32")([pixels])
    reference = np.asarray(expected.image).astype(int)
    predict = hubel.Predictor(result.folder, engine="openvino")
    (found,) = predict([pixels])
    assert "fp32" in predict.describe()  # also where the processor has bfloat16
    assert np.abs(np.asarray(found.image) - reference).max() <= 1
    with pytest.raises(ModelError, match="cannot be quantized"):
        hubel.Predictor(result.folder, precision="int8", engine="openvino")
    exported = export(result.folder, "onnx", out=tmp_path / "onnx")
    assert exported.outputs == ("image",) and exported.max_difference < 1e-5
    (found,) = hubel.Predictor(exported.path)([pixels])
    assert np.abs(np.asarray(found.image) - reference).max() <= 1
    # The file takes any size: the program beside it enlarges the image as a whole.
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    program = [sys.executable, tmp_path / "onnx" / "use.py", "photo.png"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "photo.png  photo-x2.png\n"
    assert np.abs(np.asarray(Image.open(tmp_path / "photo-x2.png")) - reference).max() <= 1
    model, metadata = load_model(result.folder / "best")
    (mirrored,) = hubel.Predictor(result.folder, engine="torch", precision="fp32", tta=True)([pixels])
    margin = metadata.preprocessing.margin
    both = whole(model, pixels, margin) + whole(model, pixels[:, ::-1], margin)[:, ::-1]
    assert np.abs(np.asarray(mirrored.image) - both / 2).max() < 0.51


def test_alpha_and_colours_are_kept(run: Any, tmp_path: Path) -> None:
    _, result = run
    rgb = Image.fromarray(PHOTOGRAPHS[0][:150, :140])
    alpha = Image.radial_gradient("L").resize(rgb.size)
    cutout = rgb.copy()
    cutout.putalpha(alpha)
    cutout.save(tmp_path / "cutout.png")
    rgb.convert("L").save(tmp_path / "grey.png")
    predict = hubel.Predictor(result.folder, engine="torch", precision="fp32")
    of_rgb, of_cutout, of_grey = predict([rgb, str(tmp_path / "cutout.png"), str(tmp_path / "grey.png")])
    enlarged = of_cutout.image
    assert enlarged.mode == "RGBA" and of_rgb.image.mode == "RGB"
    assert np.array_equal(np.asarray(enlarged)[..., :3], np.asarray(of_rgb.image))
    expected = np.asarray(alpha.resize((280, 300), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(np.asarray(enlarged)[..., 3] - expected).max() <= 1
    grey = np.asarray(of_grey.image).astype(int)
    assert np.ptp(grey, axis=2).max() <= 1
    # Cb and Cr are those of bicubic interpolation.
    bicubic = rgb.resize((280, 300), Image.Resampling.BICUBIC)
    ours, theirs = (np.asarray(image.convert("YCbCr"))[8:-8, 8:-8, 1:].astype(int) for image in (of_rgb.image, bicubic))
    assert np.abs(ours - theirs).mean() < 1 and np.percentile(np.abs(ours - theirs), 99) <= 3
    assert of_cutout.save(tmp_path / "out.png").is_file() and Image.open(tmp_path / "out.png").mode == "RGBA"
    assert of_rgb.describe() == "140 × 150 enlarged to 280 × 300" and of_rgb.to_json() == {"image": None}


def test_large_images_go_through_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubel.inference.enlarge._IN_MEMORY", 10_000)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 4), dtype=np.uint8)
    for channels in (3, 4):
        rows = StoredRows(70, channels)
        for start in range(0, 90, 40):
            rows.append(pixels[start : start + 40, :, :channels])
        assert rows.is_large and np.array_equal(np.asarray(rows.image()), pixels[..., :channels])
        rows.write_png(tmp_path / "large.png")
        assert np.array_equal(np.asarray(Image.open(tmp_path / "large.png")), pixels[..., :channels])


def test_parts_are_cut_out_of_the_reduced_whole() -> None:
    pixels = whole_blocks(PHOTOGRAPHS[0], 4)
    small = np.asarray(Image.fromarray(pixels).resize((pixels.shape[1] // 4, pixels.shape[0] // 4), 3))
    for window in ((0, 0, 20, 30), (31, 17, 64, 50), (140, 90, small.shape[1], small.shape[0])):
        x1, y1, x2, y2 = window
        assert np.abs(reduced(pixels, 4, window).astype(int) - small[y1:y2, x1:x2]).max() <= 1


def test_pairs_fit_together(tmp_path: Path) -> None:
    Image.fromarray(PHOTOGRAPHS[0]).save(tmp_path / "a.png")
    Image.fromarray(PHOTOGRAPHS[1][:50, :61]).save(tmp_path / "small.png")
    samples = [Sample(tmp_path / "a.png"), Sample(tmp_path / "small.png")]
    size = Preprocessing(32, 32, resize="tiles", margin=4, scale=3)
    for names, random in (((), False), (("flip", "turn"), True)):
        batch = BatchDataset(samples, PairTransform(size, names, random), 0).__getitems__([(1, 0), (1, 1)])
        assert batch.pixels.shape == (2 * PARTS, 3, 32, 32) and batch.indices.tolist() == PARTS * [0] + PARTS * [1]
        for small, target in zip(batch.pixels.permute(0, 2, 3, 1).numpy(), batch.targets, strict=True):
            assert target.image is not None and target.image.shape == (96, 96, 3)
            again = np.asarray(Image.fromarray(target.image).resize((32, 32), Image.Resampling.BICUBIC))
            assert np.abs(small.astype(int) - again)[2:-2, 2:-2].max() <= 3  # Pillow rounds between rows and columns
    anywhere = [BatchDataset(samples, PairTransform(size, (), True), 0).__getitems__([(e, 0)]) for e in (1, 2, 1)]
    assert torch.equal(anywhere[0].pixels, anywhere[2].pixels) and not torch.equal(*(a.pixels for a in anywhere[:2]))
    assert not np.array_equal(through_jpeg(PHOTOGRAPHS[0][:32, :32], 30), PHOTOGRAPHS[0][:32, :32])


def test_what_is_wrong_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no images"):
        (tmp_path / "empty").mkdir()
        train(tmp_path / "empty", task="super-resolve", out=tmp_path / "run")
    data = photographs(tmp_path / "photos", {"train": 3, "val": 2})
    folder = data / "train" / "some" / "where"
    (folder / "0.png").write_bytes(b"no PNG")
    Image.new("RGB", (63, 200)).save(folder / "1.png")
    Image.fromarray(PHOTOGRAPHS[0][:200, :150]).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray((PHOTOGRAPHS[0][:200, :150, 0] * 256.0).astype(np.uint16)).save(folder / "deep.png")
    (data / "beside.png").write_bytes((folder / "2.png").read_bytes())
    found = read_photographs(data)
    assert {split: len(samples) for split, samples in found.splits.items()} == {"train": 5, "val": 2}
    assert "ignored 1 image beside train, val: beside.png" in found.warnings[0]
    result = train(data, task="super-resolve", model="espcn_x2", out=tmp_path / "run", epochs=1, workers=0, threads=1)
    report = (result.folder / "report.html").read_text(encoding="utf-8")
    assert "1.png has 63 × 200 pixels, of which nothing can be learnt" in report and "0.png is not an image" in report
    for wrong, message in (
        ({"model": "resnet18"}, "--model resnet18 does not enlarge images"),
        ({"backbone": "resnet18"}, "networks that enlarge have none"),
        ({"augmentation": "mosaic"}, "unknown augmentation 'mosaic'"),
        ({"balance": "sampling"}, "--balance is for labelled images"),
    ):
        with pytest.raises(UsageError, match=message):
            train(data, task="super-resolve", out=tmp_path / "none", **wrong)
    for split in ("train", "val"):
        for path in (data / split).rglob("*.*"):
            Image.new("RGB", (20, 20)).save(path)
    with pytest.raises(DataError, match="none of the 5 train images can be used"):
        train(data, task="super-resolve", model="espcn_x2", out=tmp_path / "none")
    with pytest.raises(ImageError, match="does not exist"):
        small_image(tmp_path / "gone.png", 2)


def test_predict_writes_enlarged_images(run: Any, tmp_path: Path) -> None:
    _, result = run
    Image.fromarray(PHOTOGRAPHS[0][:80, :90]).save(tmp_path / "photo.jpg")
    (tmp_path / "bad.jpg").write_bytes(b"no JPEG")
    command = ["predict", str(tmp_path / "photo.jpg"), str(tmp_path / "bad.jpg"), "--model", str(result.folder)]
    done = CliRunner().invoke(app, [*command, "--engine", "torch", "--json", "--save", str(tmp_path / "large")])
    assert done.exit_code == 1
    row, failed = (json.loads(line) for line in done.stdout.splitlines())
    path = tmp_path / "large" / "photo.png"
    assert row["task"] == "super-resolve" and row["image"] == str(path) and (row["width"], row["height"]) == (90, 80)
    assert Image.open(path).size == (180, 160)
    assert "bad.jpg is not an image" in failed["error"]
