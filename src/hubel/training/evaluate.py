"""Scores of a model on labelled images."""

from __future__ import annotations

import contextlib
import html
import importlib.metadata
import platform
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hubel.console import activity, count_of, log
from hubel.data.class_maps import class_map_fault
from hubel.data.image_io import read_image
from hubel.data.loader import BatchDataset, EpochSampler, default_workers, make_dataloader
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Sample
from hubel.data.splits import evaluation_samples, read_splits
from hubel.data.transforms.image_transform import ImageTransform
from hubel.errors import DataError, ImageError, ModelError
from hubel.inference.engines.base import Engine, RunOptions
from hubel.inference.engines.exported import ExportedChoice, find_exported
from hubel.inference.fusion import fuse
from hubel.inference.pipeline import FailedImage
from hubel.inference.precision import choose_device
from hubel.inference.predictor import Predictor
from hubel.inference.test_time_augmentation import Merge, merge_of
from hubel.inference.tiles import check_side
from hubel.models import ModelMetadata, resolve_model
from hubel.models.base import Model
from hubel.models.metadata import recorded_folder
from hubel.models.mirrored import Mirrored
from hubel.reports import TrainingReport, write_report
from hubel.system import processor_name, tune_allocator
from hubel.tables import records_table
from hubel.tasks.base import Evaluator, Scores, Task
from hubel.tasks.decoding import Thresholds, require_detector, require_tiles
from hubel.tasks.registry import get_task
from hubel.training.distributed import SINGLE_PROCESS, DistributedContext


@dataclass(frozen=True)
class EvaluatedSplit:
    """Scored predictions of a model for labelled images, and an error for each image that could not be read."""

    scores: Any
    evaluator: Evaluator
    failures: tuple[ImageError, ...]


def evaluate_samples(
    model: Model,
    metadata: ModelMetadata,
    samples: Sequence[Sample],
    batch: int,
    device: torch.device,
    processes: DistributedContext = SINGLE_PROCESS,
) -> EvaluatedSplit:
    """Score a model in float32; processes that call it with the same samples divide them and return the same scores.

    Raises:
        DataError: no image could be read.
    """
    if get_task(metadata.task).scores_results:
        predictor = Predictor(model, "torch", "fp32", device=str(device), metadata=metadata)
        return _evaluate_results(predictor, get_task(metadata.task).evaluator(metadata), samples, processes)
    predict = _network_predictions(model, metadata.preprocessing, device)
    return _evaluate_predictions(predict, metadata, samples, batch, processes)


_VIEWS = "each image and its mirror image"

Predict = Callable[[Tensor], dict[str, np.ndarray]]
"""From uint8 pixels (N, C, H, W), N > 0, to predictions by name."""


def _network_predictions(model: Model, preprocessing: Preprocessing, device: torch.device) -> Predict:
    size = (preprocessing.height, preprocessing.width)
    fused = fuse(model.eval(), device, torch.float32)

    def predict(pixels: Tensor) -> dict[str, np.ndarray]:
        outputs = fused(preprocessing.normalize(pixels.to(device)))
        return to_arrays(model.predictions(outputs, size) | model.diagnostics(outputs))

    return predict


def _engine_predictions(engine: Engine) -> Predict:
    def predict(pixels: Tensor) -> dict[str, np.ndarray]:
        (predictions,) = engine.run([np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())])
        return predictions

    return predict


def _with_mirror_images(predict: Predict, merge: Merge) -> Predict:
    return lambda pixels: merge(predict(pixels), predict(pixels.flip(3)))


def _evaluate_predictions(
    predict: Predict,
    metadata: ModelMetadata,
    samples: Sequence[Sample],
    batch: int,
    processes: DistributedContext = SINGLE_PROCESS,
    evaluator: Evaluator | None = None,
) -> EvaluatedSplit:
    evaluator = evaluator or get_task(metadata.task).evaluator(metadata)
    indices: list[int] = []
    mine = [i for i in range(processes.rank, len(samples), processes.count) if class_map_fault(samples[i]) is None]
    for predictions, read in _predictions(predict, metadata.preprocessing, [samples[i] for i in mine], batch):
        evaluator.update(predictions, [samples[mine[position]] for position in read])
        indices += [mine[position] for position in read]
    read_indices = gather_images(evaluator, indices, processes)
    failed = sorted(set(range(len(samples))) - set(read_indices))
    failures = tuple(class_map_fault(samples[index]) or read_error(samples[index].path) for index in failed)
    if not read_indices:
        raise DataError(f"none of {len(samples)} images could be read: {failures[0].message}", failures[0].hint)
    return EvaluatedSplit(evaluator.compute(), evaluator, failures)


