"""All annotation formats. A new one is a module with a :class:`Format` in ``FORMATS``, and a line here."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from hubel.errors import UsageError

if TYPE_CHECKING:
    from hubel.data.annotations.format import Format

_MODULES = {
    "coco": "coco",
    "voc": "voc",
    "yolo": "yolo",
    "via": "via",
    "via-csv": "via",
    "via3": "via",
    "dlib": "dlib_xml",
    "labelbox": "labelbox",
    "supervisely": "supervisely",
    "labelme": "labelme",
    "cvat": "cvat",
    "label-studio": "label_studio",
    "createml": "createml",
    "open-images": "open_images",
}
"""Module by name of the format; imported when it is needed, so that ``--help`` can list the names."""

FORMAT_NAMES = tuple(_MODULES)


@cache
def all_formats() -> dict[str, Format]:
    """All formats by name."""
    modules = [import_module(f"hubel.data.annotations.{module}") for module in dict.fromkeys(_MODULES.values())]
    formats = {entry.name: entry for module in modules for entry in module.FORMATS}
    return {name: formats[name] for name in FORMAT_NAMES}


def get_format(name: str) -> Format:
    """The format of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in _MODULES:
        raise UsageError(f"{name!r} is not an annotation format.", f"Choose one of {', '.join(FORMAT_NAMES)}.")
    return all_formats()[name]
