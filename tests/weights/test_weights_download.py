"""The downloader against a server that misbehaves on purpose; nothing leaves this machine."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hubel.errors import WeightsError
from hubel.weights import download as module
from hubel.weights.download import download

BODY = random.Random(1).randbytes(700_001)
NEWER = random.Random(2).randbytes(650_003)
SHA256 = hashlib.sha256(BODY).hexdigest()


@dataclass
class Response:
    """What the server does with one request."""

    body: bytes = field(default=BODY, repr=False)
    status: int = 200
    etag: str | None = '"v1"'
    ranges: bool = True
    length: bool = True
    cut_after: int | None = None  # close the connection after that many bytes of the body
    hold_after: int | None = None  # send no more than that until the server is released
    location: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Server:
    responses: list[Response] = field(default_factory=lambda: [Response()])
    requests: list[dict[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/models/net.pth"

    @property
    def ranges(self) -> list[str | None]:
        return [request.get("range") for request in self.requests]

    def next_response(self, headers: Any) -> Response:
        self.requests.append({name.lower(): value for name, value in headers.items()})
        return self.responses[min(len(self.requests), len(self.responses)) - 1]


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            response = server.next_response(self.headers)
            body, status = response.body, response.status
            asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
            extra: dict[str, str] = {"ETag": response.etag} if response.etag else {}
            if response.location:
                extra["Location"] = response.location
            if status == 200 and asked and response.ranges and condition in (None, response.etag):
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                status = 206 if start < len(body) else 416
                extra["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                body = body[start:] if status == 206 else b""
            elif status != 200:
                body = b""
            self.send_response(status)
            for name, value in (*extra.items(), *response.headers):
                self.send_header(name, value)
            if response.length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if response.hold_after is not None:
                self.wfile.write(body[: response.hold_after])
                self.wfile.flush()
                server.released.wait(20)
                body = body[response.hold_after :]
            self.wfile.write(body[: response.cut_after])

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # the client has been killed, or refuses to read on
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HUBEL_OFFLINE", raising=False)
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    with _serving() as state:
        yield state


@pytest.fixture
def storage() -> Iterator[Server]:
    """Where a publisher's server may redirect to."""
    with _serving() as state:
        yield state


@contextmanager
def _serving() -> Iterator[Server]:
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    http.daemon_threads = True
    state.port = http.server_port
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    state.released.set()
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "net.pth"


def visible(target: Path) -> list[str]:
    """What lies in the target's folder but the lock."""
    return sorted(path.name for path in target.parent.iterdir() if path.suffix != ".lock")


def test_plain_download_leaves_the_file_alone(server: Server, target: Path, capfd: Any) -> None:
    download(server.url, target, sha256=SHA256, size_bytes=len(BODY))
    assert target.read_bytes() == BODY
    assert visible(target) == ["net.pth"]
    assert server.ranges == [None]
    assert capfd.readouterr() == ("", ""), "no terminal: no bar"


def test_cut_connection_resumes_at_the_right_byte(server: Server, target: Path) -> None:
    server.responses = [Response(cut_after=300_007), Response(cut_after=100_003), Response()]
    download(server.url, target, sha256=SHA256[:8])
    assert server.ranges == [None, "bytes=300007-", "bytes=400010-"]
    assert [request.get("if-range") for request in server.requests] == [None, '"v1"', '"v1"']
    assert target.read_bytes() == BODY


def test_part_of_an_earlier_run_is_resumed(server: Server, target: Path) -> None:
    server.responses = [Response(cut_after=1000)] + [Response(status=503)] * 4 + [Response()]
    with pytest.raises(WeightsError) as caught:
        download(server.url, target, sha256=SHA256)
    assert "503" in caught.value.message and "resumes" in caught.value.hint
    assert len(server.requests) == 5, "attempts are bounded"
    assert not target.exists()
    download(server.url, target, sha256=SHA256)
    assert server.ranges[-1] == "bytes=1000-"
    assert target.read_bytes() == BODY
    assert visible(target) == ["net.pth"]


