"""Videos by address from servers on this machine: all of a file, the newest of a camera, and again after a break."""

from __future__ import annotations

import io
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

from hubel.data import live_video
from hubel.data.live_video import QUEUE_LENGTH, address_frames
from hubel.data.sources import expand
from hubel.errors import ImageError
from hubel.inference.video_tracking import open_video

FRAMES = 60


def transport_stream() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(FRAMES):
            pixels = np.full((48, 64, 3), 20 + 3 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


STREAM = transport_stream()


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that sends the video to each of its first two callers, and then is gone."""
    monkeypatch.setattr(live_video, "RETRY_DELAYS", (0.05, 0.05))
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(STREAM)
        listener.close()

    threading.Thread(target=serve, daemon=True).start()
    yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


def test_a_camera_is_reached_again(camera: str) -> None:
    frames = []
    with pytest.raises(ImageError, match=r"ended after frame \d+, and cannot be reached again") as caught:
        for frame in address_frames(camera):
            frames.append((frame.number, frame.time))
    numbers = [number for number, _ in frames]
    assert numbers == sorted(set(numbers)) and 2 * FRAMES - 2 <= numbers[-1] <= 2 * FRAMES
    assert [time for _, time in frames] == sorted(time for _, time in frames)
    assert caught.value.hint


def test_a_slow_consumer_gets_the_newest_frames(camera: str) -> None:
    frames = address_frames(camera)
    first = next(frames)
    time.sleep(1.5)  # the whole video has been sent, twice
    numbers = [first.number]
    with pytest.raises(ImageError):
        for frame in frames:
            numbers.append(frame.number)
    assert len(numbers) <= 1 + 2 * QUEUE_LENGTH
    assert numbers[-1] >= 2 * FRAMES - 2


def test_a_camera_may_be_left(camera: str) -> None:
    before = threading.active_count()
    with closing(address_frames(camera)) as frames:
        assert next(frames).array().shape == (48, 64, 3)
    assert threading.active_count() <= before


def test_a_camera_as_a_source(camera: str) -> None:
    found = list(expand([camera]))
    assert {one.source for one in found} == {camera}
    assert found[0].frame and found[0].read().size == (64, 48)
    with pytest.raises(ImageError, match="cannot be reached again"):
        found[-1].read()


@pytest.fixture
def file_server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            simple = self.path.startswith("/simple")  # which knows no ranges, so that the duration is not known
            start = 0 if simple else int((self.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
            self.send_response(206 if "Range" in self.headers and not simple else 200)
            self.send_header("Content-Type", "video/mp2t")
            if not simple:
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Range", f"bytes {start}-{len(STREAM) - 1}/{len(STREAM)}")
            self.send_header("Content-Length", str(len(STREAM) - start))
            self.end_headers()
            self.wfile.write(STREAM[start:])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.daemon_threads = True
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}/recording.ts"
        serving.shutdown()


@pytest.mark.parametrize("path", ["recording.ts", "simple.ts"])
def test_a_video_on_a_web_server_is_read_whole_and_once(file_server: str, path: str) -> None:
    frames = address_frames(file_server.replace("recording.ts", path))
    numbers = [next(frames).number]
    time.sleep(0.3)
    numbers += [frame.number for frame in itertools.islice(frames, 2 * FRAMES)]
    assert numbers == list(range(1, FRAMES + 1))


def test_tracking_takes_addresses(file_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = open_video(file_server, 25, pytest.fail)
    assert video.source == file_server
    assert sum(1 for _ in video.frames) == FRAMES
    (tmp_path / "a b.ts").write_bytes(STREAM)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ((tmp_path / "a b.ts").as_uri(), "~/a b.ts"):
        video = open_video(name, 25, pytest.fail)
        assert (video.source, next(video.frames).number) == (str(tmp_path / "a b.ts"), 1)


def test_nobody_there() -> None:
    for address in ("rtsp://127.0.0.1:9/camera", "tcp://127.0.0.1:9", "http://127.0.0.1:9/live.m3u8"):
        (one,) = expand([address])
        with pytest.raises(ImageError, match="cannot be reached or read") as caught:
            one.read()
        assert "the network and the camera" in caught.value.hint
