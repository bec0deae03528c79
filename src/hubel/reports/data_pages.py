"""Pages about data sets: the templates, and files inside them."""

from __future__ import annotations

import base64
from importlib.resources import files
from typing import Any

import jinja2


def page_from(template: str, **values: Any) -> str:
    """A page from one of the templates beside this file; everything that comes from data is escaped."""

    def source(name: str) -> str:
        return files("hubel.reports").joinpath(name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def data_url(content: bytes, kind: str) -> str:
    """A picture's file as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