def test_hubs_own_digest_verifies_and_is_noted(server: Server, storage: Server, target: Path) -> None:
    """As huggingface.co answers: a redirect that states the SHA-256; the storage's own marks mean nothing."""
    linked = Response(status=302, location=storage.url, etag=None, headers=(("X-Linked-ETag", f'"{SHA256}"'),))
    server.responses = [linked]
    storage.responses = [Response(cut_after=5000, etag=f'"{"0" * 64}"'), Response(etag=f'"{"0" * 64}"')]
    download(server.url, target)
    assert target.read_bytes() == BODY
    assert storage.ranges == [None, "bytes=5000-"]
    assert visible(target) == ["net.pth", "net.pth.sha256"]
    assert Path(f"{target}.sha256").read_text() == f"{SHA256}  net.pth\n"


def test_wrong_bytes_from_the_hub_are_refused(server: Server, storage: Server, target: Path) -> None:
    linked = Response(status=302, location=storage.url, etag=None, headers=(("X-Linked-ETag", f'"{SHA256}"'),))
    server.responses, storage.responses = [linked], [Response(body=NEWER)]
    with pytest.raises(WeightsError, match="wrong bytes, which were deleted"):
        download(server.url, target)
    assert visible(target) == []


def test_complete_part_from_the_hub_is_verified_too(server: Server, storage: Server, target: Path) -> None:
    server.responses = [Response(status=302, location=storage.url, etag=None, headers=(("X-Linked-ETag", SHA256),))]
    target.parent.mkdir()
    Path(f"{target}.part").write_bytes(BODY)
    download(server.url, target)
    assert storage.ranges == [f"bytes={len(BODY)}-"]
    assert visible(target) == ["net.pth", "net.pth.sha256"]


def _google_hash(body: bytes) -> tuple[tuple[str, str], ...]:
    """The two lines that storage.googleapis.com sends."""
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    return ("x-goog-hash", "crc32c=4gcgLQ=="), ("x-goog-hash", f"md5={md5}")


def test_digest_of_googles_storage(server: Server, target: Path) -> None:
    server.responses = [Response(headers=_google_hash(BODY))]
    download(server.url, target)
    assert target.read_bytes() == BODY
    assert Path(f"{target}.sha256").read_text().startswith(SHA256)


def test_wrong_digest_of_googles_storage(server: Server, target: Path) -> None:
    server.responses = [Response(headers=_google_hash(NEWER))]
    with pytest.raises(WeightsError, match=hashlib.md5(NEWER).hexdigest()):
        download(server.url, target)
    assert visible(target) == []


def test_known_md5_counts_and_not_what_the_server_says(server: Server, target: Path) -> None:
    server.responses = [Response(headers=_google_hash(NEWER))]
    download(server.url, target, md5=hashlib.md5(BODY).hexdigest())
    assert visible(target) == ["net.pth"]
    target.unlink()
    with pytest.raises(WeightsError, match="its MD5 does not begin with"):
        download(server.url, target, md5=hashlib.md5(NEWER).hexdigest())


@pytest.mark.parametrize("headers", [(), (("X-Linked-ETag", '"abc"'),), (("x-goog-hash", "crc32c=4gcgLQ=="),)])
def test_without_any_digest_nothing_is_downloaded(server: Server, target: Path, headers: Any) -> None:
    server.responses = [Response(headers=headers)]
    with pytest.raises(WeightsError, match="sends no SHA-256 or MD5") as caught:
        download(server.url, target)
    assert f"copy the file to {target} yourself" in caught.value.hint
    assert visible(target) == []


def test_server_that_ignores_ranges_starts_over(server: Server, target: Path) -> None:
    server.responses = [Response(cut_after=5000, ranges=False), Response(ranges=False)]
    download(server.url, target, sha256=SHA256)
    assert server.ranges == [None, "bytes=5000-"]
    assert target.read_bytes() == BODY


def test_file_changed_between_attempts_is_taken_whole(server: Server, target: Path) -> None:
    server.responses = [Response(cut_after=5000), Response(body=NEWER, etag='"v2"')]
    download(server.url, target, sha256=hashlib.sha256(NEWER).hexdigest())
    assert server.requests[1]["if-range"] == '"v1"'
    assert len(server.requests) == 2
    assert target.read_bytes() == NEWER


