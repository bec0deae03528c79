"""The tasks by name; a task's module is imported when it is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path

from hubel.data.annotations.api import detect_formats
from hubel.data.instances import is_unlabelled_instance_folder
from hubel.data.mask_folder import MASK_TREES, VOC_TREES, is_mask_folder
from hubel.errors import ModelError
from hubel.models import architecture
from hubel.tasks.base import Task
from hubel.tasks.decoding import FOLDERS


def get_task(name: str) -> Task:
    """The task of that name; raises :class:`ModelError` if its models are not trained or scored here."""
    if name not in FOLDERS:
        message = f"models for the task {name!r} cannot be trained or scored"
        raise ModelError(message, f"choose from {', '.join(FOLDERS)}")
    module = importlib.import_module(f"hubel.tasks.{FOLDERS[name]}.task")
    task: Task = getattr(module, FOLDERS[name].title().replace("_", ""))()
    return task


def guess_task(data: Path, model: str | None = None) -> str:
    """The task of a run for which none is given: that of the model, else the one that the data's labels are for.

    A classifier does not tell, since it may become a backbone.
    """
    if model is not None and not (arch := architecture(model)).is_backbone:
        return arch.task
    has_labels = data.exists() and bool(detect_formats(data))
    if is_mask_folder(data, MASK_TREES if has_labels else MASK_TREES | VOC_TREES):
        return "segment"
    if not has_labels and is_unlabelled_instance_folder(data):
        return "instances"
    return "detect" if has_labels else "classify"
