"""A benchmark: prepares the models, starts them, measures them in turns, puts the rows together."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hubel.analysis.roofline import MachineLimits, NetworkCost, bound
from hubel.benchmark.worker import JobFailure, JobResult, run_job
from hubel.errors import UsageError
from hubel.inference.engines.base import PRECISIONS, canonical
from hubel.inference.engines.selection import BACKENDS
from hubel.timing import per_second

_BATCHES = (1, 16)  # by default, as are these precisions
_PRECISIONS = ("fp32", "bf16", "int8")
_MAX_PEAK_SECONDS = 0.5  # for each kernel that measures the machine
_NOT_QUANTIZED = "it has not been quantized on this machine yet: hubel predict … --precision int8 --calibrate IMAGES"
_ANY_LOSS = 0.999
_PERCENTILES = (50, 90, 99)


class Runner(NamedTuple):
    """Engine and precision that run a model."""

    engine: str
    precision: str


@dataclass(frozen=True)
class Plan:
    """Measurements of every model; ``left_out`` says why runners, requested or measured by default, are missing."""

    runners: tuple[Runner, ...]
    batches: tuple[int, ...]
    left_out: dict[Runner, str]


def plan(
    engines: Sequence[str] = (), precisions: Sequence[str] = (), batches: Sequence[int] = (), bf16_pays: bool = True
) -> Plan:
    """Choose the measurements: by default all engines, fp32, bf16 and int8 where the engine has them, batches 1 and 16.

    Unless ``bf16_pays`` on this machine, it is only measured on request: emulation may take hundreds of times as long.

    Raises:
        UsageError: an unknown engine or precision, or an empty batch.
    """
    for name in engines:
        if name not in BACKENDS:
            raise UsageError(f"unknown engine {name!r}", f"use {', '.join(BACKENDS)}")
    formats = [canonical(name) for name in precisions]
    if "auto" in formats:
        raise UsageError("precision auto cannot be compared", f"use {', '.join(PRECISIONS)}")
    if any(batch < 1 for batch in batches):
        raise UsageError(f"batch is {min(batches)}", "use 1 or more")
    runners: list[Runner] = []
    left_out: dict[Runner, str] = {}
    for engine in dict.fromkeys(engines or BACKENDS):
        for precision in dict.fromkeys(formats or _PRECISIONS):
            runner = Runner(engine, precision)
            if not any(precision in device for device in BACKENDS[engine].precisions.values()):
                if formats:
                    left_out[runner] = f"{engine} does not support {precision} on this machine"
            elif precision == "bf16" and not formats and not bf16_pays:
                left_out[runner] = "this processor has no instructions for bf16"
            else:
                runners.append(runner)
    return Plan(tuple(runners), tuple(dict.fromkeys(batches or _BATCHES)), left_out)


@dataclass
class _Model:
    name: str
    reference: str
    random_weights: bool
    input: list[int]
    cost: NetworkCost | None
    runners: tuple[Runner, ...]


@dataclass
class _Job:
    """What is repeated in every round: a start of an engine, or with a ``batch`` the measurements."""

    model: _Model
    runner: Runner
    batch: int | None = None
    results: list[JobResult] = field(default_factory=list)
    failed: JobFailure | None = None


@dataclass
class Session:
    """A benchmark that may be interrupted: measurements so far are kept.

    Attributes:
        images: files for the measurement from files to results; at least one.
        seconds: for each measurement.
        folder: an empty one, for models with random weights and their conversions.
        step: takes the current step, the number of steps done and of all steps.
    """

    models: Sequence[str]
    engines: Sequence[str]
    precisions: Sequence[str]
    batches: Sequence[int]
    images: Sequence[Path]
    seconds: float
    rounds: int
    threads: int | None
    folder: Path
    log: Callable[[str], None]
    step: Callable[[str, int, int], None]
    limits: MachineLimits | None = None

    def __post_init__(self) -> None:
        # Invalid options are reported before anything is measured.
        self._plan = plan(self.engines, self.precisions, self.batches)
        self._jobs: list[tuple[_Job, list[_Job]]] = []  # each start, and the measurements of its engine
        self._without: list[dict[str, Any]] = []

    def run(self) -> None:
        """Measure everything; after ``KeyboardInterrupt``, :meth:`rows` has the measurements so far."""
        self.step("peaks of this machine", 0, 1)
        self._measure_limits()
        models = [model for name in dict.fromkeys(self.models) if (model := self._prepare(name))]
        starts = [(model, runner) for model in models for runner in model.runners]
        for done, (model, runner) in enumerate(starts):
            self.step(f"first start of {model.name} {runner.engine} {runner.precision}", done, len(starts))
            self._first_start(model, runner)
        jobs = [*(start for start, _ in self._jobs), *(job for _, measured in self._jobs for job in measured)]
        for number in range(self.rounds):
            for done, job in enumerate(jobs, start=number * len(jobs)):
                if job.failed is None:
                    name = f"{job.model.name} {job.runner.engine} {job.runner.precision}"
                    kind = "start" if job.batch is None else f"batch {job.batch}"
                    self.step(f"round {number + 1} of {self.rounds}: {name}, {kind}", done, len(jobs) * self.rounds)
                    try:
                        self._do(job)
                    except JobFailure as failure:
                        job.failed = failure

    def rows(self) -> list[dict[str, Any]]:
        """One per configuration: with figures, or with ``"error"`` or ``"left_out"`` and the reason."""
        return [*(self._row(start, job) for start, measured in self._jobs for job in measured), *self._without]

    def _measure_limits(self) -> None:
        seconds = min(_MAX_PEAK_SECONDS, self.seconds)
        try:
            found = run_job({"job": "limits", "seconds": seconds, "threads": self.threads}).row
        except JobFailure as failure:
            self.log(f"no roofline: {failure.reason}")
            return
        self.limits = MachineLimits(**found["limits"])
        self._plan = plan(self.engines, self.precisions, self.batches, found["bf16_pays"])

    def _prepare(self, name: str) -> _Model | None:
        folder = self.folder / f"model-{self.models.index(name)}"
        try:
            found = run_job({"job": "prepare", "model": name, "folder": str(folder)}).row
        except JobFailure as failure:
            self._without.append(_bare(name, error=failure.reason))
            return None
        if found["random_weights"]:
            self.log(f"{name}: its weights are not on this machine; random weights are used, which are just as fast")
        runners, left_out = self._plan.runners, self._plan.left_out
        if found["runner"] is not None:
            runners, left_out = self._of_exported(Runner(*found["runner"]))
        self._without += [_bare(name, runner, left_out=reason) for runner, reason in left_out.items()]
        cost = found["cost"] and NetworkCost(**found["cost"])
        return _Model(name, found["reference"], found["random_weights"], found["input"], cost, runners)

    def _of_exported(self, runner: Runner) -> tuple[tuple[Runner, ...], dict[Runner, str]]:
        """The only runner of an exported file, and why it is missing if others are requested."""
        engines = self.engines or (runner.engine,)
        precisions = [canonical(precision) for precision in self.precisions] or [runner.precision]
        if runner.engine in engines and runner.precision in precisions:
            return (runner,), {}
        return (), {runner: "the only engine and precision of this exported file, which were not requested"}

    def _first_start(self, model: _Model, runner: Runner) -> None:
        start = _Job(model, runner)
        try:
            if self._only_cached(model, runner) and (
                model.random_weights or not run_job({"job": "cached", "model": model.reference}).row["cached"]
            ):
                raise JobFailure(_NOT_QUANTIZED, lacking=True)
            self._do(start)
        except JobFailure as failure:
            kind = "left_out" if failure.lacking else "error"
            self._without.append({**_bare(model.name, runner), kind: failure.reason})
            return
        self._jobs.append((start, [_Job(model, runner, batch) for batch in self._plan.batches]))

    def _only_cached(self, model: _Model, runner: Runner) -> bool:
        """int8 is measured only with a cached quantization, unless it is requested or exported."""
        return runner.precision == "int8" and not self.precisions and model.cost is not None

    def _do(self, job: _Job) -> None:
        """Add a result to those of a job."""
        (engine, precision), starts = job.runner, job.batch is None
        row: dict[str, Any] = {"model": job.model.reference, "engine": engine, "precision": precision}
        row |= {"device": "auto" if len(BACKENDS[engine].precisions) > 1 else "cpu", "threads": self.threads}
        if self._only_cached(job.model, job.runner):  # the loss of a quantized model does not matter to its speed
            row["tolerance"] = _ANY_LOSS
        if starts:
            row |= {"job": "start", "batch": 1, "image": str(self.images[0])}
        else:
            row |= {
                "job": "measure",
                "batch": job.batch,
                "images": list(map(str, self.images)),
                "seconds": self.seconds,
            }
        # Conversions of random weights do not go into the user's cache.
        environment = {"HUBEL_CACHE": str(self.folder / "cache")} if job.model.random_weights else {}
        job.results.append(run_job(row, environment, time_imports=starts))

    def _row(self, start: _Job, job: _Job) -> dict[str, Any]:
        assert job.batch is not None
        bare, batch = _bare(job.model.name, job.runner, job.batch), job.batch
        if failed := job.failed or start.failed:
            return {**bare, "error": failed.reason}
        if not job.results:
            return {**bare, "left_out": "interrupted"}
        measured, (first, *starts) = [result.row for result in job.results], start.results
        seconds = statistics.median(row["seconds_per_batch"] for row in measured)
        end_to_end = statistics.median(row["seconds_per_image"] for row in measured)
        return {
            **bare,
            "device": measured[0]["device"],
            "threads": measured[0]["threads"],
            "input": job.model.input,
            "random_weights": job.model.random_weights,
            "rounds": len(measured),
            "seconds_per_batch": seconds,
            "images_per_second": per_second(batch, seconds),
            "end_to_end_seconds_per_image": end_to_end,
            "end_to_end_images_per_second": per_second(1, end_to_end),
            **_percentiles([seconds for row in measured for seconds in row["latencies"]]),
            "peak_memory_bytes": round(statistics.median(row["peak_memory_bytes"] for row in measured)),
            "first_start_seconds": first.seconds,
            "cold_start_seconds": _median([each.seconds for each in starts]),
            "import_fraction": _median([per_second(each.import_seconds, each.seconds) for each in starts]),
            **self._roofline(
                job.model.cost, job.runner.precision, batch, measured[0]["device"], per_second(batch, seconds)
            ),
        }

    def _roofline(
        self, cost: NetworkCost | None, precision: str, batch: int, device: str, images_per_second: float
    ) -> dict[str, Any]:
        row: dict[str, Any] = {
            "macs": cost and cost.macs,
            "bytes_per_image": cost and cost.bytes_an_image(precision, batch),
        }
        most = None
        if cost is not None and self.limits is not None and device == "cpu":
            most = bound(cost, self.limits, precision, batch)
            row["peak_macs_per_second"] = self.limits.macs_per_second.get(precision)
            row["peak_bytes_per_second"] = self.limits.bytes_per_second
        return {
            **row,
            "bound_images_per_second": most and most.images_per_second,
            "bound_by": most and most.by,
            "bound_fraction": most and images_per_second / most.images_per_second,
        }


def _bare(model: str, runner: Runner | None = None, batch: int | None = None, **reason: str) -> dict[str, Any]:
    engine, precision = runner or (None, None)
    return {"model": model, "engine": engine, "precision": precision, "batch": batch, **reason}


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _percentiles(latencies: list[float]) -> dict[str, float | None]:
    """Percentiles of the latencies of all rounds together, interpolated linearly between the two nearest."""
    cuts: Sequence[float | None] = [None] * 99
    if len(latencies) > 1:
        cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    return {f"latency_p{percent}_seconds": cuts[percent - 1] for percent in _PERCENTILES}
