"""Probabilities of classes in a word tree: YOLO9000 (Redmon and Farhadi 2017, arXiv 1612.08242, section 4).

A network gives a number for each class. A softmax over each group of siblings makes it the probability of a class given
its parent; the product of those on the way to the root is the class's own. All functions work on the last dimension of
tensors (..., N), N being the classes of the tree, and are traceable: they gather, and never loop over groups.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hubel.weights.darknet_tree import Tree

THRESHOLD = 0.5
"""Probability that a class must exceed to be said of an object, instead of its parent (Darknet's ``-hier``)."""

_NEVER = -6e4  # stands in the places of a group that has fewer classes than its table; in reach of 16 bits


class WordTree:
    """The indices by which probabilities are gathered.

    Args:
        tree: the classes.
        mapped: indices of the classes that results are to name; all, as in :meth:`deepest`, by default.
    """

    def __init__(self, tree: Tree, mapped: tuple[int, ...] | None = None) -> None:
        self.tree, self.mapped = tree, mapped
        count = len(tree.parents)
        # Groups in tables of twice as many columns each, so that no more than half of a table is empty.
        tables: dict[int, list[np.ndarray]] = {}
        for group in tree.groups:
            width = 1 << (len(group) - 1).bit_length()
            tables.setdefault(width, []).append(np.pad(group, (0, width - len(group)), constant_values=count))
        self._tables = [np.stack(rows) for _, rows in sorted(tables.items())]
        order = np.concatenate([table.ravel() for table in self._tables])
        self._position = np.flatnonzero(order < count)[np.argsort(order[order < count])]
        # Ancestors at distances 1, 2, 4, …; N stands for none.
        parents = np.array(tree.parents)
        step = np.append(np.where(parents < 0, count, parents), count)
        self._steps = []
        while (step[:-1] < count).any():
            self._steps.append(step[:-1])
            step = step[step]
        depth = np.zeros(count, np.float32)
        for index, parent in enumerate(tree.parents):
            depth[index] = 1 if parent < 0 else depth[parent] + 1
        self._depth, self._is_root = depth, (parents < 0).astype(np.float32)

    @property
    def classes(self) -> int:
        """Classes that results name."""
        return len(self.tree.names) if self.mapped is None else len(self.mapped)

    def log_probabilities(self, raw: Tensor) -> Tensor:
        """Logarithms of the probability of each class (..., N) of raw numbers (..., N)."""
        # Classes come first, so that what is gathered is contiguous: that is ten times as fast.
        first = raw.movedim(-1, 0)
        padded = _with_row(first.contiguous(), _NEVER)
        groups = [
            functional.log_softmax(padded.index_select(0, _to(table.ravel(), raw)).unflatten(0, table.shape), 1)
            for table in self._tables
        ]
        total = torch.cat([each.flatten(0, 1) for each in groups]).index_select(0, _to(self._position, raw))
        for step in self._steps:  # sums over 1, 2, 4, … classes of the way to the root
            total = total + _with_row(total, 0.0).index_select(0, _to(step, raw))
        return total.movedim(0, -1)

    def node_of(self, labels: Tensor) -> Tensor:
        """Indices in the tree of classes that results name, int64 (...)."""
        return labels if self.mapped is None else _to(np.array(self.mapped), labels)[labels]

    def loss(self, raw: Tensor, labels: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Cross-entropy in each group on the way from the label to the root, summed: (M,) of (M, N) and int64 (M,).

        That is the negative logarithm of the label's probability. Where only some classes are ``labelled``, bool
        (:attr:`classes`,), each softmax is over these, the label, and the classes above any of them.
        """
        if labelled is not None:
            known = self._nodes(labelled).repeat(len(raw), 1)
            known.scatter_(1, self.node_of(labels)[:, None], True)
            for step in self._steps:
                above = known.new_zeros(len(raw), len(step) + 1, dtype=raw.dtype)
                known = known | (above.index_add(1, _to(step, raw), known.to(raw.dtype))[:, :-1] > 0)
            raw = raw.masked_fill(~known, _NEVER)
        return -self.log_probabilities(raw).gather(-1, self.node_of(labels)[..., None])[..., 0]

    def share(self, raw: Tensor, labelled: Tensor) -> Tensor:
        """Probability (A,) that a box is of a ``labelled`` class, bool (:attr:`classes`,), or of one below it."""
        below = self._nodes(labelled)
        for step in self._steps:
            below = below | _with_row(below, False).index_select(0, _to(step, raw))
        return (self.leaf_probabilities(raw).detach() * below).sum(-1)

    def _nodes(self, chosen: Tensor) -> Tensor:
        """Classes that results name, bool (:attr:`classes`,), as those of the tree, bool (N,)."""
        nodes = torch.zeros(len(self.tree.names), dtype=torch.bool, device=chosen.device)
        nodes[self.node_of(chosen.nonzero()[:, 0])] = True
        return nodes

    def scores(self, raw: Tensor) -> Tensor:
        """Probabilities of the mapped classes; without a map, of the deepest class that is likely, 0 for others.

        Both (..., :attr:`classes`).
        """
        probabilities = self.log_probabilities(raw).exp()
        if self.mapped is not None:
            return probabilities.index_select(-1, _to(np.array(self.mapped), raw))
        best = self.deepest(probabilities)[..., None]
        return torch.zeros_like(probabilities).scatter(-1, best, probabilities.gather(-1, best))

    def deepest(self, probabilities: Tensor) -> Tensor:
        """The class, int64 (...), at which the way down through the likeliest children ends; of (..., N).

        It goes on while the child's probability exceeds :data:`THRESHOLD`. As that is one half, the classes above it
        are one way down from a root. Where no root exceeds it, the likeliest root is the class.
        """
        depth, is_root = _to(self._depth, probabilities), _to(self._is_root, probabilities)
        return torch.where(probabilities > THRESHOLD, depth, is_root * probabilities).argmax(-1)

    def leaf_probabilities(self, raw: Tensor) -> Tensor:
        """Probabilities (..., N) that sum to 1: those of classes without children, 0 for others."""
        is_leaf = np.ones(len(self.tree.parents), np.float32)
        is_leaf[[parent for parent in self.tree.parents if parent >= 0]] = 0
        return self.log_probabilities(raw).exp() * _to(is_leaf, raw)


def _with_row(rows: Tensor, value: float) -> Tensor:
    """One more row (1 + N, ...), of this value, at the end."""
    return torch.cat((rows, torch.full_like(rows[:1], value)))


def _to(table: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(table).to(like.device)
