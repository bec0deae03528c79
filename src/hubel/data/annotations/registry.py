"""The table of formats: how each is called, read and written, and what it can hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hubel.data.annotations import (
    coco,
    createml,
    cvat,
    dlib_xml,
    label_studio,
    labelbox,
    labelme,
    supervisely,
    via,
    via3,
    voc,
    yolo,
)
from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import AnnotatedDataset
from hubel.data.annotations.writer import DatasetWriter
from hubel.errors import UsageError

FREE_FORM_FIELDS = frozenset(
    {"crowd", "ignore", "difficult", "truncated", "occluded", "attributes", "annotator", "score", "area"}
)
"""What formats with free attributes hold: what has no place of its own becomes one of them."""


@dataclass(frozen=True)
class Format:
    """One annotation format.

    Attributes:
        name: on the command line and in errors.
        title: for people.
        layout: what is looked for, in one line.
        read: fills a reading from files, each with its split.
        write: fills a new folder.
        holds: keys of :data:`hubel.data.annotations.writer.LOSSES` that are not lost.
        by_name: its classes have no order of their own and are sorted by name.
    """

    name: str
    title: str
    layout: str
    read: Callable[[AnnotationReader, Sequence[tuple[str, Path]]], None]
    write: Callable[[AnnotatedDataset, DatasetWriter], None]
    holds: frozenset[str]
    by_name: bool = True


FORMATS = {
    entry.name: entry
    for entry in (
        Format(
            "coco", "COCO JSON", "a JSON file with images, annotations and categories", coco.read, coco.write,
            FREE_FORM_FIELDS | {"polygons", "parts", "holes", "masks", "boxes", "unused", "order"}, by_name=False,
        ),
        Format(
            "voc", "Pascal VOC XML", "XML files with <annotation>, one a picture", voc.read, voc.write,
            FREE_FORM_FIELDS | {"polygons", "boxes"},
        ),
        Format(
            "yolo", "YOLO", "data.yaml, or images/ and labels/, or text files beside the pictures", yolo.read,
            yolo.write, frozenset({"polygons", "score", "unused", "order"}), by_name=False,
        ),
        Format(
            "via", "VIA 2 JSON", "a JSON file with _via_img_metadata, or with filename and regions", via.read,
            via.write, FREE_FORM_FIELDS | {"polygons"},
        ),
        Format(
            "via-csv", "VIA 2 CSV", "a CSV file with region_shape_attributes", via.read_csv, via.write_csv,
            FREE_FORM_FIELDS | {"polygons"},
        ),
        Format(
            "via3", "VIA 3", "a JSON file with project, file, metadata and view, or a CSV file with CSV_HEADER",
            via3.read, via3.write, FREE_FORM_FIELDS | {"polygons"},
        ),
        Format(
            "dlib", "dlib / imglab XML", "an XML file with <dataset> and <images>", dlib_xml.read, dlib_xml.write,
            frozenset({"ignore", "difficult", "truncated", "occluded", "score", "attributes"}),
        ),
        Format(
            "labelbox", "Labelbox", "NDJSON with data_row, or JSON or CSV with Labeled Data", labelbox.read,
            labelbox.write, FREE_FORM_FIELDS | {"polygons"},
        ),
        Format(
            "supervisely", "Supervisely", "meta.json, and DATASET/img and DATASET/ann", supervisely.read,
            supervisely.write, FREE_FORM_FIELDS | {"polygons", "holes", "masks", "unused"},
        ),
        Format(
            "labelme", "LabelMe JSON", "JSON files with shapes and imagePath, one a picture", labelme.read,
            labelme.write, FREE_FORM_FIELDS | {"polygons", "parts", "masks"},
        ),
        Format(
            "cvat", "CVAT XML", "an XML file with <annotations> and <image>", cvat.read, cvat.write,
            FREE_FORM_FIELDS | {"polygons", "masks", "unused"},
        ),
        Format(
            "label-studio", "Label Studio JSON", "a JSON list of tasks with data and annotations", label_studio.read,
            label_studio.write, FREE_FORM_FIELDS | {"polygons"},
        ),
        Format(
            "createml", "CreateML JSON", "a JSON list with image, annotations and coordinates", createml.read,
            createml.write, frozenset(),
        ),
    )
}  # fmt: skip
"""All formats by name."""


def named_format(name: str) -> Format:
    """The format of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in FORMATS:
        raise UsageError(f"{name!r} is no annotation format.", f"Choose one of {', '.join(FORMATS)}.")
    return FORMATS[name]
