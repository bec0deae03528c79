"""Instance segmentation of COCO photographs: can Mask R-CNN learn 100 of them, and does it find persons in others?

    python benchmarks/coco_polygons.py --part learn [--epochs N] [--out DIR]
    python benchmarks/coco_polygons.py --part persons

``learn`` trains on the 100 images of ``coco128`` that have outlines, of 69 classes with as few as one object, and
scores on those same images: it shows that the network, its losses and its masks can fit what they see, and nothing
about other images. Exits with 1 if the mask AP50 is below 0.6. ``persons`` keeps the outlines of persons alone, trains
on 64 images, chooses the epoch on 16, and scores on the 20 others.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hubel

TARGET = 0.6
PERSON = "person"
OPTIONS: dict[str, dict[str, Any]] = {
    "learn": {"epochs": 40, "patience": 40, "augmentation": ("flip",)},  # what is scored is what was seen
    "persons": {},
}


def main() -> None:
    """Split, train, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("learn", "persons"), default="learn")
    parser.add_argument("--data", type=Path, default=os.environ.get("HUBEL_DATA"), help="folder of coco128")
    parser.add_argument("--model", default="mask_rcnn")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, help="folder of the images and the run; by default they are removed")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("set HUBEL_DATA, or pass --data")
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.out or Path(scratch)
        split = learn_splits if arguments.part == "learn" else person_splits
        split(arguments.data / "coco128", folder / "data")
        options = OPTIONS[arguments.part] | ({"epochs": arguments.epochs} if arguments.epochs else {})
        result = hubel.train(
            folder / "data",
            out=folder / "run",
            task="instances",
            model=arguments.model,
            seed=arguments.seed,
            threads=arguments.threads,
            **options,
        )
        scored = "train" if arguments.part == "learn" else "test"
        metrics = hubel.evaluate(folder / "run", folder / "data", split=scored).to_json()["metrics"]
    for name in ("mask_AP50", "mask_AP75", "mask_AP", "boundary_AP", "AP50", "AP"):
        print(f"{name:<12} {metrics[name]:.4f}")
    print(f"{result.seconds:.0f} s, best epoch {result.best_epoch}, scored on {scored}")
    if arguments.part == "learn" and metrics["mask_AP50"] < TARGET:
        raise SystemExit(f"mask AP50 is below {TARGET}")


def learn_splits(source: Path, root: Path) -> None:
    """All images for training, every fifth of them for validation, too."""
    document = json.loads((source / "instances_panoptic100.json").read_text())
    write(source, root / "train", document, document["images"])
    write(source, root / "val", document, document["images"][::5])


def person_splits(source: Path, root: Path) -> None:
    """64 images for training, 16 for validation, 20 held out."""
    document = json.loads((source / "instances_panoptic100.json").read_text())
    document["categories"] = [each for each in document["categories"] if each["name"] == PERSON]
    kept = {each["id"] for each in document["categories"]}
    document["annotations"] = [row for row in document["annotations"] if row["category_id"] in kept]
    images = document["images"]
    others = [image for number, image in enumerate(images) if number % 5]
    write(source, root / "test", document, images[::5])
    write(source, root / "val", document, others[::5])
    write(source, root / "train", document, [image for number, image in enumerate(others) if number % 5])


def write(source: Path, folder: Path, document: dict[str, Any], images: list[dict[str, Any]]) -> None:
    """Copy images and write their outlines: ``NAME.jpg``, ``labels.json``."""
    folder.mkdir(parents=True)
    shown = {image["id"] for image in images}
    for image in images:
        shutil.copyfile(source / "images" / image["file_name"], folder / image["file_name"])
    rows = [row for row in document["annotations"] if row["image_id"] in shown]
    (folder / "labels.json").write_text(json.dumps({**document, "images": images, "annotations": rows}))


if __name__ == "__main__":
    main()
