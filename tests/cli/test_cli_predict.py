"""``hubel predict`` and ``hubel demo``: what goes where, which files appear, and what is refused."""

from __future__ import annotations

import csv
import errno
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hubel.cli.main import main
from hubel.config import DEFAULT_DETECTOR
from hubel.data.file_listing import OUTPUT_MARK
from hubel.data.preprocessing import Preprocessing
from hubel.data.sources import sample_portrait
from hubel.models import ModelMetadata, save_model
from hubel.weights import default_entry, is_here


@pytest.fixture(scope="module")
def colour_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of three classes that answers with the colour of the image."""
    folder = tmp_path_factory.mktemp("runs") / "colours" / "best"
    preprocessing = Preprocessing(32, 32, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0), crop_fraction=1.0)
    metadata = ModelMetadata(
        task="classify",
        architecture="resnet18",
        num_classes=3,
        in_channels=3,
        image_size=32,
        classes=["red, scarlet", "green", "blue"],
        preprocessing=preprocessing,
    )
    model = metadata.build().eval()
    images = torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 32, 32)
    with torch.no_grad():
        features = model.head.pool(model.backbone(images))
        # The dense layer that maps each colour's features to its own class.
        model.head.classifier.weight.copy_(20 * torch.linalg.pinv(features).T)
        model.head.classifier.bias.zero_()
    save_model(folder, model, metadata)
    return folder.parent


def _run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    return int(exit_.value.code or 0), out, err


def _image(path: Path, colour: str, size: tuple[int, int] = (48, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def test_one_line_an_image(colour_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images = [_image(tmp_path / f"{colour}.png", colour) for colour in ("red", "lime", "blue")]
    status, out, err = _run(capfd, "predict", *images, "--model", colour_model, "--threads", 1)
    assert status == 0
    lines = out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [str(path) for path in images]
    assert [re.split(r"  | ", line)[1] for line in lines] == ["red", "green", "blue"]
    assert all(re.search(r" (9\d\.\d|100\.0)%$", line) for line in lines), lines
    how, closing = err.splitlines()[-2:]
    assert "fp32" in how and "1 thread," in how
    assert re.fullmatch(r"3 images in \d+\.\d s \(\d+\.\d images/s\)", closing)
    status, out, err = _run(capfd, "predict", images[0], "--model", colour_model, "--quiet")
    assert (status, len(out.splitlines()), err) == (0, 1, "")


def test_an_image_on_standard_input_and_those_of_a_list(
    colour_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    blue = _image(tmp_path / "blue.png", "blue")
    _image(tmp_path / "green.png", "lime")
    (tmp_path / "list.txt").write_text("green.png\nblue.png\n")
    with blue.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        code, out, _ = _run(capfd, "predict", "-", "--model", colour_model)
    assert (code, out.split()[:2]) == (0, ["-", "blue"])
    code, out, _ = _run(capfd, "predict", tmp_path / "list.txt", "--model", colour_model)
    assert (code, [line.split()[1] for line in out.splitlines()]) == (0, ["green", "blue"])


def test_json_rows(colour_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    blue = _image(tmp_path / "blue.png", "blue")
    status, out, _ = _run(capfd, "predict", blue, "--model", colour_model, "--json", "--top", 2)
    (row,) = map(json.loads, out.splitlines())
    assert status == 0
    assert list(row) == ["source", "width", "height", "model", "task", "classes"]
    assert (row["source"], row["width"], row["height"]) == (str(blue), 48, 40)
    assert row["model"] == str(colour_model)
    assert row["classes"][0]["index"] == 2 and row["classes"][0]["name"] == "blue"
    assert len(row["classes"]) == 2


def test_bad_images_are_skipped_or_stop_with_strict(
    colour_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    red, blue = _image(tmp_path / "red.png", "red"), _image(tmp_path / "blue.png", "blue")
    missing = tmp_path / "missing.png"
    status, out, err = _run(capfd, "predict", red, missing, blue, "--model", colour_model)
    assert status == 1
    assert [Path(line.split("  ")[0]).name for line in out.splitlines()] == ["red.png", "blue.png"]
    assert f"error: {missing} does not exist" in err
    status, out, err = _run(capfd, "predict", red, missing, blue, "--model", colour_model, "--strict", "--json")
    assert status == 1
    assert [Path(json.loads(line)["source"]).name for line in out.splitlines()] == ["red.png", "missing.png"]
    assert err.count("does not exist") == 1


def test_saved_images_overwrite_nothing(colour_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = _image(tmp_path / "out" / "a.jpg", "red")
    before = first.read_bytes()
    second, third = _image(tmp_path / "b" / "a.png", "lime"), _image(tmp_path / "c" / "a.png", "blue")
    out_folder = tmp_path / "out"
    status, *_ = _run(capfd, "predict", first, second, third, "--model", colour_model, "--save", out_folder)
    assert status == 0
    assert first.read_bytes() == before
    assert sorted(path.name for path in out_folder.iterdir()) == ["a-2.jpg", "a-3.jpg", "a-4.jpg", "a.jpg"]
    for number, channel in ((2, 0), (3, 1), (4, 2)):  # each on its own image: the upper right corner is bare
        corner = np.asarray(Image.open(out_folder / f"a-{number}.jpg"))[5, -5]
        assert corner.argmax() == channel and corner.max() > 200


def test_images_written_into_a_source_folder_are_not_predicted_again(
    colour_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(40):
        _image(tmp_path / f"{number:02}.png", "red")
    out_folder = tmp_path / "zzz"
    status, out, _ = _run(capfd, "predict", tmp_path, "--model", colour_model, "--save", out_folder, "--batch", 2)
    assert status == 0
    assert len(out.splitlines()) == 40
    assert len(list(out_folder.glob("*.jpg"))) == 40
    assert len(list(out_folder.iterdir())) == 41  # and the mark that tells the folder from a folder of images
    status, out, _ = _run(capfd, "predict", tmp_path, "--model", colour_model)
    assert (status, len(out.splitlines())) == (0, 40)


def test_a_video_gives_a_row_a_frame(colour_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    av = pytest.importorskip("av")
    video = tmp_path / "clip.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for colour in ((255, 0, 0), (255, 0, 0), (0, 0, 255)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), colour, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    out_folder = tmp_path / "out"
    status, out, err = _run(capfd, "predict", video, "--model", colour_model, "--json", "--save", out_folder)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [row["frame"] for row in rows] == [1, 2, 3]
    assert [row["time"] for row in rows] == pytest.approx([0.0, 0.1, 0.2])
    assert [row["classes"][0]["name"] for row in rows] == ["red, scarlet", "red, scarlet", "blue"]
    assert {path.name for path in out_folder.iterdir()} == {OUTPUT_MARK, "clip.mp4"}
    assert f"saved as {out_folder / 'clip.mp4'}" in err
    with av.open(str(out_folder / "clip.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    corners = [frame[5, -5].argmax() for frame in frames]  # the upper right corner is bare
    assert corners == [0, 0, 2]
    more = ("--every", 2, "--save", out_folder, "--save-frames")
    status, out, _ = _run(capfd, "predict", video, "--model", colour_model, *more)
    assert (status, len(out.splitlines())) == (0, 2)
    names = [OUTPUT_MARK, "clip-000001.jpg", "clip-000003.jpg", "clip.mp4"]
    assert sorted(path.name for path in out_folder.iterdir()) == names
    status, *_ = _run(capfd, "predict", video, video, "--model", colour_model, "--save", out_folder)
    assert {"clip-2.mp4"} < {path.name for path in out_folder.iterdir()}


def test_checks_of_names_come_before_torch(tmp_path: Path) -> None:
    red = _image(tmp_path / "red.png", "red")
    script = (
        "import sys\n"
        "from hubel.cli.main import main\n"
        "for arguments in sys.argv[1:]:\n"
        "    try:\n"
        "        main(arguments.split())\n"
        "    except SystemExit as end:\n"
        "        print(end.code, 'torch' in sys.modules, 'openvino' in sys.modules)\n"
    )
    wrong = (
        f"predict {red} --model resnet500",
        f"predict {red} --model deepsort_reid",
        f"predict {red} --device gpu",
        f"predict {tmp_path}/nothing.png {tmp_path}/neither.jpg",
        f"track {tmp_path}/clip.mp4 --model resnet500",
        "export resnet500 --format onnx",
        "bench resnet500",
        f"evaluate resnet500 {tmp_path}",
        f"evaluate efficientnet_lite0 {tmp_path}/nothing",
    )
    done = subprocess.run([sys.executable, "-c", script, *wrong], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert all(line.endswith("False False") for line in lines), list(zip(wrong, lines, strict=True))
    assert [line[0] for line in lines] == ["1"] * len(wrong), done.stderr
    assert "did you mean resnet50" in done.stderr and "error: " in done.stderr
    assert done.stderr.count("does not exist") == 3  # each of the missing images, and the data set


def test_what_is_refused_names_the_way_out(
    colour_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    red = _image(tmp_path / "red.png", "red")
    status, out, err = _run(capfd, "predict", red, "--model", colour_model, "--engine", "tpu")
    assert (status, out) == (2, "") and "engine 'tpu'" in err and "openvino" in err
    status, _, err = _run(capfd, "predict", red, "--model", colour_model, "--precision", "int7")
    assert status == 2 and "int7" in err
    status, out, err = _run(capfd, "predict", red, "--model", colour_model, "--save", red)
    assert (status, out) == (2, "") and f"--save {red} is a file" in err and "hint:  pass a folder" in err
    status, _, err = _run(capfd, "predict", red, "--model", tmp_path / "no-model")
    assert status == 1 and "no-model" in err
    status, _, err = _run(capfd, "predict")
    assert status == 2 and "SOURCE" in err


def test_a_full_disk_stops_with_the_file_named(
    colour_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, image: Image.Image) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hubel.drawing.save_image", full)
    red = _image(tmp_path / "red.png", "red")
    status, out, err = _run(capfd, "predict", red, red, "--model", colour_model, "--save", tmp_path / "out")
    assert (status, out) == (1, "")
    assert f"error: {tmp_path / 'out' / 'red.jpg'} cannot be written: No space left on device" in err


def test_odd_file_names_do_no_harm(colour_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    odd = _image(tmp_path / "two\nlines\x1b[31m.png", "red")
    status, out, _ = _run(capfd, "predict", odd, "--model", colour_model)
    assert status == 0
    assert len(out.splitlines()) == 1 and "\x1b" not in out
    try:
        no_utf8 = _image(tmp_path / "caf\udce9.png", "red")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    status, out, _ = _run(capfd, "predict", no_utf8, "--model", colour_model, "--json", "--save", tmp_path / "out")
    assert status == 0
    assert json.loads(out)["source"].endswith("caf\ufffd.png")


def test_demo_sees_a_palace_without_heavy_imports(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from hubel.cli.main import main\n"
        "try:\n"
        "    main(['demo', '--out', sys.argv[1]])\n"
        "finally:\n"
        "    heavy = {'torchvision', 'sklearn', 'matplotlib', 'accelerate', 'scipy', 'torch._inductor'}\n"
        "    print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "demo")]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    china, flower = process.stdout.split("flower.jpg\n", 1)
    assert re.search(r"china.jpg\n +\d+\.\d%  palace\n", china)
    assert re.match(r" +\d+\.\d%  daisy\n", flower)
    assert "heavy: []" in process.stdout
    assert Image.open(tmp_path / "demo" / "china.jpg").size == (640, 427)
    assert Image.open(tmp_path / "demo" / "flower.jpg").size == (640, 427)


def _objects_are_found() -> bool:
    entry = default_entry(DEFAULT_DETECTOR)
    return entry is not None and is_here(entry) and sample_portrait() is not None


needs_coco = pytest.mark.skipif(
    not _objects_are_found(), reason="hubel[coco], or matplotlib's sample data, is not installed"
)


@needs_coco
def test_objects_are_found_without_naming_a_model(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, err = _run(capfd, "predict", sample_portrait(), "--task", "detect", "--save", tmp_path / "out")
    assert status == 0 and out.endswith("grace_hopper.jpg  1 person, 1 tie\n")
    assert DEFAULT_DETECTOR in err
    assert Image.open(tmp_path / "out" / "grace_hopper.jpg").size == (512, 600)


@needs_coco
def test_demo_finds_objects(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = _run(capfd, "demo", "--out", tmp_path / "demo")
    assert status == 0
    assert re.search(r"grace_hopper.jpg\n  person \d+%  at .*\n  tie \d+%  at", out)
    assert Image.open(tmp_path / "demo" / "grace_hopper.jpg").size == (512, 600)


def test_without_the_package_the_extra_is_named(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("hubel.weights.local_cache._path_inside_package", lambda entry: None)
    image = _image(tmp_path / "a.png", "red")
    status, out, err = _run(capfd, "predict", image, "--task", "detect")
    assert (status, out) == (1, "")
    assert "is not installed" in err and err.rstrip().endswith("pip install 'hubel[coco]'")
    assert "Traceback" not in err


def test_a_task_is_for_those_who_name_no_model(
    capfd: pytest.CaptureFixture[str], colour_model: Path, tmp_path: Path
) -> None:
    image = _image(tmp_path / "a.png", "red")
    status, _, err = _run(capfd, "predict", image, "--task", "detect", "--model", colour_model)
    assert status == 2 and "--task cannot be combined with --model" in err
    assert _run(capfd, "predict", image, "--task", "segment")[0] == 2


@pytest.mark.data
def test_top5_on_imagenet_samples(data_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    samples = data_folder / "imagenet_samples"
    with (samples / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    name_column, label_column = list(rows[0])[:2]
    labels = {row[name_column]: int(row[label_column]) for row in rows}
    status, out, _ = _run(capfd, "predict", samples, "--json")
    assert status == 0
    rows = {Path(row["source"]).name: row["classes"] for row in map(json.loads, out.splitlines())}
    assert len(rows) == len(labels) == 100
    hits = sum(label in [entry["index"] for entry in rows[Path(name).name]] for name, label in labels.items())
    assert hits / 100 >= 0.95
