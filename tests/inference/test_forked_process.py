"""A process that is forked after its parent has predicted gets an error instead of waiting for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hubel.data.preprocessing import Preprocessing
from hubel.models import ModelMetadata, save_model

_SERVER = """
import os, sys
import numpy as np
import hubel
from hubel.errors import ModelError

folder, engine = sys.argv[1:]
images = [np.full((32, 32, 3), value, np.uint8) for value in range(0, 200, 10)]
predict = hubel.Predictor(folder, engine=engine, precision="fp32", threads=2)
print("predicted", len(list(predict(images))), flush=True)
child = os.fork()
if child == 0:
    for make in (lambda: predict, lambda: hubel.Predictor(folder, engine=engine)):
        try:
            print("predicted", len(list(make()(images))), flush=True)
        except ModelError as error:
            print("refused", error.message, error.hint, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("predicted", len(list(predict(images))), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.parametrize("engine", ["torch", "openvino", "onnx"])
def test_a_predictor_of_the_parent_and_a_new_one(engine: str, tmp_path: Path) -> None:
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    metadata = ModelMetadata("classify", "lenet5", 2, 3, 32, ["a", "b"], Preprocessing(32, 32))
    save_model(tmp_path / "model", metadata.build().eval(), metadata)
    command = [sys.executable, "-c", _SERVER, str(tmp_path / "model"), engine]
    environment = {**os.environ, "HUBEL_CACHE": str(tmp_path / "cache")}
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == lines[3] == "predicted 20"
    for line in lines[1:3]:
        assert line.startswith("refused this process was forked") and "in each worker process" in line
