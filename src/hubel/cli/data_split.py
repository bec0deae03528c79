"""``hubel data split``: a copy of a data set, divided into what trains, validates and tests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubel.cli.options import FromFormat, Json, Pictures
from hubel.console import check_output_dir, log, print_json, progress_bar


def split(
    source: Annotated[Path, typer.Argument(metavar="DATA", help="A folder of labelled pictures, or one label file.")],
    out: Annotated[Path, typer.Option(help="The new folder; nothing is ever written over.")],
    shares: Annotated[
        str, typer.Option("--split", help="Shares of train,validation,test of an unsplit data set.")
    ] = "0.75,0.15,0.10",
    seed: Annotated[int, typer.Option(help="Another seed, another split.")] = 0,
    anew: Annotated[bool, typer.Option("--anew", help="Put the splits that there are together first.")] = False,
    from_format: FromFormat = None,
    images: Pictures = "copy",
    as_json: Json = False,
) -> None:
    """Write a copy of a data set that is divided into train, val and test.

    Every class gets its share in each, as far as pictures can be divided; pictures that look alike stay together. Of a
    data set with train and no val, 15 % of train become val.

    \b
    hubel data split raccoon/ --out raccoon-split
    hubel data split bccd/ --anew --split 0.8,0.1,0.1 --out bccd-anew --images link
    """
    from hubel.config import parse_fractions
    from hubel.data.checks.statistics import statistics
    from hubel.data.resplit import split_data, write_split

    try:
        fractions = parse_fractions(shares)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="'--split'") from error
    check_output_dir("--out", out, [source])
    with progress_bar() as advance:
        divided = split_data(source, from_format, fractions, seed, anew, advance)
    lost = write_split(divided, out, images)
    counts = statistics(divided.dataset)
    groups, pictures = divided.together
    if as_json:
        splits = counts.as_json()["splits"]
        together = {"groups": groups, "pictures": pictures}
        said = {"source": str(source), "out": str(out), "seed": seed, "splits": splits, "together": together}
        print_json(said | {"losses": list(lost), "notes": list(divided.notes)})
        return
    for line in divided.notes:
        log(f"note: {line}")
    for line in lost:
        log(f"not in the copy: {line}")
    sizes = ", ".join(f"{name} {each.pictures:,}" for name, each in counts.splits.items())
    many = f"{groups:,} groups" if groups > 1 else "one group"
    alike = f"; {pictures:,} pictures that look alike stay together in {many}" if groups else ""
    print(f"{out}: {sizes}{alike}")
