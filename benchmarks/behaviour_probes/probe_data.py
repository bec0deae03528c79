"""Labelled data sets: checks, statistics, formats, splits, agreement."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import mask

from behaviour_probes.drawings import objects, shapes
from behaviour_probes.sandbox import Sandbox

FORMATS = ("coco", "voc", "yolo", "via", "via-csv", "via3", "dlib", "labelbox", "supervisely", "labelme")
FORMATS += ("cvat", "label-studio", "createml")
_IMAGES = 10
_ANSWERS = {"a": "cat cat dog", "b": "dog dog dog", "c": "cat dog ox", "d": "ox ox ox", "e": "ox cat ox"}


def data(sandbox: Sandbox) -> Any:
    """``hubel data`` on small parts of real sets, drawn ones, and sets with planted faults."""
    _coco(sandbox.data / "coco128", sandbox.folder / "coco")
    _voc(sandbox.data / "bccd", sandbox.folder / "voc")
    shapes(sandbox.folder / "folders", {"cross": 8, "disc": 12})
    _faulty(sandbox.folder / "faulty")
    return {
        "check": _check(sandbox),
        "stats": {name: sandbox.json("data", "stats", name) for name in ("coco", "voc", "folders")},
        "convert": {form: _converted(sandbox, "coco", form) for form in FORMATS},
        "convert voc": {form: _converted(sandbox, "voc", form) for form in ("coco", "yolo", "cvat")},
        "back": _back(sandbox),
        "split": _split(sandbox),
        "agree": _agree(sandbox),
    }


def _coco(source: Path, folder: Path) -> None:
    """The first images with polygons, as published."""
    whole = json.loads((source / "instances_panoptic100.json").read_text())
    images = sorted(whole["images"], key=lambda image: image["id"])[:_IMAGES]
    kept = {image["id"] for image in images}
    annotations = [each for each in whole["annotations"] if each["image_id"] in kept]
    _as_masks(images[0], annotations)
    folder.mkdir()
    document = {"images": images, "annotations": annotations, "categories": whole["categories"]}
    (folder / "labels.json").write_text(json.dumps(document))
    for image in images:
        shutil.copy(source / "images" / image["file_name"], folder)


def _as_masks(image: dict[str, Any], annotations: list[dict[str, Any]]) -> None:
    """Replace the polygons of an image's first two objects by run lengths, plain and compressed."""
    plain, compressed = [each for each in annotations if each["image_id"] == image["id"]][:2]
    y, x = np.mgrid[: image["height"], : image["width"]]
    for annotation, radius in ((plain, 40), (compressed, 60)):
        distance = (x - 200) ** 2 + (y - 150) ** 2
        ring = (distance <= radius**2) & (distance > 100)
        runs = np.diff(np.concatenate(([-1], np.flatnonzero(np.diff(ring.ravel("F"))), [ring.size - 1]))).tolist()
        annotation |= {
            "iscrowd": 1,
            "area": int(ring.sum()),
            "bbox": [200 - radius, 150 - radius, *2 * [2 * radius + 1]],
        }
        annotation["segmentation"] = {"size": [image["height"], image["width"]], "counts": runs}
    packed = mask.frPyObjects(compressed["segmentation"], image["height"], image["width"])
    compressed["segmentation"]["counts"] = packed["counts"].decode()


def _voc(source: Path, folder: Path) -> None:
    for split, count in (("train", _IMAGES), ("val", _IMAGES // 2)):
        for part in ("images", "annotations"):
            (folder / split / part).mkdir(parents=True)
            for path in sorted((source / split / part).iterdir())[:count]:
                shutil.copy(path, folder / split / part)


def _faulty(folder: Path) -> None:
    """Drawn objects with a box outside, one without area, a copy in the other split, and a missing image."""
    objects(folder, {"train": 8, "val": 4})
    boxes = {0: "<xmin>900</xmin>", 1: "<xmin>64</xmin>"}
    for number, text in boxes.items():
        path = folder / "train" / "annotations" / f"{number}.xml"
        start, _, rest = path.read_text().partition("<xmin>")
        path.write_text(start + text + rest.partition("</xmin>")[2])
    shutil.copy(folder / "train" / "images" / "4.png", folder / "val" / "images" / "3.png")
    (folder / "train" / "images" / "5.png").unlink()
    (folder / "train" / "images" / "6.png").write_bytes(b"not an image")


def _check(sandbox: Sandbox) -> dict[str, Any]:
    found = {name: sandbox.json("data", "check", name) for name in ("coco", "voc", "folders")}
    found["faulty"] = sandbox.json("data", "check", "faulty", "--fix", "mended", "--report", "check.html", status=1)
    found["mended"] = sandbox.contents("mended")
    return found


def _converted(sandbox: Sandbox, source: str, form: str) -> dict[str, Any]:
    out = f"{source}-{form}"
    printed = sandbox.json("data", "convert", source, "--to", form, "--out", out, "--images", "none")
    return {"json": printed, "files": sandbox.contents(out)}


def _back(sandbox: Sandbox) -> dict[str, Any]:
    """Sets that hubel has written, with their images, read again."""
    found = {}
    for form in FORMATS:
        sandbox.hubel("data", "convert", "coco", "--to", form, "--out", f"whole-{form}", "--images", "link")
        found[form] = sandbox.json("data", "stats", f"whole-{form}")
    return found


def _split(sandbox: Sandbox) -> dict[str, Any]:
    found = {}
    for name, options in (
        ("coco", ("--split", "0.6,0.2,0.2")),
        ("folders", ("--seed", "3")),
        ("voc", ("--anew", "--images", "none")),
    ):
        printed = sandbox.json("data", "split", name, "--out", f"{name}-split", *options)
        found[name] = {"json": printed, "files": sandbox.contents(f"{name}-split")}
    return found


def _agree(sandbox: Sandbox) -> dict[str, Any]:
    lines = [
        f"{image}.png,{label},{annotator}"
        for image, labels in _ANSWERS.items()
        for annotator, label in zip(("ann", "bob", "eve"), labels.split(), strict=True)
    ]
    (sandbox.folder / "answers.csv").write_text("\n".join(["image,label,annotator", *lines]) + "\n")
    found = {"answers": sandbox.json("data", "agree", "answers.csv", "--consensus", "agreed.csv")}
    found["consensus"] = (sandbox.folder / "agreed.csv").read_text().splitlines()
    for annotator, shift in (("ann", 0), ("bob", 3), ("eve", 9)):
        _annotate(sandbox.folder / annotator, shift)
    sets = ("ann", "bob", "eve")
    found["boxes"] = sandbox.json("data", "agree", *sets, "--consensus", "agreed", "--to", "coco", "--images", "none")
    return {**found, "agreed": sandbox.contents("agreed")}


def _annotate(folder: Path, shift: int) -> None:
    """The same drawn objects, with boxes that are shifted, and every seventh left out."""
    objects(folder, {"train": 8})
    for number, path in enumerate(sorted((folder / "train" / "annotations").iterdir())):
        text = path.read_text()
        value = int(text.partition("<xmin>")[2].partition("<")[0])
        text = text.replace(f"<xmin>{value}<", f"<xmin>{max(1, value - shift)}<", 1)
        if shift and number % 7 == shift % 7:
            text = text.replace("disc", "square")
        path.write_text(text)
