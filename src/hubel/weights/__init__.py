"""Published weights: the catalog, verified downloads, and reading of files.

Here belong the catalog (:mod:`~hubel.weights.catalog`, data in ``tables/``), the cache and its downloads
(:mod:`~hubel.weights.local_cache`, :mod:`~hubel.weights.download`), reading weights files
(:mod:`~hubel.weights.state_dict`), the translation of other libraries' parameter names
(:mod:`~hubel.weights.key_mapping`) and class names. Nothing here executes what a file or a package contains.
What a network is (``models``) and how a saved model is laid out do not belong here.

Importing this package does not import torch::

    entry = find_entry("resnet50:torchvision/IMAGENET1K_V2")
    state = read_state_dict(fetch(entry))
    class_names(entry.classes)[698]  # 'palace'
"""

from __future__ import annotations

from typing import Any

from hubel.weights import catalog as _catalog
from hubel.weights.catalog import WeightsEntry, class_names, default_entry, entries_for, find_entry
from hubel.weights.local_cache import cache_folder, cache_path, fetch, is_here
from hubel.weights.state_dict import read_state_dict

__all__ = [
    "CATALOG",
    "WeightsEntry",
    "cache_folder",
    "cache_path",
    "class_names",
    "default_entry",
    "entries_for",
    "fetch",
    "find_entry",
    "is_here",
    "read_state_dict",
]

CATALOG: tuple[WeightsEntry, ...]  # all entries; read when it is asked for


def __getattr__(name: str) -> Any:
    if name == "CATALOG":
        return _catalog.catalog()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
