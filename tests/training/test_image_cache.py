"""Pixels kept between epochs, random changes of whole batches: the same as one by one, from disk, by torchvision."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from test_train import QUICK, learned, quick_arguments, start, wait_for_epoch
from torchvision.transforms import v2

from drawn_shapes import write_shapes
from full_disk import disk_full_at
from hubel.data.image_io import read_image, read_size
from hubel.data.loader import BatchDataset, EpochSampler, PixelCache, disk_block, make_dataloader, memory_block
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Sample
from hubel.data.transforms.image_transform import ImageTransform
from hubel.data.transforms.pipeline import Decoded
from hubel.training.cache_budget import allocate_block
from hubel.training.data_module import choose_workers
from hubel.training.train import train

BILINEAR = v2.InterpolationMode.BILINEAR


def photographs(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 256, (6, 8, 3), dtype=np.uint8) for _ in range(count)]
    return [np.asarray(Image.fromarray(pixels).resize((90, 64), Image.Resampling.BICUBIC)) for pixels in small]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("names", ["flip", "crop flip", "rotation crop color", "flip contrast", "none"])
def test_batches_are_what_torchvision_makes_of_single_images(names: str, channels: int) -> None:
    size = Preprocessing(32, 32, channels=channels, crop_fraction=1.0)
    transforms = {
        "rotation": v2.RandomRotation(15, interpolation=BILINEAR),
        "crop": v2.RandomResizedCrop(32, scale=(0.35, 1.0), ratio=(3 / 4, 4 / 3), interpolation=BILINEAR),
        "flip": v2.RandomHorizontalFlip(),
        "contrast": v2.ColorJitter(brightness=0.2, contrast=0.2),
        "color": v2.ColorJitter(saturation=0.2, hue=0.02),
    }
    pixels, images = ImageTransform(size, names.split()), [Image.fromarray(array) for array in photographs(12)]
    empty = Sample(Path("none"))
    decoded: list[list[Decoded]] = [[pixels.decoded(pixels.prepare(image), empty)] for image in images]
    got, _ = pixels(decoded, range(100, 112))
    for image, row, seed in zip(images, got, range(100, 112), strict=True):
        image = image.convert("L" if channels == 1 else "RGB")
        if "crop" not in names:  # cut and scaled as for prediction: the central square
            image = image.resize((32, 32), Image.Resampling.BILINEAR, box=(12, 0, 76, 64))
        torch.manual_seed(seed)
        for name in names.replace("none", "").split():
            image = transforms[name](image)
        assert np.array_equal(row, np.asarray(image).reshape(32, 32, channels))


def test_what_is_much_larger_than_the_input_is_reduced_without_visible_change() -> None:
    """Against Pillow's scaling of the original in one step, on the smallest crop of all."""
    pixels = ImageTransform(Preprocessing(24, 24), ("crop",))
    image = Image.fromarray(load_sample_image("china.jpg"))
    factor, side = 4, 252  # 252² / (640 · 427) = 0.23 of the area: 0.35 of it at a ratio of 3/4 is as narrow
    assert pixels.cached_shape(640, 427) == pixels.prepare(image).shape == (107, 160, 3)
    box = (100, 48, 100 + side, 48 + side)
    reduced = Image.fromarray(pixels.prepare(image)).crop(tuple(edge // factor for edge in box))
    kept, original = (
        np.asarray(part.resize((24, 24), Image.Resampling.BILINEAR), int) for part in (reduced, image.crop(box))
    )
    assert np.abs(kept - original).mean() < 1.3
    small = ImageTransform(Preprocessing(192, 192), ("crop",))
    assert small.cached_shape(320, 240) == (240, 320, 3) and small.cached_shape(1024, 700) == (700, 1024, 3)


def test_large_photographs_are_decoded_reduced_and_fit_into_the_cache(tmp_path: Path) -> None:
    """Also turned ones, and such as are not JPEG; against whole decoding and Pillow's means of blocks."""
    photograph = Image.fromarray(load_sample_image("flower.jpg"))
    turned = photograph.getexif()
    turned[0x0112] = 6
    photograph.save(tmp_path / "plain.jpg", quality=95)
    photograph.save(tmp_path / "turned.jpg", quality=95, exif=turned)
    photograph.save(tmp_path / "other.png")
    pixels, paths = ImageTransform(Preprocessing(24, 24), ("crop",)), sorted(tmp_path.iterdir())
    shapes = [pixels.cached_shape(*read_size(path)) for path in paths]
    cache = PixelCache(memory_block(PixelCache.needed(shapes)), shapes)
    images = BatchDataset([Sample(path, 0) for path in paths], pixels, 3, cache)
    images.__getitems__([(1, 0), (1, 1), (1, 2)])
    for index, path in enumerate(paths):
        kept, means = cache.get(index), np.asarray(read_image(path).reduce(4), int)
        assert kept is not None and np.abs(kept - means).mean() < 1.5


def test_processes_fill_one_cache_and_find_the_same_pixels_in_it(tmp_path: Path) -> None:
    paths = sorted(write_shapes(tmp_path, {"disc": 9}).rglob("*.png"))
    pixels = ImageTransform(Preprocessing(16, 16), ("crop", "flip"))
    shapes = [pixels.cached_shape(32, 32)] * 9
    cache = PixelCache(memory_block(PixelCache.needed(shapes)), shapes)
    seen = []
    for kept in (None, cache, cache):
        images = BatchDataset([Sample(path, 0) for path in paths], pixels, 3, kept)
        seen.append([batch.pixels for batch in make_dataloader(images, EpochSampler(9, 3, shuffle=True), 2, workers=2)])
    for index, path in enumerate(paths):  # written by the processes, read by this one
        assert np.array_equal(cache.get(index), np.asarray(Image.open(path)))
        path.unlink()
    images = BatchDataset([Sample(path, 0) for path in paths], pixels, 3, cache)
    seen.append([batch.pixels for batch in make_dataloader(images, EpochSampler(9, 3, shuffle=True), 2, workers=0)])
    assert all(torch.equal(torch.cat(seen[0]), torch.cat(other)) for other in seen[1:])


def test_an_image_that_has_changed_its_size_is_not_kept() -> None:
    cache = PixelCache(memory_block(PixelCache.needed([(2, 2, 1), (0, 0, 0)])), [(2, 2, 1), (0, 0, 0)])
    cache.put(0, np.zeros((3, 2, 1), np.uint8))
    cache.put(1, np.zeros((3, 2, 1), np.uint8))
    assert cache.get(0) is None and cache.get(1) is None


def test_room_is_found_in_memory_then_on_disk_then_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "cache"))
    free = {"ram": 4000, "disk": 40_000}
    monkeypatch.setattr("hubel.training.cache_budget._free", free.__getitem__)
    assert allocate_block(1000, "auto")[1] == "in memory, 1 kB"
    assert allocate_block(1001, "auto")[1] == "on disk, 1 kB"
    block, why = allocate_block(10_001, "auto")
    assert block is None and "1 kB allowed in memory" in why and "10 kB allowed on disk" in why
    assert allocate_block(3000, "ram")[0] is not None and allocate_block(3001, "ram")[0] is None
    monkeypatch.undo()
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "cache"))
    with disk_full_at(1 << 20):
        block, why = allocate_block(3 << 20, "disk")
    assert block is None and "there is no room on disk (File too large)" in why
    assert list((tmp_path / "cache").iterdir()) == []  # nothing is left of either
    block = disk_block(100, tmp_path)
    block[:3] = b"abc"
    assert block[:4] == b"abc\0"


