"""Every reader of files that others may have made meets some hundred damaged ones: only ``HubelError`` comes out.

``make fuzz`` does the same for an hour.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from random import Random

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fuzz import mutation
from fuzz.containers import damage_for
from fuzz.mutation import mutated
from fuzz.runner import Session
from fuzz.targets import TARGETS

_INPUTS = {
    "model-folder": 40,
    "exported": 20,
    "decisions": 40,
    "video": 30,
    "images": 80,
    "weights": 40,
    "keras-weights": 40,
}
_INPUTS_OF_OTHERS = 60


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_errors_of_hubel_comes_out(name: str, tmp_path: Path) -> None:
    session = Session(name, tmp_path / "work")

    @settings(
        max_examples=_INPUTS.get(name, _INPUTS_OF_OTHERS), derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.randoms(use_true_random=False))
    def feed(random: Random) -> None:
        finding = session.feed(random)
        assert finding is None, finding

    feed()
    assert session.tally.inputs


def test_inputs_are_repeated_by_their_number() -> None:
    data = b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}'
    first, again, other = (mutated(data, Random(f"0:coco:{number}")) for number in (7, 7, 8))
    assert first == again != other


def test_only_inputs_that_differ_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session("mot-text", tmp_path / "work")
    sound = session.sound[session.files[0]]
    for data in (sound, b"x", b"x", b"y"):
        monkeypatch.setattr(mutation, "mutated", lambda content, random, data=data: data)
        monkeypatch.setattr(session, "files", session.files[:1])
        assert session.feed(Random(0)) is None
    assert session.tally.inputs == 2
    assert session.files[0].read_bytes() == sound


def test_damage_inside_containers_leaves_them_whole(tmp_path: Path) -> None:
    """Most damaged PNGs, archives and headers of weights can still be opened: what is inside is met."""
    opened = {"png": 0, "zip": 0, "safetensors": 0}
    memory = io.BytesIO()
    Image.new("L", (8, 8), 5).save(memory, "PNG")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.json", '{"a": [1, 2]}')
    weights = safetensors.numpy.save({"a": np.ones(4, np.float32)})
    for number in range(40):
        random = Random(number)
        for kind, sound in zip(opened, (memory.getvalue(), archive.getvalue(), weights), strict=True):
            inside = damage_for(sound)
            assert inside is not None
            data = inside(sound, random, lambda content, random: content[:-1] + b"\x01" if content else b"\x01")
            assert data != sound
            opened[kind] += _is_whole(kind, data)
    assert opened == {"png": 40, "zip": 40, "safetensors": 40}


def _is_whole(kind: str, data: bytes) -> bool:
    if kind == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            return file.testzip() is None
    if kind == "safetensors":
        return len(data) == 8 + int.from_bytes(data[:8], "little") + 16  # header, four numbers
    at = 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        checksum = int.from_bytes(data[at + 8 + length : at + 12 + length], "big")
        if zlib.crc32(data[at + 4 : at + 8 + length]) != checksum:
            return False
        at += 12 + length
    return True
