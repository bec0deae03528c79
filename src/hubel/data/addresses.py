"""Images by address: what a person asks for by typing ``https://…`` is fetched, and nothing else."""

from __future__ import annotations

import os
import re
import time
import zlib
from base64 import b64encode
from pathlib import PurePosixPath
from ssl import SSLCertVerificationError
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from PIL import Image

from hubel.data.file_listing import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from hubel.data.image_io import read_image
from hubel.errors import ImageError

MAX_BYTES = 2**27
"""Size of the largest image that is fetched: 128 MiB."""

_SECONDS_TO_ANSWER = 10.0
_SECONDS_IN_ALL = 120.0
_MOST_REDIRECTS = 5
_CHUNK = 2**16

_STREAM_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "rtmpt", "rtp", "udp", "tcp", "srt", "mms", "mmsh"})
_STREAM_SUFFIXES = VIDEO_SUFFIXES | {".m3u8", ".m3u", ".mpd", ".ts", ".sdp"}
_STREAM_TYPES = (
    "video/",
    "audio/",
    "multipart/x-mixed-replace",
    "application/vnd.apple.mpegurl",
    "application/x-mpegurl",
)
_DOWNLOAD = "download it, and pass the file"
_CHECK = "check the address and the network"
_AGAIN = "try again, or download it"
_HINTS = {
    (401, 403, 407, 451): "download it in a browser, which can sign in, and pass the file",
    (404, 410): "check the address",
    (408, 425, 429, *range(500, 600)): "try again later, or download it, and pass the file",
    range(100, 1000): _CHECK,
}
_SHOWN = 200


def is_address(name: str) -> bool:
    """True for ``https://…``, ``rtsp://…`` and the like."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None


def file_of_address(address: str) -> str | None:
    """The path of a file on this machine by its address, ``file:///a%20b.jpg``; ``None`` for other addresses."""
    found = re.match(r"(?i:file)://(?:localhost)?(?=/)", address)
    if found is None:
        return None
    path = unquote(address[found.end() :], errors="surrogateescape")
    return path[1:] if os.name == "nt" else path


def redacted(address: str) -> str:
    """The address without its password, as it may be shown and recorded."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return re.sub(r"(?<=:)[^/:@]*(?=@)", "***", address)
    if not parts.password:
        return address
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))


def is_stream(address: str) -> bool:
    """True if an address is that of a video or a camera, by its scheme, its suffix, or what its server answers.

    Raises :class:`ImageError` if it has a scheme that is not read.
    """
    parts = _parts(address)
    if parts.scheme in _STREAM_SCHEMES:
        return True
    suffix = PurePosixPath(unquote(parts.path)).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return False
    if suffix in _STREAM_SUFFIXES:
        return True
    try:
        with _answer(address) as response:
            kind = (response.headers.get("Content-Type") or "").lower()
    except ImageError:
        return False  # reading it says so
    return kind.startswith(_STREAM_TYPES)


def read_address(address: str) -> Image.Image:
    """Fetch and read an image.

    At most :data:`MAX_BYTES`, with limits of time; redirects lead to ``http`` and ``https`` alone. Raises
    :class:`ImageError` if the server cannot be reached, or what it sends is not an image.
    """
    name = redacted(address)
    data = bytearray()
    start = time.monotonic()
    with _answer(address) as response:
        while chunk := _read(response, name):
            data += chunk
            if len(data) > MAX_BYTES:
                raise ImageError(f"{name} is larger than {MAX_BYTES // 2**20} MiB", _DOWNLOAD)
            if time.monotonic() - start > _SECONDS_IN_ALL:
                raise ImageError(f"{name} was not sent within {_SECONDS_IN_ALL:.0f} s", _DOWNLOAD)
        if response.length:
            raise ImageError(f"{name} broke off: {response.length:,} bytes are missing", _AGAIN)
        content = _decompressed(bytes(data), response.headers.get("Content-Encoding") or "", name)
    if not content:
        raise ImageError(f"{name}: the server sent nothing", _CHECK)
    try:
        return read_image(content)
    except ImageError as error:
        raise ImageError(error.message.replace("the image", name, 1), error.hint) from error


def _decompressed(data: bytes, encoding: str, name: str) -> bytes:
    """What a server compressed although nobody asked for it, up to :data:`MAX_BYTES`."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return data
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ImageError(f"{name} is compressed by {encoding[:_SHOWN]}, which is not read", _DOWNLOAD)
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # with gzip's header, or zlib's
    try:
        content = inflater.decompress(data, MAX_BYTES)
    except zlib.error as error:
        raise ImageError(f"{name} is damaged: {error}", _AGAIN) from error
    if inflater.unconsumed_tail:
        raise ImageError(f"{name} is larger than {MAX_BYTES // 2**20} MiB", _DOWNLOAD)
    return content


