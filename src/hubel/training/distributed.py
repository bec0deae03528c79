"""Several processes that train one network together, as ``accelerate launch`` or ``torchrun`` start them.

Every process goes through the same batches in the same order and reads its share of each, so that step k sees the same
images however many processes there are. What the loss and the metrics are means of is summed over all of them.
Process 0, the main one, decides, writes and speaks; the others learn from it what was decided.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.utils.data import Dataset

from hubel.errors import DataError, UsageError
from hubel.inference.precision import choose_device

Value = TypeVar("Value")

# How many processes there are, as torchrun and accelerate, Intel's MPI, Open MPI and MVAPICH say it.
_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_PATIENCE = timedelta(minutes=15)  # for a process that is still at work on its own, such as writing the checkpoint
_LOOK_AGAIN = 0.1  # seconds


@dataclass(frozen=True)
class GlobalBatch:
    """A batch as all processes together see it.

    Attributes:
        objective: what is minimized, the mean over the batch.
        means: of what is watched, by name.
        sums: of what is counted, by name.
        images: in it.
        factor: of this process's own objective: the mean over the processes of the gradients of their own, each times
            its factor, is the gradient of this one's ``objective``.
    """

    objective: float
    means: dict[str, float]
    sums: dict[str, float]
    images: int
    factor: float


@dataclass(eq=False)
class DistributedContext:
    """The processes of this training, as one of them sees them; by default it is alone.

    Attributes:
        rank: of this one, from 0.
        count: of all.
        on_this_machine: how many of them share its cores.
        device: where this one computes; ``None`` where nobody has decided.
    """

    rank: int = 0
    count: int = 1
    on_this_machine: int = 1
    device: torch.device | None = None
    _words: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the one that decides, writes and speaks."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.count == 1

    @property
    def seed_offset(self) -> tuple[int, ...]:
        """What is added to the seed of this process's own random numbers; nothing in the main one."""
        return (self.rank,) if self.rank else ()

    def device_for(self, name: str) -> torch.device:
        """Where this process computes if ``--device`` is ``name``."""
        return self.device or choose_device(name)

    def shard(self, images: Dataset[Any], dummy_batch: Any = None) -> Dataset[Any]:
        """A data set of which each whole batch that is asked for is read in part only: this process's share.

        Args:
            images: gives batches of the keys of an :class:`~hubel.data.loader.EpochSampler`.
            dummy_batch: a batch of one image, at index -1, for a share without any: in training every process
                has to take part in every step. Without it such a share is empty.
        """
        return images if self.alone else _ShardedDataset(images, self.rank, self.count, dummy_batch)

    def total(self, *figures: float) -> tuple[float, ...]:
        """Sums of figures over all processes, which all have to ask for."""
        if self.alone:
            return figures
        sums = torch.tensor(figures, dtype=torch.float64, device=self.device)
        distributed.all_reduce(sums)
        return tuple(sums.tolist())

    def reduce_batch(
        self,
        objective: Tensor,
        means: Mapping[str, Tensor],
        sums: Mapping[str, float],
        weight: float,
        indices: Tensor,
    ) -> GlobalBatch:
        """From this process's share to the batch of all.

        Args:
            objective: what is minimized, a mean over the share.
            means: over the share, by name; the same names in every process.
            sums: over the share, the same.
            weight: how much the share counts in a mean over the batch.
            indices: of the share's images; -1 for one that stands in.
        """
        values = [float(objective.detach()), *(float(mean.detach()) for mean in means.values())]
        if self.alone:
            return GlobalBatch(values[0], dict(zip(means, values[1:], strict=True)), dict(sums), len(indices), 1.0)
        here = bool((indices >= 0).all())
        own = [*(value * weight for value in values), weight, len(indices), *sums.values()]
        totals = self.total(*(own if here else [0.0] * len(own)))
        weighted, (total, images), counted = totals[: len(values)], totals[len(values) :][:2], totals[len(values) + 2 :]
        if not images:
            return GlobalBatch(0.0, dict.fromkeys(means, 0.0), dict.fromkeys(sums, 0.0), 0, 0.0)
        factor = weight * self.count / total if here else 0.0
        whole = [value / total for value in weighted]
        by_name = dict(zip(means, whole[1:], strict=True)), dict(zip(sums, counted, strict=True))
        return GlobalBatch(whole[0], *by_name, int(images), factor)

    def broadcast_object(self, make: Callable[[], Value]) -> Value:
        """What ``make`` returns in the main process, a JSON value; the others wait for it, however long it takes.

        An exception in the main process ends the others: see :mod:`hubel.training.distributed`.
        """
        if self.alone:
            return make()
        if not self.is_main:
            return json.loads(self._sent_by_main(None))
        try:
            value = make()
        except BaseException:
            self._announce("failed")
            raise
        self._sent_by_main(json.dumps(value).encode())
        return value

    def broadcast_file(self, path: Path) -> io.BytesIO | None:
        """A file of the main process's disk, wherever this one runs; ``None`` if it does not exist."""
        if not self.broadcast_object(path.exists):
            return None
        if self.alone:
            return io.BytesIO(path.read_bytes())
        return io.BytesIO(self._sent_by_main(path.read_bytes() if self.is_main else None))

    def broadcast_module(self, module: nn.Module, buffers_only: bool = False) -> None:
        """Give a module the weights and buffers that it has in the main process."""
        if self.alone:
            return
        tensors = list(module.buffers()) if buffers_only else [*module.parameters(), *module.buffers()]
        for tensor in tensors:
            whole = tensor.detach().contiguous()  # channels-last weights lie otherwise in memory
            distributed.broadcast(whole, 0)
            tensor.data.copy_(whole)

    def all_gather(self, rows: np.ndarray) -> np.ndarray:
        """The rows of all processes, those of the main one first: float64 (N, …) of any N, the rest alike."""
        if self.alone:
            return rows
        counts = [int(count) for count in self.total(*(len(rows) * (self.rank == rank) for rank in range(self.count)))]
        padded = torch.zeros(max(counts), *rows.shape[1:], dtype=torch.float64, device=self.device)
        padded[: len(rows)] = torch.from_numpy(rows)
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).cpu().numpy()

    def wait(self) -> None:
        """Go on when all have come here."""
        self.total(0.0)

    def _announce(self, what: str) -> None:
        """The main process tells the others, who may wait for hours without a timeout, what became of its work."""
        self._words += 1
        store().set(f"hubel/main/{self._words}", what)

    def _sent_by_main(self, content: bytes | None) -> bytes:
        """The main process's ``content``, in all processes."""
        if content is not None:
            self._announce(str(len(content)))
            size = len(content)
        else:
            self._words += 1
            key = f"hubel/main/{self._words}"
            while not store().check([key]):  # store.wait would not see signals
                time.sleep(_LOOK_AGAIN)
            word = store().get(key).decode()
            if word == "failed":
                raise SystemExit(1)
            size = int(word)
        tensor = torch.zeros(size, dtype=torch.uint8, device=self.device)
        if content:
            tensor.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        if size:
            distributed.broadcast(tensor, 0)
        return tensor.cpu().numpy().tobytes()


