"""The commands ``models`` and ``summary``: what they print, as JSON and for people, and what they refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from hubel.cli.models import _TASKS, models
from hubel.cli.summary import summary
from hubel.errors import ModelError, UsageError
from hubel.models.registry import list_models, task_of

app = typer.Typer(rich_markup_mode=None)
app.command()(models)
app.command()(summary)


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def _json(*arguments: str) -> Any:
    result = _run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_models_json() -> None:
    rows = {row["name"]: row for row in _json("models")}
    assert {"lenet5", "simple_cnn", "resnet18", "resnet152", "efficientnet_lite0", "efficientnet_lite4"} <= set(rows)
    row = rows["resnet50"]
    # torchvision's documentation of ResNet50_Weights: 25,557,032 parameters, 4.09 GFLOPS, 76.13 and 80.858 top-1.
    assert row["task"] == "classify" and row["parameters"] == 25_557_032 and row["depth"] == 50
    assert row["macs"] == pytest.approx(4.09e9, rel=0.005)
    assert row["size_bytes"] == pytest.approx(97.8 * 2**20, rel=0.005)
    assert row["input"] == [3, 224, 224]
    weights = {each["name"]: each for each in row["weights"]}
    assert weights["resnet50:torchvision/IMAGENET1K_V1"]["top1"] == pytest.approx(0.76130)
    assert weights["resnet50:torchvision/IMAGENET1K_V2"]["top5"] == pytest.approx(0.95434)
    assert weights["resnet50:torchvision/IMAGENET1K_V2"]["license"] == "BSD-3-Clause"
    assert rows["lenet5"]["weights"] == []
    assert rows["efficientnet_lite0"]["weights"][0]["installed"] is True
    assert "ms" not in row


def test_models_tells_which_weights_are_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hubel.weights import cache_path, find_entry

    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path))
    (before,) = _json("models", "--match", "resnet18")
    assert not any(each["installed"] for each in before["weights"])
    path = cache_path(find_entry("resnet18:torchvision/IMAGENET1K_V1"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    (after,) = _json("models", "--match", "resnet18")
    installed = [each["name"] for each in after["weights"] if each["installed"]]
    assert installed == ["resnet18:torchvision/IMAGENET1K_V1"]


def test_models_table_and_filters() -> None:
    shown = _run("models", "--match", "resnet[15]*", "--task", "classify").stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["resnet18", "classify", "11.69", "46.8", "1.814", "18", "3×224×224", "0.698", "0.891"] in [
        line[:9] for line in lines
    ]
    assert "resnet152" in shown and "resnet34" not in shown and "lenet5" not in shown
    refused = _run("models", "--task", "fly")
    assert refused.exit_code == 2
    assert "classify" in refused.stderr
    nothing = _run("models", "--match", "nonesuch*", "--json")
    assert (nothing.exit_code, json.loads(nothing.stdout)) == (0, [])


def test_models_lists_default_weights_and_counts_the_others() -> None:
    def tags(*arguments: str) -> list[str]:
        lines = _run("models", *arguments).stdout.splitlines()
        return [line[line.index("torchvision/") :].split("  ")[0] for line in lines if "torchvision/" in line]

    count = len(_json("models", "--match", "resnet50")[0]["weights"])
    assert count > 15
    assert f"torchvision/IMAGENET1K_V2 (+{count - 1} more)" in tags("--match", "resnet*")
    both = ["torchvision/IMAGENET1K_V2", "torchvision/IMAGENET1K_V1"]
    assert tags("--match", "resnet50") == both  # few architectures: all of theirs
    assert set(both) <= set(tags("--match", "resnet*", "--all-weights"))


def test_measured_times_are_in_the_rows_and_progress_is_not_on_stdout() -> None:
    rows = {row["name"]: row for row in _json("models", "lenet5", "simple_cnn", "--measure")}
    assert set(rows) == {"lenet5", "simple_cnn"}
    for row in rows.values():
        assert set(row["ms"]) == {"batch1", "batch32"} and all(figure > 0 for figure in row["ms"].values())


def test_summary_prints_the_papers_table() -> None:
    shown = _run("summary", "lenet5").stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["in", "input", "1", "32×32"] in [line[:4] for line in lines]
    assert ["c1", "convolution", "6", "28×28", "5×5", "1", "valid", "tanh", "156", "117,600"] in [
        line[:10] for line in lines
    ]
    assert ["s2", "subsampling", "6", "14×14", "2×2", "2", "–", "tanh", "12"] in [line[:9] for line in lines]
    assert ["f6", "fully", "connected", "84"] in [line[:4] for line in lines]
    assert "60,000 parameters" in shown
    assert "…" not in shown  # no cell is cut off


def test_summary_json_of_a_batch_in_another_size_and_dtype() -> None:
    row = _json("summary", "resnet50:torchvision/IMAGENET1K_V1", "--input", "3x448x448", "--batch", "4")
    assert row["input"] == [3, 448, 448]
    assert row["layers"][0]["output"] == [64, 224, 224]
    assert row["layers"][0]["activation_bytes"] == 4 * 4 * 64 * 224 * 224
    expected = _json("summary", "efficientnet_b2:torchvision/IMAGENET1K_V1")["input"]
    assert (expected, _json("summary", "efficientnet_b2")["input"]) == ([3, 288, 288], [3, 260, 260])
    half = _json("summary", "resnet50", "--input", "3x448x448", "--batch", "4", "--dtype", "bfloat16")
    assert half["layers"][0]["activation_bytes"] * 2 == row["layers"][0]["activation_bytes"]


def test_summary_of_an_architecture_with_options() -> None:
    # torchvision: VGG-16 has 138,357,544 parameters, with batch normalization 138,365,992, of which 4,224 are biases
    # that the normalization cancels and that we leave out.
    assert _json("summary", "vgg16")["parameters"] == 138_357_544
    assert _json("summary", "vgg16", "--set", "batch_norm=true")["parameters"] == 138_365_992 - 4_224
    for wrong in ("batch_norm", "=1", "batch_norm={"):
        assert _run("summary", "vgg16", "--set", wrong).exit_code == 2
    assert isinstance(_run("summary", "vgg16", "--set", "depth=3").exception, ModelError)


def test_summary_of_a_network_on_another_backbone(tmp_path: Path) -> None:
    # torchfcn's FCN8s has 134,489,759 parameters; the weights that are named are not read.
    row = _json("summary", "fcn8s", "--backbone", "vgg16:torchvision/IMAGENET1K_V1")
    assert row["parameters"] == 134_489_759
    assert "cannot be a backbone" in str(_run("summary", "fcn8s", "--backbone", "ssd").exception)
    assert "does not accept a backbone" in str(_run("summary", "resnet18", "--backbone", "vgg16").exception)
    result = _run("summary", str(tmp_path), "--backbone", "vgg16")
    assert result.exit_code == 2 and "--backbone" in result.stderr


@pytest.mark.parametrize("wrong", ["224", "3x224", "3xAx224", "0x32x32", "1x4x4", "1x32x64"])
def test_a_wrong_input_is_wrong_usage(wrong: str) -> None:
    result = _run("summary", "lenet5", "--input", wrong)
    assert result.exit_code == 2
    assert "--input" in result.stderr and not result.stdout


def test_an_unknown_model_is_an_error_with_a_way_out() -> None:
    with pytest.raises(ModelError, match="resnet51"):
        CliRunner().invoke(app, ["summary", "resnet51"], catch_exceptions=False)


def test_summary_advises_when_training_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    from hubel.analysis import memory_advice

    memory = memory_advice.Memory(3_000_000_000, "this machine")
    monkeypatch.setattr(memory_advice, "free_memory", lambda: memory)
    row = _json("summary", "resnet50", "--batch", "64")
    assert row["training_bytes"] > memory.free
    assert any("resnet34" in line or "resnet18" in line for line in row["advice"])
    assert "More devices" in _run("summary", "resnet50", "--batch", "64").stdout
    assert _json("summary", "resnet50")["advice"] == []


def test_a_run_folder_is_summarized_as_it_is(tmp_path: Path) -> None:
    from hubel.models import ModelMetadata, create_model, default_preprocessing, save_model

    preprocessing = default_preprocessing("simple_cnn", 32, 3)
    metadata = ModelMetadata("classify", "simple_cnn", 5, 3, 32, list("abcde"), preprocessing)
    save_model(tmp_path / "run" / "best", create_model("simple_cnn", 5, 3, 32), metadata)
    row = _json("summary", str(tmp_path / "run"))
    assert row["input"] == [3, 32, 32]
    assert row["layers"][-1]["output"] == [5]


def test_neither_command_imports_torchs_compiler() -> None:
    """It would take two seconds; and help needs no torch at all."""
    code = (
        "import sys; import hubel.cli.models, hubel.cli.summary; assert 'torch' not in sys.modules;"
        "hubel.cli.models.models(as_json=True);"
        "hubel.cli.summary.summary('lenet5', as_json=True);"
        "assert not {'sympy', 'torch._dynamo', 'torchvision'} & set(sys.modules), 'slow imports'"
    )
    done = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_names_choose_architectures_or_are_corrected() -> None:
    listed = CliRunner().invoke(app, ["models", "resnet5*", "lenet5", "--json"])
    assert {row["name"] for row in json.loads(listed.stdout)} == {"resnet50", "lenet5"}
    for name, hint in (("resnet51", "resnet50"), ("detect", "--task detect")):
        with pytest.raises(UsageError) as refused:
            CliRunner().invoke(app, ["models", name], catch_exceptions=False, standalone_mode=False)
        assert hint in refused.value.hint
    with pytest.raises(UsageError, match="left out"):
        CliRunner().invoke(app, ["models", "lenet5", "--task", "detect"], catch_exceptions=False, standalone_mode=False)


def test_the_tasks_of_the_help_are_those_of_the_registry() -> None:
    assert set(_TASKS) == {task_of(name) for name in list_models()}


def test_a_narrow_terminal_gets_fewer_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    narrow = CliRunner().invoke(app, ["models", "res*"])
    assert max(map(len, narrow.stdout.splitlines())) <= 80
    assert "Figures from" in narrow.stderr and "resnet50" in narrow.stdout and "0.809" in narrow.stdout
    monkeypatch.delenv("COLUMNS")
    assert "Figures" in CliRunner().invoke(app, ["models", "res*"]).stdout  # a pipe has no limit
