"""``hubel scale``: compound scaling of an architecture, and the grid search for its coefficients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubel.cli.options import Batch, Json
from hubel.config import ALPHA, BETA, GAMMA
from hubel.console import count_of, log, print_json, print_table
from hubel.tables import Table

if TYPE_CHECKING:
    from hubel.training.compound_scaling import ScaledNetwork, Trial

_TITLES = (
    "phi", "alpha", "beta", "gamma", "depth ×", "width ×", "resolution ×", "image", "parameters (M)", "GMACs", "cost ×",
)  # fmt: skip
_OPTIONAL = ("cost ×", "alpha", "beta", "gamma")


def scale(
    baseline: Annotated[str, typer.Argument(help="A registered architecture; see hubel models.")],
    phi: Annotated[
        list[float] | None, typer.Option(help="Scaling exponent: the cost grows by 2^phi; may be repeated.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(min=1, help="Depth factor at phi = 1.", show_default=str(ALPHA))
    ] = None,
    beta: Annotated[float | None, typer.Option(min=1, help="Width factor at phi = 1.", show_default=str(BETA))] = None,
    gamma: Annotated[
        float | None, typer.Option(min=1, help="Resolution factor at phi = 1.", show_default=str(GAMMA))
    ] = None,
    search: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Train the grid of (alpha, beta, gamma) at phi = 1 on this data set."),
    ] = None,
    step: Annotated[float, typer.Option(help="Grid step.")] = 0.1,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest deviation of alpha * beta^2 * gamma^2 from 2.")
    ] = 0.1,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs per grid point.")] = 10,
    batch: Batch = 32,
    image_size: Annotated[
        int | None, typer.Option(min=8, help="Image size that gamma scales.", show_default="the architecture's own")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the search.")] = 0,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the search's runs; the same folder resumes.")
    ] = Path("runs/scaling"),
    as_json: Json = False,
) -> None:
    """Scale depth, width and resolution of an architecture together, as EfficientNet does, and report the cost.

    Multiplications grow by about 2^phi (Tan and Le 2019, arXiv 1905.11946, section 3.3). With --search, every
    (alpha, beta, gamma) with alpha * beta^2 * gamma^2 near 2 is trained on your data and ranked by its
    validation accuracy.

    \b
    hubel scale efficientnet_b0 --phi 1 --phi 2 --phi 3
    hubel scale efficientnet_lite0 --search flowers/ --epochs 10 --image-size 96
    """
    from hubel.training.compound_scaling import CompoundScaling, candidates
    from hubel.training.compound_scaling import scale as scaled

    if search is None:
        factors = (alpha or ALPHA, beta or BETA, gamma or GAMMA)
        points = [CompoundScaling(each, *factors) for each in phi or [0.0, 1.0, 2.0, 3.0]]
        networks = [scaled(baseline, point, image_size=image_size) for point in points]
        if as_json:
            print_json([network.to_json() for network in networks])
        else:
            print_table(Table(_TITLES, [_cells(each) for each in networks], left=0, optional=_OPTIONAL))
        return
    if phi or alpha or beta or gamma:
        raise typer.BadParameter(
            "the search tries all (alpha, beta, gamma) at phi = 1; leave out --phi, --alpha, --beta and --gamma",
            param_hint="'--search'",
        )
    grid = candidates(step, tolerance=tolerance, baseline=baseline)
    from hubel.system import set_passive_omp_wait

    set_passive_omp_wait()
    from hubel.training.compound_scaling import search as run

    def report(trial: Trial) -> None:
        point = trial.network.scaling
        factors = f"alpha {point.alpha:g}, beta {point.beta:g}, gamma {point.gamma:g}"
        log(f"{factors}: validation top-1 {trial.top1:.3f}")

    work = f"{count_of(len(grid), 'grid point')}, {count_of(epochs, 'epoch')} each"
    log(f"{work}; Ctrl-C stops, the same command continues")
    trials = run(baseline, search, grid, out, image_size, report, epochs=epochs, batch=batch, seed=seed)
    if as_json:
        print_json([{**trial.network.to_json(), "top1": trial.top1, "run": str(trial.folder)} for trial in trials])
        return
    rows = [[*_cells(trial.network), f"{trial.top1:.3f}"] for trial in trials]
    print_table(Table([*_TITLES, "validation\ntop-1"], rows, left=0, optional=_OPTIONAL))
    best = trials[0].network.scaling
    found = f"--alpha {best.alpha:g} --beta {best.beta:g} --gamma {best.gamma:g}"
    log(f"next: hubel scale {baseline} {found} --phi 1 --phi 2 --phi 3")


def _cells(network: ScaledNetwork) -> list[str]:
    point = network.scaling
    factors = [f"{value:g}" for value in (point.phi, point.alpha, point.beta, point.gamma)]
    applied = [f"{value:.3f}" for value in (point.depth, point.width, point.resolution)]
    cost = [f"{network.parameters / 1e6:.2f}", f"{network.multiplications / 1e9:.3f}", f"{network.growth:.2f}"]
    return [*factors, *applied, str(network.image_size), *cost]
