"""Several processes that train one network together, as ``accelerate launch`` or ``torchrun`` start them.

Every process goes through the same batches in the same order and reads its part of each, so that step k sees the same
images however many processes there are. Losses and metrics are summed over all of them. Process 0, the main one,
decides, writes files and messages; it broadcasts its decisions to the others.

A process that fails records the reason in the store before it exits. Its peers see the failure at their next collective
call, read the reason and exit quietly.
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

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import Dataset

from hubel.errors import ResumableError, UsageError
from hubel.inference.precision import choose_device
from hubel.interrupts import exit_status

Value = TypeVar("Value")

# Number of processes, as torchrun and accelerate, Intel's MPI, Open MPI and MVAPICH set it.
_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_TIMEOUT = timedelta(minutes=15)  # of a collective call: the main process may be writing a checkpoint
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class GlobalBatch:
    """A batch of all processes together: its loss, logged means and sums by name, and number of images.

    The mean over the processes of the gradients of their own losses, each times its ``factor``, is the gradient of
    ``objective``, which is a mean over the batch.
    """

    objective: float
    means: dict[str, float]
    sums: dict[str, float]
    images: int
    factor: float


@dataclass(eq=False)
class DistributedContext:
    """The processes of this training, from the point of view of one of them; by default there is only one.

    Attributes:
        rank: of this process, from 0.
        count: number of processes.
        on_this_machine: how many of them share its cores.
        device: of this process; ``None`` if not chosen yet.
    """

    rank: int = 0
    count: int = 1
    on_this_machine: int = 1
    device: torch.device | None = None
    _announced: int = 0

    @property
    def is_main(self) -> bool:
        """True for the process that decides and writes."""
        return self.rank == 0

    @property
    def is_single(self) -> bool:
        """True if there is only one process."""
        return self.count == 1

    @property
    def seed_offset(self) -> tuple[int, ...]:
        """Added to the seed of this process's own random numbers; nothing in the main process."""
        return (self.rank,) if self.rank else ()

    def device_for(self, name: str) -> torch.device:
        """Device of this process if ``--device`` is ``name``."""
        return self.device or choose_device(name)

    def shard(self, images: Dataset[Any], dummy: Any = None) -> Dataset[Any]:
        """A data set that reads only this process's part of each batch of an ``EpochSampler``'s keys.

        A part without images is empty, or the ``dummy``, a batch of one image at index -1: in training every process
        has to take part in every step.
        """
        return images if self.is_single else _ShardedDataset(images, self.rank, self.count, dummy)

    def all_reduce_sum(self, *values: float) -> tuple[float, ...]:
        """Sums over all processes, which all have to call it."""
        if self.is_single:
            return values
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
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
        """From this process's part of a batch to the whole batch; means and sums have the same names in every process.

        The objective and the means are over the part, whose weight in a mean over the batch is ``weight``; the indices
        of dummies are -1.
        """
        values = [float(objective.detach()), *(float(mean.detach()) for mean in means.values())]
        if self.is_single:
            return GlobalBatch(values[0], dict(zip(means, values[1:], strict=True)), dict(sums), len(indices), 1.0)
        here = bool((indices >= 0).all())
        own = [*(value * weight for value in values), weight, len(indices), *sums.values()]
        totals = self.all_reduce_sum(*(own if here else [0.0] * len(own)))
        weighted, (total, images), counted = totals[: len(values)], totals[len(values) :][:2], totals[len(values) + 2 :]
        if not images:
            return GlobalBatch(0.0, dict.fromkeys(means, 0.0), dict.fromkeys(sums, 0.0), 0, 0.0)
        factor = weight * self.count / total if here else 0.0
        whole = [value / total for value in weighted]
        by_name = dict(zip(means, whole[1:], strict=True)), dict(zip(sums, counted, strict=True))
        return GlobalBatch(whole[0], *by_name, int(images), factor)

    def broadcast_object(self, make: Callable[[], Value]) -> Value:
        """Return in every process what ``make`` returns in the main one, a JSON value; the others wait without limit.

        An exception in the main process ends the others.
        """
        if self.is_single:
            return make()
        if not self.is_main:
            received: Value = json.loads(self._sent_by_main(None))
            return received
        try:
            value = make()
        except BaseException:
            self._announce("failed")
            raise
        self._sent_by_main(json.dumps(value).encode())
        return value

    def broadcast_file(self, path: Path) -> io.BytesIO | None:
        """Content of a file on the main process's disk; ``None`` if it does not exist."""
        if not self.broadcast_object(path.exists):
            return None
        if self.is_single:
            return io.BytesIO(path.read_bytes())
        return io.BytesIO(self._sent_by_main(path.read_bytes() if self.is_main else None))

    def broadcast_module(self, module: nn.Module, buffers_only: bool = False) -> None:
        """Copy a module's weights and buffers from the main process."""
        if self.is_single:
            return
        tensors = list(module.buffers()) if buffers_only else [*module.parameters(), *module.buffers()]
        for tensor in tensors:
            whole = tensor.detach().contiguous()  # channels-last weights lie otherwise in memory
            distributed.broadcast(whole, 0)
            tensor.data.copy_(whole)

    def all_gather(self, values: list[Value]) -> list[Value]:
        """The values of all processes, those of the main one first; they are pickled."""
        if self.is_single:
            return values
        parts: list[list[Value]] = [[] for _ in range(self.count)]
        distributed.all_gather_object(parts, values)
        return [value for part in parts for value in part]

    def barrier(self) -> None:
        """Wait until all processes have come here."""
        self.all_reduce_sum(0.0)

    def _announce(self, what: str) -> None:
        """Tell the other processes, which may wait for hours without a timeout, how the main process's work ended."""
        self._announced += 1
        store().set(f"hubel/main/{self._announced}", what)

    def _sent_by_main(self, content: bytes | None) -> bytes:
        """The main process's ``content``, in all processes."""
        if content is not None:
            self._announce(str(len(content)))
            size = len(content)
        else:
            self._announced += 1
            key = f"hubel/main/{self._announced}"
            while not store().check([key]):  # store.wait would not see signals
                time.sleep(_POLL_SECONDS)
            message = store().get(key).decode()
            if message == "failed":
                raise SystemExit(1)
            size = int(message)
        tensor = torch.zeros(size, dtype=torch.uint8, device=self.device)
        if content:
            tensor.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        if size:
            distributed.broadcast(tensor, 0)
        return tensor.cpu().numpy().tobytes()