def test_joined_versions_are_noticed_and_fetched_again(server: Server, target: Path) -> None:
    """Without version marks the server joins two files; only the checksum can tell."""
    server.responses = [Response(cut_after=5000, etag=None), Response(body=NEWER, etag=None)]
    download(server.url, target, sha256=hashlib.sha256(NEWER).hexdigest())
    assert server.ranges == [None, "bytes=5000-", None]
    assert target.read_bytes() == NEWER


def test_part_that_was_complete_needs_only_its_name(server: Server, target: Path) -> None:
    target.parent.mkdir()
    Path(f"{target}.part").write_bytes(BODY)
    download(server.url, target, sha256=SHA256)
    assert server.ranges == [f"bytes={len(BODY)}-"]
    assert target.read_bytes() == BODY


def test_wrong_bytes_are_named_and_deleted(server: Server, target: Path) -> None:
    server.responses = [Response(body=NEWER)]
    with pytest.raises(WeightsError) as caught:
        download(server.url, target, sha256=SHA256)
    assert "net.pth" in caught.value.message and SHA256 in caught.value.message and server.url in caught.value.message
    assert str(target) in caught.value.hint
    assert visible(target) == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [403, 404, 410])
def test_refusal_is_reported_at_once(server: Server, target: Path, status: int) -> None:
    server.responses = [Response(status=status)]
    with pytest.raises(WeightsError) as caught:
        download(server.url, target, sha256=SHA256)
    assert f"answered {status}" in caught.value.message and server.url in caught.value.message
    assert str(target) in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
    assert len(server.requests) == 1
    assert visible(target) == []


def test_passing_server_error_is_tried_again(server: Server, target: Path) -> None:
    server.responses = [Response(status=500), Response(status=429), Response()]
    download(server.url, target, sha256=SHA256)
    assert len(server.requests) == 3
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("length", [True, False])
def test_more_bytes_than_plausible_are_refused(server: Server, target: Path, length: bool) -> None:
    server.responses = [Response(length=length)]
    with pytest.raises(WeightsError, match="more than the 630,000 bytes"):
        download(server.url, target, sha256=SHA256, size_bytes=600_000)
    assert visible(target) == []