SINGLE_PROCESS = DistributedContext()


class _ShardedDataset(Dataset[Any]):
    """Of each list of keys, which are a whole batch's, every ``count``-th is read."""

    def __init__(self, images: Dataset[Any], rank: int, count: int, dummy_batch: Any) -> None:
        self._images: Any = images
        self._rank = rank
        self._count = count
        self._dummy_batch = dummy_batch

    def __len__(self) -> int:
        return len(self._images)

    def __getitems__(self, keys: Sequence[Any]) -> Any:
        batch = self._images.__getitems__(keys[self._rank :: self._count])
        return batch if len(batch.indices) or self._dummy_batch is None else self._dummy_batch


def join(device: str) -> DistributedContext:
    """Meet the other processes, if several were started.

    Args:
        device: as ``--device`` says; each process on a machine takes a GPU of its own.

    Raises:
        UsageError: the device is not for several processes.
    """
    expected = max(int(os.environ.get(name) or 1) for name in _COUNTS)
    if expected < 2:
        return SINGLE_PROCESS
    chosen = choose_device(device)
    if chosen.type == "mps" or chosen.index is not None:
        raise UsageError(f"--device {device}: {expected} processes cannot share it", "use --device cuda or cpu")
    from accelerate import PartialState

    # A filter on one channel, or of one pixel, is channels-last and contiguous at once; torch finds that remarkable.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    state = PartialState(cpu=chosen.type == "cpu", timeout=_PATIENCE)
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    return DistributedContext(state.process_index, state.num_processes, here, state.device)


