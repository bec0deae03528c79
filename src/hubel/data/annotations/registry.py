"""All annotation formats. A new one is a module with a :class:`Format`, and a line here."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from hubel.errors import UsageError

if TYPE_CHECKING:
    from hubel.data.annotations.format import Format

_FORMATS = {
    "coco": ("coco", "FORMAT"),
    "voc": ("voc", "FORMAT"),
    "yolo": ("yolo", "FORMAT"),
    "via": ("via", "JSON"),
    "via-csv": ("via", "CSV"),
    "via3": ("via", "VERSION_3"),
    "dlib": ("dlib_xml", "FORMAT"),
    "labelbox": ("labelbox", "FORMAT"),
    "supervisely": ("supervisely", "FORMAT"),
    "labelme": ("labelme", "FORMAT"),
    "cvat": ("cvat", "FORMAT"),
    "label-studio": ("label_studio", "FORMAT"),
    "createml": ("createml", "FORMAT"),
    "open-images": ("open_images", "FORMAT"),
    "box-csv": ("box_table", "FORMAT"),
}
"""Module and constant by name of the format; imported when needed, so that ``--help`` can list the names."""

FORMAT_NAMES = tuple(_FORMATS)


@cache
def all_formats() -> dict[str, Format]:
    """All formats by name."""
    places = _FORMATS.items()
    return {name: getattr(import_module(f"hubel.data.annotations.{module}"), key) for name, (module, key) in places}


def get_format(name: str) -> Format:
    """The format of that name; raises UsageError if there is none."""
    if name not in _FORMATS:
        raise UsageError(f"{name!r} is not an annotation format", f"choose one of {', '.join(FORMAT_NAMES)}")
    return all_formats()[name]
