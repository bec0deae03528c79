"""Compound scaling: one coefficient scales depth, width and image size of a network together.

Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv 1905.11946,
section 3.3: with a coefficient φ, depth is multiplied by α^φ, width by β^φ and resolution by γ^φ (equation 3).
Multiplications grow with depth, with the square of the width and with the square of the resolution, so under
``α · β² · γ² ≈ 2`` they grow by about 2^φ. The paper finds α = 1.2, β = 1.1, γ = 1.15 for its B0 by a small grid
search at φ = 1, and keeps them for all φ.

>>> CompoundScaling(phi=1).flops_factor  # 1.2 · 1.1² · 1.15²
1.9203

The published B1 to B7 are not this formula's results to the pixel: their factors and sizes were rounded by hand.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubel.config import ALPHA, BETA, GAMMA
from hubel.errors import ModelError, UsageError

if TYPE_CHECKING:
    from hubel.models import Architecture

_LARGEST = 2.0

# Fields of configurations for width and depth, factors or numbers, with the rounding of their products. Channels are
# multiples of 8, which groups divide.
_Rounding = Callable[[float], int]
_WIDTH_FIELDS: dict[str, _Rounding] = {
    "width": round,
    "growth": round,
    "channels": lambda channels: max(8, 8 * round(channels / 8)),
}
_DEPTH_FIELDS: dict[str, _Rounding] = {"depth": math.ceil, "depths": math.ceil}


@dataclass(frozen=True)
class CompoundScaling:
    """Equation 3 of the paper.

    Attributes:
        phi: multiplications grow by about 2^φ; may be negative.
        alpha, beta, gamma: factors on the depth, the width and the resolution at φ = 1.
    """

    phi: float
    alpha: float = ALPHA
    beta: float = BETA
    gamma: float = GAMMA

    @property
    def depth(self) -> float:
        """Factor on the number of units."""
        return float(self.alpha**self.phi)

    @property
    def width(self) -> float:
        """Factor on the number of channels."""
        return float(self.beta**self.phi)

    @property
    def resolution(self) -> float:
        """Factor on the height and width of the images."""
        return float(self.gamma**self.phi)

    @property
    def flops_factor(self) -> float:
        """Growth of the multiplications before rounding: ``(α · β² · γ²)^φ``, to four decimals."""
        return round(float((self.alpha * self.beta**2 * self.gamma**2) ** self.phi), 4)


@dataclass(frozen=True)
class ScaledNetwork:
    """A scaled baseline with its actual cost; units, channels and pixels are whole numbers.

    Attributes:
        options: for ``create_model(baseline, **options)``.
        image_size: side of the images in pixels.
        multiplications: multiply-accumulates for one image.
        growth: ``multiplications`` over the baseline's.
    """

    baseline: str
    scaling: CompoundScaling
    options: Mapping[str, Any]
    image_size: int
    parameters: int
    multiplications: int
    growth: float

    def to_json(self) -> dict[str, Any]:
        """The fields as ``hubel scale --json`` prints them."""
        factors = ("phi", "alpha", "beta", "gamma", "depth", "width", "resolution", "flops_factor")
        return {
            "baseline": self.baseline,
            **{name: getattr(self.scaling, name) for name in factors},
            "options": dict(self.options),
            "image_size": self.image_size,
            "parameters": self.parameters,
            "macs": self.multiplications,
            "growth": self.growth,
        }


def scale(
    baseline: str, scaling: CompoundScaling, num_classes: int | None = None, image_size: int | None = None
) -> ScaledNetwork:
    """Scale a registered architecture.

    Args:
        baseline: its name. Its configuration has to have a field for what is scaled: ``width``, ``growth`` or
            ``channels`` for the width, ``depth`` or ``depths`` (units of each stage) for the depth. An axis with
            factor 1 needs none, and resolution never does.
        scaling: the coefficients.
        num_classes: of the network that is counted; the architecture's own by default.
        image_size: side in pixels that the resolution multiplies; the architecture's own by default.

    Raises:
        ModelError: unknown name, or an architecture without such a field; names those that have them.
    """
    from hubel.models import architecture

    arch = architecture(baseline)
    options = _options(arch, scaling)
    side = image_size or arch.input[1]
    size = max(1, round(side * scaling.resolution))
    parameters, multiplications = _cost(arch, options, size, num_classes or arch.num_classes)
    _, before = _cost(arch, {}, side, num_classes or arch.num_classes)
    return ScaledNetwork(
        baseline, scaling, options, size, parameters, multiplications, round(multiplications / before, 4)
    )


def scalable() -> list[str]:
    """Names of the architectures that can be scaled in depth and width."""
    from hubel.models import architecture, list_models

    architectures = map(architecture, list_models())
    return [arch.name for arch in architectures if _field(arch, _WIDTH_FIELDS) and _field(arch, _DEPTH_FIELDS)]


def candidates(
    step: float = 0.05, target: float = 2.0, tolerance: float = 0.1, baseline: str | None = None
) -> tuple[CompoundScaling, ...]:
    """The search grid at φ = 1: all (α, β, γ) ≥ 1 with ``α · β² · γ²`` near the target.

    Args:
        step: of α, β and γ, which begin at 1.
        target: what the product should be; the paper's is 2.
        tolerance: maximum distance from the target.
        baseline: name of an architecture; α or β stay 1 where its depth or width cannot be scaled.

    Raises:
        ModelError: unknown name.
        UsageError: the step is not positive, or nothing on the grid comes near enough.
    """
    if step <= 0:
        raise UsageError(f"a grid with steps of {step} would be infinite", "use a positive step, such as 0.05")
    count = math.floor((max(_LARGEST, target) - 1) / step + 1e-9) + 1
    axis = [round(1 + number * step, 6) for number in range(count)]
    alphas, betas = axis, axis
    if baseline is not None:
        from hubel.models import architecture

        arch = architecture(baseline)
        alphas, betas = (axis if _field(arch, names) else [1.0] for names in (_DEPTH_FIELDS, _WIDTH_FIELDS))
    near = [
        CompoundScaling(1.0, alpha, beta, gamma)
        for alpha, beta, gamma in itertools.product(alphas, betas, axis)
        if abs(alpha * beta**2 * gamma**2 - target) <= tolerance + 1e-9
    ]
    if not near:
        raise UsageError(
            f"no (α, β, γ) in steps of {step} has a product within {tolerance} of {target}",
            "use a smaller step or a larger tolerance",
        )
    return tuple(near)


@dataclass(frozen=True)
class Trial:
    """One point of the grid, trained.

    Attributes:
        top1: accuracy on the validation images, 0..1.
        folder: of the run.
    """

    network: ScaledNetwork
    top1: float
    folder: Path


def search(
    baseline: str,
    data: Path | str,
    grid: tuple[CompoundScaling, ...] | None = None,
    out: Path | str = Path("runs") / "scaling",
    image_size: int | None = None,
    report: Callable[[Trial], None] | None = None,
    **config: Any,
) -> tuple[Trial, ...]:
    """Train every point of the grid from scratch on a data set and rank them: the paper's step 1 (section 3.3).

    Args:
        baseline: name of any architecture.
        data: class folders, as for ``hubel train``.
        grid: the points; the baseline's :func:`candidates` by default.
        out: folder with a run per point. A second call with the same folder reads finished points and resumes an
            interrupted one.
        image_size: height and width that γ multiplies; the architecture's own by default. Small images are quick.
        report: called after each trial.
        config: of ``hubel.train``: ``epochs``, ``batch``, …, the same for all points.

    Returns:
        The trials, best validation accuracy first, and cheaper first among equals.

    Raises:
        ModelError, DataError: as :func:`scale` and ``hubel.train``; before anything is trained where possible.
    """
    from hubel.models import architecture
    from hubel.training.train import train

    arch = architecture(baseline)
    networks = [scale(baseline, point, image_size=image_size) for point in grid or candidates(baseline=baseline)]
    trials = []
    for network in networks:
        point = network.scaling
        folder = Path(out) / f"{baseline}-{point.alpha:g}-{point.beta:g}-{point.gamma:g}"
        options = {"weights": None, **config, "options": dict(network.options), "image_size": network.image_size}
        done = train(data, model=arch.name, out=folder, resume=(folder / "config.yaml").is_file(), **options)
        trials.append(Trial(network, done.scores["val"].to_json()["metrics"]["top1"], done.folder))
        if report is not None:
            report(trials[-1])
    return tuple(sorted(trials, key=lambda trial: (-trial.top1, trial.network.multiplications)))


def _field(arch: Architecture, names: Iterable[str]) -> str | None:
    return next((name for name in names if hasattr(arch.config, name)), None)


def _options(arch: Architecture, scaling: CompoundScaling) -> dict[str, Any]:
    options: dict[str, Any] = {}
    axes = (("width", _WIDTH_FIELDS, scaling.width), ("depth", _DEPTH_FIELDS, scaling.depth))
    for axis, names, factor in axes:
        if math.isclose(factor, 1):
            continue
        field = _field(arch, names)
        if field is None:
            raise ModelError(
                f"{arch.name} cannot be scaled in {axis}: its configuration has no such factor",
                f"leave that factor at 1, or choose one that can: {', '.join(scalable())}",
            )
        options[field] = _multiplied(getattr(arch.config, field), factor, names[field])
    return options


def _multiplied(value: Any, factor: float, whole: _Rounding) -> Any:
    """A value, or each of a tuple, times ``factor``; whole numbers stay whole."""
    if isinstance(value, tuple):
        return tuple(_multiplied(each, factor, whole) for each in value)
    # A product of floats such as 5.000000001 must not become 6.
    return whole(round(value * factor, 6)) if isinstance(value, int) else value * factor


def _cost(arch: Architecture, options: Mapping[str, Any], image_size: int, num_classes: int) -> tuple[int, int]:
    """Parameters and multiply-accumulates of one image."""
    from hubel.analysis.summary import count_multiplications
    from hubel.models.factory import build_on_meta

    shape = (arch.input[0], image_size, image_size)
    model = build_on_meta(arch, shape, options, num_classes)
    return sum(tensor.numel() for tensor in model.parameters()), count_multiplications(model, shape)
