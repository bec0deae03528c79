"""Chooses the defaults of ``hubel train``: candidates scored by cross-validation on data sets of different kinds.

    HUBEL_DATA=/path/to/data python benchmarks/choose_defaults.py classify --folds 5 --out runs/defaults

Every candidate, the present defaults first, is a search of one trial of ``hubel tune``: it is trained without each fold
in turn, and its last epoch scored on the fold. What is best on average in rank over the data sets is the choice, not
what is best on one. With ``--only defaults`` it gives the estimate of the present defaults. A program that was
interrupted goes on where it was, with the same ``--out``.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

import hubel
from hubel.tuning.result import TuneResult
from small_data_sets import SmallDataSet, small_data_sets

SETS = {
    "classify": ("flowers", "cells", "objects", "fashion"),
    "localize": ("raccoon-box",),
    "detect": ("raccoon", "bccd"),
}

# Options of hubel train that replace the present defaults.
CANDIDATES: dict[str, dict[str, dict]] = {
    "classify": {
        "defaults": {},
        "unsmoothed": {"label_smoothing": 0.0},
        "slow": {"learning_rate": 1e-4},
        "fast": {"learning_rate": 1e-3},
        "deep": {"unfreeze_from": "1.0", "layer_decay": 0.8, "learning_rate": 5e-4},
        "long": {"epochs": 25},
        "unmixed": {"epochs": 11, "augmentation": ("crop", "flip")},
        "large": {"training_size": 224, "image_size": 256},
        "larger": {"training_size": 256, "image_size": 320},
        "trivialaugment": {"augmentation": ("crop", "flip", "trivialaugment", "mixup", "cutmix")},
        "erasing": {"augmentation": ("crop", "flip", "erasing", "mixup", "cutmix")},
    },
    "localize": {
        "defaults": {},
        "large": {"image_size": 288},
        "deep": {"unfreeze_from": "1.0", "layer_decay": 0.8},
        "large-deep": {"image_size": 288, "unfreeze_from": "1.0", "layer_decay": 0.8},
        "long": {"epochs": 40},
    },
    "detect": {
        "defaults": {},
        "slow": {"learning_rate": 1e-3},
        "zoomed": {"augmentation": ("zoom", "crop", "flip", "color")},
        "long": {"epochs": 90, "image_size": 256},
        # Another detector, whose own epochs should take as long; the seconds that are printed say if they do.
        "one_stage": {"model": "one_stage"},
        "one_stage-small": {
            "model": "one_stage",
            "image_size": 320,
            "epochs": 50,
            "batch": 16,
            "learning_rate": 2e-3,
            "augmentation": ("crop", "flip", "color"),
            "close_mosaic": 0,
        },
        "ssd-mosaic": {
            "image_size": 416,
            "epochs": 33,
            "augmentation": ("mosaic", "crop", "flip", "color"),
            "close_mosaic": 9,
        },
    },
}


def score(data: SmallDataSet, options: dict, folds: int, seed: int, out: Path) -> TuneResult:
    """The scores of a candidate over the folds; those of an earlier run of the program where they are there."""
    begun = (out / "search.yaml").exists()
    kept = {} if begun else {**data.options, **options, "seed": seed}
    if data.groups is not None and not begun:
        kept["groups"] = data.groups
    return hubel.tune(data.folder, trials=1, folds=folds, out=out, resume=begun, **kept)


def main() -> None:
    """Score all candidates on all data sets, print a row each, and then the ranks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=tuple(SETS))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HUBEL_DATA", ".")))
    parser.add_argument("--fashion", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="names of candidates")
    parser.add_argument("--sets", nargs="*", help="names of data sets")
    parser.add_argument("--epochs", type=int, help="instead of each candidate's own, to try the program")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the searches, and of data sets that are made"
    )
    arguments = parser.parse_args()
    makers = small_data_sets(arguments.data, arguments.out / "data", arguments.fashion)
    sets = [name for name in SETS[arguments.task] if not arguments.sets or name in arguments.sets]
    means: dict[str, list[float]] = {}
    for name, options in CANDIDATES[arguments.task].items():
        if arguments.only and name not in arguments.only:
            continue
        options = {**options, **({"epochs": arguments.epochs} if arguments.epochs else {})}
        means[name] = []
        for of in sets:
            data, scores, seconds = makers[of](), [], []
            for seed in range(arguments.seeds):
                result = score(data, options, arguments.folds, seed, arguments.out / f"{of}-{name}-{seed}")
                scores += result.default.scores
                seconds += result.trials[0].seconds
            means[name].append(float(np.mean(scores)))
            spread = np.std(scores, ddof=1)
            print(
                f"{of:12} {name:16} {np.mean(scores):.4f} ± {spread:.4f}  {np.mean(seconds):.0f} s a fold", flush=True
            )
    ranks = np.mean([rankdata([-row[column] for row in means.values()]) for column in range(len(sets))], axis=0)
    for name, rank in sorted(zip(means, ranks, strict=True), key=lambda pair: pair[1]):
        print(f"rank {rank:.2f}  {name}")


if __name__ == "__main__":
    main()
