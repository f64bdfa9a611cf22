"""``stemcodecs pca``: look at a scan's eigen-patterns and at how many of them carry signal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemcodecs.errors import ConfigurationError, DestinationError
from stemcodecs_pipelines.run.terminal import bar_of, reported

if TYPE_CHECKING:
    from stemcodecs.lowrank import PcaBasis

__all__ = ["draw", "register"]

DEFAULT_RANK = 16
PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".tif")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="pca")(reported(_pca))


def _pca(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Scan, as compress takes it.")],
    rank: Annotated[
        str | None, typer.Option(help="Eigen-patterns: a number, or auto (by count splitting). Default: 16.")
    ] = None,
    out: Annotated[str, typer.Option(help="Picture to write (PNG).")] = "pca.png",
    dataset: Annotated[str | None, typer.Option(help="Dataset inside the source.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Blocks in work at once.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Plain counts instead of stabilised ones (Anscombe).")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the picture.")] = False,
) -> None:
    """Draw the eigen-patterns and the scree plot of a scan."""
    _run(source, rank, Path(out), dataset, workers, raw, overwrite)


def _run(
    source: str,
    rank: str | None,
    out: Path,
    dataset: str | None,
    workers: int | None,
    raw: bool,
    overwrite: bool,
) -> None:
    if rank not in (None, "auto") and not (rank.isdecimal() and int(rank) > 0):
        raise ConfigurationError(f"--rank {rank} must be a number of at least 1, or auto")
    if out.exists() and not overwrite:
        raise DestinationError(f"{out} exists already; give --overwrite or another --out")
    if out.suffix.lower() not in PICTURES:
        raise DestinationError(f"{out} must be a picture: {', '.join(PICTURES)}")
    if not out.absolute().parent.is_dir():
        raise DestinationError(f"the folder {out.parent} does not exist; create it first")
    from stemcodecs.readers import open_scan
    from stemcodecs_pipelines.pca.fit import LARGEST_RANK, pca_basis, plan_pca

    with open_scan(source, dataset=dataset) as scan, bar_of("pca") as bar:
        wanted = min(DEFAULT_RANK, math.prod(scan.shape[:-2]), math.prod(scan.shape[-2:])) if rank is None else rank
        plan = plan_pca(scan, rank=LARGEST_RANK if wanted == "auto" else int(wanted), workers=workers)
        basis = pca_basis(
            scan,
            rank="auto" if wanted == "auto" else int(wanted),
            stabilised=not raw,
            workers=workers,
            progress=lambda done, total: bar.learn(plan.describe(), done, total),
        )
    draw(basis, out)
    share = float(basis.explained_variance_ratio.sum())
    typer.echo(
        f"{out}: {basis.rank} eigen-patterns of {basis.positions} positions, "
        f"{share:.2%} of the variance about the mean pattern"
    )


def draw(basis: PcaBasis, out: Path) -> None:
    """Mean pattern, up to 15 eigen-patterns, and the scree plot against the counting noise.

    Raises
    ------
    ConfigurationError
        matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError("drawing needs matplotlib; install it with: pip install 'stemcodecs[plot]'") from None
    import numpy as np

    figure = Figure(figsize=(11, 11), layout="constrained")
    FigureCanvasAgg(figure)
    parts: Any = figure.subfigures(2, 1, height_ratios=(3, 1))
    upper, lower = parts
    axes = upper.subplots(4, 4).ravel()
    for axis in axes:
        axis.set_axis_off()
    axes[0].imshow(np.sqrt(basis.mean_counts), cmap="inferno")
    axes[0].set_title("√ mean counts", fontsize=9)
    for number, (axis, pattern) in enumerate(zip(axes[1:], basis.components, strict=False), 1):
        limit = float(np.abs(pattern).max())
        axis.imshow(pattern, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(f"{number}: {basis.explained_variance_ratio[number - 1]:.2%}", fontsize=9)
    scree = lower.subplots()
    numbers = np.arange(1, basis.rank + 1)
    if basis.rank:
        scree.semilogy(numbers, basis.eigenvalues, "o-", label="variance of the coefficient")
        scree.semilogy(numbers, basis.noise() ** 2, "--", label="counting noise in it")
        scree.legend()
    scree.set_xlabel("component")
    scree.set_ylabel("variance per pattern")
    figure.savefig(out, dpi=110)
