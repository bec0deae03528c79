"""What is fuzzed: each reader of files that may come from somebody else, with sound files to damage."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from fuzz.saved import SAVED
from fuzz.target import Target
from hubel.data.agreement.ratings import read_ratings
from hubel.data.annotations import read_annotations, write_annotations
from hubel.data.annotations.registry import FORMAT_NAMES
from hubel.data.image_io import read_image, read_reduced, read_size
from hubel.data.instances import read_instances
from hubel.data.mask_file import read_class_map
from hubel.data.mask_folder import read_mask_folder
from hubel.data.mot import read_mot_text
from hubel.data.object_masks import read_object_masks
from hubel.data.transforms.geometry import View, Window
from hubel.data.transforms.shapes import draw_shapes
from hubel.data.video_reader import video_frames, video_length
from hubel.errors import HubelError
from labelled_sets import small_set


def _labels(name: str) -> Target:
    def prepare(folder: Path) -> list[Path]:
        dataset = small_set(folder / "images")
        write_annotations(dataset, name, folder / "data")
        files = (path for path in sorted((folder / "data").rglob("*")) if path.is_file())
        return [path for path in files if path.suffix.lower() not in (".jpg", ".png")]

    def read(path: Path) -> None:
        root = next(parent for parent in path.parents if parent.name == "data")
        faults: list[HubelError] = []
        read_annotations(root, on_fault=faults.append)
        with contextlib.suppress(HubelError):
            for sample in (each for split in read_object_masks(root).splits.values() for each in split):
                assert sample.class_map is not None
                sample.class_map.read()
        with contextlib.suppress(HubelError):
            for sample in (each for split in read_instances(root).splits.values() for each in split):
                assert sample.shapes is not None and len(sample.shapes) == len(sample.boxes)
                if sample.width and sample.height:
                    sample.masks()
                    draw_shapes(sample.shapes, sample.width, sample.height, View(Window(0.2, -0.3, 0.9, 2), 40, 32))
        if faults:
            raise faults[0]

    return Target(prepare, read)


def _write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _mot(folder: Path) -> list[Path]:
    rows = [f"{f},{f % 3 + 1},{f}.5,20,16,40,0.9,-1,-1,-1\n" for f in range(1, 30)]
    truth = [f"{f} {f % 3 + 1} {f} 20 16 40 1 1 0.5\n" for f in range(1, 30)]
    return [_write(folder, "det.txt", "".join(rows).encode()), _write(folder, "gt.txt", "".join(truth).encode())]


def _read_mot(path: Path) -> None:
    boxes = read_mot_text(path)
    assert sum(rows.stop - rows.start for _, rows in boxes.by_frame()) == len(boxes)


def _weights(folder: Path) -> list[Path]:
    import torch
    from safetensors.torch import save_file

    state = {
        "conv.weight": torch.ones(4, 3, 3, 3),
        "conv.bias": torch.zeros(4),
        "bn.num_batches_tracked": torch.tensor(7),
    }
    save_file(state, folder / "a.safetensors")
    torch.save(state, folder / "b.pth")
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, folder / "c.pt")
    torch.save(state, folder / "d.pth", _use_new_zipfile_serialization=False)
    _write(folder, "e.weights", np.array([0, 2, 0, 5, 0], "<i4").tobytes() + np.ones(40, "<f4").tobytes())
    return sorted(folder.iterdir())


def _read_weights(path: Path) -> None:
    from hubel.weights.state_dict import read_state_dict

    read_state_dict(path)


def _keras_weights(folder: Path) -> list[Path]:
    import h5py

    with h5py.File(folder / "a.weights.h5", "w") as file:
        for n in range(2):
            file.create_dataset(f"layers/conv2d_{n}/vars/0", data=np.ones((3, 3, 2, 2), np.float32))
            file.create_dataset(f"layers/conv2d_{n}/vars/1", data=np.zeros(2, np.float32))
    return [folder / "a.weights.h5"]


def _tensorflow_graph(folder: Path) -> list[Path]:
    from tensorflow_graphs import graph_of, tensor_of

    ones = np.ones((3, 3, 2, 4), np.float32)
    tensors = {"Net/Conv/weights": ones, "Net/Conv/biases": tensor_of(ones[0, 0, 0], one_by_one=True)}
    return [_write(folder, "a.pb", graph_of(tensors))]


_IMAGES: dict[str, dict[str, Any]] = {
    ".jpg": {"quality": 70}, ".png": {}, ".webp": {"quality": 60}, ".bmp": {}, ".tif": {"compression": "tiff_lzw"},
    ".gif": {}, ".jp2": {}, ".ppm": {}, ".avif": {},
}  # fmt: skip


def _images(folder: Path) -> list[Path]:
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix, settings in _IMAGES.items():
        if Image.registered_extensions().get(suffix) in Image.SAVE:
            image.save(folder / f"a{suffix}", **settings)
    image.convert("CMYK").save(folder / "cmyk.jpg", exif=exif, progressive=True)
    image.quantize(16).save(folder / "palette.png", transparency=0)
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    image.quantize(16).save(folder / "palette.tif")
    return sorted(folder.iterdir())


def _read_image(path: Path) -> None:
    data, faults = path.read_bytes(), []
    for read in (read_image, read_size, lambda source: read_reduced(source, lambda width, height: 4.0)):
        try:
            read(data)
        except HubelError as error:
            faults.append(error)
    if faults:
        raise faults[0]


def _ratings(folder: Path) -> list[Path]:
    """A table of two people, and one for each of two others; their images need not exist."""
    rows = [("a.jpg", "ann", "cat"), ("a.jpg", "bob", "dog"), ("b.jpg", "ann", "dog"), ("b.jpg", "bob", "dog")]
    both = "image,annotator,label\n" + "".join(f"{','.join(row)}\n" for row in rows)
    alone = "Label;Image\ncat;a.jpg\ndog;b.jpg\n"
    return [_write(folder, name, text.encode()) for name, text in (("both.csv", both), ("cy.csv", alone))]


def _read_ratings(path: Path) -> None:
    ratings = read_ratings([path.with_name("both.csv"), path.with_name("cy.csv")])
    assert ratings.table.shape == (len(ratings.items), len(ratings.annotators))


def _class_names(folder: Path) -> list[Path]:
    for name in ("images", "masks"):
        (folder / name).mkdir()
        for n in range(2):
            Image.fromarray(np.full((8, 8), n, np.uint8)).save(folder / name / f"{n}.png")
    return [_write(folder, "classes.txt", b"0 sky\n1 grass\n2 a cow (ignore)\n")]


def _read_class_names(path: Path) -> None:
    dataset = read_mask_folder(path.parent)
    assert dataset.classes


def _class_maps(folder: Path) -> list[Path]:
    values = np.random.default_rng(0).integers(0, 5, (40, 56), dtype=np.uint8)
    Image.fromarray(values).save(folder / "grey.png")
    palette = Image.fromarray(values, "P")
    palette.putpalette(list(range(15)))
    palette.save(folder / "palette.png")
    palette.save(folder / "palette.gif")
    return sorted(folder.iterdir())


def _videos(folder: Path) -> list[Path]:
    codecs = {"mp4": "libx264", "mkv": "libx264", "avi": "mpeg4", "ts": "mpeg2video", "flv": "flv", "webm": "libvpx"}
    for suffix, codec in codecs.items():
        if codec not in av.codecs_available:
            continue
        with av.open(str(folder / f"a.{suffix}"), "w", format="mpegts" if suffix == "ts" else None) as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for n in range(12):
                pixels = np.full((48, 64, 3), 20 * n, np.uint8)
                pixels[:, 4 * n : 4 * n + 8] = 255 - 20 * n
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
    return sorted(folder.iterdir())


def _read_video(path: Path) -> None:
    faults: list[HubelError] = []
    with contextlib.suppress(HubelError):
        video_length(path, "video")
    for count, frame in enumerate(video_frames(path, "video", faults.append)):
        if count < 3:
            frame.array()
    if faults:
        raise faults[0]


TARGETS: dict[str, Target] = {
    **{f"labels-{name}": _labels(name) for name in FORMAT_NAMES},
    "mot-text": Target(_mot, _read_mot),
    **SAVED,
    "weights": Target(_weights, _read_weights, megabytes=400),
    "keras-weights": Target(_keras_weights, _read_weights),
    "tensorflow-graph": Target(_tensorflow_graph, _read_weights),
    "ratings": Target(_ratings, _read_ratings),
    "class-names": Target(_class_names, _read_class_names),
    "images": Target(_images, _read_image, seconds=10, megabytes=2500),
    "class-maps": Target(_class_maps, read_class_map, megabytes=800),
    "video": Target(_videos, _read_video, seconds=20, megabytes=800),
}
"""By name. An image may be as large as 179 megapixels by its header, which decoders take memory for."""
