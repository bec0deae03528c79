"""Photographs in every form that prediction takes, and files that it has to refuse."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112


def sample_photographs(folder: Path) -> list[str]:
    """Copies of scikit-learn's two sample photographs."""
    import sklearn.datasets

    folder.mkdir(parents=True, exist_ok=True)
    source = Path(sklearn.datasets.__file__).parent / "images"
    return [str(shutil.copy(source / name, folder / name)) for name in ("china.jpg", "flower.jpg")]


def in_many_forms(photograph: str, folder: Path) -> None:
    """The photograph in other formats and modes, small enough to be quick."""
    folder.mkdir()
    image = Image.open(photograph).convert("RGB").resize((320, 214))
    image.convert("P", palette=Image.Palette.WEB).save(folder / "palette.png")
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    image.convert("L").save(folder / "grey.bmp")
    image.convert("L").convert("1").save(folder / "two_levels.tiff")
    image.save(folder / "frames.gif", save_all=True, append_images=[image.rotate(180)])
    image.save(folder / "lossless.webp", lossless=True)
    levels = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(levels).save(folder / "sixteen_bits.png")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, 100, 100))
    transparent = image.copy()
    transparent.putalpha(alpha)
    transparent.save(folder / "transparent.png")
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    image.rotate(90, expand=True).save(folder / "turned.jpg", exif=exif, quality=95)


def bad_files(photograph: str, folder: Path) -> None:
    """A truncated, an empty and a wrong file beside a good one."""
    folder.mkdir()
    whole = Path(photograph).read_bytes()
    (folder / "good.jpg").write_bytes(whole)
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "words.png").write_bytes(b"not an image")
