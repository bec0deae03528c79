"""What each task brings to the one training loop, a file a task.

What belongs here: reading a task's data, its batches, what is minimized and measured of them, what a finished run
says. What does not: the loop itself, and what can be computed without knowing of a run (:mod:`hubel.tasks`).
"""

from __future__ import annotations

from pathlib import Path

from hubel.data.annotations.detect_format import detect_formats
from hubel.errors import ModelError
from hubel.models import architecture
from hubel.training.task import Task
from hubel.training.tasks.classification import Classification
from hubel.training.tasks.detection import Detection
from hubel.training.tasks.localization import Localization

TASKS: dict[str, Task] = {task.name: task for task in (Classification(), Localization(), Detection())}


def guess_task(data: Path, model: str | None = None) -> str:
    """What is to be learned where nobody says: what the network is for, else what the data's labels are for.

    Args:
        data: the data set.
        model: name of the architecture; a classifier may be a backbone too, and so does not tell.

    Raises:
        ModelError: there is no such architecture.
    """
    if model is not None and (task := architecture(model).task) != "classify":
        return task
    return "detect" if data.exists() and detect_formats(data) else "classify"


def task_named(name: str) -> Task:
    """The task of that name.

    Raises:
        ModelError: models of that task are not trained or scored here.
    """
    if name not in TASKS:
        raise ModelError(f"a model of the task {name!r} cannot be trained or scored", f"there are: {', '.join(TASKS)}")
    return TASKS[name]
