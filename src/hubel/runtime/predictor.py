"""Pictures in, answers out: the one way in which commands and programs run a trained model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from hubel.data.preprocessing import Preprocessing
from hubel.data.sources import Picture, expand
from hubel.errors import ModelError, UsageError
from hubel.models.saved import ModelCard, describe, resolve_model
from hubel.results import Classification
from hubel.runtime.devices import choose_device
from hubel.runtime.engine import Engine
from hubel.runtime.image_pipeline import FailedImage, PreparedImage, prepare
from hubel.runtime.precision import choose_precision
from hubel.runtime.torch_engine import TorchEngine
from hubel.tasks.class_scores import best_classes, probabilities

ImageSource = str | Path | int | bytes | Image.Image | np.ndarray

# Pictures that wait for the network, at least.
_AHEAD = 16
_BATCH = {"cpu": 16, "mps": 32, "cuda": 64}


class Predictor:
    """A model made ready to answer.

    ::

        predict = hubel.Predictor("efficientnet_lite0")
        for result in predict(["a.jpg", array, pil_image]):
            print(result.source, result.best.name, result.best.score)

    Pictures are decoded and scaled in background threads while the network works on those before, in bounded
    memory; results come in the order of the pictures. A predictor may be used again and again, but by one thread at
    a time.

    Args:
        model: a registered name (``"resnet50"``, its default weights), a name with weights
            (``"resnet50:torchvision/IMAGENET1K_V2"``), a run folder, a saved model's folder; or a module, as
            :func:`hubel.create_model` makes it, or any other together with its ``card``.
        engine: what runs the network: ``"auto"`` or ``"torch"``.
        precision: ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16 where a short probe finds it clearly
            faster.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
        batch: pictures that go through the network at once; 16 on a CPU, 64 on a GPU by default.
        top: how many classes a result names, best first; fewer if the model knows fewer.
        threads: CPU threads of the network, for the whole process as torch has it; all cores by default.
        card: what describes ``model`` if that is a module: its classes and its preprocessing; by default what
            ``create_model`` knows of it.

    Attributes:
        card: the model's description.
        model_name: what results call the model.

    Raises:
        ModelError: the model cannot be found or is damaged, or this machine has no such device.
        UsageError: an argument is not what it may be.
        WeightsError: the weights could not be had.
    """

    def __init__(
        self,
        model: str | Path | nn.Module,
        engine: str = "auto",
        precision: str = "auto",
        device: str = "auto",
        batch: int | None = None,
        top: int = 5,
        threads: int | None = None,
        card: ModelCard | None = None,
    ) -> None:
        if engine not in ("auto", "torch", "openvino"):
            raise UsageError(f"engine {engine!r} is not available in this version", "use auto or torch")
        for what, number in (("batch", batch), ("top", top), ("threads", threads)):
            if number is not None and number < 1:
                raise UsageError(f"{what} is {number}", "use 1 or more")
        if threads is not None:
            torch.set_num_threads(threads)
        chosen_device = choose_device(device)
        network, self.card = _network_and_card(model, card)
        self.model_name = self.card.architecture if isinstance(model, nn.Module) else str(model)
        self.top = top
        self._engine: Engine
        if engine == "openvino":
            from hubel.runtime.openvino_conversion import to_openvino
            from hubel.runtime.openvino_engine import OpenVinoEngine, choose_format

            converted = to_openvino(network, self.card.preprocessing)
            self._engine = OpenVinoEngine(converted, choose_format(precision), threads, batch or 1)
        else:
            batch = batch or _BATCH[chosen_device.type]
            chosen = choose_precision(chosen_device, precision)
            self._engine = TorchEngine(network, self.card.preprocessing, chosen_device, chosen, batch)
        self.batch = self._engine.batch

    def __call__(self, images: ImageSource | Iterable[ImageSource]) -> Iterator[Classification]:
        """Answers for images, one after the other.

        Args:
            images: file names, folders, patterns, videos (:func:`hubel.data.sources.expand` says what each means),
                ``PIL`` images, arrays (H, W), (H, W, 3) or (H, W, 4); one alone, or an iterable of any length.

        Yields:
            Results in the order of the images.

        Raises:
            ImageError: an image cannot be read; the results before it have been given. :meth:`stream` goes on.
        """
        for outcome in self.stream(images):
            if isinstance(outcome, FailedImage):
                raise outcome.error
            yield outcome

    def stream(self, images: ImageSource | Iterable[ImageSource]) -> Iterator[Classification | FailedImage]:
        """As :meth:`__call__`, but a bad image yields a :class:`FailedImage` in its place and the others go on."""
        if isinstance(images, str | Path | int | bytes | Image.Image | np.ndarray):
            images = [images]
        return self.stream_pictures(expand(images))

    def stream_pictures(self, pictures: Iterable[Picture]) -> Iterator[Classification | FailedImage]:
        """As :meth:`stream`, for pictures that :func:`hubel.data.sources.expand` found."""
        groups: deque[list[PreparedImage | FailedImage]] = deque()
        with closing(prepare(pictures, self.card.preprocessing, ahead=max(2 * self.batch, _AHEAD))) as prepared:

            def batches() -> Iterator[np.ndarray]:
                while group := list(islice(prepared, self.batch)):
                    groups.append(group)
                    pixels = [outcome.pixels for outcome in group if isinstance(outcome, PreparedImage)]
                    yield np.stack(pixels) if pixels else _no_pixels(self.card.preprocessing)

            for scores, *_ in self._engine.run(batches()):
                rows = iter(probabilities(scores))
                for outcome in groups.popleft():
                    yield outcome if isinstance(outcome, FailedImage) else self._result(outcome, next(rows))

    def describe(self) -> str:
        """One line for a log: what runs where, in which precision, and why."""
        engine = self._engine
        return (
            f"{self.model_name} on {engine.name}, {engine.device}, {engine.threads} threads, batches of "
            f"{engine.batch}, {engine.precision.name} ({engine.precision.reason})"
        )

    def _result(self, image: PreparedImage, row: np.ndarray) -> Classification:
        classes = best_classes(row, self.card.classes, self.top)
        return Classification(image.source, image.width, image.height, classes, image.frame, image.time)


def _no_pixels(preprocessing: Preprocessing) -> np.ndarray:
    return np.empty((0, preprocessing.height, preprocessing.width, preprocessing.channels), np.uint8)


def _network_and_card(model: str | Path | nn.Module, card: ModelCard | None) -> tuple[nn.Module, ModelCard]:
    if isinstance(model, nn.Module):
        network, card = model, card or describe(model)
    else:
        network, card = resolve_model(model)
    if card.task != "classify":
        raise ModelError(
            f"{model}: predicting with a model of the task {card.task!r} is not available", "use a classifier"
        )
    return network, card
