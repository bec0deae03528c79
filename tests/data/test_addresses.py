"""Images by address, from servers on this machine: what is fetched, what is refused, and how long it may take."""

from __future__ import annotations

import base64
import gzip
import io
import ssl
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.error import URLError

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
        user = f"Basic {base64.b64encode(b'me:se:cret').decode()}"
        if path == "/members.png" and self.headers.get("Authorization") != user:
            self.answer(401, b"", "text/plain")
        elif path in ("/gzip.png", "/deflate.png", "/bomb.png", "/br.png"):
            content = png() if path != "/bomb.png" else bytes(2**20)
            kind = "deflate" if path == "/deflate.png" else "br" if path == "/br.png" else "gzip"
            body = zlib.compress(content) if kind == "deflate" else gzip.compress(content)
            self.answer(200, body, "image/png", {"Content-Encoding": kind})
        elif path == "/empty.png":
            self.answer(200, b"", "image/png")
        elif path[1:4].isdigit():
            self.answer(int(path[1:4]), b"", "text/plain")
        elif path in ("/a.png", "/members.png", "/%C3%A9.png", "/no-suffix", "/with%20space.png"):
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

    def answer(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
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


@pytest.mark.parametrize(
    "path",
    [
        "/a.png", "/no-suffix", "/a.png?size=large", "/with%20space.png", "/to//a.png", "/with space.png", "/é.png",
        "/gzip.png", "/deflate.png", "/to/../a.png",
    ],
)  # fmt: skip
def test_an_image_is_fetched(server: str, path: str) -> None:
    (one,) = expand([server + path])
    assert one.source == server + path
    assert one.read().size == (6, 4)
    assert one.read().getpixel((0, 0)) == (9, 80, 200)  # and again


def test_what_a_server_answers_is_said(server: str) -> None:
    assert fault(f"{server}/gone.png") == f"{server}/gone.png: the server answered 404 Not Found"
    assert fault(f"{server}/page") == f"{server}/page is a web page, not an image"
    assert fault(f"{server}/short.png") == f"{server}/short.png broke off: 4,960 bytes are missing"
    assert fault(f"{server}/circle.png") == f"{server}/circle.png redirects more than 5 times"
    assert fault(f"{server}/empty.png") == f"{server}/empty.png: the server sent nothing"
    assert fault(f"{server}/br.png") == f"{server}/br.png is compressed by br, which is not read"


@pytest.mark.parametrize(
    ("code", "hint"), [(403, "in a browser"), (401, "in a browser"), (429, "later"), (503, "later"), (404, "address")]
)
def test_what_to_do_when_a_server_refuses(server: str, code: int, hint: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_address(f"{server}/{code}.png")
    assert f"the server answered {code} " in caught.value.message
    assert hint in caught.value.hint


def test_user_and_password_in_an_address(server: str) -> None:
    address = server.replace("//", "//me:se%3Acret@") + "/members.png"
    (one,) = expand([address])
    assert one.source == server.replace("//", "//me:***@") + "/members.png"
    assert one.read().size == (6, 4)
    assert "401" in fault(f"{server}/members.png")


def test_a_certificate_that_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        error = ssl.SSLCertVerificationError("certificate verify failed")
        error.verify_message = "self-signed certificate"
        raise URLError(error)

    monkeypatch.setattr(addresses, "_opener", lambda: SimpleNamespace(open=refuse))
    expected = "https://camera/a.png: the server's certificate is not trusted: self-signed certificate"
    assert fault("https://camera/a.png") == expected


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/a.png", "data:image/png;base64,AAAA"])
def test_redirects_lead_to_http_alone(server: str, target: str) -> None:
    assert "redirect" in fault(f"{server}/to/{target}").lower()


def test_size_and_time_are_limited(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "MAX_BYTES", 2**16)
    assert "is larger than" in fault(f"{server}/endless.png")
    assert "is larger than" in fault(f"{server}/bomb.png")
    monkeypatch.setattr(addresses, "_SECONDS_TO_ANSWER", 0.2)
    assert "cannot be reached: timed out" in fault(f"{server}/silent.png")
    monkeypatch.setattr(addresses, "MAX_BYTES", 2**27)
    monkeypatch.setattr(addresses, "_SECONDS_IN_ALL", -1.0)
    assert "was not sent within" in fault(f"{server}/a.png")


def test_servers_that_are_not_there() -> None:
    assert fault("http://127.0.0.1:9/a.png") == "http://127.0.0.1:9/a.png cannot be reached: Connection refused"
    assert "cannot be reached" in fault("http://does-not-exist.invalid/a.png")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("file://server/home/me/a.png", "is a file of another machine"),
        ("http://[::1/a.png", "is not an address"),
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
