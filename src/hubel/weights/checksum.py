"""Digests of files: what is known beforehand, what the publisher's server states, what lies beside the file."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from hubel.errors import WeightsError


@dataclass(frozen=True)
class Checksum:
    """What a file's digest begins with.

    Attributes:
        algorithm: ``"sha256"`` or ``"md5"``.
        digits: lower-case hexadecimal; all, or the leading ones if no more are published.
    """

    algorithm: str
    digits: str

    @property
    def fault(self) -> str:
        """What to say of a file that does not fit."""
        return f"its {'SHA-256' if self.algorithm == 'sha256' else 'MD5'} does not begin with {self.digits}"

    def fits(self, path: Path) -> bool:
        """Whether the file has it.

        Raises:
            WeightsError: the file cannot be read.
        """
        return digest(path, self.algorithm).startswith(self.digits)


def published(sha256: str, md5: str) -> Checksum | None:
    """The better of two digests, each of which may be empty."""
    if sha256:
        return Checksum("sha256", sha256)
    return Checksum("md5", md5) if md5 else None


def stated(headers: Message) -> Checksum | None:
    """The digest of the whole file that a server's answer states.

    Hugging Face's Hub has the SHA-256 of a large file in ``X-Linked-ETag``, in the answer that redirects to where the
    bytes are; Google's storage has the MD5 in ``x-goog-hash: crc32c=…,md5=…``, in base64.
    """
    match = re.fullmatch(r'(?:W/)?"?([0-9a-f]{64})"?', headers.get("X-Linked-ETag") or headers.get("ETag") or "")
    if match is not None:
        return Checksum("sha256", match[1])
    match = re.search(r"\bmd5=([\w+/]{22}==)", ",".join(headers.get_all("x-goog-hash") or []))
    try:
        return Checksum("md5", base64.b64decode(match[1], validate=True).hex()) if match is not None else None
    except binascii.Error:
        return None


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The file's digest in lower-case hexadecimal.

    Raises:
        WeightsError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.", "check its permissions") from error


def record_beside(path: Path) -> Path:
    """Where the digest of a downloaded file is kept, in the format of ``sha256sum``."""
    return path.with_name(f"{path.name}.sha256")


def recorded(path: Path) -> Checksum | None:
    """The digest that lies beside a file; None if there is none.

    Raises:
        WeightsError: what lies there is no such digest.
    """
    record = record_beside(path)
    if not record.is_file():
        return None
    match = re.match(r"[0-9a-f]{64}(?=\s)", record.read_text("utf-8", errors="replace"))
    if match is None:
        raise WeightsError(f"{record} holds no SHA-256.", f"delete it and {path.name}: they are then downloaded again")
    return Checksum("sha256", match[0])
