"""What the entropy coder learned about one chunk of a store, in words and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemcodecs.errors import ConfigurationError, DestinationError
from stemcodecs.location import Location
from stemcodecs.store import require_complete

if TYPE_CHECKING:
    from stemcodecs.entropy.chunk.describe import ChunkDetail

__all__ = ["chunk_detail", "detail_rows", "plot_detail"]


def chunk_detail(place: str | Path, chunk: int | None = None) -> ChunkDetail:
    """Open up one chunk of a store.

    Parameters
    ----------
    place : path or URL
        A complete store.
    chunk : int, optional
        Flat index of the chunk in the grid of chunks; default: the middle one.

    Raises
    ------
    ConfigurationError
        If the store was written with neither pixel_histogram nor learned, or has no such chunk.
    IncompleteStoreError, SourceError
        As for :func:`stemcodecs.store.require_complete`.
    """
    import numpy as np
    import zarr

    from stemcodecs.codecs import Learned, PixelHistogram
    from stemcodecs.entropy.chunk.describe import describe
    from stemcodecs.learned.describe import describe_learned

    location = Location.of(place)
    known = require_complete(location).attributes
    array = zarr.open_array(location.zarr_store(), path="data", mode="r")
    codec = _entropy_codec(array)
    if not isinstance(codec, PixelHistogram | Learned):
        raise ConfigurationError(
            f"--detail opens up stores of pixel_histogram and learned, this one is {known['codec']}"
        )
    shape = tuple(known["chunk"])
    grid = [-(-n // c) for n, c in zip(array.shape, shape, strict=True)]
    count = int(np.prod(grid))
    chosen = count // 2 if chunk is None else chunk
    if not 0 <= chosen < count:
        raise ConfigurationError(f"chunk {chosen} does not exist; choose one from 0 to {count - 1}")
    index = np.unravel_index(chosen, grid)
    region = tuple(
        slice(int(i) * c, min((int(i) + 1) * c, n)) for i, c, n in zip(index, shape, array.shape, strict=True)
    )
    block = np.asarray(array[region])
    padded = np.full(shape, array.fill_value, array.dtype)
    padded[tuple(slice(0, s) for s in block.shape)] = block
    # Encoding is deterministic: the same values give the bytes that are in the store, sharded or not.
    data = codec.encode_chunk(padded)
    return describe_learned(data, codec.shared()) if isinstance(codec, Learned) else describe(data, codec.shared())


def _entropy_codec(array: Any) -> Any:
    codecs = array.metadata.codecs
    for codec in codecs:
        codecs = getattr(codec, "codecs", codecs)
    return codecs[0]


def detail_rows(detail: ChunkDetail) -> list[tuple[str, str]]:
    """Names and values, for a table."""
    bits = 8 * detail.size / max(_product(detail.shape), 1)
    rows = [
        ("chunk", f"{'×'.join(map(str, detail.shape))}, {detail.size:,} bytes, {bits:.3f} bits per pixel"),
        ("mode", detail.mode),
    ]
    if detail.mode == "stored":
        return rows
    model = "shared by all chunks" if detail.shared else f"{detail.model:,} bytes"
    rows += [
        ("model", f"{model}; header {detail.header:,} bytes, rare values {detail.patches:,} bytes"),
        (
            "groups",
            f"{detail.groups}; to read one pattern, at most {detail.positions_to_read_one} of them are decoded",
        ),
        ("context", " ".join(_neighbour(n) for n in detail.neighbours) or "none"),
        ("constant pixels", f"{detail.constant_pixels:,}"),
    ]
    for c in detail.classes:
        rows.append(
            (
                f"mean {c.lowest_mean:.3g}-{c.highest_mean:.3g}",
                f"{c.pixels:,} pixels, {c.method}, {_histograms(c.histograms)}{c.bits:.3f} bits per pixel",
            )
        )
    return rows


def _histograms(number: int) -> str:
    return f"{number} histograms, " if number else ""


def _neighbour(neighbour: tuple[int, int, int]) -> str:
    from stemcodecs.entropy.model.group_layout import MAX_REFERENCES

    reference, y, x = neighbour
    if reference > MAX_REFERENCES:
        return f"mean{reference - MAX_REFERENCES}({y:+d},{x:+d})"
    return f"({y:+d},{x:+d})" if reference == 0 else f"scan{reference}({y:+d},{x:+d})"


def _product(shape: tuple[int, ...]) -> int:
    out = 1
    for n in shape:
        out *= n
    return out


def plot_detail(detail: ChunkDetail, path: str | Path) -> None:
    """Draw the bits of every detector pixel as a PNG.

    Raises
    ------
    ConfigurationError
        If matplotlib is missing, or the chunk has no model.
    DestinationError
        If the picture cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError("--plot needs matplotlib; install it with: pip install 'stemcodecs[plot]'") from None
    if detail.bits is None:
        raise ConfigurationError("this chunk was stored without a model; there is nothing to plot")
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    picture = axes.imshow(detail.bits, cmap="viridis", vmin=0, interpolation="nearest")
    figure.colorbar(picture, ax=axes, label="bits per count")
    axes.set_xlabel("det_x (pixel)")
    axes.set_ylabel("det_y (pixel)")
    axes.set_title(f"{detail.mode} mode, {8 * detail.size / max(_product(detail.shape), 1):.3f} bits per pixel")
    try:
        figure.savefig(path, format="png", dpi=150)
    except OSError as error:
        raise DestinationError(f"{path}: cannot write the picture ({error.strerror}); choose another file") from None
