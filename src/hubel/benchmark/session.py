"""A benchmark from beginning to end: prepare the models, start them, measure them in turns, put the rows together."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubel.analysis.roofline import MachineLimits, NetworkCost, bound
from hubel.benchmark.worker import JobFailure, run_job
from hubel.errors import UsageError
from hubel.inference.engines.base import PRECISIONS, canonical
from hubel.inference.engines.registry import BACKENDS

BATCHES = (1, 16)
_MEASURED = ("fp32", "bf16", "int8")  # by default


@dataclass(frozen=True)
class Runner:
    """What runs a model.

    Attributes:
        engine: one of :data:`hubel.inference.engines.registry.BACKENDS`.
        precision: one of :data:`hubel.inference.engines.base.PRECISIONS`.
    """

    engine: str
    precision: str


@dataclass(frozen=True)
class Plan:
    """What is to be measured of every model.

    Attributes:
        runners: engines and formats.
        batches: how many pictures go through the network at once.
        left_out: reasons, for what was asked for or would be measured by default, but cannot be had.
    """

    runners: tuple[Runner, ...]
    batches: tuple[int, ...]
    left_out: dict[Runner, str]


def plan(
    engines: Sequence[str] = (),
    precisions: Sequence[str] = (),
    batches: Sequence[int] = (),
    bf16_pays: bool = True,
) -> Plan:
    """Put together what is to be measured.

    Args:
        engines: their names; all by default.
        precisions: by their short or long names; by default fp32, bf16 and int8, where the engine has them.
        batches: numbers of pictures; 1 and 16 by default.
        bf16_pays: whether this machine computes in bfloat16; if not, it is measured only where it is asked for, as
            emulation may take hundreds of times as long.

    Raises:
        UsageError: an engine or number format that there is not, or a batch of none.
    """
    for name in engines:
        if name not in BACKENDS:
            raise UsageError(f"there is no engine {name!r}", f"use {', '.join(BACKENDS)}")
    formats = [canonical(name) for name in precisions]
    if "auto" in formats:
        raise UsageError("precision auto is none that can be compared", f"use {', '.join(PRECISIONS)}")
    if any(batch < 1 for batch in batches):
        raise UsageError(f"batch is {min(batches)}", "use 1 or more")
    runners: list[Runner] = []
    left_out: dict[Runner, str] = {}
    for engine in dict.fromkeys(engines or BACKENDS):
        for precision in dict.fromkeys(formats or _MEASURED):
            runner = Runner(engine, precision)
            if not any(precision in device for device in BACKENDS[engine].precisions.values()):
                if formats:
                    left_out[runner] = f"{engine} does not compute in {precision} here"
            elif precision == "bf16" and not formats and not bf16_pays:
                left_out[runner] = "this processor has no instructions for bf16"
            else:
                runners.append(runner)
    return Plan(tuple(runners), tuple(dict.fromkeys(batches or BATCHES)), left_out)


_LONGEST_PEAK = 0.5  # seconds for each kernel that tries what the machine can do
_NOT_QUANTIZED = "it has not been quantized here: hubel predict … --precision int8 --calibrate IMAGES does so"
_ANY_LOSS = 0.999
_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class BenchOptions:
    """What a person asked for.

    Attributes:
        models: names, names with weights, or run folders.
        engines: empty: all that are installed.
        precisions: empty: fp32, bf16 where the processor has it, int8 where the model has been quantized.
        batches: empty: 1 and 16.
        pictures: files for the measurement from files to answers; at least one.
        seconds: for each measurement.
        rounds: how many times each is taken.
        threads: CPU threads; None: all cores.
    """

    models: Sequence[str]
    engines: Sequence[str]
    precisions: Sequence[str]
    batches: Sequence[int]
    pictures: Sequence[Path]
    seconds: float
    rounds: int
    threads: int | None


@dataclass
class _Model:
    name: str
    reference: str
    random_weights: bool
    input: list[int]
    cost: NetworkCost
    environment: dict[str, str]


@dataclass
class _Started:
    """An engine that has answered with a model, and how long that took each time, in all and for imports."""

    model: _Model
    runner: Runner
    first: float
    imports: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    failed: JobFailure | None = None


@dataclass
class _Configuration:
    started: _Started
    batch: int
    measured: list[dict[str, Any]] = field(default_factory=list)
    failed: JobFailure | None = None


class Session:
    """A benchmark that may be interrupted: what it has found so far stays.

    Args:
        wanted: what is asked for.
        folder: an empty one, for models of random weights and their conversions.
        tell: takes a line for a log.
        step: takes what is being done, the number of steps done and of all steps.
    """

    def __init__(
        self,
        wanted: BenchOptions,
        folder: Path,
        tell: Callable[[str], None],
        step: Callable[[str, int, int], None],
    ) -> None:
        self._wanted = wanted
        self._folder = folder
        self._tell = tell
        self._step = step
        self._plan = self._plan_for(bf16_pays=True)  # wrong options are told before anything is measured
        self._started: list[_Started] = []
        self._configurations: list[_Configuration] = []
        self._without: list[dict[str, Any]] = []
        self.limits: MachineLimits | None = None

    def run(self) -> None:
        """Measure everything; ``KeyboardInterrupt`` may come up at any time, and :meth:`rows` is then what there is."""
        self._step("what this machine can do at most", 0, 1)
        self._measure_limits()
        models = [model for name in dict.fromkeys(self._wanted.models) if (model := self._prepare(name))]
        starts = [(model, runner) for model in models for runner in self._plan.runners]
        for done, (model, runner) in enumerate(starts):
            self._step(f"first start of {model.name} {runner.engine} {runner.precision}", done, len(starts))
            self._first_start(model, runner)
        jobs: list[_Started | _Configuration] = [*self._started, *self._configurations]
        for number in range(self._wanted.rounds):
            for done, job in enumerate(jobs, start=number * len(jobs)):
                if job.failed is None:
                    at = f"round {number + 1} of {self._wanted.rounds}: "
                    self._step(at + _said(job), done, len(jobs) * self._wanted.rounds)
                    self._measure(job)

    def rows(self) -> list[dict[str, Any]]:
        """One for each configuration: with figures, or with ``"error"`` or ``"left_out"`` and the reason."""
        return [*(self._row(each) for each in self._configurations), *self._without]

    def _plan_for(self, bf16_pays: bool) -> Plan:
        wanted = self._wanted
        return plan(wanted.engines, wanted.precisions, wanted.batches, bf16_pays)

    def _measure_limits(self) -> None:
        job = {"job": "limits", "seconds": min(_LONGEST_PEAK, self._wanted.seconds)}
        try:
            found = run_job({**job, "threads": self._wanted.threads}).row
        except JobFailure as failure:
            self._tell(f"no roofline: {failure.reason}")
            return
        self.limits = MachineLimits(**found["limits"])
        self._plan = self._plan_for(found["bf16_pays"])

    def _prepare(self, name: str) -> _Model | None:
        folder = self._folder / f"model-{self._wanted.models.index(name)}"
        try:
            found = run_job({"job": "prepare", "model": name, "folder": str(folder)}).row
        except JobFailure as failure:
            self._without.append(_bare(name, error=failure.reason))
            return None
        if found["random_weights"]:
            self._tell(f"{name}: its weights are not on this machine; random ones are as fast")
        # What is made of random weights is not worth a place in anybody's cache.
        environment = {"HUBEL_CACHE": str(self._folder / "cache")} if found["random_weights"] else {}
        cost = NetworkCost(**found["cost"])
        for runner, reason in self._plan.left_out.items():
            self._without.append(_bare(name, runner, left_out=reason))
        return _Model(name, found["reference"], found["random_weights"], found["input"], cost, environment)

    def _first_start(self, model: _Model, runner: Runner) -> None:
        try:
            if self._only_kept(runner) and not self._is_quantized(model):
                raise JobFailure(_NOT_QUANTIZED, lacking=True)
            seconds, _ = self._start(model, runner)
        except JobFailure as failure:
            bare = _bare(model.name, runner)
            self._without.append({**bare, "left_out" if failure.lacking else "error": failure.reason})
            return
        started = _Started(model, runner, seconds)
        self._started.append(started)
        self._configurations += [_Configuration(started, batch) for batch in self._plan.batches]

    def _only_kept(self, runner: Runner) -> bool:
        """Whether a runner is measured only with what is there: nobody wants a quantization by default."""
        return runner.precision == "int8" and not self._wanted.precisions

    def _is_quantized(self, model: _Model) -> bool:
        return not model.random_weights and run_job({"job": "cached", "model": model.reference}).row["cached"]

    def _start(self, model: _Model, runner: Runner) -> tuple[float, float]:
        """Seconds until a fresh process has answered, and what of it imports took."""
        job = {"job": "start", "picture": str(self._wanted.pictures[0]), "batch": 1, **self._predictor(model, runner)}
        said = run_job(job, model.environment, time_imports=True)
        return said.times["answered"], said.import_seconds

    def _measure(self, job: _Started | _Configuration) -> None:
        try:
            if isinstance(job, _Started):
                seconds, imports = self._start(job.model, job.runner)
                job.answers.append(seconds)
                job.imports.append(imports)
            else:
                started = job.started
                pictures = [str(path) for path in self._wanted.pictures]
                task = {"job": "measure", "batch": job.batch, "seconds": self._wanted.seconds, "pictures": pictures}
                row = run_job({**task, **self._predictor(started.model, started.runner)}, started.model.environment).row
                job.measured.append(row)
        except JobFailure as failure:
            job.failed = failure

    def _predictor(self, model: _Model, runner: Runner) -> dict[str, Any]:
        # How much was lost when it was quantized does not matter to its speed.
        any_loss = {"tolerance": _ANY_LOSS} if self._only_kept(runner) else {}
        return {
            **any_loss,
            "model": model.reference,
            "engine": runner.engine,
            "precision": runner.precision,
            "device": "auto" if len(BACKENDS[runner.engine].precisions) > 1 else "cpu",
            "threads": self._wanted.threads,
        }

    def _row(self, configuration: _Configuration) -> dict[str, Any]:
        started = configuration.started
        failed = configuration.failed or started.failed
        if failed:
            return _bare(started.model.name, started.runner, configuration.batch, error=failed.reason)
        if not configuration.measured:
            return _bare(started.model.name, started.runner, configuration.batch, left_out="interrupted")
        measured = configuration.measured
        batch = configuration.batch
        seconds = statistics.median(row["seconds_a_batch"] for row in measured)
        end_to_end = statistics.median(row["seconds_a_picture"] for row in measured)
        cold = statistics.median(started.answers) if started.answers else None
        imports = [part / whole for part, whole in zip(started.imports, started.answers, strict=True)]
        return {
            **_bare(started.model.name, started.runner, batch),
            "device": measured[0]["device"],
            "threads": measured[0]["threads"],
            "input": started.model.input,
            "random_weights": started.model.random_weights,
            "rounds": len(measured),
            "seconds_per_batch": seconds,
            "images_per_second": batch / seconds,
            "end_to_end_seconds_per_image": end_to_end,
            "end_to_end_images_per_second": 1 / end_to_end,
            **_percentiles([seconds for row in measured for seconds in row["latencies"]]),
            "peak_memory_bytes": round(statistics.median(row["peak_memory_bytes"] for row in measured)),
            "first_start_seconds": started.first,
            "cold_start_seconds": cold,
            "import_fraction": statistics.median(imports) if imports else None,
            **self._roofline(configuration, batch / seconds),
        }

    def _roofline(self, configuration: _Configuration, images_per_second: float) -> dict[str, Any]:
        cost = configuration.started.model.cost
        precision, batch = configuration.started.runner.precision, configuration.batch
        row: dict[str, Any] = {"macs": cost.macs, "bytes_per_image": cost.bytes_an_image(precision, batch)}
        most = None
        if self.limits is not None and configuration.measured[0]["device"] == "cpu":
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
    engine, precision = (runner.engine, runner.precision) if runner else (None, None)
    return {"model": model, "engine": engine, "precision": precision, "batch": batch, **reason}


def _percentiles(latencies: list[float]) -> dict[str, float | None]:
    """Of the latencies of all rounds together, interpolated linearly between the two nearest."""
    if len(latencies) < 2:
        return {f"latency_p{percent}_seconds": None for percent in _PERCENTILES}
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    return {f"latency_p{percent}_seconds": cuts[percent - 1] for percent in _PERCENTILES}


def _said(job: _Started | _Configuration) -> str:
    started = job if isinstance(job, _Started) else job.started
    what = f"{started.model.name} {started.runner.engine} {started.runner.precision}"
    return f"{what}, start" if isinstance(job, _Started) else f"{what}, batch {job.batch}"
