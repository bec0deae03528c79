"""Digests of weights files: published ones, and those that a download stored beside the file."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hubel.errors import WeightsError


@dataclass(frozen=True)
class Checksum:
    """A file's digest in lower-case hexadecimal digits, or its beginning if no more is published."""

    algorithm: Literal["sha256", "md5"]
    digits: str

    @property
    def message(self) -> str:
        """The mismatch, for an error message."""
        return f"its {'SHA-256' if self.algorithm == 'sha256' else 'MD5'} does not begin with {self.digits}"

    def matches(self, path: Path) -> bool:
        """True if the file has this digest; raises ``WeightsError`` if it cannot be read."""
        return digest(path, self.algorithm).startswith(self.digits)


def expected(sha256: str, md5: str) -> Checksum | None:
    """The better of two digests, each of which may be empty."""
    if sha256:
        return Checksum("sha256", sha256)
    return Checksum("md5", md5) if md5 else None


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The file's digest in lower-case hexadecimal.

    Raises:
        WeightsError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}", "check its permissions") from error


def sidecar(path: Path) -> Path:
    """The file with the digest of a downloaded file, in the format of ``sha256sum``."""
    return path.with_name(f"{path.name}.sha256")


def read_sidecar(path: Path) -> Checksum | None:
    """The stored digest of a downloaded file, or None; raises ``WeightsError`` if it is not a digest."""
    record = sidecar(path)
    if not record.is_file():
        return None
    match = re.match(r"[0-9a-f]{64}(?=\s)", record.read_text("utf-8", errors="replace"))
    if match is None:
        raise WeightsError(f"{record} holds no SHA-256", f"delete it and {path.name}: they are then downloaded again")
    return Checksum("sha256", match[0])