def is_main() -> bool:
    """Whether this process speaks for all; true where there is one."""
    from accelerate import PartialState

    return not PartialState._shared_state or PartialState().process_index == 0


def store() -> distributed.Store:
    """Where the processes leave words for each other."""
    return distributed.distributed_c10d._get_default_store()


_WORD, _GONE = "hubel/ended", "hubel/gone"
_FAREWELL = 2.0  # seconds; a process that was killed says none
_INTERRUPTED, _FAILED = "interrupted", "failed"


@contextmanager
def joined(device: str) -> Iterator[DistributedContext]:
    """The processes that were started together, from their meeting to their parting.

    Raises:
        KeyboardInterrupt: in the main process, where any was interrupted.
        SystemExit: where another process has said what is wrong.
    """
    processes = join(device)
    if processes.alone:
        yield processes
        return
    try:
        with report_error_once(processes):
            yield processes
    except BaseException as error:
        _leave(processes)
        if isinstance(error, KeyboardInterrupt) and not processes.is_main:
            raise SystemExit(130) from None
        raise
    else:
        distributed.destroy_process_group()


def _leave(processes: DistributedContext) -> None:
    """Cut the connections, which wakes those who wait, and give them time to read why: the store may be in here."""
    kept = store()
    if distributed.get_backend() == "gloo":  # NCCL would first wait for what will never come
        distributed.destroy_process_group()
    with contextlib.suppress(RuntimeError):  # of a store that has gone with the main process
        gone = kept.add(_GONE, 1)
        until = time.monotonic() + _FAREWELL
        while processes.is_main and gone < processes.count and time.monotonic() < until:
            time.sleep(0.05)
            gone = kept.add(_GONE, 0)


@contextmanager
def report_error_once(processes: DistributedContext) -> Iterator[None]:
    """Turn an exception into what this process has to make of it: only the first to end says why.

    Raises:
        KeyboardInterrupt: this process, or before it another, was interrupted.
        DataError: another process has gone without a word.
        SystemExit: another process has failed, and says why itself.
    """
    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        if processes.alone:
            raise
        first, why = _record_reason(processes.rank, _INTERRUPTED if isinstance(error, KeyboardInterrupt) else _FAILED)
        if first != processes.rank:
            if why == _INTERRUPTED:
                raise KeyboardInterrupt from None
            raise SystemExit(1) from None
        if _says_that_another_has_gone(error):
            raise DataError(
                f"another process of this training has gone without a word: {str(error).splitlines()[0]}",
                "often memory ran out, or a machine cannot be reached: look into its log, then go on with --resume",
            ) from error
        raise


def _record_reason(rank: int, why: str) -> tuple[int, str]:
    """Which process ended first, and why; this one, if none has before."""
    try:
        first, _, reason = store().compare_set(_WORD, "", f"{rank}:{why}").decode().partition(":")
        return int(first), reason
    except (RuntimeError, ValueError):  # it was kept by the main process, which has gone
        return (0, _FAILED) if rank else (rank, why)


def _says_that_another_has_gone(error: BaseException) -> bool:
    """Whether torch's means of exchange, which have no exception of their own everywhere, raised it."""
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        mark in text for mark in ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe")
    )
