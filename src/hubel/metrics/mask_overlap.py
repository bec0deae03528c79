"""Overlap of masks from their run lengths, without decoding them to pixels.

Most of the time of COCO's mask evaluation goes into walking through the runs of two masks at a time. Here the runs of
many masks are read at once, and all pairs are compared at once by interpolation: the number of a mask's
pixels before a position is a line that rises by 1 a pixel within runs, and is level between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hubel.masks import RunLengthMask, decode_part, encode_part

BOUNDARY = 0.02
"""Width of a boundary as a fraction of the image's diagonal (Cheng et al. 2021, arXiv 2103.16562, section 5)."""

_AT_ONCE = 1 << 20  # bounds of runs that are looked up together: about 50 MB


@dataclass(frozen=True)
class Runs:
    """The runs of masks (N).

    Attributes:
        bounds: where they begin and end, in turn, float64 (2 · runs,), in pixels column by column, mask after mask.
        counts: runs of each mask, int (N,).
    """

    bounds: np.ndarray
    counts: np.ndarray

    @property
    def areas(self) -> np.ndarray:
        """Pixels of each mask, float64 (N,)."""
        return _sums(self.bounds[1::2] - self.bounds[::2], self.counts)


def read_runs(masks: Sequence[dict[str, Any]]) -> Runs:
    """The runs of masks as COCO's ``{"size", "counts"}``.

    Their counts are compressed and valid, as :mod:`hubel.masks` makes them.
    """
    texts = [counts.encode() if isinstance(counts := mask["counts"], str) else counts for mask in masks]
    codes = np.frombuffer(b"".join(texts), np.uint8) - np.uint8(48)
    if not codes.size:
        return Runs(np.zeros(0), np.zeros(len(masks), np.int64))
    ends = np.flatnonzero(codes < 32) + 1  # of the groups that are a number
    numbers = np.diff(np.searchsorted(ends, np.cumsum([len(text) for text in texts])) + 1, prepend=0)
    counts = numbers // 2
    # Pairs of a run of zeros and one of ones; zeros that end a mask are left out.
    in_pairs = np.ones(len(ends), bool)
    in_pairs[(numbers.cumsum() - 1)[numbers % 2 == 1]] = False
    pairs = _numbers(codes, np.concatenate(([0], ends[:-1]))[in_pairs], ends[in_pairs]).reshape(-1, 2)
    firsts = (counts.cumsum() - counts)[counts > 0]
    # From the third on they are differences to the length two before.
    before, pairs[firsts, 0] = pairs[firsts, 0], 0
    lengths = _running_sums(pairs, firsts, counts)
    lengths[firsts, 0] = before
    return Runs(_running_sums(lengths.ravel(), 2 * firsts, 2 * counts).astype(np.float64), counts)


