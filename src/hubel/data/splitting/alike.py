"""Pictures that belong together: the same bytes, or nearly the same to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hubel.data.checking.fingerprints import close_pairs
from hubel.data.checking.looks import Look
from hubel.data.identical_files import identical


def alike(paths: Sequence[Path], looks: Mapping[Path, Look]) -> list[list[int]]:
    """Groups of pictures, as places in ``paths``; most have one.

    Two pictures that resemble a third are in one group with it, so a film of slow changes is one.

    Args:
        paths: of the pictures; those that cannot be read stay alone.
        looks: at them.
    """
    readable = [at for at, path in enumerate(paths) if not looks[path].fault]
    copies = identical(readable, lambda at: paths[at])
    component = np.arange(len(paths))
    component = _joined(component, *_edges([(first, other) for first, *others in copies for other in others]))
    able = np.array([at for at in readable if looks[paths[at]].print is not None], int)
    for firsts, seconds, _ in close_pairs([print_ for at in able if (print_ := looks[paths[at]].print) is not None]):
        component = _joined(component, able[firsts], able[seconds])
    groups: dict[int, list[int]] = {}
    for at, group in enumerate(component.tolist()):
        groups.setdefault(group, []).append(at)
    return list(groups.values())


def _edges(pairs: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    ends = np.array(pairs, int).reshape(-1, 2)
    return ends[:, 0], ends[:, 1]


def _joined(component: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Components (N,) after places ``one`` have been joined with places ``other``."""
    size = len(component)
    graph = coo_array((np.ones(len(one), bool), (component[one], component[other])), (size, size))
    _, new = connected_components(graph, directed=False)
    joined: np.ndarray = new[component]
    return joined
