"""The command ``stemcodecs``.

Everything heavy is imported inside the commands: ``stemcodecs info`` answers before NumPy would be
loaded.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from stemcodecs._version import __version__
from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.run.terminal import bar_of, reported, say

if TYPE_CHECKING:
    from stemcodecs.readers.scan import Scan

__all__ = ["app", "main"]

app = typer.Typer(
    name="stemcodecs",
    help="Compress 4D-STEM scans, ptychography and diffraction stacks into Zarr stores.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

Source = Annotated[
    str,
    typer.Argument(metavar="SRC", help="Scan: .npy, HDF5 (EMD, py4DSTEM, Nion Swift), Zarr, raw binary, …"),
]
Store = Annotated[str, typer.Argument(metavar="STORE", help="Store written by compress; a folder or a URL.")]
Dataset = Annotated[str | None, typer.Option(help="Dataset or array inside the source; default: the 4D one.")]
Shape = Annotated[str | None, typer.Option(help="Shape of a raw binary source, e.g. 64,64,256,256.")]
Dtype = Annotated[str | None, typer.Option(help="Dtype of a raw binary source, e.g. uint16 or >u2.")]
Offset = Annotated[int, typer.Option(help="Bytes before the first value of a raw binary source.")]
Workers = Annotated[
    int | None,
    typer.Option(help="Blocks in work at once; jobs with --slurm. Default: one per core."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Dask scheduler, e.g. tcp://host:8786; 'local' starts processes on this machine."),
]
Slurm = Annotated[
    bool,
    typer.Option("--slurm", help="Run in SLURM jobs (dask-jobqueue, with your jobqueue.yaml)."),
]
Wait = Annotated[float, typer.Option(min=0, help="Minutes to wait while there is no worker, e.g. in SLURM's queue.")]


def _numbers(name: str, text: str | None) -> tuple[int, ...] | None:
    """Read ``16,16`` or ``16x16``."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.replace("x", ",").replace("×", ",").split(","))
    except ValueError:
        raise ConfigurationError(f"--{name} {text}: give numbers with commas, e.g. 16,16") from None


def _open(source: str, dataset: str | None, shape: str | None, dtype: str | None, offset: int) -> Scan:
    from stemcodecs.readers import open_scan

    return open_scan(source, dataset=dataset, shape=_numbers("shape", shape), dtype=dtype, offset=offset)


def _with_options(method: str | None, **options: str | None) -> str | None:
    """Options of the command line in the form that a method takes them."""
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    if not given:
        return method
    if method is None:
        raise ConfigurationError(f"--{given[0].split('=')[0]} needs --method pca or --method poisson")
    return f"{method}{',' if ':' in method else ':'}{','.join(given)}"


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        typer.echo(f"stemcodecs {__version__}")
        raise typer.Exit()


@app.command()
@reported
def compress(
    source: Source,
    store: Annotated[str, typer.Argument(metavar="DST", help="Store to write; a folder or a URL.")],
    dataset: Dataset = None,
    shape: Shape = None,
    dtype: Dtype = None,
    offset: Offset = 0,
    method: Annotated[
        str | None, typer.Option(help="Method, e.g. pixel_histogram or pixel_histogram:mode=pixel.")
    ] = None,
    rank: Annotated[str | None, typer.Option(help="Eigen-patterns of --method pca: a number, or auto.")] = None,
    residual: Annotated[str | None, typer.Option(help="Residual of --method pca: none, bounded or lossless.")] = None,
    r: Annotated[
        str | None, typer.Option("--r", help="Bound in sigma of --method poisson, or of pca with a bounded residual.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Levels of --method poisson: optimal, huang-511, huang-255 or huang-191.")
    ] = None,
    chunk: Annotated[
        str | None, typer.Option(help="Chunk in scan positions, e.g. 16,16; default: 32 to 64 MB.")
    ] = None,
    shards: Annotated[
        str | None,
        typer.Option(help="Shard in scan positions, a multiple of the chunk; for object stores."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Memory that the run may take, e.g. 4GB; chooses chunks and workers."),
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    slurm: Slurm = False,
    wait: Wait = 60,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an existing store once the new one is complete."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted compression.")] = False,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Read back and compare every value.")] = True,
) -> None:
    """Compress a scan into a Zarr store."""
    from stemcodecs_pipelines.run.cluster import cluster_engine
    from stemcodecs_pipelines.run.plan import format_bytes, parse_bytes
    from stemcodecs_pipelines.store.compress import encode

    with (
        _open(source, dataset, shape, dtype, offset) as scan,
        cluster_engine(scheduler=scheduler, slurm=slurm, workers=workers, wait=60 * wait, report=say) as (
            engine,
            count,
        ),
        bar_of("compress") as bar,
    ):
        result = encode(
            scan,
            store,
            method=_with_options(method, rank=rank, residual=residual, r=r, preset=preset),
            chunk=_numbers("chunk", chunk),
            shards=_numbers("shards", shards),
            workers=count,
            memory=parse_bytes(memory) if memory else None,
            engine=engine,
            overwrite=overwrite,
            resume=resume,
            verify=verify,
            start=bar.start,
            progress=lambda block: bar.advance(block.raw_bytes),
            learning=bar.learn,
        )
    if result.kept_blocks:
        typer.echo(f"{result.kept_blocks} of {result.plan.blocks} blocks were finished already and kept")
    typer.echo(
        f"{store}: {format_bytes(result.raw_bytes)} → {format_bytes(result.stored_bytes)} "
        f"({result.raw_bytes:,} → {result.stored_bytes:,} bytes), ratio {result.ratio:.2f}, "
        f"{result.bits_per_pixel:.3f} bits per pixel"
    )
    if result.deviation is not None:
        written = " written now" if result.kept_blocks else ""
        typer.echo(f"every value{written} was read back and compared with the source: {result.deviation.summary()}")
    elif result.verified:
        typer.echo("verified: every value was read back and compared with the source")
    else:
        typer.echo("not verified; check it with: stemcodecs verify SRC DST")


