"""The names of the classes that published weights tell apart."""

from __future__ import annotations

from importlib import resources

from hubel.errors import WeightsError

_FILES = {"imagenet1k": "imagenet1k_classes.txt", "coco90": "coco90_classes.txt"}


def class_names(classes: str = "imagenet1k") -> list[str]:
    """One name a class, in the order of the network's outputs; no two alike.

    Args:
        classes: ``"imagenet1k"``: the 1000 classes of ILSVRC 2012, ordered by WordNet number. ``"coco90"``: COCO's 80
            and, as its category ids from 1 to 90 have gaps, a name for each of these that networks were given an
            output for and never an example: ``"N/A 12"``.

    Raises:
        WeightsError: there is no such list.
    """
    if classes not in _FILES:
        raise WeightsError(f"There is no list of class names {classes!r}.", f"there are: {', '.join(_FILES)}")
    return resources.files("hubel.weights").joinpath(_FILES[classes]).read_text("utf-8").splitlines()