def _numbers(codes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Numbers that are groups of five bits, least first, in two's complement: int64."""
    sizes = ends - starts
    values: np.ndarray = (codes[starts] & 31).astype(np.int64)
    for place in range(1, int(sizes.max(initial=0))):
        longer = np.flatnonzero(sizes > place)
        values[longer] |= (codes[starts[longer] + place] & 31).astype(np.int64) << (5 * place)
    negative = np.flatnonzero(codes[ends - 1] & 16)
    values[negative] -= 1 << (5 * sizes[negative])
    return values


def shared_pixels(found: Runs, truth: Runs, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Pixels that pairs of masks share, float64 (P,): the ``rows`` of one side and the ``columns`` of the other."""
    sizes = 2 * found.counts[rows]
    if not sizes.sum() or not len(truth.bounds):
        return np.zeros(len(rows))
    if sizes.sum() > _AT_ONCE and len(rows) > 1:
        parts = zip(np.array_split(rows, 2), np.array_split(columns, 2), strict=True)
        return np.concatenate([shared_pixels(found, truth, *part) for part in parts])
    # All true masks as one line: each has a stretch of positions for itself.
    stretch = max(found.bounds.max(), truth.bounds.max()) + 1
    lengths = truth.bounds[1::2] - truth.bounds[::2]
    pixels = np.repeat(lengths.cumsum(), 2)
    pixels[::2] -= lengths
    positions = truth.bounds + np.repeat(np.arange(len(truth.counts)) * stretch, 2 * truth.counts)
    firsts = 2 * (found.counts.cumsum() - found.counts)[rows]
    bounds = found.bounds[np.repeat(firsts, sizes) + _places(sizes)] + np.repeat(columns * stretch, sizes)
    before = np.interp(bounds, positions, pixels)
    return _sums(before[1::2] - before[::2], sizes // 2)


def overlaps(found: Runs, truth: Runs, rows: np.ndarray, columns: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU of pairs of masks, float64 (P,) 0..1; with ``crowd``, bool (P,), the share of what was found in it."""
    areas, true_areas = found.areas[rows], truth.areas[columns]
    shared = shared_pixels(found, truth, rows, columns)
    union = np.where(crowd, areas, areas + true_areas - shared)
    return _fraction(shared, union)


def boundary_overlaps(
    found: Sequence[dict[str, Any]], truth: Sequence[dict[str, Any]], rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Boundary IoU of pairs of masks, float64 (P,) 0..1: the IoU of what of each lies along its outline, inside."""
    along = []
    for masks, chosen in ((found, rows), (truth, columns)):
        used, places = np.unique(chosen, return_inverse=True)
        along.append((read_runs([_boundary(masks[index]) for index in used.tolist()]), places))
    (one, rows), (other, columns) = along
    return overlaps(one, other, rows, columns, np.zeros(len(rows), bool))


def _boundary(mask: dict[str, Any]) -> dict[str, Any]:
    """The pixels of a mask within a distance of its outline; beyond the image's edge there is no mask.

    The distance is the larger of those in x and y, as in the paper's implementation.
    """
    from scipy.ndimage import minimum_filter

    (height, width), counts = mask["size"], mask["counts"]
    part, x, y = decode_part(RunLengthMask(height, width, counts if isinstance(counts, str) else counts.decode()))
    if not part.size:
        return mask
    distance = max(1, round(BOUNDARY * float(np.hypot(height, width))))
    inner = minimum_filter(part.astype(np.uint8), 2 * distance + 1, mode="constant", cval=0)
    return encode_part(part & (inner == 0), x, y, height, width).to_coco()


def pairwise_overlaps(
    found: Sequence[dict[str, Any]], truth: Sequence[dict[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """IoU of all pairs of masks, and the share of what was found that lies in the other: float64 (F, T), 0..1."""
    runs, true_runs = read_runs(found), read_runs(truth)
    rows, columns = np.indices((len(found), len(truth))).reshape(2, -1)
    shared = shared_pixels(runs, true_runs, rows, columns).reshape(len(found), len(truth))
    areas = runs.areas[:, None]
    return _fraction(shared, areas + true_runs.areas - shared), _fraction(shared, areas)


def _fraction(shared: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Shared pixels as a fraction of others; 0 where there are none."""
    fraction: np.ndarray = np.divide(shared, of, out=np.zeros_like(shared), where=of > 0)
    return fraction


def _places(sizes: np.ndarray) -> np.ndarray:
    """0, 1, 2, … in each of several parts of such sizes, one after another."""
    places: np.ndarray = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
    return places


def _running_sums(values: np.ndarray, firsts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Cumulative sums along the first axis in each of several parts of such sizes, which begin at ``firsts``."""
    sums: np.ndarray = values.cumsum(0)
    sums -= np.repeat(sums[firsts] - values[firsts], sizes[sizes > 0], axis=0)
    return sums


def _sums(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Sums of several parts of such sizes, some of which may be empty."""
    sums, ends = np.concatenate(([0.0], values.cumsum())), sizes.cumsum()
    return np.asarray(sums[ends] - sums[ends - sizes])
