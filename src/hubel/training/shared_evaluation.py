"""Labelled images divided among processes for scoring, and the answers brought together again."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from torch import nn

from hubel.data.class_folders import Sample
from hubel.data.preprocessing import Preprocessing
from hubel.errors import DataError
from hubel.training.evaluation import Predictions, fault_of, predict_samples
from hubel.training.processes import Processes


def predict_together(
    processes: Processes,
    network: nn.Module,
    samples: tuple[Sample, ...],
    preprocessing: Preprocessing,
    batch: int,
    device: torch.device,
    classes: int,
) -> Predictions:
    """As :func:`~hubel.training.evaluation.predict_samples`; every process gets the predictions of all.

    Args:
        processes: those that all call it with the same samples.
        network: the same in all of them.
        samples: in order.
        preprocessing: the network's.
        batch: images at a time in each process.
        device: this process's.
        classes: how many the network tells apart.

    Raises:
        DataError: not one image could be read.
    """
    if processes.alone:
        return predict_samples(network, samples, preprocessing, batch, device)
    place = {samples[index].path: index for index in range(processes.rank, len(samples), processes.count)}
    rows = np.zeros((0, 1 + classes))
    with contextlib.suppress(DataError):  # not one of this process's can be read: perhaps one of the others'
        own = tuple(samples[index] for index in place.values())
        if own:
            predicted = predict_samples(network, own, preprocessing, batch, device)
            indices = np.array([place[sample.path] for sample in predicted.samples], dtype=np.float64)
            rows = np.concatenate([indices[:, None], predicted.probabilities], axis=1)
    rows = processes.gathered(rows)
    rows = rows[np.argsort(rows[:, 0])]
    read = rows[:, 0].astype(int).tolist()
    failures = tuple(fault_of(samples[index].path) for index in sorted(set(range(len(samples))) - set(read)))
    if not read:
        raise DataError(f"none of {len(samples)} images could be read: {failures[0].fault}", failures[0].remedy)
    return Predictions(tuple(samples[index] for index in read), rows[:, 1:].astype(np.float32), failures)
