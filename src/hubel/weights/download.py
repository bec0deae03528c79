"""Downloading one file: resumed after a cut, verified before it appears under its name.

On the standard library's urllib rather than pooch, which starts from zero after a cut connection.

The bytes are written to ``NAME.part``; ``NAME.part.version`` contains the server's ETag or date, so that a later
request resumes the same version (RFC 9110, section 13.1.5, If-Range). A lock admits one process at a time.

If no digest is known beforehand, the response has to contain one (:func:`from_headers`); the verified file's SHA-256
is then stored in ``NAME.sha256``.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

import hubel
from hubel.console import ProgressBar
from hubel.errors import WeightsError
from hubel.weights.checksums import Checksum, digest, expected, sidecar


def from_headers(headers: Message) -> Checksum | None:
    """The digest of the whole file in a server's response.

    Hugging Face's Hub has the SHA-256 of a large file in ``X-Linked-ETag`` of the response that redirects to the
    bytes; Google's storage has the MD5 in ``x-goog-hash: crc32c=…,md5=…``, in base64.
    """
    match = re.fullmatch(r'(?:W/)?"?([0-9a-f]{64})"?', headers.get("X-Linked-ETag") or headers.get("ETag") or "")
    if match is not None:
        return Checksum("sha256", match[1])
    match = re.search(r"\bmd5=([\w+/]{22}==)", ",".join(headers.get_all("x-goog-hash") or []))
    try:
        return Checksum("md5", base64.b64decode(match[1], validate=True).hex()) if match is not None else None
    except binascii.Error:
        return None


_ATTEMPTS = 5  # requests for one file before giving up; what has arrived stays for the next call
_PAUSE = 0.5  # seconds before the second request; doubled before each further one
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 18  # bytes
_LARGEST = 2 << 30  # bytes, where no size is published
_RETRYABLE_STATUS = {408, 425, 429, 500, 502, 503, 504}


def download(
    url: str,
    target: Path,
    *,
    sha256: str = "",
    md5: str = "",
    size_bytes: int | None = None,
    instead: str = "use efficientnet_lite0, which needs no download",
) -> None:
    """Download ``url`` to ``target``; on return the file is there, complete and verified.

    Args:
        url: https, or http on 127.0.0.1.
        target: its folder is created; another process may write it meanwhile.
        sha256: leading or all lower-case hexadecimal digits of the expected SHA-256; none if they are unknown.
        md5: of the expected MD5, where only that is known. With neither, the server has to send a digest.
        size_bytes: expected size; more than 5 % above it is refused.
        instead: what a user can do without this file, for messages.

    Raises:
        WeightsError: offline, refused by the server, wrong bytes, no digest to verify them by, disk full,
            connection cut again and again. After a cut, a full disk or Ctrl-C the next call resumes.
    """
    limit = round(size_bytes * 1.05) if size_bytes else _LARGEST
    transfer = _Transfer(url, target, expected(sha256, md5), limit, instead)
    if os.environ.get("HUBEL_OFFLINE", "0") not in ("", "0"):
        raise transfer.unreachable("HUBEL_OFFLINE is set")
    if not _is_secure(url):
        raise transfer.error(f"{url} is not https", "weights are downloaded over https only")
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target):
        if not target.exists():
            transfer.run()


class _ConnectionLost(Exception):
    """The connection or the server failed; another request may succeed."""


class _Transfer:
    def __init__(self, url: str, target: Path, checksum: Checksum | None, limit: int, instead: str) -> None:
        """``checksum`` is None where only the server can tell it; ``limit`` is the largest plausible size in bytes."""
        self.url, self.target, self.checksum, self.limit = url, target, checksum, limit
        self._instead = instead
        self.from_server: Checksum | None = None
        self.part = target.with_name(f"{target.name}.part")
        self.version = target.with_name(f"{target.name}.part.version")

    def run(self) -> None:
        """Request until the part is complete; verify it; give it its name."""
        for attempt in range(_ATTEMPTS):
            resumed = self._arrived() > 0
            try:
                self._receive()
            except _ConnectionLost as cut:
                if attempt == _ATTEMPTS - 1:
                    reason = f"{cut} (request {_ATTEMPTS} of {_ATTEMPTS})"
                    raise self.error(reason, "run again later: it resumes where it stopped") from cut
                time.sleep(_PAUSE * 2**attempt)
                continue
            checksum = self._expected()
            if self.part.exists() and checksum.matches(self.part):
                self._finish()
                return
            self._discard()
            if not resumed:  # a joined part may mix two versions of the file and deserves another try
                break
        raise self.error(
            f"{checksum.message}: wrong bytes, which were deleted",
            f"run again; if that does not help, copy the right file to {self.target} yourself",
        )

    def _expected(self) -> Checksum:
        """The digest known beforehand, or from the server."""
        checksum = self.checksum or self.from_server
        if checksum is None:
            self._discard()
            raise self.error("the server sends no SHA-256 or MD5 to verify it with", self._without_download())
        return checksum

    def _finish(self) -> None:
        with _writing(self.target):
            if self.checksum is None:
                sidecar(self.target).write_text(f"{digest(self.part)}  {self.target.name}\n", "utf-8")
            self.part.replace(self.target)
            self.version.unlink(missing_ok=True)

    def listen(self, url: str, headers: Any) -> None:
        """Note the digest in a response, if it comes over https from the host in the URL."""
        if urlsplit(url).netloc == urlsplit(self.url).netloc:
            self.from_server = from_headers(headers) or self.from_server

    def _receive(self) -> None:
        """One request: append what is missing to the part, or start it over if the server does not resume."""
        start = self._arrived()
        response = self._open(start)
        if response is None:
            return
        with response:
            self._expected()
            if response.status != 206:
                start = 0
            length = response.headers.get("Content-Length", "")
            total = start + int(length) if length.isdigit() else None
            self._check_size(total or 0)
            with _writing(self.target), self.part.open("ab" if start else "wb") as file:
                self.version.write_text(_version_mark(response), "utf-8")
                received = start
                with ProgressBar(self.target.name, total, done=start, in_bytes=True) as bar:
                    for chunk in _chunks(response):
                        received += file.write(chunk)
                        self._check_size(received)
                        bar.advance(len(chunk))
                file.flush()
                os.fsync(file.fileno())
        if total is not None and received < total:
            raise _ConnectionLost(f"the connection was cut after {received:,} of {total:,} bytes")

    def _open(self, start: int) -> HTTPResponse | None:
        """Request the bytes from ``start`` on; None if the server has none."""
        headers = {"User-Agent": f"hubel/{hubel.__version__}", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            mark = self.version.read_text("utf-8") if self.version.exists() else ""
            if mark:
                headers["If-Range"] = mark
        opener = urllib.request.build_opener(_SecureRedirects(self))
        try:
            response: HTTPResponse = opener.open(urllib.request.Request(self.url, headers=headers), timeout=_TIMEOUT)
            self.listen(response.url, response.headers)
            return response
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:
                self.listen(error.url, error.headers)
                return None
            answer = f"the server answered {error.code} {error.reason}"
            if error.code in _RETRYABLE_STATUS:
                raise _ConnectionLost(answer) from error
            raise self.error(answer, self._without_download()) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ConnectionResetError):
                raise _ConnectionLost("the connection was reset") from error
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise self.error(
                    "the server's certificate cannot be verified",
                    "install root certificates (python.org's Python on macOS: Install Certificates.command)",
                ) from error
            raise self.unreachable(f"no connection to {urlsplit(self.url).hostname} ({error.reason})") from error
        except (HTTPException, OSError) as error:
            raise _ConnectionLost(f"the connection failed ({error or type(error).__name__})") from error

    def _arrived(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.version.unlink(missing_ok=True)

    def _check_size(self, size: int) -> None:
        if size > self.limit:
            self._discard()
            reason = f"the server sends more than the {self.limit:,} bytes that are plausible"
            raise self.error(reason, self._without_download())

    def error(self, reason: str, hint: str) -> WeightsError:
        return WeightsError(f"{self.target.name} could not be downloaded from {self.url}: {reason}", hint)

    def unreachable(self, reason: str) -> WeightsError:
        return WeightsError(
            f"{self.target.name} is not on this machine and cannot be downloaded from {self.url}: {reason}",
            self._without_download(),
        )

    def _without_download(self) -> str:
        return f"copy the file to {self.target} yourself, or {self._instead}"


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else."""

    def __init__(self, transfer: _Transfer) -> None:
        self.transfer = transfer

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        weakened = urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https"
        if weakened or not _is_secure(newurl):
            raise self.transfer.error(f"the server redirects to {newurl}, which is not https", "report it")
        self.transfer.listen(req.full_url, headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_secure(url: str) -> bool:
    """Https, or a server on this very machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname == "127.0.0.1")


def _version_mark(response: HTTPResponse) -> str:
    """Value for If-Range: a strong ETag, else the date of the last change, else empty."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """The body as it arrives; network errors become :class:`_ConnectionLost`, so that others are the disk's."""
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (HTTPException, OSError) as error:
            raise _ConnectionLost(f"the connection was cut ({error or type(error).__name__})") from error
        if not chunk:
            return
        yield chunk


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Report errors of the disk as ``WeightsError``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WeightsError(
                f"{target.name} does not fit: no space left for {target.parent}",
                "free some space and run again (the download resumes), or set HUBEL_CACHE to a folder on another disk",
            ) from error
        raise WeightsError(
            f"{error.filename or target} cannot be written: {error.strerror or error}",
            "set HUBEL_CACHE to a folder that you may write to",
        ) from error


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Let one process at a time write the target; the system frees the lock of one that dies."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    with _writing(target):
        try:
            lock.acquire(timeout=1)
        except Timeout:
            print(f"another process is downloading {target.name}: waiting for it", file=sys.stderr)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
