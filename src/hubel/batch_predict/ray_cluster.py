"""Ray: a local one that talks to nobody, or the cluster that ``RAY_ADDRESS`` names; and how its processors are used."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hubel.batch_predict.shards import Block, Shards, names_of
from hubel.errors import DataError, HubelError, MissingExtraError
from hubel.system import cpu_count

_MOST_THREADS = 8  # of a network; more of them seldom help it, more networks side by side do
_OBJECT_STORE = 100 << 20  # bytes; what goes through it is a few numbers a block
# Ray reports to its maker that it is used, unless told not to; and says on stderr what is of no use here. Its workers
# are the ones that work here: they need not stand back behind everything else on the machine.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# Ray replaces 127.0.0.1 by an address that others reach, where clusters are possible: but for this, on all but Linux.
_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True)
class ActorPool:
    """Actors of a job.

    Attributes:
        actors: how many.
        threads: CPU threads of each.
        gpu: whether each has a GPU.
    """

    actors: int
    threads: int
    gpu: bool


def _cluster() -> str:
    return os.environ.get("RAY_ADDRESS", "")


def require_ray() -> None:
    """Raise :class:`MissingExtraError` where Ray Data is not installed."""
    os.environ.update(_QUIET if _cluster() else {**_QUIET, **_ALONE})
    try:
        import pyarrow  # noqa: F401
        import ray.data  # noqa: F401
    except ImportError:
        raise MissingExtraError("--ray", "ray") from None


@contextmanager
def ray_running() -> Iterator[Any]:
    """The module ``ray``, connected.

    Where ``RAY_ADDRESS`` is set, to that cluster. Else to one of this machine that lives as long as the context,
    without a dashboard, on the loopback interface, its files in a temporary folder. One that the program itself has
    started is used and left.

    Raises:
        MissingExtraError: Ray is not installed.
        DataError: the cluster cannot be reached, or Ray does not start.
    """
    require_ray()
    import ray

    if ray.is_initialized():
        yield ray
        return
    with tempfile.TemporaryDirectory(prefix="hubel-ray-", ignore_cleanup_errors=True) as folder:
        try:
            _start(ray, folder)
            yield ray
        finally:
            ray.shutdown()


def _start(ray: Any, folder: str) -> None:
    """Connect, or start a Ray of this machine with its files in a folder."""
    given: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = _cluster()
    if not address:
        given |= {"address": "local", "num_cpus": cpu_count(), "object_store_memory": _OBJECT_STORE}
        given |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": folder}
    try:
        with _standard_error_in(Path(folder, "said")):  # Ray's core says there that it was told to say little
            try:
                ray.init(**given)
            except Exception:  # Ray gives a busy machine thirty seconds
                ray.shutdown()
                ray.init(**given)
    except Exception as error:  # of no class of its own
        message = f"the Ray cluster {address} does not answer" if address else "Ray does not start"
        hint = "start it, or unset RAY_ADDRESS" if address else "try again when the machine has less to do"
        raise DataError(f"{message}: {str(error).splitlines()[0]}", hint) from error
    if not address and ray.util.get_node_ip_address() != "127.0.0.1":
        raise DataError(
            "Ray, imported before, would listen to the network", "import it later, or call ray.init yourself"
        )


@contextmanager
def _standard_error_in(path: Path) -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with path.open("w") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def plan_actors(ray: Any, may_use_gpu: bool, threads: int | None, blocks: int) -> ActorPool:
    """How many actors, with how many threads.

    On machines with GPUs, one actor a GPU; else as many as fill the processors, with up to eight threads each.

    Args:
        ray: connected.
        may_use_gpu: whether the engine and device that were asked for leave it open.
        threads: of each, if asked for.
        blocks: that are to be computed.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    machines = [(int(node.get("GPU", 0)), int(node.get("CPU", 0))) for node in nodes]
    if may_use_gpu and any(gpus for gpus, _ in machines):
        shares = [cpus // gpus for gpus, cpus in machines if gpus]
        return ActorPool(
            min(blocks, sum(gpus for gpus, _ in machines)), threads or max(1, min(_MOST_THREADS, *shares)), True
        )
    cpus = [count for _, count in machines if count]
    threads = min(threads or min(_MOST_THREADS, *cpus, max(cpus)), max(cpus))
    return ActorPool(max(1, min(blocks, sum(count // threads for count in cpus))), threads, False)


@dataclass(frozen=True)
class Assignment:
    """What every actor needs to know.

    Attributes:
        directory: where relative names begin.
        listing: the collection's names.
        folder: of the shards.
        format: of these.
        predictor: arguments of :class:`~hubel.inference.predictor.Predictor`.
    """

    directory: str
    listing: str
    folder: str
    format: str
    predictor: dict[str, Any]


class BlockPredictor:
    """Predicts blocks; Ray makes one in each of its actors.

    The model is loaded with the first block, and what is wrong comes back as a value: an exception would arrive with
    Ray's traceback around it.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._predictor: Any = None

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Predict the names of a block and write its shard.

        Args:
            row: a :class:`~hubel.batch_predict.shards.Block`, as a dictionary.

        Returns:
            ``{"outcome": JSON}`` of ``{"block", "rows", "errors", "faults"}`` or ``{"fault", "remedy"}``.
        """
        block = Block(**{name: int(value) for name, value in row.items()})
        try:
            outcome = self._predict(block)
        except HubelError as error:
            outcome = {"fault": error.message, "remedy": error.hint}
        return {"outcome": json.dumps(outcome)}

    def _predict(self, block: Block) -> dict[str, Any]:
        given = self._assignment
        if self._predictor is None:
            from hubel.inference.predictor import Predictor
            from hubel.system import tune_allocator

            tune_allocator()
            os.chdir(given.directory)
            self._predictor = Predictor(**given.predictor)
        faults: list[tuple[str, str]] = []
        rows = self._rows(names_of(Path(given.listing), block), faults)
        written = Shards(Path(given.folder), given.format).write(block.number, rows)
        return {"block": block.number, **asdict(written), "faults": faults}

    def _rows(self, names: list[str], faults: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        from hubel.inference.json_lines import json_row
        from hubel.inference.pipeline import FailedImage

        for outcome in self._predictor.stream(names):
            if isinstance(outcome, FailedImage):
                faults.append((outcome.error.message, outcome.error.hint))
            yield json_row(outcome, self._predictor.model_name)
