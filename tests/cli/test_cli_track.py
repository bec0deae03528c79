"""``hubel track`` as a person uses it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

import hubel
from hubel.cli.main import app, main

WIDTH, HEIGHT = 160, 120


def two_people(frame: int) -> list[tuple[int, int, int, int]]:
    """Boxes (left, top, width, height): one to the right, one to the left, 3 pixels a frame."""
    return [(10 + 3 * frame, 30, 16, 40), (140 - 3 * frame, 70, 16, 40)]


def frame_image(frame: int) -> np.ndarray:
    image = Image.new("RGB", (WIDTH, HEIGHT), (90, 110, 100))
    pen = ImageDraw.Draw(image)
    for colour, (x, y, w, h) in zip(((200, 40, 40), (40, 60, 200)), two_people(frame), strict=True):
        pen.rectangle((x, y, x + w, y + h), fill=colour)
    return np.asarray(image)


@pytest.fixture
def detections(tmp_path: Path) -> Path:
    rows = [f"{f},-1,{x},{y},{w},{h},0.9\n" for f in range(1, 31) for x, y, w, h in two_people(f)]
    path = tmp_path / "det.txt"
    path.write_text("".join(rows))
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "walk.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in range(1, 31):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_image(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def track(*arguments: object) -> str:
    shown = CliRunner().invoke(app, ["track", *map(str, arguments)])
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def mot_rows(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", ndmin=2)


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_without_images(detections: Path, tmp_path: Path) -> None:
    """Both are followed from the first frame to the last, where they are."""
    shown = track("--detections", detections, "--tracker", "sort", "--mot", tmp_path / "out.txt")
    rows = mot_rows(tmp_path / "out.txt")
    assert rows.shape == (60, 10)
    for id_, person in ((1, 0), (2, 1)):
        mine = rows[rows[:, 1] == id_]
        assert mine[:, 0].tolist() == list(range(1, 31))
        truth = np.array([two_people(frame)[person] for frame in range(1, 31)])
        np.testing.assert_allclose(mine[:, 2:6], truth, atol=1.5)
    assert [line.split()[:4] for line in shown.splitlines()[1:]] == [["1", "1", "30", "30"], ["2", "1", "30", "30"]]


def test_deepsort_on_a_video_in_json(detections: Path, video: Path) -> None:
    rows = [json.loads(line) for line in track(video, "--detections", detections, "--json").splitlines()]
    assert [row["frame"] for row in rows] == list(range(1, 31))
    assert [row["time"] for row in rows] == pytest.approx([index / 10 for index in range(30)])
    last = rows[-1]
    assert (last["source"], last["width"], last["height"]) == (str(video), WIDTH, HEIGHT)
    assert (last["task"], last["tracker"], last["model"]) == ("track", "deepsort", None)
    assert [one["id"] for one in last["objects"]] == [1, 2]
    for one, (x, y, w, h) in zip(last["objects"], two_people(30), strict=True):
        assert (one["index"], one["name"], one["score"]) == (0, "object", pytest.approx(0.9))
        np.testing.assert_allclose(one["box"], [x, y, x + w, y + h], atol=1.5)
    assert rows[0]["objects"] == []  # seen once is not believed yet


def test_the_annotated_video_and_the_tables(detections: Path, video: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "out.mp4", tmp_path / "tracks.csv"
    track(video, "--detections", detections, "--save", out, "--table", table, "--tracker", "bytetrack")
    drawn = frames_of(out)
    assert len(drawn) == 30 and drawn[0].shape == (HEIGHT, WIDTH, 3)
    x, y, _, h = two_people(20)[0]
    edge = np.abs(drawn[19][y + h // 2, x - 3 : x + 4].astype(int) - frame_image(20)[y + h // 2, x - 3 : x + 4]).max()
    assert edge > 60, "a box is drawn"
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["first"], row["last"], row["frames"]) for row in rows] == [
        ("1", "1", "30", "30"),
        ("2", "1", "30", "30"),
    ]
    assert float(rows[0]["length"]) == pytest.approx(87, abs=3)
    track(video, "--detections", detections, "--tracker", "sort", "--table", tmp_path / "tracks.json")
    first = json.loads((tmp_path / "tracks.json").read_text())[0]
    assert first["path"][0][0] == 1 and first["path"][-1][0] == 30


def test_counts(detections: Path) -> None:
    """Both walk across the door, one each way; nobody across the line above; one begins in the yard."""
    gate, yard = "--line", "--zone"
    arguments = ("--detections", detections, "--tracker", "sort", "--set", "min_hits=1")
    shown = track(*arguments, gate, "door=80,0,80,120", gate, "0,5,160,5", yard, "yard=0,60,40,60,40,120,0,120")
    lines = dict(line.split(": ", 1) for line in shown.splitlines()[-3:])
    assert lines["door"] == "in 1, out 1" and lines["line 2"] == "in 0, out 0"
    assert lines["yard"].startswith("inside 0, most 1") and lines["yard"].endswith("tracks 1")
    rows = [json.loads(line) for line in track(*arguments, gate, "door=80,0,80,120", "--json").splitlines()]
    assert rows[-1]["lines"] == [{"name": "door", "in": 1, "out": 1}] and rows[0]["lines"][0]["in"] == 0


def test_a_folder_of_frames_with_one_missing_and_one_broken(detections: Path, tmp_path: Path) -> None:
    """The others are followed; the broken one is named, and the exit status is 1."""
    folder = tmp_path / "img1"
    folder.mkdir()
    for frame in range(1, 31):
        if frame != 12:
            Image.fromarray(frame_image(frame)).save(folder / f"{frame:06d}.png")
    (folder / "000020.png").write_bytes(b"not an image")
    result = CliRunner().invoke(app, ["track", str(folder), "--detections", str(detections), "--json"])
    assert result.exit_code == 1
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["frame"] for row in rows] == [f for f in range(1, 31) if f not in (12, 20)]
    assert "000020.png" in result.stderr
    assert [one["id"] for one in rows[-1]["objects"]] == [1, 2]


def test_odd_rows_are_reported_and_survived(tmp_path: Path) -> None:
    path = tmp_path / "det.txt"
    path.write_text("2,-1,13,10,20,40,1\n1,-1,10,10,20,40,1\n2,-1,nan,1,2,2,1\n2,-1,5,5,0,9,1\n1500,-1,10,10,20,40,1\n")
    result = CliRunner().invoke(app, ["track", "--detections", str(path), "--json"])
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1500  # a minute without anything
    for words in ("not finite", "without an area", "not in order"):
        assert words in result.stderr


def test_without_a_model_coco_s_objects_are_tracked(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    class Loaded(Exception):
        pass

    def predictor(model: str, *_: object, **__: object) -> None:
        loaded.append(model)
        raise Loaded

    monkeypatch.setattr("hubel.inference.Predictor", predictor)
    assert isinstance(CliRunner().invoke(app, ["track", str(video), "--classes", "person"]).exception, Loaded)
    assert loaded == ["ssd300_mobilenet_v2"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "neither images nor detections"),
        (["--detections", "{det}", "--tracker", "deepsort"], 2, "and requires images"),
        (["--model", "resnet50"], 2, "--model requires images"),
        (["{video}", "--model", "x", "--detections", "{det}"], 2, "--model and --detections cannot be combined"),
        (["--detections", "nowhere.txt"], 1, "nowhere.txt does not exist"),
        (["nowhere.mp4", "--detections", "{det}"], 1, "nowhere.mp4"),
        (["--detections", "{det}", "--set", "max_time=3"], 2, "max_age=1"),
        (["--detections", "{det}", "--set", "max_age=old"], 2, "max_age is 'old'"),
        (["--detections", "{det}", "--set", "max_age=1_0"], 2, "max_age is '1_0'"),
        (["--detections", "{det}", "--line", "1,2,3"], 2, "--line 1,2,3"),
        (["--detections", "{det}", "--line", "a,b,c,d"], 2, "not a list of numbers"),
        (["--detections", "{det}", "--zone", "1,2,3,4"], 2, "2 corners"),
        (["--detections", "{det}", "--mot", "no/such/out.txt"], 2, "no/such does not exist"),
        (["--detections", "{det}", "--mot", "{det}"], 2, "is also the input"),
        (["--detections", "{det}", "--save", "{det}.mp4"], 2, "requires images"),
        (["{video}", "--detections", "{det}", "--save", "{det}.xyz"], 2, ".mp4"),
        (["{video}", "--detections", "{det}", "--classes", "person"], 2, "--classes"),
        (["{video}", "--model", "efficientnet_lite0"], 2, "is not a detector"),
    ],
)
def test_wrong_usage_is_reported(
    arguments: list[str], code: int, words: str, detections: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [word.format(video=video, det=detections) for word in arguments]
    with pytest.raises(SystemExit) as exit_:
        main(["track", *named])
    assert exit_.value.code == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].startswith("error: ") and lines[-1].startswith("hint: ")
    assert any(words in line for line in lines)


def test_in_python(detections: Path, video: Path) -> None:
    """The same tracks as the command's, with an appearance of one's own."""

    def embed(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        colours = [image[int((y1 + y2) / 2), int((x1 + x2) / 2)] for x1, y1, x2, y2 in boxes.tolist()]
        vectors = np.array(colours, np.float32).reshape(-1, 3)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    rows = [json.loads(line) for line in track(video, "--detections", detections, "--json").splitlines()]
    found = list(hubel.track(video, detections=detections, appearance=embed))
    assert [tracks.frame for tracks in found] == [row["frame"] for row in rows]
    for tracks, row in zip(found, rows, strict=True):
        assert tracks.to_json()["objects"] == row["objects"]
    plain = list(hubel.track(detections=detections, tracker="sort", min_hits=1))
    assert [tracks.ids.tolist() for tracks in plain] == [[1, 2]] * 30
    with pytest.raises(hubel.HubelError, match="either a model or detections"):
        next(hubel.track(video))


def test_what_is_not_whole_is_kept_beside_the_older_file(tmp_path: Path) -> None:
    """An interrupted table, text and film: the older ones stay, and the command says where the frames so far are."""
    from hubel.fileio import StreamingFile

    for name in ("old.txt", "new.txt"):
        (tmp_path / "old.txt").write_text("older")
        kept: list[Path] = []
        with StreamingFile(tmp_path / name, kept.append) as file:
            file.write("1,1\n")
            file.interrupted = True
        where = tmp_path / ("old.partial.txt" if name == "old.txt" else name)
        assert kept == [where] and where.read_text() == "1,1\n"
        assert (tmp_path / "old.txt").read_text() == "older"
    with pytest.raises(ZeroDivisionError), StreamingFile(tmp_path / "third.txt", kept.append) as file:
        file.write("1,1\n")
        raise ZeroDivisionError
    assert kept[-1] == tmp_path / "third.partial.txt" and not (tmp_path / "third.txt").exists()
    with pytest.raises(ZeroDivisionError), StreamingFile(tmp_path / "fourth.txt", kept.append):
        raise ZeroDivisionError
    assert not list(tmp_path.glob("*fourth*"))


@pytest.mark.parametrize("output", ["--mot", "--save", "--table"])
def test_a_full_disk_leaves_the_older_file(output: str, video: Path, detections: Path, tmp_path: Path) -> None:
    """A limit of file sizes stands for a full disk; the older file stays as it was, and no half lies beside it."""
    out = tmp_path / f"out{ {'--mot': '.txt', '--save': '.mp4', '--table': '.json'}[output] }"
    out.write_text("older")
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)); "
    program = limited + "from hubel.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "track", str(video), "--detections", str(detections), "--tracker", "sort"]
    before = sorted(tmp_path.iterdir())
    done = subprocess.run([*command, output, str(out)], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert f"{out} cannot be written" in done.stderr and "free some space" in done.stderr
    assert out.read_text() == "older" and sorted(tmp_path.iterdir()) == before


def test_a_device_is_written_to_and_not_replaced(detections: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "hubel", "track", "--detections", str(detections), "--tracker", "sort", "--mot"]
    running = subprocess.Popen([*command, str(pipe)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    rows = pipe.read_text().splitlines()
    assert running.communicate(timeout=60) and running.returncode == 0
    assert len(rows) == 60 and pipe.is_fifo()
    if Path("/dev/full").is_char_device():
        done = subprocess.run([*command, "/dev/full"], capture_output=True, text=True)
        assert done.returncode == 1 and "/dev/full cannot be written: No space left" in done.stderr
        assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_in_the_middle(tmp_path: Path, sent: signal.Signals) -> None:
    """Ctrl-C, or asked to end: the text is whole up to some frame, and the video plays as far."""
    frames = 4000
    rows = [f"{f},-1,{10 + f % 100},20,16,40,1\n" for f in range(1, frames + 1)]
    (tmp_path / "det.txt").write_text("".join(rows))
    clip = tmp_path / "long.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        still = av.VideoFrame.from_ndarray(frame_image(1), format="rgb24")
        for index in range(frames):
            still.pts = index
            container.mux(stream.encode(still))
        container.mux(stream.encode(None))
    command = [sys.executable, "-m", "hubel", "track", str(clip), "--detections", str(tmp_path / "det.txt")]
    command += ["--tracker", "sort", "--mot", str(tmp_path / "out.txt"), "--save", str(tmp_path / "out.mp4")]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out.partial-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    running.send_signal(sent)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 128 + sent, errors
    assert "interrupted after frame" in errors
    text = (tmp_path / "out.txt").read_text()
    assert text.endswith("-1,-1,-1\n")
    last = mot_rows(tmp_path / "out.txt")[-1, 0]
    drawn = len(frames_of(tmp_path / "out.mp4"))
    assert 0 < drawn < frames and abs(drawn - last) <= 1
    assert not list(tmp_path.glob(".out.txt.*")) and not list(tmp_path.glob("out.partial-*"))
