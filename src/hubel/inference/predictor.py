"""From images to results: how commands and programs run a trained model."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, overload

import numpy as np
from PIL import Image

from hubel.config import CONF, IOU, TOLERANCE
from hubel.console import count_of
from hubel.data.sources import ImageSource, every_nth_frame, expand, is_stream
from hubel.errors import UsageError
from hubel.inference.engines.base import Engine, RunOptions, canonical
from hubel.inference.engines.convert import ModelSource
from hubel.inference.engines.exported import ExportedChoice, find_exported
from hubel.inference.engines.selection import MIN_IMAGES_TO_CONVERT, EngineChoice, gpu
from hubel.inference.lazy_results import ImageInput, LazyResults, as_inputs
from hubel.inference.pipeline import FailedImage, PreparedImage, prepare, stacked
from hubel.inference.test_time_augmentation import MirroringEngine, merge_of
from hubel.models.cfg_reference import with_weights
from hubel.models.metadata import ModelMetadata
from hubel.results import Prediction
from hubel.tasks.decoding import Thresholds, decoder_of, require_detector, require_finite, require_tiles

if TYPE_CHECKING:
    from torch import nn

Prepared = TypeVar("Prepared", bound=PreparedImage)

_AHEAD = 16  # images that wait for the network, at least
_TILES_AT_ONCE = 2  # large images: the maps of more tiles would take gigabytes


class Predictor:
    """A model ready to predict.

    ::

        predict = hubel.Predictor("efficientnet_lite0")
        for result in predict(["a.jpg", array, pil_image]):
            print(result.source, result.best.name, result.best.score)

    Images are decoded and scaled in background threads while the network works on those before, in bounded memory;
    results come in the order of the images. A predictor can be reused, but by one thread at a time.

    Args:
        model: a registered name (``"resnet50"``, its default weights), a name with weights
            (``"resnet50:torchvision/IMAGENET1K_V2"``), a run folder, a saved model's folder, an exported folder (its
            file runs as it is, on its own engine), a Darknet ``.cfg``; or a module, as
            :func:`hubel.create_model` makes it, or any other together with its ``metadata``: classes, preprocessing.
        engine: ``"torch"``, ``"openvino"``, ``"onnx"``, or ``"auto"``: torch on a GPU, for a few
            images, and where OpenVINO cannot convert the model; else OpenVINO.
        precision: ``"fp32"``, ``"bf16"``, ``"fp16"``, ``"int8"``, or ``"auto"``: int8 where the model
            has been quantized within the tolerance before, else bfloat16 where it is clearly faster.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
        batch: images that go through the network at once; by default the engine's fastest.
        top: number of classes in a classifier's result, best first; fewer if the model has fewer.
        threads: CPU threads of the network, with torch for the whole process; all cores by default.
        calibrate: with the precision ``"int8"``, images like those to come: a folder of them, or class folders. A run
            folder knows its own, and other models take what they were quantized with last.
        tolerance: with ``"int8"``, by how much accuracy may fall on held-out images, a fraction: 0.01 is one point.
        conf: minimum score of an object, 0..1.
        iou: NMS threshold of detectors, 0..1: of two boxes of a class with a greater IoU, the better one is kept.
        nms: how detectors suppress boxes that overlap a better one: ``"standard"``; ``"agnostic"``: also those of other
            classes; ``"diou"``: by the distance IoU; ``"soft"``, ``"soft-linear"``: their scores fall by how much they
            overlap (Soft-NMS), and ``iou`` counts for the linear fall only.
        tta: test-time augmentation: predict from each image and its mirror image together, in twice the time;
            segmentation also at three scales, in six times. Not for
            models of things that are not the same mirrored, as letters and digits.
        tile: a detector also sees overlapping tiles of so many pixels of the original, for small objects in large
            images; see :mod:`hubel.inference.tiles`. A network for segmentation sees such tiles instead of the whole,
            so many pixels along their shorter side; see :mod:`hubel.inference.map_tiles`.
        cutout: name of a class of a network for segmentation or instances; results are
            :class:`~hubel.results.Cutout`, which show what the image has of it on a transparent background. In videos
            the mask is smoothed over time.
        weights: file of the weights of a Darknet cfg, if it is not beside it under the same name.

    Raises:
        ModelError: the model cannot be found, is damaged, or cannot be converted for the engine; this machine has no
            such device; or int8 would lose more than the tolerance.
        UsageError: an argument is invalid.
        WeightsError: the weights are not available.
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
        metadata: ModelMetadata | None = None,
        calibrate: str | Path | None = None,
        tolerance: float = TOLERANCE,
        conf: float = CONF,
        iou: float = IOU,
        nms: str = "standard",
        tta: bool = False,
        tile: int | None = None,
        cutout: str | None = None,
        weights: str | Path | None = None,
    ) -> None:
        for name, number in (("batch", batch), ("top", top), ("threads", threads)):
            if number is not None and number < 1:
                raise UsageError(f"{name} is {number}", "use 1 or more")
        for name, fraction in (("conf", conf), ("iou", iou)):
            if not 0 <= fraction <= 1:
                raise UsageError(f"{name} is {fraction:g}", "use a fraction from 0 to 1")
        self._thresholds = Thresholds(conf, iou, top_k=top, nms=nms)
        if weights is not None:
            model = with_weights(str(model), weights)
        options = RunOptions(canonical(precision), gpu(device), threads, batch)
        self._choice: EngineChoice | ExportedChoice
        if (exported := find_exported(model)) is not None:
            if device.startswith(("cuda", "mps")) or calibrate is not None:
                message = f"{model} is an exported model, whose file runs on the CPU as it is"
                raise UsageError(message, "omit --device and --calibrate")
            self.model_name = str(model)
            self._choice = ExportedChoice(exported, self.model_name, engine, options)
        else:
            source = ModelSource(model, metadata, tta)
            self.model_name = source.name
            self._choice = EngineChoice(source, engine, options, calibrate, tolerance)
        self._engine: Engine | None = None
        self._alone = False  # the image that the engine was selected for
        self._predicted = 0
        self.metadata = self._choice.metadata
        if self.metadata.preprocessing.resize == "tiles":
            self._choice.refine(_TILES_AT_ONCE)
        decoder = decoder_of(self.metadata.task, self.model_name)
        self._results, self._joined = decoder.results, decoder.TILES
        if nms != "standard":
            require_detector(self.metadata.task, self.model_name, "--nms")
        if tile is not None:
            from hubel.inference.tiles import check_side

            require_tiles(self.metadata.task, self.model_name)
            check_side(tile)
        self._tile = tile
        self._cutout: int | None = None
        if cutout is not None:
            from hubel.inference.cutout import class_index

            self._cutout = class_index(cutout, self.metadata, self.model_name)
        self._tta, is_file = tta, exported is not None
        self._merge = merge_of(self.metadata, self.model_name, self._thresholds, is_file) if tta else None

    @property
    def gives_maps(self) -> bool:
        """True if results are class maps."""
        return self._joined == "maps"

    def engine_for(self, images: int, at_once: int | None = None) -> Engine:
        """The engine that would run this many images, ready to run, so that it can be measured alone.

        ``at_once`` of them come together, all if not said.
        """
        engine = self._choice.engine_for(images, at_once)
        return engine if self._merge is None else MirroringEngine(engine, self._merge)

    @overload  # a video's name, which no type tells apart, gives an iterator
    def __call__(  # type: ignore[overload-overlap]
        self, images: str | Path | bytes | Image.Image | np.ndarray | Sequence[ImageInput], *, every: int = 1
    ) -> LazyResults: ...

    @overload
    def __call__(self, images: ImageInput | Iterable[ImageInput], *, every: int = 1) -> Iterator[Prediction]: ...

    def __call__(
        self, images: ImageInput | Iterable[ImageInput], *, every: int = 1
    ) -> LazyResults | Iterator[Prediction]:
        """Results for images, in their order, computed while they are iterated over or when they are asked for.

        Images are file names, folders, patterns, videos (see :func:`hubel.data.sources.expand`), ``PIL`` images, arrays
        (H, W), (H, W, 3) or (H, W, 4), open files and their bytes; a single one, or an iterable of any length.

        Files, folders, images in memory and lists of them give a :class:`LazyResults`: ``predict("a.jpg")[0]``,
        ``len(predict(["a.jpg", "b.jpg"]))``. Videos, webcams and iterators, which may never end, give an iterator.
        ``every`` is the step between the frames of a video: with 5, the results are those of frames 1, 6, 11, …

        Raises:
            ImageError: an image cannot be read; the results before it have been yielded. :meth:`stream` continues.
            ModelError: what the network gives for an image is not finite.
            UsageError: something is not an image.
        """
        images = as_inputs(images)
        streamed = not isinstance(images, Sequence) or any(map(is_stream, images))
        outcomes = self.stream(images, every=every)
        return _or_raise(outcomes) if streamed else LazyResults(outcomes)

    def stream(
        self, images: ImageInput | Iterable[ImageInput], *, every: int = 1
    ) -> Iterator[Prediction | FailedImage]:
        """As :meth:`__call__`, but an unreadable image yields a :class:`FailedImage` and the others continue."""
        if every < 1:
            raise UsageError(f"every is {every}", "use 1 or more")
        return self.stream_sources(every_nth_frame(expand(as_inputs(images)), every))

    def stream_sources(self, images: Iterable[ImageSource]) -> Generator[Prediction | FailedImage, None, None]:
        """As :meth:`stream`, for images that :func:`hubel.data.sources.expand` found."""
        with closing(self._outcomes(images)) as outcomes:
            if self._cutout is None:
                yield from outcomes
            else:
                from hubel.inference.cutout import cut_out

                yield from cut_out(outcomes, self._cutout, self.metadata)

    def _outcomes(self, images: Iterable[ImageSource]) -> Generator[Prediction | FailedImage, None, None]:
        images = self.select_engine(images)
        assert self._engine is not None
        preprocessing, ahead = self.metadata.preprocessing, 0 if self._alone else max(2 * self._engine.batch, _AHEAD)
        if preprocessing.resize == "tiles":
            from hubel.inference.enlarge import join_tiles, prepare_tiles

            with closing(self._predictions(self._engine, prepare_tiles(images, preprocessing))) as of_tiles:
                yield from join_tiles(of_tiles, preprocessing)
        elif self._tile is None:
            with closing(self._predictions(self._engine, prepare(images, preprocessing, ahead))) as outcomes:
                for outcome in outcomes:
                    if isinstance(outcome, FailedImage):
                        yield outcome
                    else:
                        yield replace(outcome[1], reader=outcome[0].reader)
        elif self._joined == "maps":
            from hubel.inference.map_tiles import join_maps, prepare_map_tiles

            tiles = prepare_map_tiles(images, preprocessing, ahead, self._tile)
            with closing(self._predictions(self._engine, tiles)) as of_tiles:
                yield from join_maps(of_tiles)
        else:
            from hubel.inference.tiles import merge_views, prepare_views

            views = prepare_views(images, preprocessing, ahead, self._tile)
            with closing(self._predictions(self._engine, views)) as of_views:
                yield from merge_views(of_views, self._thresholds)

    def _predictions(
        self, engine: Engine, images: Generator[Prepared | FailedImage, None, None]
    ) -> Generator[tuple[Prepared, Prediction] | FailedImage, None, None]:
        """What the network says of each image, in order."""
        preprocessing = self.metadata.preprocessing
        groups: deque[list[Prepared | FailedImage]] = deque()
        with closing(images) as prepared:

            def batches() -> Iterator[np.ndarray]:
                while group := list(islice(prepared, engine.batch)):
                    groups.append(group)
                    pixels = [outcome.pixels for outcome in group if not isinstance(outcome, FailedImage)]
                    yield stacked(pixels, preprocessing)

            with closing(engine.run(batches())) as outputs:
                for predictions in outputs:
                    group = groups.popleft()
                    readable = [outcome for outcome in group if not isinstance(outcome, FailedImage)]
                    require_finite(predictions, [image.source for image in readable], self.model_name)
                    results = iter(self._results(predictions, readable, self.metadata, self._thresholds))
                    for outcome in group:
                        self._predicted += 1
                        if isinstance(outcome, FailedImage):
                            yield outcome
                        else:
                            yield outcome, next(results)

    def select_engine(self, images: Iterable[ImageSource]) -> Iterable[ImageSource]:
        """Choose the engine and prepare it, by how many images are coming and have been predicted; returns them all.

        An image that comes alone is run by all threads, also if others have come alone before.

        The first few images are taken, but not read. :meth:`stream_sources` does so itself; a command that reports its
        choice beforehand calls it first.
        """
        remaining = iter(images)
        first: list[ImageSource] = []
        count, at_once = self._predicted, 0
        while (count < MIN_IMAGES_TO_CONVERT or at_once < 2) and (image := next(remaining, None)) is not None:
            first.append(image)
            many = image.frame or self._tile  # videos and webcams have many, and large images have many tiles
            added = MIN_IMAGES_TO_CONVERT if many else 1
            count, at_once = count + added, at_once + added
        self._engine = self.engine_for(count, at_once)
        self._alone = at_once == 1
        return chain(first, remaining)

    def describe(self, verbose: bool = True) -> str:
        """One line for a log: what runs where, in which precision, and why; ``verbose``: also why float32."""
        engine = self._engine
        if engine is None:
            return f"{self.model_name}, on an engine to be chosen when images arrive"
        batches = f", batches of {engine.batch}" if engine.batch > 1 else ""
        # What everybody expects needs no reason: that bfloat16 would be slower here concerns few.
        explained = verbose or engine.precision.name != "fp32"
        reason = f" ({engine.precision.reason})" if explained and engine.precision.reason else ""
        return (
            f"{self.model_name} on {engine.name} ({self._choice.reason}), {engine.device}, "
            f"{count_of(engine.threads, 'thread')}{batches}, {engine.precision.name}{reason}"
            f"{f', in tiles of {self._tile} pixels' if self._tile else ''}{', with mirror images' if self._tta else ''}"
        )


def _or_raise(outcomes: Iterator[Prediction | FailedImage]) -> Generator[Prediction, None, None]:
    for outcome in outcomes:
        if isinstance(outcome, FailedImage):
            raise outcome.error
        yield outcome
