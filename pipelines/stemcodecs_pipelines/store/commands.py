"""``stemcodecs compress``, ``verify``, ``repair``, ``info`` and ``decompress``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer
from rich import filesize

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.run.command_options import (
    Scheduler,
    SectionedCommand,
    Slurm,
    Source,
    Store,
    Wait,
    Workers,
    numbers,
    open_source,
    with_source_options,
)
from stemcodecs_pipelines.run.source import HowToOpen
from stemcodecs_pipelines.run.terminal import bar_of, reported, say

if TYPE_CHECKING:
    from stemcodecs_pipelines.store.compress import CompressResult

__all__ = ["register"]

METHOD, CHUNKS, RUN = "Method", "Chunks and memory", "The run"


def register(app: typer.Typer, with_short_forms: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """Add the commands to the application.

    Parameters
    ----------
    app : typer.Typer
        Application.
    with_short_forms : callable
        Gives a command that takes ``method`` the short forms of its options: which methods there are is not ours to
        know.
    """
    app.command(cls=SectionedCommand)(reported(with_short_forms(with_source_options(compress))))
    commands: list[Callable[..., None]] = [with_source_options(verify), with_source_options(repair), info, decompress]
    for command in commands:
        app.command(cls=SectionedCommand)(reported(command))


def compress(
    source: Source,
    store: Annotated[str, typer.Argument(metavar="DST", help="Store to write; a folder or a URL.")],
    how: HowToOpen,
    method: Annotated[
        str | None,
        typer.Option(
            help="Method, e.g. pixel_histogram or poisson:r=0.5; stemcodecs methods lists them and their options.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    chunk: Annotated[
        str | None,
        typer.Option(help="Chunk in scan positions, e.g. 16,16; default: 32 to 64 MB.", rich_help_panel=CHUNKS),
    ] = None,
    shards: Annotated[
        str | None,
        typer.Option(
            help="Shard in scan positions, a multiple of the chunk; for object stores.", rich_help_panel=CHUNKS
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Memory that the run may take, e.g. 4GB; chooses chunks and workers.", rich_help_panel=CHUNKS
        ),
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    slurm: Slurm = False,
    wait: Wait = 60,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace an existing store once the new one is complete.", rich_help_panel=RUN
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted compression.", rich_help_panel=RUN)
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Read back and compare every value.", rich_help_panel=RUN)
    ] = True,
) -> None:
    """Compress a scan into a Zarr store."""
    from stemcodecs_pipelines.run.cluster import cluster_engine
    from stemcodecs_pipelines.run.plan import memory_bytes
    from stemcodecs_pipelines.store.compress import compress

    with (
        open_source(source, how) as scan,
        cluster_engine(scheduler=scheduler, slurm=slurm, workers=workers, wait=60 * wait, report=say) as (
            engine,
            count,
        ),
        bar_of("compress") as bar,
    ):
        result = compress(
            scan,
            store,
            method=method,
            chunk=numbers("chunk", chunk),
            shards=numbers("shards", shards),
            workers=count,
            memory=memory_bytes(memory) if memory else None,
            engine=engine,
            overwrite=overwrite,
            resume=resume,
            verify=verify,
            start=bar.start,
            progress=lambda block: bar.advance(block.raw_bytes),
            learning=bar.learn,
        )
    for line in _outcome(store, result):
        typer.echo(line)


def _outcome(store: str, result: CompressResult) -> list[str]:
    """What compress says at the end."""
    lines = []
    if result.kept_blocks and not result.already_complete:
        lines.append(f"{result.kept_blocks} of {result.plan.blocks} blocks were finished already and kept")
    lines.append(
        f"{store}: {filesize.decimal(result.raw_bytes)} → {filesize.decimal(result.stored_bytes)} "
        f"({result.raw_bytes:,} → {result.stored_bytes:,} bytes), ratio {result.ratio:.2f}, "
        f"{result.bits_per_pixel:.3f} bits per pixel"
    )
    if result.already_complete:
        lines.append("it was complete already, and nothing was read; check it with: stemcodecs verify SRC DST")
    elif result.deviation is not None:
        written = " written now" if result.kept_blocks else ""
        lines.append(f"every value{written} was read back and compared with the source: {result.deviation.summary()}")
    elif result.verified:
        kept = ", those of kept blocks by the run that wrote them" if result.kept_blocks else ""
        lines.append(f"verified: every value was read back and compared with the source{kept}")
    elif result.kept_blocks == result.plan.blocks:
        lines.append(
            "nothing was left to compare: the interrupted run had written every block; check it with: "
            "stemcodecs verify SRC DST"
        )
    else:
        lines.append("not verified; check it with: stemcodecs verify SRC DST")
    return lines


def verify(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[SRC] STORE",
            help="Source and store; a store alone is checked against its own digests.",
        ),
    ],
    how: HowToOpen,
    workers: Workers = None,
    scheduler: Scheduler = None,
    slurm: Slurm = False,
    wait: Wait = 60,
) -> None:
    """Read back a store and compare every value with its source."""
    from stemcodecs_pipelines.run.cluster import cluster_engine
    from stemcodecs_pipelines.store.verify import verify

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
            scan = stack.enter_context(open_source(paths[0], how))
        with bar_of("verify") as bar:
            report = verify(
                scan,
                store,
                workers=count,
                engine=engine,
                start=bar.start,
                progress=lambda block: bar.advance(block.raw_bytes),
            )
    for remark in report.remarks:
        say(remark)
    report.require_intact(store)
    against = "the source" if scan else "the digests taken when it was written"
    if report.deviation is not None:
        typer.echo(f"{store}: {report.deviation.summary()}")
    else:
        typer.echo(f"{store}: all {report.values:,} values agree with {against}")


def repair(
    source: Source,
    store: Store,
    how: HowToOpen,
    workers: Workers = None,
) -> None:
    """Encode the damaged or missing chunks of a store again from its source."""
    from stemcodecs_pipelines.store.repair import repair

    with (
        open_source(source, how) as scan,
        bar_of("repair") as bar,
    ):
        report = repair(
            scan,
            store,
            workers=workers,
            start=bar.start,
            progress=lambda block: bar.advance(block.raw_bytes),
        )
    for problem in report.companions:
        say(f"{store}: {problem}")
    for failure in report.failures:
        typer.echo(f"repaired block {failure.index} at {failure.position}: {failure.problem}")
    found = "all values agree" if report.deviation is None else report.deviation.summary()
    typer.echo(f"{store}: {len(report.failures)} of {report.blocks} blocks repaired; {found}")


def info(
    store: Store,
    detail: Annotated[bool, typer.Option("--detail", help="What the coder learned about one chunk.")] = False,
    chunk: Annotated[int | None, typer.Option(help="Chunk to look into; default: the middle one.")] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="PNG", help="With --detail: draw the bits of every detector pixel.")
    ] = None,
) -> None:
    """Say what a store holds, and whether it is complete."""
    from stemcodecs_pipelines.store.info import info

    if not detail and (chunk is not None or plot is not None):
        raise ConfigurationError("--chunk and --plot go with --detail; add it")
    found = info(store)
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


def decompress(
    store: Store,
    out: Annotated[str, typer.Argument(metavar="OUT", help="File to write: .npy, .h5 or .zarr.")],
    workers: Workers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write the values of a store to .npy, HDF5 or plain Zarr."""
    from stemcodecs_pipelines.store.decompress import decompress

    with bar_of("decompress") as bar:
        plan = decompress(store, out, workers=workers, overwrite=overwrite, start=bar.start, progress=bar.advance)
    typer.echo(f"{out}: {filesize.decimal(plan.raw_bytes)} written")
