"""``hubel demo``: a first answer, offline, with what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubel.config import DEFAULT_DETECTOR, DEFAULT_NETWORK
from hubel.console import activity, log, show

if TYPE_CHECKING:
    from hubel.inference.outputs import AnnotatedFiles
    from hubel.results import Prediction

_NEXT = """
What to try next:
  hubel predict YOUR-PHOTO.jpg --save out/    your own images, folders of them, videos
  hubel predict YOUR-PHOTO.jpg --task detect  the objects in them, of 80 kinds (pip install 'hubel[coco]')
  hubel models                                the available networks, their size and accuracy
  hubel summary lenet5                        a network layer by layer
  hubel train FOLDER                          your own classes: a folder of images per class"""


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the annotated images.")] = Path("demo"),
) -> None:
    """Classify scikit-learn's two sample photographs, without a network connection.

    With hubel[coco] installed, also find objects in the portrait that matplotlib ships.

    \b
    hubel demo
    hubel demo --out somewhere/
    """
    from hubel.data.sources import sample_photographs, sample_portrait
    from hubel.inference.outputs import AnnotatedFiles
    from hubel.weights import default_entry, is_here

    files = AnnotatedFiles(out)
    photographs = sample_photographs()

    from hubel.inference import tune_allocator
    from hubel.results import Classification, Detections

    tune_allocator()
    log(f"classifying scikit-learn's sample photographs with {DEFAULT_NETWORK} (ImageNet's 1000 classes)")
    for path, result in _predictions(DEFAULT_NETWORK, photographs, files):
        assert isinstance(result, Classification)
        show(f"\n{Path(result.source or '').name}")
        for score in result.classes:
            show(f"  {score.score:6.1%}  {score.name}")
        show(f"  saved as {path}")
    detector, portrait = default_entry(DEFAULT_DETECTOR), sample_portrait()
    if detector is not None and is_here(detector) and portrait is not None:
        log(f"detecting objects in matplotlib's sample photograph with {DEFAULT_DETECTOR} (COCO's 80 classes)")
        for path, result in _predictions(DEFAULT_DETECTOR, [portrait], files):
            assert isinstance(result, Detections)
            show(f"\n{Path(result.source or '').name}")
            for line in result.details():
                show(f"  {line}")
            show(f"  saved as {path}")
    show(_NEXT)


def _predictions(model: str, images: list[Path], files: AnnotatedFiles) -> list[tuple[Path, Prediction]]:
    """The result of each image, and where the annotated image was saved."""
    from hubel.data.sources import expand
    from hubel.inference import Predictor

    with activity(f"loading {model}"):
        predict = Predictor(model)
    saved = []
    for image in expand(images):
        (result,) = predict([image.source or ""])
        path = files.path_for(result)
        files.save(path, image, result)
        saved.append((path, result))
    return saved
