"""Images by address: what a person asks for by typing ``https://…`` is fetched, and nothing else."""

from __future__ import annotations

import re
import time
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

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
_DOWNLOAD = "Download it, and pass the file."
_CHECK = "Check the address and the network."


def is_address(name: str) -> bool:
    """True for ``https://…``, ``rtsp://…`` and the like."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None


def redacted(address: str) -> str:
    """The address without its password, as it may be shown and recorded."""
    parts = urlsplit(address)
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
                raise ImageError(f"{name} is larger than {MAX_BYTES // 2**20} MiB.", _DOWNLOAD)
            if time.monotonic() - start > _SECONDS_IN_ALL:
                raise ImageError(f"{name} was not sent within {_SECONDS_IN_ALL:.0f} s.", _DOWNLOAD)
    try:
        return read_image(bytes(data))
    except ImageError as error:
        raise ImageError(error.message.replace("the image", name, 1), error.hint) from error


def _parts(address: str) -> Any:
    try:
        parts = urlsplit(address)
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        raise ImageError(f"{address} is not an address: {error}.", "Check the spelling.") from error
    if parts.scheme == "file":
        raise ImageError(f"{address} is a file.", f"Pass its path: {unquote(parts.path)}")
    if parts.scheme not in _STREAM_SCHEMES | {"http", "https"}:
        message = f"{redacted(address)}: addresses that begin with {parts.scheme}:// are not read."
        raise ImageError(message, "Use http, https, rtsp or rtmp, or download it, and pass the file.")
    if not host:
        raise ImageError(f"{address} names no server.", "Check the spelling.")
    return parts


def _answer(address: str) -> Any:
    """The open answer of a server."""
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import Request

    import hubel

    _parts(address)
    name = redacted(address)
    try:
        request = Request(address, headers={"User-Agent": f"hubel/{hubel.__version__}", "Accept": "image/*,*/*;q=0.5"})
        return _opener().open(request, timeout=_SECONDS_TO_ANSWER)
    except HTTPError as error:
        error.close()
        raise ImageError(f"{name}: the server answered {error.code} {error.reason}.", _CHECK) from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise ImageError(f"{name} cannot be reached: {_reason(error)}.", _CHECK) from error


def _opener() -> Any:
    """An opener for http and https; the usual one also opens files and ftp, and follows ten redirects there."""
    from urllib import request

    class Redirects(request.HTTPRedirectHandler):
        max_redirections = _MOST_REDIRECTS

        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            if urlsplit(newurl).scheme not in ("http", "https"):
                raise ValueError(f"it redirects to {redacted(newurl)}")
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
        raise ImageError(f"{name} broke off: {_reason(error)}.", "Try again, or download it.") from error
    return chunk


def _reason(error: BaseException) -> str:
    cause = getattr(error, "reason", error)
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return str(text).strip().rstrip(".")
