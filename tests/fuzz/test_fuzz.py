"""Every reader of files that others may have made meets some hundred damaged ones: only ``HubelError`` comes out.

``make fuzz`` does the same for an hour.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
