"""What one actor of a job does: one predictor, block after block."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hubel.errors import HubelError
from hubel.runtime.collection.listing import Block, names_of
from hubel.runtime.collection.shards import Shards


@dataclass(frozen=True)
class Assignment:
    """What every actor needs to know.

    Attributes:
        directory: where relative names begin.
        listing: the collection's names.
        folder: of the shards.
        format: of these.
        predictor: arguments of :class:`~hubel.runtime.predictor.Predictor`.
    """

    directory: str
    listing: str
    folder: str
    format: str
    predictor: dict[str, Any]


class BlockPredictor:
    """Predicts blocks; Ray makes one in each of its actors.

    The model is loaded with the first block, and what is wrong comes back as a value: an exception would arrive with
    Ray's traceback around it.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._predictor: Any = None

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Predict the names of a block and write its shard.

        Args:
            row: a :class:`~hubel.runtime.collection.listing.Block`, as a dictionary.

        Returns:
            ``{"outcome": JSON}`` of ``{"block", "rows", "errors", "faults"}`` or ``{"fault", "remedy"}``.
        """
        block = Block(**{name: int(value) for name, value in row.items()})
        try:
            outcome = self._predict(block)
        except HubelError as error:
            outcome = {"fault": error.fault, "remedy": error.remedy}
        return {"outcome": json.dumps(outcome)}

    def _predict(self, block: Block) -> dict[str, Any]:
        given = self._assignment
        if self._predictor is None:
            from hubel.runtime.allocator import tune_allocator
            from hubel.runtime.predictor import Predictor

            tune_allocator()
            os.chdir(given.directory)
            self._predictor = Predictor(**given.predictor)
        faults: list[tuple[str, str]] = []
        rows = self._rows(names_of(Path(given.listing), block), faults)
        written = Shards(Path(given.folder), given.format).write(block.number, rows)
        return {"block": block.number, **asdict(written), "faults": faults}

    def _rows(self, names: list[str], faults: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        from hubel.runtime.image_pipeline import FailedImage
        from hubel.runtime.json_rows import json_row

        for outcome in self._predictor.stream(names):
            if isinstance(outcome, FailedImage):
                faults.append((outcome.error.fault, outcome.error.remedy))
            yield json_row(outcome, self._predictor.model_name)
