"""Draw the README's images of a detector and a tracker: garments of Fashion-MNIST on a table.

    python docs/draw_garments.py [detector] [tracker]

The detector is trained for some minutes on rendered tables with garments of the training images, and predicts one with
garments of the test images: ``docs/images/detector.jpg``. For the tracker a film is rendered, in which garments slide;
they are tracked by noisy boxes, a tenth of which are missing, with DeepSORT: ``docs/images/tracker.jpg``. Fashion-MNIST
(MIT licence) is Debian's package ``dataset-fashion-mnist``.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageFilter

IMAGES = Path(__file__).resolve().parent / "images"
SOURCE = Path("/usr/share/datasets/fashion-mnist")
CLASSES = {"trousers": 1, "dress": 3, "sneaker": 7, "bag": 8}
"""Names of the classes, and their labels in Fashion-MNIST."""

COLOURS = ((205, 92, 60), (60, 110, 170), (225, 180, 80), (90, 140, 90), (150, 90, 140), (235, 235, 225))
SIZE = (480, 320)

Placed = tuple[int, int, int, int]


def read_garments(split: str) -> list[list[np.ndarray]]:
    """Images (28, 28) uint8 by class of :data:`CLASSES`."""
    images = _read_idx(SOURCE / f"{split}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    labels = _read_idx(SOURCE / f"{split}-labels-idx1-ubyte.gz", 8)
    return [list(images[labels == label][:1500]) for label in CLASSES.values()]


def _read_idx(path: Path, header: int) -> np.ndarray:
    with gzip.open(path) as file:
        return np.frombuffer(file.read()[header:], np.uint8)


def table(rng: np.random.Generator) -> Image.Image:
    """A wooden table: stripes of brown, of another frequency in each scene."""
    width, height = SIZE
    grain = rng.normal(0, 1, (height // 2, 24))
    stripes = np.asarray(Image.fromarray(grain.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC))
    base = np.array([150.0, 118, 86]) + rng.uniform(-25, 25)
    pixels = base + 9 * stripes[..., None] + rng.normal(0, 3, (height, width, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def paste(canvas: Image.Image, garment: np.ndarray, x: int, y: int, side: int, colour: tuple[int, int, int]) -> Placed:
    """Lay a garment on the table, tinted, with a shadow; its box x1, y1, x2, y2 in pixels."""
    large = Image.fromarray(garment).resize((side, side), Image.Resampling.BICUBIC)
    values = np.asarray(large, np.float32) / 255
    mask = Image.fromarray((255 * np.clip(4 * values, 0, 1)).astype(np.uint8))
    shadow = mask.filter(ImageFilter.GaussianBlur(3)).point(lambda value: value // 2)
    canvas.paste((40, 30, 20), (x + 3, y + 4), shadow)
    shade = np.array(colour) * (0.35 + 0.65 * values[..., None])
    canvas.paste(Image.fromarray(np.clip(shade, 0, 255).astype(np.uint8)), (x, y), mask)
    left, top, right, bottom = mask.point(lambda value: 255 if value > 128 else 0).getbbox() or (0, 0, side, side)
    return x + left, y + top, x + right, y + bottom


def scene(garments: list[list[np.ndarray]], rng: np.random.Generator) -> tuple[Image.Image, list[tuple[int, Placed]]]:
    """A table with up to six garments that hardly overlap; index of the class and box of each."""
    canvas, found = table(rng), []
    cells = rng.permutation([(x, y) for x in range(0, SIZE[0], 120) for y in range(0, SIZE[1], 160)])
    for x, y in cells[: rng.integers(3, 7)].tolist():
        label, side = int(rng.integers(len(garments))), int(rng.integers(84, 116))
        garment = garments[label][rng.integers(len(garments[label]))]
        colour = COLOURS[rng.integers(len(COLOURS))]
        x, y = (max(0, min(at + int(rng.integers(-8, 24)), end - side)) for at, end in zip((x, y), SIZE, strict=True))
        found.append((label, paste(canvas, garment, x, y, side, colour)))
    return canvas, found


def write_scenes(folder: Path, images: int = 240) -> None:
    """A COCO data set of tables with garments of the training images."""
    garments, rng = read_garments("train"), np.random.default_rng(1)
    (folder / "images").mkdir(parents=True)
    files, boxes = [], []
    for number in range(images):
        canvas, found = scene(garments, rng)
        name = f"{number:03}.png"
        canvas.save(folder / "images" / name)
        files.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for label, (x1, y1, x2, y2) in found:
            box = [x1, y1, x2 - x1, y2 - y1]
            boxes.append({"id": len(boxes), "image_id": number, "category_id": label, "bbox": box, "iscrowd": 0})
    classes = [{"id": label, "name": name} for label, name in enumerate(CLASSES)]
    labels = {"images": files, "annotations": boxes, "categories": classes}
    (folder / "labels.json").write_text(json.dumps(labels), encoding="utf-8")


def draw_detector(folder: Path) -> None:
    """Train, then predict a table that the detector has not seen."""
    write_scenes(folder / "tables")
    scene(read_garments("t10k"), np.random.default_rng(7))[0].save(folder / "table.png")
    hubel = [sys.executable, "-m", "hubel"]
    subprocess.run([*hubel, "train", "tables", "--epochs", "14", "--image-size", "192"], check=True, cwd=folder)
    command = ["predict", "table.png", "--model", "runs/tables", "--save", "out"]
    subprocess.run([*hubel, *command], check=True, cwd=folder)
    (saved,) = (folder / "out").iterdir()
    Image.open(saved).convert("RGB").save(IMAGES / "detector.jpg", quality=88)


def film(frames: int = 75) -> Iterator[tuple[Image.Image, list[Placed]]]:
    """Garments of the test images that cross each other's way, and their boxes, frame by frame."""
    garments, rng = read_garments("t10k"), np.random.default_rng(3)
    empty = table(rng)
    paths = (((0, 20), (370, 190)), ((380, 30), (10, 200)), ((180, 0), (200, 215)), ((30, 200), (340, 20)))
    chosen = [(garments[index % 4][7 + index], COLOURS[index], 100) for index in range(len(paths))]
    for number in range(frames):
        canvas, boxes = empty.copy(), []
        for (start, end), (garment, colour, side) in zip(paths, chosen, strict=True):
            share = number / (frames - 1)
            x, y = (round(a + share * (b - a)) for a, b in zip(start, end, strict=True))
            boxes.append(paste(canvas, garment, x, y, side, colour))
        yield canvas, boxes


