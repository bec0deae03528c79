"""``hubel demo``: a first answer, offline, with what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubel.cli.manners import say

_MODEL = "efficientnet_lite0"
_PHOTOGRAPHS = ("china.jpg", "flower.jpg")


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the annotated pictures go.")] = Path("demo"),
) -> None:
    """Classify scikit-learn's two sample photographs with EfficientNet-Lite0, without a network connection.

    \b
    hubel demo
    hubel demo --out somewhere/
    """
    from hubel.runtime.annotated_files import AnnotatedFiles

    files = AnnotatedFiles(out)
    folder = _sample_folder()

    from hubel.data.sources import expand
    from hubel.runtime import Predictor, tune_allocator

    tune_allocator()
    say(f"classifying scikit-learn's sample photographs with {_MODEL} (ImageNet's 1000 classes)")
    predict = Predictor(_MODEL)
    for picture in expand(folder / name for name in _PHOTOGRAPHS):
        (result,) = predict([picture.source or ""])
        path = files.path_for(result)
        files.save(path, picture, result)
        print(f"\n{Path(result.source or '').name}")
        for score in result.classes:
            print(f"  {score.score:6.1%}  {score.name}")
        print(f"  saved as {path}")
    print(_NEXT)


_NEXT = """
What to try next:
  hubel predict YOUR-PHOTO.jpg --save out/    your own pictures, folders of them, videos
  hubel models                                which networks there are, their size and accuracy
  hubel summary lenet5                        a network layer by layer
  hubel train FOLDER                          your own classes: a folder of pictures for each"""


def _sample_folder() -> Path:
    """Where scikit-learn's photographs are, found without the seconds that importing it takes."""
    from importlib.util import find_spec

    from hubel.errors import HubelError

    spec = find_spec("sklearn")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place, "datasets", "images")
        if all((folder / name).is_file() for name in _PHOTOGRAPHS):
            return folder
    raise HubelError("scikit-learn's sample photographs are not installed.", "pip install scikit-learn")