def test_size_may_be_rounded(server: Server, target: Path) -> None:
    download(server.url, target, sha256=SHA256, size_bytes=690_000)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("location", ["http://localhost:{port}/net.pth", "file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_redirect_to_anything_but_https_is_refused(server: Server, target: Path, location: str) -> None:
    location = location.format(port=server.port)
    server.responses = [Response(status=302, location=location), Response()]
    with pytest.raises(WeightsError) as caught:
        download(server.url, target, sha256=SHA256)
    assert location in caught.value.message
    assert "not https" in caught.value.message or "not allowed" in caught.value.message  # urllib's own word on file:
    assert len(server.requests) == 1


def test_redirect_never_weakens_https(target: Path) -> None:
    handler = module._SecureRedirects(module._Transfer("https://example.org/net.pth", target, None, 1, "use another"))
    request = urllib.request.Request("https://example.org/net.pth", headers={"Range": "bytes=5-"})
    with pytest.raises(WeightsError, match="not https"):
        handler.redirect_request(request, None, 302, "Found", Message(), "http://127.0.0.1/net.pth")
    followed = handler.redirect_request(request, None, 302, "Found", Message(), "https://example.com/net.pth")
    assert followed.full_url == "https://example.com/net.pth"
    assert followed.get_header("Range") == "bytes=5-"


def test_redirect_is_followed_with_its_range(server: Server, target: Path) -> None:
    elsewhere = Response(status=302, location=f"http://127.0.0.1:{server.port}/elsewhere")
    server.responses = [elsewhere, Response(cut_after=5000), elsewhere, Response()]
    download(server.url, target, sha256=SHA256)
    assert server.ranges == [None, None, "bytes=5000-", "bytes=5000-"]
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("url", ["http://example.org/net.pth", "ftp://example.org/net.pth", "file:///etc/hostname"])
def test_address_has_to_be_https(target: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUBEL_OFFLINE", raising=False)
    with pytest.raises(WeightsError, match="not https"):
        download(url, target, sha256=SHA256)


def _assert_offline_sentence(error: WeightsError, url: str, target: Path) -> None:
    assert error.message.startswith(f"net.pth is not on this machine and cannot be downloaded from {url}: ")
    assert error.hint == f"copy the file to {target} yourself, or use efficientnet_lite0, which needs no download"
    assert "\n" not in error.message


def test_offline_by_choice(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBEL_OFFLINE", "1")
    with pytest.raises(WeightsError, match="HUBEL_OFFLINE is set") as caught:
        download(server.url, target, sha256=SHA256)
    _assert_offline_sentence(caught.value, server.url, target)
    assert server.requests == []


def test_refused_connection(server: Server, target: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/net.pth"
        with pytest.raises(WeightsError, match="no connection to 127.0.0.1") as caught:
            download(url, target, sha256=SHA256)
    _assert_offline_sentence(caught.value, url, target)


def test_name_that_does_not_resolve(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("no_proxy", "*")
    url = "https://download.example.org/net.pth"
    with pytest.raises(WeightsError, match="no connection to download.example.org") as caught:
        download(url, target, sha256=SHA256)
    _assert_offline_sentence(caught.value, url, target)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_full_disk_is_a_sentence(server: Server, target: Path) -> None:
    target.parent.mkdir()
    Path(f"{target}.part").symlink_to("/dev/full")
    with pytest.raises(WeightsError) as caught:
        download(server.url, target, sha256=SHA256)
    assert caught.value.message == f"net.pth does not fit: no space left for {target.parent}"
    assert "HUBEL_CACHE" in caught.value.hint
    assert not target.exists()


def test_full_disk_keeps_the_part(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    server.responses = [Response(cut_after=5000), Response()]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WeightsError, match="does not fit"):
            download(server.url, target, sha256=SHA256)
    download(server.url, target, sha256=SHA256)
    assert server.ranges == [None, "bytes=5000-"]
    assert target.read_bytes() == BODY


def test_folder_that_cannot_be_made_is_a_sentence(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match="cannot be written") as caught:
        download(server.url, tmp_path / "file" / "net.pth", sha256=SHA256)
    assert "HUBEL_CACHE" in caught.value.hint


_CHILD = """
import signal, sys
from pathlib import Path
from hubel.weights.download import download
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell start with it ignored
download(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])
"""


def _child(server: Server, target: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _CHILD, server.url, str(target), SHA256]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_process_leaves_a_part_that_resumes(server: Server, target: Path, blow: signal.Signals) -> None:
    server.responses = [Response(hold_after=300_000), Response()]
    part = Path(f"{target}.part")
    with _child(server, target) as process:
        _wait_for(lambda: part.exists() and part.stat().st_size > 200_000)
        process.send_signal(blow)
        process.wait(20)
    assert process.returncode != 0 and not target.exists()
    kept = part.stat().st_size
    assert part.read_bytes() == BODY[:kept]
    download(server.url, target, sha256=SHA256)
    assert server.ranges == [None, f"bytes={kept}-"]
    assert target.read_bytes() == BODY


def test_two_processes_download_once(server: Server, target: Path) -> None:
    server.responses = [Response(hold_after=300_000)]
    with _child(server, target) as first:
        _wait_for(lambda: server.requests)
        with _child(server, target) as second:
            assert second.stderr is not None
            assert second.stderr.readline() == "another process is downloading net.pth: waiting for it\n"
            server.released.set()
            assert (first.wait(20), second.wait(20)) == (0, 0)
    assert len(server.requests) == 1
    assert target.read_bytes() == BODY
    assert visible(target) == ["net.pth"]


def test_terminal_gets_a_bar(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    download(server.url, target, sha256=SHA256)
    assert "net.pth" in terminal.getvalue()
    assert target.read_bytes() == BODY