def write_film(folder: Path) -> None:
    """``film.mp4`` (H.264, 25 frames a second) and ``det.txt``, boxes in MOTChallenge's text format."""
    rng = np.random.default_rng(4)
    with av.open(str(folder / "film.mp4"), "w") as container, (folder / "det.txt").open("w") as text:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number, (image, boxes) in enumerate(film(), 1):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
            for box in boxes:
                x1, y1, x2, y2 = box + rng.normal(0, 1.5, 4)
                if rng.random() > 0.1:
                    text.write(f"{number},-1,{x1:.1f},{y1:.1f},{x2 - x1:.1f},{y2 - y1:.1f},0.9,-1,-1,-1\n")
        container.mux(stream.encode(None))


def draw_tracker(folder: Path) -> None:
    """Render the film and track in it."""
    write_film(folder)
    command = [sys.executable, "-m", "hubel", "track", "film.mp4", "--detections", "det.txt"]
    subprocess.run([*command, "--tracker", "deepsort", "--save", "tracks.mp4"], check=True, cwd=folder)
    with av.open(f"{folder}/tracks.mp4") as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    frames[len(frames) * 5 // 6].save(IMAGES / "tracker.jpg", quality=88)


def main() -> None:
    """Draw the images that are named, or both."""
    drawings = {"detector": draw_detector, "tracker": draw_tracker}
    for name in sys.argv[1:] or drawings:
        with tempfile.TemporaryDirectory() as folder:
            drawings[name](Path(folder))


if __name__ == "__main__":
    main()
