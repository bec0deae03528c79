"""The images of a run as batches: whether decoded images are cached, and how many worker processes load them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from torch.utils.data import DataLoader, Dataset

from hubel.config import TrainingConfig
from hubel.console import count_of
from hubel.data.loader import EpochSampler, PixelCache, default_workers, make_dataloader
from hubel.data.splits import Splits
from hubel.system import cpu_count
from hubel.tasks.base import TaskData
from hubel.timing import per_second
from hubel.training.cache_budget import make_image_caches
from hubel.training.distributed import DistributedContext
from hubel.training.run_records import STRICT, decided_once, measured_once
from hubel.training.trials import TrialBudget, machine_key

TRIAL_BATCHES = 4  # the first of them starts the processes and is not timed
FEWEST_STEPS = 2 + 2 * TRIAL_BATCHES  # to compare none with one
_NEGLIGIBLE = 0.02  # of a step's time
_WORTH_A_PROCESS = 1.03


@dataclass(frozen=True)
class Workers:
    """Number of worker processes, 0 to load in the training process itself, and a sentence with the measurements."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    count: Annotated[int, Field(ge=0, le=1024)]
    reason: Annotated[str, Field(max_length=500)]


def choose_workers(
    loader: Callable[[int], DataLoader[Any]], step: Callable[[Any], None], most: int, budget: TrialBudget | None = None
) -> Workers:
    """Try 0, 1, 2, 4, … workers, up to ``most``, while each number is faster than the one before.

    A loader of :data:`TRIAL_BATCHES` batches is made for each; ``step`` trains on a batch without keeping the result.
    The budget, of which :data:`FEWEST_STEPS` are taken already, limits how many are tried.
    """
    budget = budget or TrialBudget()
    budget.announce("data-loading workers: none")
    single = loader(0)
    for batch in single:  # fills the cache where there is one; the first steps are slow
        last = batch
    step(last)
    start = time.perf_counter()
    next(iter(single))
    loaded = time.perf_counter()
    step(last)
    loading, stepping = loaded - start, time.perf_counter() - loaded
    images = max(1, len(last.indices))
    if loading < _NEGLIGIBLE * stepping:
        each = f"{loading / images * 1e3:.2g} ms, and a training step {stepping / images * 1e3:.2g} ms"
        return Workers(0, f"no data-loading workers: preparing an image takes {each}")
    speeds: dict[int, float] = {}
    for count in (0, *(2**power for power in range(most.bit_length()))):
        if count > 1 and not budget.take(TRIAL_BATCHES):
            break
        budget.announce(f"data-loading workers: {count or 'none'}")
        speeds[count] = _images_per_second(loader(count), step)
        if count > 1 and max(speeds, key=speeds.__getitem__) != count:
            break
    best = 0
    for count, speed in speeds.items():
        best = count if speed > _WORTH_A_PROCESS * speeds[best] else best
    measured = ", ".join(f"{count or 'none'} {speed:.1f}" for count, speed in speeds.items())
    return Workers(best, f"{_workers(best)}; images/s measured: {measured}")


def _workers(count: int) -> str:
    return count_of(count, "data-loading worker") if count else "no data-loading workers"


def _images_per_second(loader: DataLoader[Any], step: Callable[[Any], None]) -> float:
    rows = iter(loader)
    step(next(rows))
    start, seen = time.perf_counter(), 0
    for batch in islice(rows, TRIAL_BATCHES - 1):
        step(batch)
        seen += len(batch.indices)
    return per_second(seen, time.perf_counter() - start)


class RunImages:
    """Training and validation images as batches; each of several processes loads its part of every batch."""

    def __init__(self, splits: Splits, config: TrainingConfig, data: TaskData, processes: DistributedContext) -> None:
        self._splits, self._config, self._data = splits, config, data
        self._processes = processes
        self._caches: list[PixelCache | None] = [None, None]
        self._workers = default_workers(processes.on_this_machine) if config.workers is None else config.workers

    def cache_images(self) -> str:
        """Cache decoded images for further epochs; returns the sentence that says where."""
        if sys.platform != "linux" and self._config.workers != 0:
            return ""  # worker processes that are not forked cannot share memory with this one
        of_training, of_validation = self._data.cached_shapes()
        parts = [(self._splits.train, of_training), (self._splits.val, of_validation)]
        self._caches, sentence = make_image_caches(parts, self._config.cache, self._processes.on_this_machine)
        return sentence

    def choose_workers(
        self, folder: Path, make_step: Callable[[], Callable[[Any], None]], key: str, budget: TrialBudget
    ) -> str:
        """Take the number of workers from the config, the record in the run's folder, or else the fastest.

        ``make_step`` gives the step to time; ``key`` stands for the network and how it is executed, to find the choice
        of an earlier run. Where the budget is too small it is half of the cores. Returns a sentence with the
        measurements; empty where none were needed.
        """
        if self._config.workers is not None:
            return ""
        cached = self._caches[0] is not None
        key = f"workers {key} {machine_key()} {self._config.data.resolve()} {self._config.augmentation} {cached}"
        key += "" if self._processes.is_single else f" {self._processes.count}"
        most = max(1, min(8, cpu_count() // self._processes.on_this_machine))

        def choose() -> Workers:
            if not budget.take(FEWEST_STEPS):
                # A process that is not forked imports torch first, which takes longer than a short run's images do.
                count = self._workers if sys.platform == "linux" else 0
                return Workers(count, f"{_workers(count)}: the run is too short to time the alternatives")
            return measured_once(key, Workers, lambda: choose_workers(self._trial, make_step(), most, budget))

        def decide() -> dict[str, Any]:
            return asdict(decided_once(folder, "workers", Workers, choose))

        chosen = Workers(**self._processes.broadcast_object(decide))
        self._workers = chosen.count
        return chosen.reason

    def train(self) -> DataLoader[Any]:
        """Shuffled, randomly augmented."""
        part = self._processes.shard(self._training_images(), self._data.dummy_batch(1))
        return make_dataloader(part, self._training_order(), self._config.batch, self._workers, drop_last=True)

    def validation(self) -> DataLoader[Any]:
        """In order, as for prediction."""
        return self.in_order(self._processes.shard(self._validation_images()), len(self._splits.val))

    def whole_validation(self) -> DataLoader[Any]:
        """The same, with all images in every process."""
        return self.in_order(self._validation_images(), len(self._splits.val))

    def in_order(self, images: Dataset[Any], count: int) -> DataLoader[Any]:
        """Batches of ``count`` images, loaded as those of the run are."""
        order = EpochSampler(count, self._config.seed, shuffle=False)
        return make_dataloader(images, order, self._config.batch, self._workers)

    def _trial(self, workers: int) -> DataLoader[Any]:
        """A few batches of epoch 0, which no run has."""
        batch = -(-min(self._config.batch, len(self._splits.train)) // self._processes.count)
        keys = list(islice(cycle(self._training_order()), batch * TRIAL_BATCHES))
        return make_dataloader(self._training_images(), keys, batch, workers)

    def _training_order(self) -> EpochSampler:
        weights = self._data.sample_weights
        return EpochSampler(len(self._splits.train), self._config.seed, shuffle=True, weights=weights)

    def _validation_images(self) -> Dataset[Any]:
        return self._data.validation(self._splits.val, self._caches[1])

    def _training_images(self) -> Dataset[Any]:
        return self._data.training(self._splits.train, self._caches[0])
