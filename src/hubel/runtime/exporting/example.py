"""The example of use without hubel that is written beside an exported model."""

from __future__ import annotations

import inspect

import jinja2

import hubel
from hubel.data.preprocessing import crop_box
from hubel.models.card import ModelCard
from hubel.tasks import found_objects

EXAMPLE = "use.py"
_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}


def example(format: str, file: str, card: ModelCard, nms: bool = False) -> str:
    """A short program that answers for pictures with the exported file, NumPy, Pillow and the format's own runtime.

    How it crops and finds objects are this installation's own functions, word for word: a second description would
    drift from them.

    Args:
        format: onnx, openvino or torch.
        file: name of the model's file, in the same folder.
        card: the model's.
        nms: a detector's graph ends in objects.
    """
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("hubel.runtime.exporting", "."),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
    )
    return templates.get_template("use.py.jinja").render(
        format=format,
        file=file,
        package=_PACKAGES[format],
        hubel=hubel.__version__,
        crop=card.preprocessing.resize == "crop",
        crop_box=inspect.getsource(crop_box).rstrip(),
        detects=card.task == "detect",
        decodes=card.task == "detect" and not nms,
        found_objects=inspect.getsource(found_objects).partition("import numpy as np\n")[2].strip(),
    )
