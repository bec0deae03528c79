"""The two photographs that scikit-learn brings along, and so every installation has."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from hubel.errors import DataError


def sample_photographs() -> list[Path]:
    """Paths of a palace's roof and a dahlia, both RGB, 640 × 427; raises :class:`DataError` if they are not there."""
    spec = find_spec("sklearn")  # importing scikit-learn takes seconds
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        paths = [Path(folder, "datasets", "images", name) for name in ("china.jpg", "flower.jpg")]
        if all(path.is_file() for path in paths):
            return paths
    raise DataError("scikit-learn's sample photographs are not installed.", "pip install scikit-learn")


def write_in_sizes(target: Path, widths: tuple[int, ...]) -> list[Path]:
    """Write the photographs, scaled to each of the widths in pixels, as JPEG files of quality 90 into a folder."""
    from PIL import Image

    paths = []
    for source in sample_photographs():
        with Image.open(source) as photograph:
            for width in widths:
                height = round(photograph.height * width / photograph.width)
                path = target / f"{source.stem}-{width}.jpg"
                photograph.resize((width, height), Image.Resampling.LANCZOS).save(path, quality=90)
                paths.append(path)
    return paths
