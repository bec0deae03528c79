"""SMOTE: examples of small classes made up between real ones, in the space of features (Chawla, Bowyer, Hall and
Kegelmeyer 2002, "SMOTE: Synthetic Minority Over-sampling Technique", JAIR 16, arXiv 1106.1813, section 4.2).

A new example lies at a random point of the line from an example to one of its k nearest neighbours of the same class.
Between two photographs lies a blend of two photographs; between their features something that may well be a third
of the class. So it is for features, and no augmentation of images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hubel.data.loader import seed_for
from hubel.errors import DataError, MissingExtraError
from hubel.training.frozen_features import Features

NEIGHBOURS = 5  # the paper's


def require_imbalanced_learn() -> None:
    """Raise :class:`MissingExtraError` where imbalanced-learn is not installed."""
    try:
        import imblearn  # noqa: F401
    except ImportError:
        raise MissingExtraError("--balance smote", "imbalance") from None


def neighbours_for(labels: Sequence[int], classes: Sequence[str]) -> int:
    """How many neighbours to interpolate with: five, or all that the smallest class has.

    Args:
        labels: of the training examples, 0-based.
        classes: names.

    Raises:
        DataError: a class has a single example, which has no neighbour.
    """
    counts = np.bincount(np.asarray(labels), minlength=len(classes))
    smallest = int(counts.argmin())
    if counts[smallest] < 2:
        raise DataError(
            f"class {classes[smallest]} has {counts[smallest]} training image; SMOTE interpolates between two or more",
            "add images of it or leave the class out, or take --balance sampling, which repeats what there is",
        )
    return min(NEIGHBOURS, int(counts[smallest]) - 1)


def with_smote(features: Features, classes: Sequence[str], seed: int) -> Features:
    """Add interpolated examples until every class has as many as the largest.

    Args:
        features: of the training images; they come first in the result.
        classes: names.
        seed: of the run.

    Raises:
        MissingExtraError: imbalanced-learn is not installed.
        DataError: a class has a single example.
    """
    require_imbalanced_learn()
    from imblearn.over_sampling import SMOTE

    neighbours = neighbours_for(features.labels.tolist(), classes)
    smote = SMOTE(k_neighbors=neighbours, random_state=seed_for(seed, "smote") % 2**32)
    rows, labels = smote.fit_resample(features.maps.flatten(1).numpy(), features.labels.numpy())
    return Features(torch.from_numpy(rows).reshape(-1, *features.maps.shape[1:]), torch.from_numpy(labels))
