"""Pictures that belong together: the same bytes, or nearly the same to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

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
    leader = list(range(len(paths)))

    def leader_of(at: int) -> int:
        while leader[at] != at:
            leader[at] = leader[leader[at]]
            at = leader[at]
        return at

    readable = [at for at, path in enumerate(paths) if not looks[path].fault]
    for first, *others in identical(readable, lambda at: paths[at]):
        for other in others:
            leader[leader_of(other)] = leader_of(first)
    able = [(at, print_) for at in readable if (print_ := looks[paths[at]].print) is not None]
    for one, two, _ in close_pairs([print_ for _, print_ in able]):
        leader[leader_of(able[two][0])] = leader_of(able[one][0])
    groups: dict[int, list[int]] = {}
    for at in range(len(paths)):
        groups.setdefault(leader_of(at), []).append(at)
    return list(groups.values())
