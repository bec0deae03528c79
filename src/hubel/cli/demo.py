"""``hubel demo``: a first answer, offline, with what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubel.config import DEFAULT_NETWORK
from hubel.console import activity, log, show

_NEXT = """
What to try next:
  hubel predict YOUR-PHOTO.jpg --save out/    your own images, folders of them, videos
  hubel models                                the available networks, their size and accuracy
  hubel summary lenet5                        a network layer by layer
  hubel train FOLDER                          your own classes: a folder of images per class"""


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the annotated images.")] = Path("demo"),
) -> None:
    """Classify scikit-learn's two sample photographs, without a network connection.

    \b
    hubel demo
    hubel demo --out somewhere/
    """
    from hubel.data.sources import expand, sample_photographs
    from hubel.inference.outputs import AnnotatedFiles

    files = AnnotatedFiles(out)
    photographs = sample_photographs()

    from hubel.inference import Predictor, tune_allocator
    from hubel.results import Classification

    tune_allocator()
    log(f"classifying scikit-learn's sample photographs with {DEFAULT_NETWORK} (ImageNet's 1000 classes)")
    with activity(f"loading {DEFAULT_NETWORK}"):
        predict = Predictor(DEFAULT_NETWORK)
    for image in expand(photographs):
        (result,) = predict([image.source or ""])
        assert isinstance(result, Classification)
        path = files.path_for(result)
        files.save(path, image, result)
        show(f"\n{Path(result.source or '').name}")
        for score in result.classes:
            show(f"  {score.score:6.1%}  {score.name}")
        show(f"  saved as {path}")
    show(_NEXT)