def _evaluate_results(
    predictor: Predictor,
    evaluator: Evaluator,
    samples: Sequence[Sample],
    processes: DistributedContext = SINGLE_PROCESS,
) -> EvaluatedSplit:
    """Score what users see."""
    failures: list[ImageError] = []
    indices: list[int] = []
    task, preprocessing = get_task(predictor.metadata.task), predictor.metadata.preprocessing
    mine = range(processes.rank, len(samples), processes.count)
    images = (task.source(samples[index], preprocessing) for index in mine)
    for index, result in zip(mine, predictor.stream_sources(images), strict=True):
        if isinstance(result, FailedImage):
            failures.append(result.error)
        else:
            evaluator.update_results([result], [samples[index]])
            indices.append(index)
    failures = processes.all_gather(failures)
    gather_images(evaluator, indices, processes)
    if not evaluator.images:
        raise DataError(f"none of {len(samples)} images could be read: {failures[0].message}", failures[0].hint)
    return EvaluatedSplit(evaluator.compute(), evaluator, tuple(failures))


def _predictions(
    predict: Predict, preprocessing: Preprocessing, samples: Sequence[Sample], batch: int
) -> Iterator[tuple[dict[str, np.ndarray], list[int]]]:
    """Predictions of each batch, with the positions of its images; unreadable images are left out."""
    if not samples:
        return
    images = BatchDataset([Sample(sample.path) for sample in samples], ImageTransform(preprocessing), 0)
    loader = make_dataloader(images, EpochSampler(len(samples), 0, shuffle=False), batch, default_workers())
    with torch.inference_mode():
        for loaded in loader:
            if len(loaded.indices):
                yield predict(loaded.pixels), loaded.indices.tolist()