def _parts(address: str) -> Any:
    try:
        parts = urlsplit(address)
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        raise ImageError(f"{redacted(address)} is not an address: {error}", "check the spelling") from error
    if parts.scheme == "file":
        raise ImageError(f"{address} is a file of another machine", "copy it here, and pass its path")
    if parts.scheme not in _STREAM_SCHEMES | {"http", "https"}:
        message = f"{redacted(address)}: addresses that begin with {parts.scheme}:// are not read"
        raise ImageError(message, "use http, https, rtsp or rtmp, or download it, and pass the file")
    if not host:
        raise ImageError(f"{address} names no server", "check the spelling")
    return parts


def _answer(address: str) -> Any:
    """The open answer of a server."""
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import Request

    import hubel

    parts = _parts(address)
    name = redacted(address)
    headers = {
        "User-Agent": f"hubel/{hubel.__version__}",
        "Accept": "image/*,*/*;q=0.5",
        "Accept-Encoding": "identity",
    }
    try:
        request = Request(_encoded(parts), headers=headers)
        if parts.username is not None:  # not for servers that this one redirects to
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            request.add_unredirected_header("Authorization", f"Basic {b64encode(user.encode()).decode()}")
        return _opener().open(request, timeout=_SECONDS_TO_ANSWER)
    except HTTPError as error:
        error.close()
        if 300 <= error.code < 400:
            raise ImageError(f"{name} redirects {_redirection(error)}", _CHECK) from error
        hint = next(hint for codes, hint in _HINTS.items() if error.code in codes)
        raise ImageError(f"{name}: the server answered {error.code} {error.reason}", hint) from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, SSLCertVerificationError):
            message = f"{name}: the server's certificate is not trusted: {cause.verify_message}"
            raise ImageError(message, _DOWNLOAD) from error
        raise ImageError(f"{name} cannot be reached: {_reason(error)}", _CHECK) from error


def _encoded(parts: Any) -> str:
    """The address as servers want it: without the user, and in ASCII, as a browser writes what people type."""
    host = parts.hostname if ":" not in parts.hostname else f"[{parts.hostname}]"
    if not host.isascii():
        host = host.encode("idna").decode()
    netloc = host if parts.port is None else f"{host}:{parts.port}"
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]{}|")
    return str(urlunsplit((parts.scheme, netloc, path, query, "")))


def _redirection(error: Any) -> str:
    """Where a server redirects to, of what is not followed."""
    target = error.headers.get("Location")
    if not target:
        return "without saying where"
    scheme = urlsplit(target).scheme
    if scheme not in ("", "http", "https"):
        return f"to {redacted(target)[:_SHOWN]}, which is not followed"
    return f"more than {_MOST_REDIRECTS} times"


def _opener() -> Any:
    """An opener for http and https; the usual one also opens files and ftp, and follows ten redirects there."""
    from urllib import request

    class Redirects(request.HTTPRedirectHandler):
        max_redirections = _MOST_REDIRECTS

        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            if urlsplit(newurl).scheme not in ("http", "https"):
                raise ValueError(f"it redirects to {redacted(newurl)[:_SHOWN]}")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler, request.HTTPHandler, request.HTTPSHandler, request.HTTPDefaultErrorHandler, Redirects,
        request.HTTPErrorProcessor, request.UnknownHandler,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener


def _read(response: Any, name: str) -> bytes:
    from http.client import HTTPException

    try:
        chunk: bytes = response.read(_CHUNK)
    except (HTTPException, OSError, ValueError) as error:
        raise ImageError(f"{name} broke off: {_reason(error)}", _AGAIN) from error
    return chunk


def _reason(error: BaseException) -> str:
    cause = getattr(error, "reason", error)
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return str(text).strip().rstrip(".")
