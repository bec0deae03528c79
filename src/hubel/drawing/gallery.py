"""Several images with captions, for notebooks."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

_FIGURE = "display:inline-block;margin:4px;vertical-align:top;max-width:320px"


def gallery(images: Sequence[bytes | None], captions: Sequence[str], note: str = "") -> str:
    """HTML of PNG images side by side, each above its caption; None is an image that cannot be shown."""
    figures = []
    for image, caption in zip(images, captions, strict=True):
        text = f'<figcaption style="overflow-wrap:anywhere">{html.escape(caption)}</figcaption>'
        shown = "" if image is None else f'<img src="data:image/png;base64,{base64.b64encode(image).decode()}">'
        figures.append(f'<figure style="{_FIGURE}">{shown}{text}</figure>')
    return "".join(figures) + (f"<div>{html.escape(note)}</div>" if note else "")
