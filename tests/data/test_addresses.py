"""Images by address, from servers on this machine: what is fetched, what is refused, and how long it may take."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from hubel.data import addresses
from hubel.data.addresses import is_address, is_stream, read_address, redacted
from hubel.data.sources import expand
from hubel.errors import ImageError


def png(size: tuple[int, int] = (6, 4)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (9, 80, 200)).save(file, "PNG")
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in ("/a.png", "/no-suffix", "/with%20space.png"):
            self.answer(200, png(), "image/png")
        elif path == "/page":
            self.answer(200, b"<html>please log in</html>", "text/html")
        elif path == "/endless.png":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(bytes(1000))
        elif path == "/short.png":
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(png()[:40])
        elif path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", path.removeprefix("/to/"))
            self.end_headers()
        elif path == "/circle.png":
            self.send_response(302)
            self.send_header("Location", f"/circle.png?{len(self.path)}{'x' * len(self.path)}")
            self.end_headers()
        elif path == "/camera":
            self.answer(200, b"--frame", "multipart/x-mixed-replace; boundary=frame")
        elif path == "/silent.png":
            self.server.released.wait(20)
        else:
            self.answer(404, b"", "text/plain")

    def answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.released = threading.Event()
        serving.daemon_threads = True
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.released.set()
        serving.shutdown()


def fault(address: str) -> str:
    with pytest.raises(ImageError) as caught:
        read_address(address)
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("path", ["/a.png", "/no-suffix", "/a.png?size=large", "/with%20space.png", "/to//a.png"])
def test_an_image_is_fetched(server: str, path: str) -> None:
    (one,) = expand([server + path])
    assert one.source == server + path
    assert one.read().size == (6, 4)
    assert one.read().getpixel((0, 0)) == (9, 80, 200)  # and again


def test_what_a_server_answers_is_said(server: str) -> None:
    assert fault(f"{server}/gone.png") == f"{server}/gone.png: the server answered 404 Not Found."
    assert fault(f"{server}/page") == f"{server}/page is not an image (or its format is not supported)."
    assert fault(f"{server}/short.png").startswith(f"{server}/short.png ")
    assert "redirect" in fault(f"{server}/circle.png")


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/a.png", "data:image/png;base64,AAAA"])
def test_redirects_lead_to_http_alone(server: str, target: str) -> None:
    assert "redirect" in fault(f"{server}/to/{target}").lower()


def test_size_and_time_are_limited(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "MAX_BYTES", 2**16)
    assert "is larger than" in fault(f"{server}/endless.png")
    monkeypatch.setattr(addresses, "_SECONDS_TO_ANSWER", 0.2)
    assert "cannot be reached: timed out" in fault(f"{server}/silent.png")
    monkeypatch.setattr(addresses, "MAX_BYTES", 2**27)
    monkeypatch.setattr(addresses, "_SECONDS_IN_ALL", -1.0)
    assert "was not sent within" in fault(f"{server}/a.png")


def test_servers_that_are_not_there() -> None:
    assert fault("http://127.0.0.1:9/a.png") == "http://127.0.0.1:9/a.png cannot be reached: Connection refused."
    assert "cannot be reached" in fault("http://does-not-exist.invalid/a.png")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("file:///home/me/a.png", "is a file"),
        ("ftp://host/a.png", "addresses that begin with ftp:// are not read"),
        ("s3://bucket/a.png", "addresses that begin with s3:// are not read"),
        ("http:///a.png", "names no server"),
        ("http://host:port/a.png", "is not an address"),
    ],
)
def test_addresses_that_are_not_read(address: str, reason: str) -> None:
    (one,) = expand([address])
    with pytest.raises(ImageError, match=reason):
        one.read()


def test_passwords_are_not_shown() -> None:
    assert redacted("rtsp://me:secret@camera:554/1?x=2") == "rtsp://me:***@camera:554/1?x=2"
    assert redacted("https://host/a.png") == "https://host/a.png"
    assert "secret" not in fault("http://me:secret@127.0.0.1:9/a.png")


def test_streams_are_told_from_images(server: str) -> None:
    for address in ("rtsp://camera/1", "rtmp://host/live", "https://host/live.m3u8", "http://host/a.mp4"):
        assert is_stream(address)
    assert is_stream(f"{server}/camera")
    assert not is_stream(f"{server}/no-suffix") and not is_stream(f"{server}/a.png")
    assert not is_stream("http://127.0.0.1:9/nobody")


def test_names_that_are_no_addresses() -> None:
    for name in ("C:\\images\\a.png", "a.png", "folder/a:b.png", "with:colon://", "1://x"):
        assert not is_address(name) or name.startswith("with")