SINGLE_PROCESS = DistributedContext()


class _ShardedDataset(Dataset[Any]):
    """Reads every ``count``-th of the keys of a batch."""

    def __init__(self, images: Dataset[Any], rank: int, count: int, dummy: Any) -> None:
        self._images: Any = images
        self._rank, self._count, self._dummy = rank, count, dummy

    def __len__(self) -> int:
        return len(self._images)

    def __getitems__(self, keys: Sequence[Any]) -> Any:
        batch = self._images.__getitems__(keys[self._rank :: self._count])
        return batch if len(batch.indices) or self._dummy is None else self._dummy


def join(device: str) -> DistributedContext:
    """Join the other processes, if several were started; each on a machine takes a GPU of its own.

    Raises :class:`UsageError` if they cannot share the device.
    """
    expected = max(int(os.environ.get(name) or 1) for name in _COUNTS)
    if expected < 2:
        return SINGLE_PROCESS
    chosen = choose_device(device)
    if chosen.type == "mps" or chosen.index is not None:
        raise UsageError(f"--device {device}: {expected} processes cannot share it", "use --device cuda or cpu")
    from accelerate import PartialState

    # A filter on one channel, or of one pixel, is channels-last and contiguous at once, of which torch warns.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    state = PartialState(cpu=chosen.type == "cpu", timeout=_TIMEOUT)
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    return DistributedContext(state.process_index, state.num_processes, here, state.device)


def is_main() -> bool:
    """True in the main process, which may be the only one."""
    from accelerate import PartialState

    return not PartialState._shared_state or PartialState().process_index == 0


def store() -> distributed.distributed_c10d.Store:
    """Key-value store that the processes share."""
    return distributed.distributed_c10d._get_default_store()


_REASON, _GONE = "hubel/ended", "hubel/gone"
_EXIT_SECONDS = 2.0  # for the others to read the reason; a process that was killed records none
_INTERRUPTED, _FAILED = "interrupted", "failed"


@contextmanager
def distributed_session(device: str) -> Iterator[DistributedContext]:
    """Join the processes that were started together, and leave them at the end.

    Raises:
        KeyboardInterrupt: in the main process, if any was interrupted.
        SystemExit: another process has reported the error.
    """
    processes = join(device)
    if processes.is_single:
        yield processes
        return
    try:
        with report_error_once(processes):
            yield processes
    except BaseException as error:
        _leave(processes)
        if isinstance(error, KeyboardInterrupt) and not processes.is_main:
            raise SystemExit(exit_status()) from None
        raise
    else:
        distributed.destroy_process_group()


def _leave(processes: DistributedContext) -> None:
    """Close the connections, which wakes waiting processes, and give them time to read the reason.

    The store may live in this process.
    """
    kept = store()
    if distributed.get_backend() == "gloo":  # NCCL would first wait for what will never come
        distributed.destroy_process_group()
    with contextlib.suppress(RuntimeError):  # of a store that has gone with the main process
        gone = kept.add(_GONE, 1)
        until = time.monotonic() + _EXIT_SECONDS
        while processes.is_main and gone < processes.count and time.monotonic() < until:
            time.sleep(0.05)
            gone = kept.add(_GONE, 0)


@contextmanager
def report_error_once(processes: DistributedContext) -> Iterator[None]:
    """Report an error in the first process that fails only.

    Raises:
        KeyboardInterrupt: this process, or before it another, was interrupted.
        DataError: another process was killed and left no reason.
        SystemExit: another process has failed, and reports the error itself.
    """
    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        if processes.is_single:
            raise
        first, why = _record_reason(processes.rank, _INTERRUPTED if isinstance(error, KeyboardInterrupt) else _FAILED)
        if first != processes.rank:
            if why == _INTERRUPTED:
                raise KeyboardInterrupt from None
            raise SystemExit(1) from None
        if _is_connection_error(error):
            raise ResumableError(
                f"another process of this training exited unexpectedly: {str(error).splitlines()[0]}",
                "check its log, then continue with --resume: often memory ran out or a machine is unreachable",
            ) from error
        raise


def _record_reason(rank: int, why: str) -> tuple[int, str]:
    """Record why this process ends, unless another ended before; returns the first process and its reason."""
    try:
        first, _, reason = store().compare_set(_REASON, "", f"{rank}:{why}").decode().partition(":")
        return int(first), reason
    except (RuntimeError, ValueError):  # the store was in the main process, which has ended
        return (0, _FAILED) if rank else (rank, why)


def _is_connection_error(error: BaseException) -> bool:
    """True if a collective call failed: torch has no exception of its own for that everywhere."""
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        mark in text for mark in ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe")
    )
