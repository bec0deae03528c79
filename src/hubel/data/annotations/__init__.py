"""Labelled boxes, polygons and masks as annotation tools write them: readers, writers, recognition.

What belongs here: one file a format, which reads it into the records of :mod:`~hubel.data.annotations.records`
and writes it from them; what the formats share, one idea a file (finding pictures, faults in files, masks, what a
format cannot hold). What does not: judging labels, splitting them, tensors.

:func:`read_annotations` and :func:`write_annotations` are the way in.
"""

from hubel.data.annotations.api import read_annotations, write_annotations
from hubel.data.annotations.records import (
    AnnotatedDataset,
    AnnotatedImage,
    Annotation,
    Box,
    Polygon,
    RunLengthMask,
)

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
