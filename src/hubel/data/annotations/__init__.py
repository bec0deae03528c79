"""Boxes, polygons and masks as annotation tools write them.

Each format is one file, which reads it into the records of :mod:`~hubel.data.annotations.records`, writes it, and
describes itself in a :class:`~hubel.data.annotations.format.Format`; :mod:`~hubel.data.annotations.registry` lists
them. :func:`read_annotations` and :func:`write_annotations` are the way in.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubel.data.annotations.api import read_annotations, write_annotations
    from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation

__all__ = ["AnnotatedDataset", "AnnotatedImage", "Annotation", "read_annotations", "write_annotations"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that the names of formats are known without NumPy and Pillow."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "api" if name in ("read_annotations", "write_annotations") else "records"
    return getattr(import_module(f"{__name__}.{home}"), name)
