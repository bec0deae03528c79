"""What people name becomes images, in order; what fails is named and stops nothing."""

from __future__ import annotations

import itertools
import os
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from hubel.data.file_listing import natural_order
from hubel.data.sources import expand, is_missing, is_stream
from hubel.errors import ImageError


def save_image(path: Path, grey: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2), (grey, grey, grey)).save(path)
    return path


def names(*sources: object) -> list[str | None]:
    """The sources of all images that can be read, and the faults of the others."""
    found = []
    for one in expand(sources):
        try:
            one.read()
            found.append(one.source)
        except ImageError as error:
            found.append(f"ERROR {error.message}")
    return found


def film(path: Path, greys: list[int], codec: str = "ffv1", rate: int = 5, turned: int | None = None) -> Path:
    """A lossless video of frames 8×4, black but for the left half, which has one grey value a frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = 8, 4
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "rgb24"
        if turned is not None:
            stream.set_display_rotation(turned)
        for grey in greys:
            pixels = np.zeros((4, 8, 3), np.uint8)
            pixels[:, :4] = grey
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# --- files, folders, patterns ---


def test_natural_order() -> None:
    expected = ["1.jpg", "2.jpg", "10.jpg", "010.jpg", "a1.jpg", "A2.jpg", "a10b2.jpg", "a10b11.jpg"]
    # 10 and 010 are the same number; the names decide, so that the order is the same everywhere.
    expected[2:4] = sorted(expected[2:4])
    assert sorted(reversed(expected), key=natural_order) == expected


def test_files_keep_their_order_and_their_names(tmp_path: Path) -> None:
    b, a = save_image(tmp_path / "b with space 🌷.png"), save_image(tmp_path / "a.png")
    assert names(str(b), a, str(b)) == [str(b), str(a), str(b)]


def test_folder_is_read_below_in_natural_order(tmp_path: Path) -> None:
    for name in ["10.png", "9.png", "sub/b/1.png", "sub/2.PNG", ".hidden.png", ".git/x.png", "__MACOSX/x.png"]:
        save_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    expected = ["9.png", "10.png", "sub/2.PNG", "sub/b/1.png"]
    assert names(str(tmp_path)) == [str(tmp_path / name) for name in expected]


@pytest.mark.parametrize(
    ("suffix", "format"), [("mpo", "MPO"), ("apng", "PNG"), ("jpf", "JPEG2000"), ("avifs", "AVIF")]
)
def test_images_of_rare_suffixes_are_found_in_a_folder(suffix: str, format: str, tmp_path: Path) -> None:
    images = [Image.new("RGB", (8, 8), (index * 200, 0, 0)) for index in range(2)]
    several = {"save_all": True, "append_images": images[1:]} if format != "JPEG2000" else {}
    images[0].save(tmp_path / f"a.{suffix}", format, **several)
    (found,) = expand([str(tmp_path)])
    assert found.read().getpixel((0, 0))[0] < 20


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    save_image(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    (tmp_path / "z").symlink_to(tmp_path / "a")
    assert names(tmp_path) == [str(tmp_path / "a" / "1.png")]


def test_broken_link_in_a_folder_is_named(tmp_path: Path) -> None:
    save_image(tmp_path / "2.png")
    (tmp_path / "1.png").symlink_to(tmp_path / "gone.png")
    broken, good = names(tmp_path)
    assert broken == f"ERROR {tmp_path / '1.png'} is a broken link (to {tmp_path / 'gone.png'})"
    assert good == str(tmp_path / "2.png")


def test_what_is_not_there_stops_nothing(tmp_path: Path) -> None:
    good, empty = save_image(tmp_path / "a.png"), tmp_path / "empty"
    empty.mkdir()
    nothing, pattern = tmp_path / "nothing.png", str(tmp_path / "*.gif")
    sources = list(expand([str(nothing), str(empty), pattern, "b\0.png", str(good)]))
    assert [one.source for one in sources] == [str(nothing), str(empty), pattern, "b\0.png", str(good)]
    faults = names(nothing, empty, pattern, good)
    assert faults == [
        f"ERROR {nothing} does not exist",
        f"ERROR {empty} contains no images or videos",
        f"ERROR {pattern} does not exist, and the pattern matches no image or video",
        str(good),
    ]


def test_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "a" / "1.png")
    save_image(tmp_path / "b" / "2.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    message = f"ERROR {tmp_path / 'a'} cannot be listed: Permission denied"
    assert names(tmp_path) == [message, str(tmp_path / "b" / "2.png")]


def test_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["1.png", "2.png", "10.png", "in/3.png", "in/deep/4.png", ".h/5.png"]:
        save_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    monkeypatch.chdir(tmp_path)
    assert names("*.png") == ["1.png", "2.png", "10.png"]
    assert names("[12].png") == ["1.png", "2.png"]
    assert names("?0.png") == ["10.png"]
    assert names("**/*.png") == ["1.png", "2.png", "10.png", "in/3.png", "in/deep/4.png"]
    assert names("in/**") == ["in/3.png", "in/deep/4.png"]
    # As a shell would: folders that fit are read below; but the text file is not an image by its name.
    assert names("*") == ["1.png", "2.png", "10.png", "in/3.png", "in/deep/4.png"]
    assert names("*.txt") == ["ERROR notes.txt is not an image (or its format is not supported)"]
    assert names(str(tmp_path / "in" / "*.png")) == [str(tmp_path / "in" / "3.png")]


def test_what_exists_wins_over_reading_it_as_a_pattern_or_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_image(tmp_path / "a[1].png", 1)
    save_image(tmp_path / "a1.png", 2)
    save_image(tmp_path / "7" / "x.png", 3)
    assert [one.read().getpixel((0, 0))[0] for one in expand(["a[1].png", "7"])] == [1, 3]


@pytest.mark.parametrize(("typed", "stored"), [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
def test_composed_and_decomposed_names_are_the_same(tmp_path: Path, typed: str, stored: str) -> None:
    save_image(tmp_path / stored / f"{stored}.png")
    expected = [str(tmp_path / stored / f"{stored}.png")]
    assert names(tmp_path / typed / f"{typed}.png") == expected
    assert names(tmp_path / typed) == expected


def test_lists_name_what_is_beside_them(tmp_path: Path) -> None:
    images = [save_image(tmp_path / "set" / name) for name in ("b.png", "a b.png", "ü.png", "deep/c.png")]
    lines = ["b.png", "", "# a comment", "  a b.png\t", str(images[2]), "nobody.png", "deep", "list.txt", "d*.png"]
    for name, encoding in (("list.txt", "utf-8"), ("list.txt", "utf-16"), ("list.lst", "utf-8-sig")):
        file = tmp_path / "set" / name
        file.write_text("\r\n".join(lines), encoding=encoding)
        found = list(expand([str(file) if name == "list.txt" else f"@{file}"]))
        here = [images[0], images[1], images[2], "nobody.png", images[3]]
        assert [each.source for each in found][:5] == list(map(str, here))
        with pytest.raises(ImageError, match=f"{file}, line 6: nobody.png does not exist"):
            found[3].read()
        assert {each.read().size for each in (*found[:3], found[4])} == {(2, 2)}


def test_text_that_is_no_list_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    file.write_text("a sentence\n" * 1000)
    faults = list(expand([str(file)]))
    assert len(faults) == 21
    with pytest.raises(ImageError, match="none of its first 20 lines names an image"):
        faults[-1].read()
    file.write_text("# nothing\n")
    with pytest.raises(ImageError, match="book.txt names no images"):
        next(expand([str(file)])).read()
    save_image(tmp_path / "a.png").rename(file)  # what a file is, its content says
    assert next(expand([str(file)])).read().size == (2, 2)


def test_a_home_and_a_files_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_image(tmp_path / "a b.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("~/a b.png", "~/*.png", path.as_uri(), f"file://localhost{path.parent}/a%20b.png"):
        assert [each.source for each in expand([name])] == [str(path)]
        assert not is_missing(name)
    assert is_missing("~/nobody.png") and is_missing("file:///nobody.png")
    path.rename(tmp_path / "a.mjpeg")
    assert is_stream("~/a.mjpeg") and is_stream((tmp_path / "a.mjpeg").as_uri())


def test_images_in_memory() -> None:
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    first, second = expand([image, np.zeros((2, 4), np.uint8)])
    assert (first.source, first.frame, first.time) == (None, None, None)
    assert first.read() is image
    assert second.read().size == (4, 2)


def test_sources_are_found_while_iterating(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png")
    endless = expand(itertools.repeat(str(path)))
    assert [one.source for one in itertools.islice(endless, 3)] == [str(path)] * 3
    for number in range(50):
        save_image(tmp_path / "many" / f"{number}.png")
    found = expand([tmp_path / "many"])
    next(found)
    (tmp_path / "many" / "1.png").unlink()
    with pytest.raises(ImageError, match="does not exist"):  # nothing was opened beforehand
        next(found).read()


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_no_folder(name: str) -> None:
    (one,) = expand([name])
    with pytest.raises(ImageError, match="the name of a source is empty"):
        one.read()


# --- videos ---


@pytest.mark.parametrize("name", ["clip.ts", "clip", "clip.0001", "clip.jpg", "clip.m2t"])
def test_videos_are_told_by_their_content(tmp_path: Path, name: str) -> None:
    """A transport stream of three frames, which FFmpeg does not recognize by itself."""
    path = tmp_path / "in" / name
    path.parent.mkdir()
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for source in (path, path.parent):
        assert [(one.source, one.frame) for one in expand([source])] == [(str(path), n) for n in (1, 2, 3)]


def test_images_are_told_by_their_content(tmp_path: Path) -> None:
    for name in ("a.mp4", "b", "c.ts", "d.jpg_large"):
        Image.new("RGB", (2, 2)).save(tmp_path / name, "PNG")
    (tmp_path / "e.ts").write_text("export const answer = 42;\n" * 100)
    (tmp_path / "README").write_text("not media")
    assert names(tmp_path) == [str(tmp_path / name) for name in ("a.mp4", "b", "c.ts", "d.jpg_large")]


def test_sound_is_named(tmp_path: Path) -> None:
    """Also where it has a cover."""
    for name, codec in (("a.mp3", "mp3"), ("b.wav", "pcm_s16le"), ("c.m4a", "aac"), ("d.flac", "flac")):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream(codec, rate=44100, layout="mono")
            block = av.AudioFrame.from_ndarray(np.zeros((1, 4608), np.int16), format="s16", layout="mono")
            block.sample_rate = 44100
            resampled = av.AudioResampler(stream.format.name, "mono", 44100, frame_size=stream.frame_size or 1152)
            for part in resampled.resample(block):
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
    found = names(*(tmp_path / name for name in ("a.mp3", "b.wav", "c.m4a", "d.flac")))
    for one, reason in zip(found, ("is sound,", "is sound,", "has no images, only sound", "is sound,"), strict=True):
        assert reason in one, one


MATRICES = [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1), (0, 1, 1, 0), (0, 1, -1, 0), (0, -1, 1, 0),
            (0, -1, -1, 0)]  # fmt: skip


@pytest.mark.parametrize("matrix", MATRICES)
def test_display_matrices_rotate_and_mirror(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """All eight, by moving each pixel to where the matrix says."""
    a, b, c, d = matrix
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
    path = tmp_path / "film.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=5)
        stream.width, stream.height, stream.pix_fmt = 6, 4, "rgb24"
        stream.set_display_matrix([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30])
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    y, x = np.mgrid[:4, :6]
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    expected = np.empty((to_y.max() + 1, to_x.max() + 1, 3), np.uint8)
    expected[to_y, to_x] = pixels
    (frame,) = expand([path])
    assert np.array_equal(np.asarray(frame.read()), expected)


def test_video_frames_have_numbers_times_and_pixels(tmp_path: Path) -> None:
    greys = [0, 50, 100, 150, 200, 255, 7]
    path = film(tmp_path / "a film.mkv", greys)
    frames = list(expand([path]))
    assert [one.frame for one in frames] == [1, 2, 3, 4, 5, 6, 7]
    assert [one.time for one in frames] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2], abs=1e-3)
    assert {one.source for one in frames} == {str(path)}
    # Read late and in another order, as threads would.
    images = {one.frame: np.asarray(one.read()) for one in reversed(frames)}
    for number, grey in enumerate(greys, start=1):
        assert images[number].shape == (4, 8, 3)
        assert (images[number][:, :4] == grey).all() and (images[number][:, 4:] == 0).all()


@pytest.mark.parametrize(
    ("turned", "shape", "bright"),
    # The display matrix turns anticlockwise: the left half goes to the bottom, to the right, to the top.
    [(90, (8, 4), np.s_[4:]), (180, (4, 8), np.s_[:, 4:]), (-90, (8, 4), np.s_[:4])],
)
def test_video_rotation(tmp_path: Path, turned: int, shape: tuple, bright: object) -> None:
    path = film(tmp_path / "turned.mov", [200], codec="png", turned=turned)
    (frame,) = expand([path])
    expected = np.zeros((*shape, 3), np.uint8)
    expected[bright] = 200
    assert np.array_equal(np.asarray(frame.read()), expected)


def test_videos_among_images(tmp_path: Path) -> None:
    film(tmp_path / "b.mkv", [1, 2])
    save_image(tmp_path / "a.png")
    save_image(tmp_path / "c.png")
    found = [(Path(one.source).name, one.frame) for one in expand([tmp_path])]
    assert found == [("a.png", None), ("b.mkv", 1), ("b.mkv", 2), ("c.png", None)]


def test_bad_videos_are_named(tmp_path: Path) -> None:
    text, empty = tmp_path / "text.mp4", tmp_path / "empty.avi"
    text.write_text("no video at all\n" * 100)
    empty.touch()
    sound = tmp_path / "sound.mkv"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        block = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        block.sample_rate = 8000
        container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    playlist = tmp_path / "list.avi"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    good = film(tmp_path / "with:colon.mkv", [9])
    found = names(text, empty, sound, playlist, tmp_path / "gone.mp4", good)
    assert found[0].startswith(f"ERROR {text} is not a video that can be read")
    assert found[1] == f"ERROR {empty} is empty (0 bytes)"
    assert found[2] == f"ERROR {sound} has no images, only sound or text"
    assert found[3].startswith(f"ERROR {playlist} ")
    assert found[4] == f"ERROR {tmp_path / 'gone.mp4'} does not exist"
    assert found[5] == str(good)


def test_long_videos_take_no_more_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "gray"
        for number in range(150):
            pixels = np.full((240, 320), number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="gray")))
        container.mux(stream.encode(None))
    tracemalloc.start()
    count = 0
    for one in expand([path]):
        count += one.read().getpixel((0, 0))[0] == one.frame - 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 150
    assert peak < 10 * 320 * 240 * 3  # ten frames' pixels, of 150


def test_webcam_that_is_not_there() -> None:
    for source in ("97", 97):
        (one,) = expand([source])
        assert one.source == "webcam 97"
        with pytest.raises(ImageError, match="webcam 97 cannot be opened") as caught:
            one.read()
        assert "another number" in caught.value.hint


@pytest.mark.data
def test_real_video(data_folder: Path) -> None:
    frames = list(itertools.islice(expand([data_folder / "mot/PETS09-S2L1/vtest.avi"]), 20))
    assert [one.frame for one in frames] == list(range(1, 21))
    assert frames[19].time == pytest.approx(1.9)  # 10 frames a second
    image = frames[19].read()
    assert (image.size, image.mode) == ((768, 576), "RGB")
    # People walk on a light pavement: neither black nor grey mush.
    assert 60 < np.asarray(image).mean() < 200 and np.asarray(image).std() > 20