def test_runs_with_and_without_a_cache_are_equal(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubel.training.train.finish", lambda training, *rest: training)  # no reports
    settings = {**QUICK, "epochs": 3, "augmentation": "crop,flip", "workers": 1}
    runs = [train(shapes, out=tmp_path / cache, cache=cache, **settings) for cache in ("none", "ram", "disk")]
    output = capsys.readouterr().err
    assert output.count("cached in memory") == output.count("cached on disk") == 1
    monkeypatch.setattr("hubel.training.cache_budget._free", {"ram": 9, "disk": 9}.__getitem__)
    runs.append(train(shapes, out=tmp_path / "full", **settings))
    assert (
        "images are decoded in every epoch: they take 160 kB, more than the 2 bytes allowed" in capsys.readouterr().err
    )
    assert all(learned(run.folder) == learned(runs[0].folder) for run in runs)


def test_a_killed_loading_process_ends_the_run_with_a_word_and_it_resumes(shapes: Path, tmp_path: Path) -> None:
    process = start(shapes, tmp_path / "run", *quick_arguments(epochs=60, workers=1, patience=60))
    wait_for_epoch(tmp_path / "run", 1, process)
    for child in psutil.Process(process.pid).children():
        child.send_signal(signal.SIGKILL)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and "Traceback" not in message
    assert "a data-loading worker exited unexpectedly" in message and "--resume" in message
    done = len(learned(tmp_path / "run"))
    process = start(shapes, tmp_path / "run", "--resume")
    wait_for_epoch(tmp_path / "run", done + 1, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


class Clock:
    """Time that passes only when fake work says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("decoding", "contention", "chosen", "tried"),
    [(0.001, 0.0, 0, []), (0.5, 0.1, 1, [0, 1, 2]), (0.5, 0.8, 0, [0, 1, 2]), (4.0, 0.0, 4, [0, 1, 2, 4])],
)
def test_as_many_processes_load_as_make_it_fastest(
    monkeypatch: pytest.MonkeyPatch, decoding: float, contention: float, chosen: int, tried: list[int]
) -> None:
    """A step takes a second, and longer by ``contention`` for each process that decodes beside it."""
    clock, asked = Clock(), []
    monkeypatch.setattr("hubel.training.data_module.time.perf_counter", clock)

    class Loader:
        def __init__(self, workers: int) -> None:
            self.workers = workers
            asked.append(workers)

        def __iter__(self):
            for _ in range(4):
                clock.now += max(0.0, decoding / self.workers - 1) if self.workers else decoding
                yield type("Batch", (), {"indices": range(8), "workers": self.workers})()

    def step(batch) -> None:
        clock.now += 1 + contention * batch.workers

    found = choose_workers(Loader, step, most=4)
    assert found.count == chosen and asked[1:] == tried
    assert ("preparing an image takes" in found.reason) == (not tried)
