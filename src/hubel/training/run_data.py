"""The data of a run: read, divided, checked, and labelled as the model has its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hubel.config import SplitFractions, TrainingConfig
from hubel.console import ProgressBar
from hubel.data.checks.images import verify_images
from hubel.data.file_listing import listing
from hubel.data.image_folder import read_class_folders
from hubel.data.samples import ImageDataset, Sample
from hubel.data.splits import Splits, read_splits, recorded_splits, to_record, training_splits, write_splits
from hubel.errors import DataError
from hubel.models import architecture
from hubel.models.config_schema import with_options
from hubel.tasks.registry import get_task
from hubel.training.distributed import DistributedContext
from hubel.training.run_folder import SPLITS, has_trained

_MOST_LABELLED = 4  # images without boxes for each with them: Redmon and Farhadi 2017, arXiv 1612.08242, section 4


@dataclass(frozen=True)
class RunData:
    """The data of a run, its readable samples by split, and what the check found, one line each.

    Attributes:
        image_labels: further images to train on, of which a class is known, and no boxes.
    """

    samples: ImageDataset
    splits: Splits
    warnings: tuple[str, ...]
    image_labels: tuple[Sample, ...] = ()

    @property
    def repetitions(self) -> int:
        """How often an image with boxes is shown in an epoch, so that four times as many others are at most."""
        return max(1, -(-len(self.image_labels) // (_MOST_LABELLED * max(1, len(self.splits.train)))))

    @property
    def trained_splits(self) -> Splits:
        """The splits as they are trained on, with the images without boxes."""
        return replace(self.splits, train=(*self.splits.train * self.repetitions, *self.image_labels))


def read_run_data(config: TrainingConfig, recorded: Path | None) -> RunData:
    """Find, split and check the images; unreadable ones are left out and reported."""
    task = get_task(config.task)
    samples = task.read(config.data, config.strict)
    if recorded is not None:
        splits = recorded_splits(samples, read_splits(recorded))
    else:
        splits = training_splits(samples, SplitFractions(*config.split), config.seed)
    with ProgressBar("checking images", lines=True) as bar:
        findings = task.check(splits.by_name(), samples.classes, bar.update)
    findings.raise_if_unusable(config.strict)
    train, val, test = map(findings.usable, (splits.train, splits.val, splits.test))
    warnings = (*samples.warnings, *splits.warnings, *findings.warnings())
    data = RunData(samples, Splits(train, val, test), warnings)
    if config.image_labels is None:
        return _as_the_model_has_classes(config, data)
    labelled = _image_labels(config.image_labels)
    with ProgressBar("checking images without boxes", lines=True) as bar:
        found = verify_images([sample.path for sample in labelled.splits["train"]], bar.update)
    if unreadable := [reason for reason in found.values() if isinstance(reason, str)]:
        if config.strict or len(unreadable) == len(found):
            raise DataError(unreadable[0], "repair or remove the image")
        warnings += (f"{listing(unreadable, 3)}: left out",)
    sizes = {path: size for path, size in found.items() if not isinstance(size, str)}
    return _as_the_model_has_classes(config, replace(data, warnings=warnings), _sized(labelled, sizes))


def read_together(processes: DistributedContext, config: TrainingConfig, folder: str | None) -> RunData:
    """Check the images in the main process; the others receive the usable ones and their split."""
    read: list[RunData] = []

    def checked() -> dict[str, Any]:
        read.append(read_run_data(config, _recorded(folder)))
        data = read[0]
        if folder and not (Path(folder) / SPLITS).exists():
            write_splits(Path(folder) / SPLITS, data.splits, data.samples.root)
        sizes = {str(sample.path): (sample.width, sample.height) for sample in data.image_labels}
        return {"splits": to_record(data.splits, data.samples.root), "warnings": data.warnings, "sizes": sizes}

    record = processes.broadcast_object(checked)
    if not read:
        samples = get_task(config.task).read(config.data, config.strict)
        data = RunData(samples, recorded_splits(samples, record["splits"]), tuple(record["warnings"]))
        labelled = None
        if config.image_labels is not None:
            sizes = {Path(path): size for path, size in record["sizes"].items()}
            labelled = _sized(_image_labels(config.image_labels), sizes)
        read.append(_as_the_model_has_classes(config, data, labelled))
    return read[0]


def _recorded(folder: str | None) -> Path | None:
    """The record of a run to continue; one that was killed before it was written has not trained on any yet."""
    path = Path(folder) / SPLITS if folder else None
    if path is not None and not path.exists() and not has_trained(path.parent):
        return None
    return path


def _image_labels(folder: Path) -> ImageDataset:
    """The class folders with images to train on; those of other splits are left out."""
    found = read_class_folders(folder)
    images = found.splits.get("all") or found.splits.get("train")
    if not images:
        message = f"{folder} has no training images: it has {', '.join(found.splits)}, but no train"
        raise DataError(message, "pass one of these folders itself")
    return replace(found, splits={"train": images})


def _sized(data: ImageDataset, sizes: Mapping[Path, tuple[int, int]]) -> ImageDataset:
    """Those images that have a width and height."""
    images = data.splits["train"]
    known = (
        replace(sample, width=sizes[sample.path][0], height=sizes[sample.path][1])
        for sample in images
        if sample.path in sizes
    )
    return replace(data, splits={"train": tuple(known)})


def _as_the_model_has_classes(config: TrainingConfig, data: RunData, labelled: ImageDataset | None = None) -> RunData:
    """The data with labels that are indices of the model's classes; of the data's, where the model has none itself.

    Raises:
        DataError: the model does not know a class of the data.
    """
    own: Sequence[str] | None = None
    if (names := getattr(with_options(architecture(config.model), config.options), "class_names", None)) is not None:
        own = names()
    if own is None and labelled is None:
        return data
    added = [] if labelled is None else [name for name in labelled.classes if name not in data.samples.classes]
    classes = (*data.samples.classes, *added) if own is None else own
    parts = replace(data.samples, splits=data.splits.by_name()).remap_classes(classes).splits
    splits = Splits(parts["train"], parts["val"], parts.get("test", ()), data.splits.warnings)
    others = () if labelled is None else labelled.remap_classes(classes).splits["train"]
    return RunData(data.samples.remap_classes(classes), splits, data.warnings, others)
