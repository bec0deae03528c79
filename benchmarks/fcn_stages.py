"""FCN-32s, 16s and 8s in the paper's order, each from the one before, and FCN-8s all at once, on CamVid.

Long, Shelhamer and Darrell 2015, arXiv 1411.4038, table 2, has 59.4, 62.4 and 62.7 on Pascal VOC.

    python benchmarks/fcn_stages.py --out runs/fcn-stages

Each stage has as many epochs as the training at once; with ``--long``, FCN-8s is also trained at once for as many as
all three together. Runs lie in ``--out``: what is finished there is not trained again, what was interrupted goes on.
Seconds and epochs of a stage include those before it.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from hubel.console import print_table
from hubel.tables import Table
from hubel.training.train import train

_STAGES = ("fcn32s", "fcn16s")
_TITLES = ("Network", "Training", "Epochs", "Mean IoU", "Pixel accuracy", "Seconds")


def results(folder: Path) -> dict[str, Any]:
    """The results of a finished run; none for others."""
    path = folder / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def trained(data: Path, folder: Path, **options: Any) -> dict[str, Any]:
    """The results of a run, which is trained, or goes on, unless it is finished."""
    if not results(folder):
        train(data, out=folder, resume=(folder / "config.yaml").is_file(), model="fcn8s", **options)
    return results(folder)


def row(found: dict[str, Any], training: str, epochs: int, seconds: float) -> list[str]:
    """A row of the table."""
    metrics = found["validation"]
    figures = (f"{metrics['mean_iou']:.4f}", f"{metrics['pixel_accuracy']:.4f}", f"{seconds:.0f}")
    return [found["model"], training, str(epochs), *figures]


def main() -> None:
    """Train what is missing, and print a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("HUBEL_DATA", ".")) / "camvid"
    parser.add_argument("--data", type=Path, default=default, help="images with masks; HUBEL_DATA/camvid by default")
    parser.add_argument("--out", type=Path, default=Path("runs/fcn-stages"), help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=15, help="of each stage, and of the training at once")
    parser.add_argument("--long", action="store_true", help="also train at once for three times as many epochs")
    parser.add_argument("--backbone", default="efficientnet_lite0", help="vgg16 is the paper's")
    parser.add_argument("--image-size", type=int, help="shorter side of the input; the default of hubel train")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    common = {name: getattr(given, name) for name in ("backbone", "image_size", "batch", "seed")}
    folder, count = given.out / "staged", given.epochs
    last = trained(given.data, folder, staged=True, epochs=count, **common)
    rows, seconds = [], 0.0
    for number, name in enumerate(_STAGES, 1):
        found = results(folder / "stages" / name)
        seconds += found["seconds"]
        rows.append(row(found, "in stages", number * count, seconds))
    rows.append(row(last, "in stages", (len(_STAGES) + 1) * count, last["seconds"]))
    for epochs in (count, *([(len(_STAGES) + 1) * count] if given.long else [])):
        found = trained(given.data, given.out / f"at-once-{epochs}", epochs=epochs, **common)
        rows.append(row(found, "at once", epochs, found["seconds"]))
    print_table(Table(_TITLES, rows, left=2))


if __name__ == "__main__":
    main()