def to_arrays(predictions: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Predictions of a batch as arrays."""
    return {name: tensor.cpu().numpy() for name, tensor in predictions.items()}


def gather_images(evaluator: Evaluator, indices: Sequence[int], processes: DistributedContext) -> list[int]:
    """Bring the records of all processes together in the order of the data set; returns the indices of all images."""
    if processes.is_single:
        return list(indices)
    records = processes.all_gather(list(zip(indices, evaluator.images, strict=True)))
    records.sort(key=lambda record: record[0])
    evaluator.images = [image for _, image in records]
    return [index for index, _ in records]


def read_error(path: Path) -> ImageError:
    """The reason why an image could not be read."""
    try:
        read_image(path)
    except ImageError as error:
        return error
    return ImageError(f"{path} could not be read", "try again: it can be read now")


def scores_document(task: Task, model: str, data: Path, split: str, scores: Scores, seconds: float) -> dict[str, Any]:
    """The scores of a model on one split as JSON, with what was scored."""
    return {
        "task": task.name,
        "model": model,
        "data": str(data),
        "split": split,
        "images": scores.images,
        "seconds": round(seconds, 3),
        **scores.to_json(),
    }


def scores_html(caption: str, metrics: Mapping[str, Any], per_class: Sequence[Mapping[str, Any]]) -> str:
    """Metrics, and scores of the classes, as tables for a notebook."""
    totals = {name: value for name, value in metrics.items() if not isinstance(value, list | dict)}
    classes = [{key: value for key, value in row.items() if not isinstance(value, list | dict)} for row in per_class]
    tables = [records_table([totals]).html(), *([records_table(classes).html()] if classes else [])]
    return f"<div><b>{html.escape(caption)}</b></div>{''.join(tables)}"


@dataclass(frozen=True, repr=False)
class Evaluation(EvaluatedSplit):
    """Scores of a model on one split: ``"test"``, ``"val"``, ``"train"`` or ``"all"``."""

    model: str
    data: Path
    split: str
    seconds: float
    task: Task
    tta: bool = False
    tile: int | None = None

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics by name."""
        metrics: dict[str, Any] = self.scores.to_json()["metrics"]
        return metrics

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """Metrics of each class."""
        per_class: list[dict[str, Any]] = self.scores.to_json()["per_class"]
        return per_class

    def to_json(self) -> dict[str, Any]:
        """The document that ``--json`` prints."""
        return scores_document(self.task, self.model, self.data, self.split, self.scores, self.seconds)

    def _caption(self) -> str:
        tiles = f" in tiles of {self.tile} pixels" if self.tile else ""
        views = f"{tiles} with mirror images" if self.tta else tiles
        return f"{self.data}, {self.split} split, {count_of(self.scores.images, 'image')}{views}"

    def table(self) -> str:
        """The metrics as text."""
        return f"{self._caption()}\n{self.task.scores_table(self.scores)}"

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return scores_html(f"{self.model}: {self._caption()}", self.metrics, self.per_class)


def evaluate(
    model: str | Path,
    data: Path | str,
    split: str | None = None,
    batch: int = 32,
    device: str = "auto",
    threads: int | None = None,
    strict: bool = False,
    report: Path | str | None = None,
    nms: str = "standard",
    tta: bool = False,
    tile: int | None = None,
) -> Evaluation:
    """Score a model on a labelled data set; the same as ``hubel evaluate``.

    Args:
        model: a run folder, an exported folder, whose file runs as it is on its own engine, or anything
            :func:`hubel.models.resolve_model` takes whose classes the data has.
        data: labelled for the model's task.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; by default test, else val. A run's own split of an
            unsplit data set is used again.
        batch: batch size.
        device: as for ``--device``.
        threads: of the CPU; all cores by default.
        strict: raise :class:`ImageError` at the first image that cannot be read.
        report: folder for an HTML report.
        nms: of detectors, as of :class:`hubel.Predictor`.
        tta: test-time augmentation, as of :class:`hubel.Predictor`.
        tile: side of tiles in pixels, as of :class:`hubel.Predictor`.

    Raises:
        DataError: no such split, or classes that the model does not know.
        ModelError: the model's task is not scored here.
        UsageError: an option of detectors for another model, or test-time augmentation with an exported segmentation
            network, which gives no probabilities.
    """
    tune_allocator()
    if threads:
        torch.set_num_threads(threads)
    started = time.perf_counter()
    # Wrong names are errors before anything is read.
    chosen, thresholds = choose_device(device), Thresholds(nms=nms)
    exported = find_exported(model)
    with activity(f"loading {model}"):
        network, metadata = resolve_model(model) if exported is None else (None, exported.metadata)
    task = get_task(metadata.task)
    if nms != "standard":
        require_detector(metadata.task, str(model), "--nms")
    if tile is not None:
        require_tiles(metadata.task, str(model))
        check_side(tile)
    merge = merge_of(metadata, str(model), thresholds, exported is not None) if tta else None
    data_set = task.read(Path(data)).remap_classes(metadata.classes)
    recorded = recorded_folder(Path(model)) / "splits.json"
    splits = read_splits(recorded) if recorded.is_file() else None
    name, samples = evaluation_samples(data_set, splits, split)
    if metadata.members > 1 and splits is not None:
        _note_seen(samples, data_set.root, splits.get("train", ()), metadata.members)
    if exported is not None:
        choice = ExportedChoice(exported, str(model), "auto", RunOptions(threads=threads))
        predict = _engine_predictions(choice.engine_for(len(samples)))
    elif isinstance(network, Model):
        network = Mirrored(network) if tta and merge is None else network
        predict = _network_predictions(network, metadata.preprocessing, chosen)
    else:
        raise ModelError(f"{model} cannot be scored", "choose one that hubel models lists")
    if merge is not None:
        predict = _with_mirror_images(predict, merge)
    evaluator = task.evaluator(metadata)
    evaluator.thresholds = replace(evaluator.thresholds, nms=nms)
    with activity(f"scoring {count_of(len(samples), 'image')}"):
        if tile is None and not task.scores_results:
            result = _evaluate_predictions(predict, metadata, samples, batch, evaluator=evaluator)
        else:
            options: dict[str, Any] = {
                "conf": evaluator.thresholds.conf,
                "nms": nms,
                "tta": tta,
                "tile": tile,
                "threads": threads,
            }
            if exported is None:
                options |= {"engine": "torch", "precision": "fp32", "device": device}
                options |= {} if tile is None else {"batch": batch}
            result = _evaluate_results(Predictor(model, **options), evaluator, samples)
    if strict and result.failures:
        raise result.failures[0]
    seconds = time.perf_counter() - started
    evaluation = Evaluation(
        **vars(result), model=str(model), data=Path(data), split=name, seconds=seconds, task=task, tta=tta, tile=tile
    )
    if report is not None:
        with activity("writing the report"):
            _write_report(report, evaluation, "float32" if exported is None else exported.precision)
    return evaluation


def _note_seen(samples: Sequence[Sample], root: Path, trained_on: Collection[str], members: int) -> None:
    """Tell that an ensemble has seen the images: each network was trained on all of ``trained_on`` but a fold."""
    known = set(trained_on)
    seen = sum(sample.path.relative_to(root).as_posix() in known for sample in samples)
    if seen:
        images = "all" if seen == len(samples) else f"{seen} of {len(samples)}"
        log(f"note: {images} images were trained on by {members - 1} of the {members} networks: the score is too high")


def _write_report(folder: str | Path, evaluation: Evaluation, precision: str) -> None:
    tiles = {"tiles": f"{evaluation.tile} pixels, and the whole image"} if evaluation.tile else {}
    report = TrainingReport(
        title=f"{evaluation.model} on {evaluation.data.name}",
        task=evaluation.task.name,
        model=evaluation.model,
        data=str(evaluation.data),
        scores={evaluation.split: evaluation.scores},
        split_sizes={evaluation.split: evaluation.scores.images},
        mistakes=evaluation.evaluator.worst_predictions(),
        mistakes_split=evaluation.split,
        environment={**environment(precision), **({"predicted from": _VIEWS} if evaluation.tta else {}), **tiles},
        timing={"evaluation": evaluation.seconds},
        warnings=[failure.message for failure in evaluation.failures],
    )
    write_report(folder, report, evaluation.task.report)


def environment(precision: str) -> dict[str, str]:
    """Versions, processor and threads, for reports."""
    found = {}
    for package in ("hubel", "torch", "torchvision", "accelerate", "numpy", "pillow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return {
        "python": platform.python_version(),
        **found,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "threads": str(torch.get_num_threads()),
        "precision": precision,
    }
