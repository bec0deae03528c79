"""One page of what a check found, each finding with its picture."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import hubel
from hubel.data.annotations import AnnotatedDataset
from hubel.data.checks.findings import KINDS, Finding
from hubel.data.checks.run import Check
from hubel.drawing import BoxLabel
from hubel.fileio import write_text
from hubel.reports.html import data_url, page_from
from hubel.reports.images import finding_image, to_jpeg

SHOWN = 48
"""Findings of a kind that are shown with their pictures; the rest are lines."""

_LINES = 500


def write_check_page(path: str | Path, check: Check) -> Path:
    """Write the page: self-contained, it asks nothing of the network.

    Raises:
        DataError: it cannot be written.
    """
    path = Path(path)
    dataset = check.dataset
    boxes = _boxes(dataset) if isinstance(dataset, AnnotatedDataset) else {}
    groups = [_group(kind, found, boxes) for kind, found in check.by_kind().items()]
    page = page_from(
        "check.html.jinja",
        title=dataset.root.name or str(dataset.root),
        root=str(dataset.root),
        groups=groups,
        errors=check.errors,
        warnings=len(check.findings) - check.errors,
        pictures=sum(map(len, dataset.splits.values())),
        splits={split: len(images) for split, images in dataset.splits.items()},
        classes=len(dataset.classes),
        notes=check.notes,
        version=hubel.__version__,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )
    write_text(path, page)
    return path


def _boxes(dataset: AnnotatedDataset) -> dict[Path, tuple[BoxLabel, ...]]:
    """All boxes of a picture, for findings that concern all of them."""
    return {
        image.path: tuple(BoxLabel(o.box, dataset.classes[o.label], o.label) for o in image.objects or ())
        for image in dataset.images()
    }


def _group(kind: str, found: list[Finding], boxes: Mapping[Path, tuple[BoxLabel, ...]]) -> dict[str, Any]:
    shown = []
    for finding in found[:SHOWN]:
        others = boxes.get(finding.image, ()) if finding.image else ()
        picture = finding_image(finding, others)
        if picture is None:  # the page would be a list with holes in it
            break
        shown.append((finding, data_url(to_jpeg(picture), "jpeg")))
    rest = found[len(shown) :]
    return {
        "kind": KINDS[kind],
        "count": len(found),
        "shown": shown,
        "lines": rest[:_LINES],
        "more": len(rest[_LINES:]),
    }
