"""``simple_cnn`` and ``lenet5`` from scratch on Fashion-MNIST, with hubel's commands.

    python benchmarks/fashion_mnist.py --model simple_cnn

Options of ``hubel train`` after ``--`` replace the recipe's. Unpacks the IDX files (Debian package
``dataset-fashion-mnist``) into class folders once, trains on the 60,000 training images, of which 5 % are held back to
choose the epoch, and then scores the 10,000 test images.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
# simple_cnn has these as its defaults. The articles are upright and fill the image: crops and rotations only make them
# harder to distinguish.
RECIPE = (
    *("--epochs", "34", "--schedule", "one-cycle", "--learning-rate", "0.0015", "--label-smoothing", "0.03"),
    *("--batch", "128", "--augment", "flip,cutmix"),
)
HELD_BACK = 20  # every 20th training image is used for validation


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes: two zero bytes, the type 8, the number of dimensions, the sizes, the data."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if content[:3] != b"\0\0\x08":
        sys.exit(f"{path} is not an IDX file of bytes")
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def unpack(source: Path, target: Path) -> None:
    """Write ``target/SPLIT/CLASS/NUMBER.png``."""
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(next(source.glob(f"{prefix}-images-idx3-ubyte*")))
        labels = read_idx(next(source.glob(f"{prefix}-labels-idx1-ubyte*")))
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            split = "val" if part == "train" and number % HELD_BACK == 0 else part
            folder = target / split / CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number:05}.png", compress_level=1)


def hubel(*words: str) -> dict:
    """Run a command and return the output of ``--json``."""
    done = subprocess.run(
        [sys.executable, "-m", "hubel", *words, "--json"], stdout=subprocess.PIPE, check=True, text=True
    )
    return json.loads(done.stdout)


def main() -> None:
    """Unpack, train, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--folder", type=Path, help="keep the unpacked images and the run here")
    parser.add_argument("--model", default="simple_cnn")
    parser.add_argument("options", nargs="*", help="further options of hubel train, after --")
    arguments = parser.parse_args()
    if not list(arguments.source.glob("train-images-idx3-ubyte*")):
        sys.exit(
            f"{arguments.source} has no Fashion-MNIST: apt install dataset-fashion-mnist, or pass another --source"
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        data, run = folder / "fashion-mnist", folder / arguments.model
        if not data.exists():
            unpack(arguments.source, data)
        recipe = () if arguments.model == "simple_cnn" else RECIPE
        trained = hubel("train", str(data), "--model", arguments.model, "--out", str(run), *recipe, *arguments.options)
        scored = hubel("evaluate", trained["run"], str(data), "--split", "test")
    print(f"{arguments.model}: test accuracy {scored['metrics']['top1']:.4f} on {scored['images']} images, ", end="")
    print(f"epochs {trained['seconds']:.0f} s")


if __name__ == "__main__":
    main()
