"""A data set divided anew into what trains, validates and tests, as a data set of its own.

What belongs here: which pictures have to stay together, the division itself, the data set that comes of it; one idea a
file. What does not: the splits that a training run makes for itself (:mod:`hubel.data.splits`).

:func:`split_data` is the way in, then :func:`write_split`.
"""

from hubel.data.resplit import Divided, split_data, write_split

__all__ = ["Divided", "split_data", "write_split"]
