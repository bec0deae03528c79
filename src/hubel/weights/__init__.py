"""Published weights: what there is, getting it onto this machine verified, reading it.

Here belong the catalog (:mod:`~hubel.weights.catalog`), the cache and its downloads
(:mod:`~hubel.weights.cache`, :mod:`~hubel.weights.download`), reading weights files
(:mod:`~hubel.weights.reading`), the translation of other libraries' parameter names
(:mod:`~hubel.weights.renaming`) and class names. Nothing here executes what a file or a package contains.
What a network is (``models``) and how a saved model is laid out do not belong here.

Importing this package does not import torch::

    entry = find_entry("resnet50:torchvision/IMAGENET1K_V2")
    state = read_state_dict(fetch(entry))
    class_names(entry.classes)[698]  # 'palace'
"""

from __future__ import annotations

from hubel.weights.cache import cache_folder, cache_path, fetch
from hubel.weights.catalog import CATALOG, WeightsEntry, default_entry, entries_for, find_entry
from hubel.weights.class_names import class_names
from hubel.weights.reading import read_state_dict

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
    "read_state_dict",
]
