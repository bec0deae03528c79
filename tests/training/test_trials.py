"""Trials cost at most a tenth of a run, are shown, and are not repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from drawn_shapes import write_shapes
from hubel.config import make_config
from hubel.models import create_model
from hubel.training.autotune import choose_execution
from hubel.training.data_module import choose_workers
from hubel.training.train import train
from hubel.training.trials import TrialBudget, planned_steps

SHAPE, CPU = (2, 3, 8, 8), torch.device("cpu")


class Counting(nn.Module):
    """Counts its steps; contiguous ones take a while longer."""

    steps = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        type(self).steps += 1
        return images.mean().requires_grad_()

    def __deepcopy__(self, memo: Any) -> Counting:
        return self


@pytest.fixture(autouse=True)
def plain_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("hubel.training.autotune.bfloat16_pays", lambda device: False)
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "cache"))
    Counting.steps = 0


def test_a_budget_is_a_tenth_of_the_planned_steps() -> None:
    budget = TrialBudget.of(100, print)
    assert budget.take(6) and not budget.take(5) and budget.take(4) and not budget.take(1)


@pytest.mark.parametrize(
    ("changes", "on_features", "steps"),
    [
        ({"epochs": 4, "head_epochs": 0}, False, 4 * (10 + 3 / 3)),
        ({"epochs": 4, "head_epochs": 3}, False, 1 * (10 + 3 / 3) + 3 * (10 / 3 + 3 / 3)),
        ({"epochs": 4, "head_epochs": 3}, True, 1 * (10 + 3 / 3)),
    ],
)
def test_planned_work_counts_epochs_by_their_cost(changes: dict[str, Any], on_features: bool, steps: float) -> None:
    config = make_config(data="x", batch=8, unfreeze_from="1.0", **changes)
    assert planned_steps(config, create_model("resnet18", num_classes=2), 80, 20, on_features) == pytest.approx(steps)


@pytest.mark.parametrize("planned", [2, 40, 100, 1000])
def test_trials_take_at_most_a_tenth_of_the_steps(planned: int) -> None:
    announced: list[str] = []
    plan = choose_execution(
        Counting(), lambda mean: mean, SHAPE, CPU, "auto", TrialBudget.of(planned, announced.append)
    )
    assert Counting.steps <= planned / 10
    assert ("too short" in plan.reason) == (not announced) == (planned < 100)
    if planned < 100:
        assert (plan.precision, plan.channels_last) == ("float32", True)


def test_short_runs_take_bfloat16_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubel.training.autotune.bfloat16_pays", lambda device: True)
    short = TrialBudget(0)
    assert choose_execution(Counting(), lambda mean: mean, SHAPE, CPU, "auto", short).precision == "bfloat16"
    assert choose_execution(Counting(), lambda mean: mean, SHAPE, CPU, "float32", short).precision == "float32"


def test_a_clock_that_shows_no_time_chooses_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    class Frozen:
        perf_counter = process_time = staticmethod(lambda: 0.0)

    monkeypatch.setattr("hubel.training.autotune.time", Frozen)
    plan = choose_execution(Counting(), lambda mean: mean, SHAPE, CPU, "float32")
    assert (plan.precision, plan.channels_last) == ("float32", True)


@pytest.mark.parametrize(("left", "tried"), [(0, [0, 0, 1]), (4, [0, 0, 1, 2]), (8, [0, 0, 1, 2, 4])])
def test_a_budget_bounds_the_numbers_of_workers_that_are_tried(
    monkeypatch: pytest.MonkeyPatch, left: int, tried: list[int]
) -> None:
    clock = {"now": 0.0}
    monkeypatch.setattr("hubel.training.data_module.time.perf_counter", lambda: clock["now"])
    asked: list[int] = []

    class Loader:
        def __init__(self, workers: int) -> None:
            self.workers = workers
            asked.append(workers)

        def __iter__(self) -> Any:
            for _ in range(4):
                clock["now"] += 8.0 / max(1, self.workers)
                yield type("Batch", (), {"indices": range(8)})()

    def step(batch: Any) -> None:
        clock["now"] += 1.0

    choose_workers(Loader, step, 4, TrialBudget(left))  # type: ignore[arg-type]
    assert asked == tried


def test_a_short_run_tells_its_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubel.training.results.write_report", lambda *_: None)
    data = write_shapes(tmp_path / "shapes", {"disc": 8, "cross": 8})
    train(data, out=tmp_path / "run", model="simple_cnn", image_size=28, epochs=2, batch=4)
    told = capsys.readouterr().err
    assert "chosen: float32, channels-last: the run is too short to time the alternatives" in told
    assert "timing" not in told
    decided = json.loads((tmp_path / "run" / "decisions.json").read_text())
    assert decided["execution"]["channels_last"] and set(decided) == {"execution", "workers"}
