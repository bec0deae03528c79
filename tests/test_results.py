"""Results open their image again, draw, save and show themselves, and stay small."""

from __future__ import annotations

import io
import pickle
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hubel
from hubel.data.preprocessing import Preprocessing
from hubel.errors import HubelError, ImageError, UsageError
from hubel.inference.lazy_results import LazyResults
from hubel.models import ModelMetadata
from hubel.results import Classification, ClassScore, Detections, ImageResult


@pytest.fixture(scope="module")
def predict() -> hubel.Predictor:
    """Four classes, random weights: what it answers does not matter here."""
    metadata = ModelMetadata(
        task="classify",
        architecture="resnet18",
        num_classes=4,
        in_channels=3,
        image_size=32,
        classes=["a", "b", "c", "d"],
        preprocessing=Preprocessing(32, 32),
    )
    return hubel.Predictor(metadata.build(), engine="torch", metadata=metadata, precision="fp32", batch=2)


def _file(path: Path, colour: tuple[int, int, int] = (200, 30, 40), size: tuple[int, int] = (300, 260)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def _video(path: Path, frames: int = 12) -> Path:
    """Frames that get brighter: frame n is grey, of value 20 n."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(1, frames + 1):
            pixels = np.full((48, 64, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def _received(sent: bytes) -> Any:
    return pickle.loads(sent)  # noqa: S301


def _found(boxes: int = 3) -> Detections:
    corners = np.array([[10, 10, 60, 60], [70, 80, 200, 190], [5, 100, 50, 150]], np.float32)[:boxes]
    scores, labels = np.array([0.9, 0.8, 0.7], np.float32)[:boxes], np.array([0, 1, 1])[:boxes]
    return Detections("b.jpg", 300, 260, corners, scores, labels, ("WBC", "RBC", "RBC")[:boxes])


def test_the_image_of_a_file_is_read_again(predict: hubel.Predictor, tmp_path: Path) -> None:
    path = _file(tmp_path / "a.png")
    result = predict(path)[0]
    assert np.array_equal(result.image, Image.open(path))
    assert result.draw().size == (300, 260)
    assert np.array_equal(result.draw(), result.draw(Image.open(path)))  # the image can still be passed
    saved = result.save(tmp_path / "out.png")
    assert np.array_equal(Image.open(saved), result.draw())
    path.unlink()
    with pytest.raises(ImageError, match="a.png does not exist"):
        result.draw()
    assert result._repr_png_() is None  # a notebook then shows the text


def test_an_image_in_memory_is_kept_by_its_result_and_not_pickled(predict: hubel.Predictor) -> None:
    pixels = np.zeros((2000, 3000, 3), np.uint8)
    pixels[:, :, 1] = 120
    result = predict(pixels)[0]
    assert np.array_equal(result.image, pixels)
    sent = pickle.dumps(result)
    assert len(sent) < 2000
    with pytest.raises(ImageError, match="in memory"):
        _received(sent).draw()
    assert _received(sent) == result
    assert _received(sent).draw(Image.fromarray(pixels)).size == (3000, 2000)


def test_a_pickled_result_of_a_file_opens_it(predict: hubel.Predictor, tmp_path: Path) -> None:
    results = predict([_file(tmp_path / f"{n}.png", (n, n, n)) for n in range(3)])
    for number, result in enumerate(_received(pickle.dumps(list(results)))):
        assert np.asarray(result.image).max() == number


def test_frames_of_a_video_are_read_again_in_any_order(predict: hubel.Predictor, tmp_path: Path) -> None:
    video = _video(tmp_path / "clip.mp4")
    results = list(predict(video))
    assert [result.frame for result in results] == list(range(1, 13))
    for number in (3, 4, 11, 2, 12, 1):
        for result in (results[number - 1], _received(pickle.dumps(results[number - 1]))):
            assert abs(np.asarray(result.image, int).mean() - 20 * number) < 4
    assert [result.frame for result in predict(video, every=5)] == [1, 6, 11]
    with pytest.raises(UsageError, match="every is 0"):
        predict(video, every=0)


def test_tracks_open_their_frame(tmp_path: Path) -> None:
    video = _video(tmp_path / "clip.mp4")
    boxes = tmp_path / "det.txt"
    boxes.write_text("".join(f"{frame},-1,10,10,20,20,0.9,-1,-1,-1\n" for frame in range(1, 13)))
    tracks = list(hubel.track(video, detections=boxes, tracker="sort"))
    assert abs(np.asarray(tracks[6].image, int).mean() - 140) < 4
    assert tracks[6].draw().size[0] >= 64
    (alone,) = [each for each in hubel.track(detections=boxes, tracker="sort") if each.frame == 5]
    with pytest.raises(ImageError, match="does not know its image"):
        alone.draw()


def test_one_file_a_list_and_a_folder_are_sequences(predict: hubel.Predictor, tmp_path: Path) -> None:
    names = [str(_file(tmp_path / f"{n}.png", (n, 90, 200))) for n in range(6)]
    results = predict(names)
    assert isinstance(results, LazyResults) and "not computed yet" in repr(results)
    assert results[4].source == names[4] and results[-1].source == names[5]
    assert [result.source for result in results[1:3]] == names[1:3]
    assert len(results) == 6 and [result.source for result in results] == names
    assert results[0] is next(iter(results))
    assert len(predict(tmp_path)) == 6
    with pytest.raises(IndexError):
        predict(names[0])[1]
    assert predict([])[:] == []


def test_results_are_computed_when_they_are_asked_for(predict: hubel.Predictor, tmp_path: Path) -> None:
    names = [str(_file(tmp_path / f"{n:03}.png")) for n in range(200)]
    results = predict(names)
    assert results[0].source == names[0]
    for name in names[100:]:
        Path(name).unlink()
    assert results[50].source == names[50]
    with pytest.raises(ImageError, match="150.png does not exist"):
        results[150]
    with pytest.raises(ImageError, match="100.png"):
        list(results)
    assert len(results) == 200


def test_a_loop_keeps_no_results_and_a_named_sequence_does(predict: hubel.Predictor) -> None:
    import weakref

    images = [Image.new("L", (20, 20), n) for n in range(40)]
    alive, most = weakref.WeakSet[Classification](), 0
    for result in predict(images):
        alive.add(result)
        most = max(most, len(alive))
    assert most <= 3
    kept = predict(images)
    one, two = iter(kept), iter(kept)
    pairs = [(next(one), next(two)) for _ in range(10)]
    assert all(a is b for a, b in pairs)
    rest = iter(kept)
    del kept
    assert [np.asarray(r.image)[0, 0, 0] for r in one] == list(range(10, 40))
    assert [np.asarray(r.image)[0, 0, 0] for r in rest] == list(range(40))
    assert len(list(two)) == 30


def test_open_files_are_images_and_other_things_are_named(predict: hubel.Predictor, tmp_path: Path) -> None:
    path = _file(tmp_path / "a.png")
    with path.open("rb") as file:
        assert predict(file)[0].classes == predict(path)[0].classes
    assert predict([io.BytesIO(path.read_bytes())])[0].width == 300
    for wrong in (3.5, None, [path, 3.5], {"a": 1}.items()):
        with pytest.raises(UsageError, match="is not an image"):
            list(predict(wrong))
    with path.open() as text, pytest.raises(UsageError, match="opened as text"):
        predict(text)


def test_text_of_results() -> None:
    assert _found().describe() == "2 RBC, 1 WBC"
    assert _found(0).describe() == "nothing found"
    assert _found().details()[1] == "RBC 80%  at 70, 80 to 200, 190"
    assert repr(_found()) == "<Detections of b.jpg, 300 × 260: 2 RBC, 1 WBC>"
    scores = (ClassScore(1, "palace", 0.8123456789), ClassScore(0, "sky", 1.23456789e-7))
    result = Classification("a.jpg", 8, 6, scores, frame=3)
    assert repr(result) == "<Classification of a.jpg, frame 3, 8 × 6: palace 81.2%>"
    assert [row["score"] for row in result.to_json()["classes"]] == [0.812346, 1.23457e-07]


def test_notebooks_show_the_annotated_image(predict: hubel.Predictor, tmp_path: Path) -> None:
    path = _file(tmp_path / "large.png", size=(1600, 800))
    result = predict(path)[0]
    shown = result._repr_png_()
    assert shown is not None and Image.open(io.BytesIO(shown)).size == (640, 320)
    page = predict([path, tmp_path / "missing.png"])._repr_html_()
    assert page.count("<img") == 1 and "missing.png does not exist" in page


def test_show_opens_a_viewer_or_says_that_there_is_none(
    predict: hubel.Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, shown = predict(_file(tmp_path / "a.png"))[0], []
    monkeypatch.setattr("PIL.ImageShow._viewers", [])
    with pytest.raises(HubelError, match="no image viewer"):
        result.show()
    monkeypatch.setattr("PIL.ImageShow.show", lambda image: shown.append(image) or True)
    result.show()
    assert [image.size for image in shown] == [(300, 260)]


def test_the_package_lists_only_its_own_names() -> None:
    assert {"Any", "TYPE_CHECKING", "importlib", "annotations"}.isdisjoint(dir(hubel))
    assert {"Any", "Callable", "np", "wraps"}.isdisjoint(dir(hubel.boxes))
    assert {"Predictor", "boxes", "evaluate", "train"} <= set(dir(hubel))
    with pytest.raises(AttributeError):
        hubel.annotations  # noqa: B018
    assert sys.modules["hubel"].__version__ == hubel.__version__


def test_summaries_are_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    summary = hubel.summary("lenet5")
    lines = repr(summary).splitlines()
    assert any(line.split()[:2] == ["Layer", "Type"] for line in lines[:3])
    assert any("parameters" in line for line in lines[-5:])
    assert repr(summary).count("\n") < 40
    assert summary._repr_html_().startswith("<table><tr><th")
    monkeypatch.setenv("COLUMNS", "80")
    assert max(len(line) for line in repr(summary).splitlines()) <= 80


def test_a_result_without_its_words_and_its_drawing_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        ImageResult("a.jpg", 4, 3)  # type: ignore[abstract]
