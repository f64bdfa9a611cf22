"""Arguments and options that several commands share, and the sections in which a long help lists them."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.run.source import HowToOpen
from stemcodecs_pipelines.run.terminal import say

if TYPE_CHECKING:
    from stemcodecs.readers.scan import Scan

__all__ = [
    "Dataset",
    "DropFlyback",
    "Dtype",
    "Offset",
    "Partial",
    "ScanShape",
    "Scheduler",
    "SectionedCommand",
    "Shape",
    "Slurm",
    "Source",
    "Store",
    "Wait",
    "Workers",
    "numbers",
    "open_source",
    "typed_command",
    "with_source_options",
]

SOURCE, WHERE = "Source", "Where it runs"

Source = Annotated[
    str,
    typer.Argument(metavar="SRC", help="Scan: .npy, HDF5 (EMD, py4DSTEM, Nion Swift), Zarr, raw binary, …"),
]
Store = Annotated[str, typer.Argument(metavar="STORE", help="Store written by compress; a folder or a URL.")]
Dataset = Annotated[
    str | None,
    typer.Option(help="Dataset or array inside the source; default: the 4D one.", rich_help_panel=SOURCE),
]
Shape = Annotated[
    str | None, typer.Option(help="Shape of a raw binary source, e.g. 64,64,256,256.", rich_help_panel=SOURCE)
]
Dtype = Annotated[
    str | None, typer.Option(help="Dtype of a raw binary source, e.g. uint16 or >u2.", rich_help_panel=SOURCE)
]
Offset = Annotated[
    int, typer.Option(help="Bytes before the first value of a raw binary source.", rich_help_panel=SOURCE)
]
ScanShape = Annotated[
    str | None,
    typer.Option(
        metavar="ROWS,COLUMNS",
        help="Scan in which a stack of frames was taken, e.g. 256,256; one number for a plain stack.",
        rich_help_panel=SOURCE,
    ),
]
DropFlyback = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="FRAMES",
        help="Frames at the end of each line of --scan-shape to leave out.",
        rich_help_panel=SOURCE,
    ),
]
Partial = Annotated[
    bool,
    typer.Option("--partial", help="Take what is there of an aborted run or a truncated file.", rich_help_panel=SOURCE),
]
Workers = Annotated[
    int | None,
    typer.Option(help="Blocks in work at once; jobs with --slurm. Default: one per core.", rich_help_panel=WHERE),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Dask scheduler, e.g. tcp://host:8786; 'local' starts processes on this machine.", rich_help_panel=WHERE
    ),
]
Slurm = Annotated[
    bool,
    typer.Option("--slurm", help="Run in SLURM jobs (dask-jobqueue, with your jobqueue.yaml).", rich_help_panel=WHERE),
]
Wait = Annotated[
    float,
    typer.Option(min=0, help="Minutes to wait while there is no worker, e.g. in SLURM's queue.", rich_help_panel=WHERE),
]


class SectionedCommand(TyperCommand):
    """Lists options under their ``rich_help_panel``, in the plain lines that a pipe can read: Rich draws boxes.

    It remembers the words that it was given, see `typed_command`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the words before they are read."""
        ctx.meta[_TYPED] = ("stemcodecs", ctx.info_name, *args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections in the order of their first option."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                title = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


_TYPED = "stemcodecs.typed"


def typed_command(context: typer.Context) -> str:
    """The command that is running, as it would be typed in a shell; of a `SectionedCommand`."""
    return shlex.join(context.meta[_TYPED])


def numbers(name: str, text: str | None) -> tuple[int, ...] | None:
    """Read ``16,16`` or ``16x16``.

    Raises
    ------
    ConfigurationError
        The text is not of this form.
    """
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.replace("x", ",").replace("×", ",").split(","))
    except ValueError:
        raise ConfigurationError(f"--{name} {text}: give numbers with commas, e.g. 16,16") from None


def with_source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes ``how`` the options that say how its source is opened, in its place in the help."""
    options = {
        "dataset": (Dataset, None), "shape": (Shape, None), "dtype": (Dtype, None), "offset": (Offset, 0),
        "scan_shape": (ScanShape, None), "drop_flyback": (DropFlyback, 0), "partial": (Partial, False),
    }  # fmt: skip

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        how = {name: kwargs.pop(name) for name in options}
        how |= {"shape": numbers("shape", how["shape"]), "scan_shape": numbers("scan-shape", how["scan_shape"])}
        command(*args, how=how, **kwargs)

    signature = inspect.signature(command, eval_str=True)
    parameters = list(signature.parameters.values())
    place = list(signature.parameters).index("how")
    parameters[place : place + 1] = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
        for name, (annotation, default) in options.items()
    ]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def open_source(source: str, how: HowToOpen) -> Scan:
    """Open a source as the options of a command say, and say on stderr what its user must know of it."""
    from stemcodecs.readers import open_scan

    scan = open_scan(source, **how)
    if scan.dataset is not None:
        say(f"{source}: {scan.dataset}, {scan.dtype.name} {'×'.join(map(str, scan.shape))}")
    for remark in scan.remarks:
        say(f"{source}: {remark}")
    return scan
