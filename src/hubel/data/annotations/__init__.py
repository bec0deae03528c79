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
    from hubel.masks import Box, Polygon, RunLengthMask

_HOME_OF = {
    "AnnotatedDataset": "hubel.data.annotations.records",
    "AnnotatedImage": "hubel.data.annotations.records",
    "Annotation": "hubel.data.annotations.records",
    "Box": "hubel.masks",
    "Polygon": "hubel.masks",
    "RunLengthMask": "hubel.masks",
    "read_annotations": "hubel.data.annotations.api",
    "write_annotations": "hubel.data.annotations.api",
}

__all__ = [
    "AnnotatedDataset",
    "AnnotatedImage",
    "Annotation",
    "Box",
    "Polygon",
    "RunLengthMask",
    "read_annotations",
    "write_annotations",
]


def __getattr__(name: str) -> Any:
    """Import on first use, so that the names of formats are known without NumPy and Pillow."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
