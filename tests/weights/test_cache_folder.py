"""What is kept for speed alone: without a folder for it, work goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hubel.errors import UsageError, WeightsError
from hubel.training.data_module import Workers
from hubel.training.run_records import measured_once
from hubel.weights import cache_folder, fetch, find_entry


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nobody(*_: object, **__: object) -> str:
        raise RuntimeError("could not determine the home directory for '~/.cache'")

    monkeypatch.delenv("HUBEL_CACHE", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", nobody)
    with pytest.raises(OSError):
        cache_folder().mkdir(parents=True)
    with pytest.raises(WeightsError) as caught:
        monkeypatch.setenv("HUBEL_OFFLINE", "0")
        fetch(find_entry("resnet18:torchvision/IMAGENET1K_V1"))
    assert "cannot be written" in caught.value.message and "HUBEL_CACHE" in caught.value.hint


def test_the_home_of_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBEL_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(UsageError, match="HUBEL_CACHE is '~nobody-of-this-name/cache'"):
        cache_folder()


def test_a_measurement_that_cannot_be_kept_is_made_and_noted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        assert measured_once("key", Workers, lambda: Workers(2, "measured")) == Workers(2, "measured")
    noted = capsys.readouterr().err
    assert noted.count("\n") == 1 and "not kept for the next run" in noted


@pytest.mark.parametrize("content", ["", "[]", "{", '{"key": 3}', '{"key": {"count": -1, "reason": "x"}}', "[" * 9999])
def test_damaged_measurements_are_made_again(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "measurements.json").write_text(content)
    assert measured_once("key", Workers, lambda: Workers(2, "measured")) == Workers(2, "measured")
    assert measured_once("key", Workers, lambda: Workers(3, "again")) == Workers(2, "measured")


def test_names_and_weights_are_found_without_what_downloads_need() -> None:
    code = "import sys, hubel.models.metadata; print({'ssl', 'urllib.request', 'filelock', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert run.stdout == "set()\n", run.stderr


def test_the_hint_for_a_missing_detector_names_no_classifier(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path))
    monkeypatch.setenv("HUBEL_OFFLINE", "1")
    with pytest.raises(WeightsError) as caught:
        fetch(find_entry("ssd300_vgg16:torchvision/COCO_V1"))
    assert "hubel train DATA --model ssd300_vgg16 --from-scratch" in caught.value.hint
    assert "efficientnet" not in caught.value.hint
    with pytest.raises(WeightsError) as caught:
        fetch(find_entry("resnet18:torchvision/IMAGENET1K_V1"))
    assert "use efficientnet_lite0, which needs no download" in caught.value.hint
