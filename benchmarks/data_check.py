"""Time of ``hubel data check`` on 10,000 labelled images of 640 × 480 pixels.

    HUBEL_DATA=... python benchmarks/data_check.py [FOLDER] [--images 10000] [--film]

The images are random crops of those in a folder (coco128, bccd and raccoon), half of them mirrored, and saved as JPEG,
each with seven random boxes of twenty classes. With ``--film`` they are a slow pan over one image, so that each
resembles thousands of others. The command runs in a new process; its processor seconds are those of one core, whatever
else the machine does. The program exits with 1 if they exceed a minute for 10,000 images.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

from PIL import Image

SIZE = (640, 480)
_FOLDERS = ("coco128", "bccd", "raccoon")
_BAR = 60 / 10_000


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        pil_images = _film(arguments.files[0], arguments.images) if arguments.film else _cut(arguments)
        labels = _write(Path(folder), pil_images)
        start, before = time.perf_counter(), _spent()
        command = [sys.executable, "-m", "hubel", "data", "check", str(labels), "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
        wall, spent = time.perf_counter() - start, _spent() - before
    report = json.loads(done.stdout)
    print(f"{report['pictures']:,} images, {report['objects']:,} objects, {len(report['findings']):,} findings")
    print(f"{spent:.1f} processor seconds, {wall:.1f} s wall-clock time")
    sys.exit(spent > _BAR * arguments.images)


def _arguments() -> argparse.Namespace:
    data = os.environ.get("HUBEL_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--film", action="store_true")
    arguments = parser.parse_args()
    folders = [arguments.folder] if arguments.folder else [Path(data, name) for name in _FOLDERS if data]
    arguments.files = sorted(path for folder in folders for path in folder.rglob("*.jpg"))
    if not arguments.files:
        parser.error("name a folder of JPEG files, or set HUBEL_DATA")
    return arguments


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cut(arguments: argparse.Namespace) -> Iterator[Image.Image]:
    dice = random.Random(0)
    for file in islice(cycle(arguments.files), arguments.images):
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        share = dice.uniform(0.35, 0.75)
        width, height = image.width * share, image.height * share
        x, y = dice.uniform(0, image.width - width), dice.uniform(0, image.height - height)
        part = image.resize(SIZE, Image.Resampling.BILINEAR, (x, y, x + width, y + height))
        yield part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if dice.random() < 0.5 else part


def _film(file: Path, frames: int) -> Iterator[Image.Image]:
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    for number in range(frames):
        x, y = (0.02 * side * number / frames for side in image.size)
        box = (x, y, x + 0.98 * image.width, y + 0.98 * image.height)
        yield image.resize(SIZE, Image.Resampling.BILINEAR, box)


def _write(folder: Path, pil_images: Iterator[Image.Image]) -> Path:
    """Write the images and their labels in COCO's format."""
    dice = random.Random(1)
    images, boxes = [], []
    for number, image in enumerate(pil_images, 1):
        name = f"{number:06}.jpg"
        image.save(folder / name, quality=90)
        images.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for _ in range(7):
            w, h = (dice.uniform(20, 200) for _ in SIZE)
            box = [dice.uniform(0, SIZE[0] - w), dice.uniform(0, SIZE[1] - h), w, h]
            boxes.append({"id": len(boxes) + 1, "image_id": number, "category_id": dice.randint(1, 20), "bbox": box})
    categories = [{"id": number, "name": f"class{number}"} for number in range(1, 21)]
    labels = folder / "labels.json"
    labels.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}), encoding="utf-8")
    return labels


if __name__ == "__main__":
    main()