@app.command()
@reported
def verify(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[SRC] STORE",
            help="Source and store; a store alone is checked against its own digests.",
        ),
    ],
    dataset: Dataset = None,
    shape: Shape = None,
    dtype: Dtype = None,
    offset: Offset = 0,
    workers: Workers = None,
    scheduler: Scheduler = None,
    slurm: Slurm = False,
    wait: Wait = 60,
) -> None:
    """Read back a store and compare every value with its source."""
    from stemcodecs_pipelines.run.cluster import cluster_engine
    from stemcodecs_pipelines.store.verify import verify as check

    if len(paths) > 2:
        raise ConfigurationError("verify takes a source and a store, or a store alone")
    store = paths[-1]
    with (
        contextlib.ExitStack() as stack,
        cluster_engine(scheduler=scheduler, slurm=slurm, workers=workers, wait=60 * wait, report=say) as (
            engine,
            count,
        ),
    ):
        scan = None
        if len(paths) == 2:
            scan = stack.enter_context(_open(paths[0], dataset, shape, dtype, offset))
        with bar_of("verify") as bar:
            report = check(
                scan,
                store,
                workers=count,
                engine=engine,
                start=bar.start,
                progress=lambda block: bar.advance(block.raw_bytes),
            )
    report.require_intact(store)
    against = "the source" if scan else "the digests taken when it was written"
    if report.deviation is not None:
        typer.echo(f"{store}: {report.deviation.summary()}")
    else:
        typer.echo(f"{store}: all {report.values:,} values agree with {against}")


@app.command()
@reported
def repair(
    source: Source,
    store: Store,
    dataset: Dataset = None,
    shape: Shape = None,
    dtype: Dtype = None,
    offset: Offset = 0,
    workers: Workers = None,
) -> None:
    """Encode the damaged or missing chunks of a store again from its source."""
    from stemcodecs_pipelines.store.verify import repair as mend

    with _open(source, dataset, shape, dtype, offset) as scan, bar_of("repair") as bar:
        report = mend(
            scan,
            store,
            workers=workers,
            start=bar.start,
            progress=lambda block: bar.advance(block.raw_bytes),
        )
    for failure in report.failures:
        typer.echo(f"repaired block {failure.index} at {failure.position}: {failure.problem}")
    found = "all values agree" if report.deviation is None else report.deviation.summary()
    typer.echo(f"{store}: {len(report.failures)} of {report.blocks} blocks repaired; {found}")


@app.command()
@reported
def info(
    store: Store,
    detail: Annotated[bool, typer.Option("--detail", help="What the coder learned about one chunk.")] = False,
    chunk: Annotated[int | None, typer.Option(help="Chunk to look into; default: the middle one.")] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="PNG", help="With --detail: draw the bits of every detector pixel.")
    ] = None,
) -> None:
    """Say what a store holds, and whether it is complete."""
    from stemcodecs_pipelines.store.info import store_info

    if not detail and (chunk is not None or plot is not None):
        raise ConfigurationError("--chunk and --plot go with --detail; add it")
    found = store_info(store)
    typer.echo(f"{store}: complete")
    _table(found.rows())
    if detail:
        from stemcodecs_pipelines.store.chunk_detail import chunk_detail, detail_rows, plot_detail

        opened = chunk_detail(store, chunk)
        if plot is not None:
            plot_detail(opened, plot)
        typer.echo("")
        _table(detail_rows(opened))


def _table(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        typer.echo(f"  {name:<{width}}  {value}")


@app.command()
@reported
def decompress(
    store: Store,
    out: Annotated[str, typer.Argument(metavar="OUT", help="File to write: .npy, .h5 or .zarr.")],
    workers: Workers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write the values of a store to .npy, HDF5 or plain Zarr."""
    from stemcodecs_pipelines.run.plan import format_bytes
    from stemcodecs_pipelines.store.decompress import decompress as export

    with bar_of("decompress") as bar:
        plan = export(store, out, workers=workers, overwrite=overwrite, start=bar.start, progress=bar.advance)
    typer.echo(f"{out}: {format_bytes(plan.raw_bytes)} written")


@app.command()
@reported
def demo(
    keep: Annotated[
        str | None,
        typer.Option(help="Folder for the simulated scan and its store; default: removed."),
    ] = None,
) -> None:
    """Simulate a small 4D-STEM scan, compress it, verify it, and compare with other compressors."""
    from stemcodecs_pipelines.compare.demo import run_demo

    run_demo(keep, echo=typer.echo)


def _register() -> None:
    """Commands that live in their own modules."""
    from stemcodecs_pipelines.pca.commands import register

    register(app)


_register()


def main() -> None:
    """Entry point of the command."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe without UTF-8 must not turn an arrow into a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app()
