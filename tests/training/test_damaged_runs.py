"""What a run left in its folder is checked before it is continued: checkpoint, steps, names of trackers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hubel.config import make_config
from hubel.errors import DataError
from hubel.training.callbacks import RunStart, StepLog, _remembered
from hubel.training.checkpoint import Progress, load_checkpoint, restore, save_checkpoint

INF = float("inf")


def _row(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "phase": "all", "val_top1": 0.25 * epoch, "seconds": 1.5}


def _trained(optimizer: str = "SGD") -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(2, 2))
    kinds: dict[str, Any] = {"SGD": {"momentum": 0.9}, "AdamW": {}}
    trained = getattr(torch.optim, optimizer)(model.parameters(), 0.1, **kinds[optimizer])
    _step(model, trained)
    return model, trained


def _step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(1, 1, 2, 2)).square().sum().backward()
    optimizer.step()


def _saved(path: Path, optimizer: str = "SGD") -> tuple[nn.Module, torch.optim.Optimizer]:
    model, trained = _trained(optimizer)
    state = {"model": model.state_dict(), "optimizer": trained.state_dict()}
    save_checkpoint(path, Progress(2, [_row(1), _row(2)], 2), state)
    return model, trained


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_restored_run_steps_as_the_one_that_went_on(optimizer: str, tmp_path: Path) -> None:
    model, trained = _saved(tmp_path / "checkpoint.pt", optimizer)
    progress, state = load_checkpoint(tmp_path / "checkpoint.pt", monitor=("top1",))
    assert (progress.epoch, progress.best_epoch, progress.history[1]) == (2, 2, _row(2))
    again, other = _trained(optimizer)
    _step(again, other)
    restore(tmp_path / "checkpoint.pt", state, other, model=again)
    _step(model, trained)
    _step(again, other)
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def _set(*keys: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        for key in keys[:-2]:
            state = state[key]
        state[keys[-2]] = keys[-1]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("progress", "epoch", 10**40), "rows of 2 epochs"),
        (_set("progress", "epoch", "2"), "rows of 2 epochs"),
        (_set("progress", "best_epoch", 3), "best 3"),
        (_set("progress", "best_epoch", 0), "best 0"),
        (_set("progress", "history", 1, "epoch", 3), "rows of 2 epochs"),
        (_set("progress", "history", 1, "val_top1", "high"), ""),
        (_set("progress", "history", 1, "val_top1", INF), "the row of epoch 2"),
        (_set("progress", "history", 1, "more", 1), "the row of epoch 2"),
        (_set("progress", "history", 0, "seconds", None), ""),
        (_set("progress", None), ""),
        (_set("model", []), "no weights of model"),
        (_set("model", "0.bias", torch.full((2,), INF)), "not numbers"),
        (_set("model", "0.bias", torch.zeros(3)), "other shapes"),
        (_set("model", "0.bias", "zero"), "no weights of model"),
        (_set("optimizer", 3), "optimizer does not fit"),
        (_set("optimizer", "state", 0, "momentum_buffer", torch.zeros(1)), "momentum_buffer of parameter 0"),
        (_set("optimizer", "state", 0, "momentum_buffer", torch.full((2, 1, 2, 2), INF)), "momentum_buffer of"),
        (_set("optimizer", "state", 0, {}), "is not one of its 4 parameters"),
        (_set("optimizer", "state", 10**40, {}), "is not one of its 4 parameters"),
    ],
)
def test_a_damaged_checkpoint_is_named(change: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    _saved(path)
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    model, optimizer = _trained()
    with pytest.raises(DataError, match=rf"checkpoint\.pt is damaged: .*{message}"):
        restore(path, load_checkpoint(path, monitor=("top1",))[1], optimizer, model=model)


def test_settings_of_the_optimizer_are_the_configurations_and_overlapping_tensors_are_copied(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    _saved(path)
    state = torch.load(path, weights_only=True)
    state["optimizer"]["param_groups"][0] |= {"momentum": "much", "weight_decay": INF}
    state["optimizer"]["state"][0]["momentum_buffer"] = torch.zeros(1).expand(2, 1, 2, 2)
    torch.save(state, path)
    model, optimizer = _trained()
    restore(path, load_checkpoint(path)[1], optimizer, model=model)
    _step(model, optimizer)
    assert (optimizer.param_groups[0]["momentum"], optimizer.param_groups[0]["weight_decay"]) == (0.9, 0)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_damaged_rows_of_steps_are_dropped(tmp_path: Path) -> None:
    rows = ["epoch,loss", "1,0.5", f"{'9' * 5000},0.5", "²,0.5", "\udcff,0.5", "3,0.5", "2,0.25", f"1,{'x' * 200_000}"]
    (tmp_path / "steps.csv").write_text("\n".join(rows), errors="surrogateescape")
    log = StepLog()
    log.on_run_start(RunStart(tmp_path, make_config(data="data"), ["a"], {}, 2))
    log.on_run_end(None)
    assert [row["loss"] for row in log._kept] == ["0.5", "0.25"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\nb", b"a" * 1000, b"", "é".encode()])
def test_a_trackers_name_is_believed_only_if_it_is_one(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "id").write_bytes(content)
    assert _remembered(tmp_path / "id", lambda: "new") == "new"
    assert _remembered(tmp_path / "id", lambda: "newer") == "new"
