"""Ray: a local instance without network access, or the cluster at ``RAY_ADDRESS``, and the actors on it."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hubel.batch_predict.shards import Block, Shards, names_of
from hubel.errors import DataError, HubelError, MissingExtraError
from hubel.system import cpu_count

_MAX_THREADS = 8  # of a network; more of them seldom help, more networks in parallel do
_OBJECT_STORE = 100 << 20  # bytes; what goes through it is a few numbers per block
# Ray reports its use to its maker by default, and prints messages on stderr that do not help here. Its workers need no
# lower priority than other processes: they do the work of the command.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# Where clusters are possible, Ray replaces 127.0.0.1 by an address that others reach: without this, on all but Linux.
_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True)
class ActorPool:
    """The number of a job's actors, the CPU threads of each, and whether each has a GPU."""

    actors: int
    threads: int
    gpu: bool


def require_ray() -> None:
    """Raise :class:`MissingExtraError` if Ray Data is not installed."""
    os.environ.update(_QUIET if os.environ.get("RAY_ADDRESS") else {**_QUIET, **_ALONE})
    try:
        import pyarrow  # noqa: F401
        import ray.data  # noqa: F401
    except ImportError:
        raise MissingExtraError("--ray", "ray") from None


@contextmanager
def ray_running() -> Iterator[Any]:
    """The module ``ray``, connected: to an instance that the program has started, else to the cluster ``RAY_ADDRESS``.

    Without either it is an instance on this machine that is shut down with the context, without a dashboard, on the
    loopback interface, with its files in a temporary folder.

    Raises:
        MissingExtraError: Ray is not installed.
        DataError: the cluster cannot be reached, or Ray failed to start.
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
    """Connect, or start Ray on this machine with its files in a folder."""
    given: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        given |= {"address": "local", "num_cpus": cpu_count(), "object_store_memory": _OBJECT_STORE}
        given |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": folder}
    try:
        with _standard_error_in(Path(folder, "stderr")):  # where Ray's core reports its log level
            try:
                ray.init(**given)
            except Exception:  # Ray times out after thirty seconds on a busy machine
                ray.shutdown()
                ray.init(**given)
    except Exception as error:  # it has no class of its own
        message = f"the Ray cluster {address} does not respond" if address else "Ray failed to start"
        hint = "start it, or unset RAY_ADDRESS" if address else "try again when the machine is less busy"
        raise DataError(f"{message}: {str(error).splitlines()[0]}", hint) from error
    if not address and ray.util.get_node_ip_address() != "127.0.0.1":
        message = "Ray has been imported already and would listen on the network"
        raise DataError(message, "import it later, or call ray.init yourself")


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
    """Choose the number of actors, at most one for each of the ``blocks``, and their threads unless they are given.

    On machines with GPUs, one actor per GPU; else as many as use all CPUs, with up to eight threads each.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    machines = [(int(node.get("GPU", 0)), int(node.get("CPU", 0))) for node in nodes]
    if may_use_gpu and any(gpus for gpus, _ in machines):
        per_gpu = [cpus // gpus for gpus, cpus in machines if gpus]
        actors = min(blocks, sum(gpus for gpus, _ in machines))
        return ActorPool(actors, threads or max(1, min(_MAX_THREADS, *per_gpu)), True)
    cpus = [count for _, count in machines if count]
    threads = min(threads or min(_MAX_THREADS, *cpus, max(cpus)), max(cpus))
    return ActorPool(max(1, min(blocks, sum(count // threads for count in cpus))), threads, False)


def predict_blocks(ray: Any, pool: ActorPool, blocks: Sequence[Block], *work: Any) -> Iterator[dict[str, Any]]:
    """The outcomes of a :class:`BlockPredictor` made of ``work``, by a Ray Data pipeline, as the blocks finish."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    pipeline = ray.data.from_items([asdict(block) for block in blocks], override_num_blocks=len(blocks)).map(
        BlockPredictor,
        fn_constructor_args=work,
        compute=ray.data.ActorPoolStrategy(size=pool.actors),
        num_cpus=pool.threads,
        num_gpus=1 if pool.gpu else None,
    )
    try:
        for row in pipeline.iter_rows():
            yield json.loads(row["outcome"])
    except ray.exceptions.RayError as error:
        message = f"Ray failed: {str(error).strip().splitlines()[-1]}"
        raise DataError(message, "repeat the command: finished shards are kept") from error


@dataclass
class BlockPredictor:
    """Predicts blocks; Ray makes one in each of its actors.

    The model is loaded with the first block. Errors are returned as values: an exception would arrive wrapped in Ray's
    traceback. Relative names, which the ``listing`` has, refer to the ``directory``.
    """

    directory: Path
    listing: Path
    shards: Shards
    arguments: dict[str, Any]
    _predictor: Any = None

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Predict the names of a :class:`~hubel.batch_predict.shards.Block` and write its shard.

        Returns ``{"outcome": JSON}`` of ``{"block", "rows", "errors", "failures"}`` or ``{"error", "hint"}``.
        """
        block = Block(**{name: int(value) for name, value in row.items()})
        try:
            outcome = self._predict(block)
        except HubelError as error:
            outcome = {"error": error.message, "hint": error.hint}
        return {"outcome": json.dumps(outcome)}

    def _predict(self, block: Block) -> dict[str, Any]:
        if self._predictor is None:
            from hubel.inference.predictor import Predictor
            from hubel.system import tune_allocator

            tune_allocator()
            os.chdir(self.directory)
            self._predictor = Predictor(**self.arguments)
        from hubel.inference.outputs import json_row
        from hubel.inference.pipeline import FailedImage

        failures: list[tuple[str, str]] = []

        def rows() -> Iterator[dict[str, Any]]:
            for outcome in self._predictor.stream(names_of(self.listing, block)):
                if isinstance(outcome, FailedImage):
                    failures.append((outcome.error.message, outcome.error.hint))
                yield json_row(outcome, self._predictor.model_name)

        written = self.shards.write(block.number, rows())
        return {"block": block.number, **asdict(written), "failures": failures}
