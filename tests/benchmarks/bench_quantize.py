"""Bits per pixel within the shot noise: this package and its peers at the same bound, and the speed of both steps.

Run with ``python tests/benchmarks/bench_quantize.py [--quick] [--data FOLDER]``. Peers that are not installed are
left out. ``!`` marks a peer that breaks the bound somewhere, with its largest error in σ.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.codecs.bit_pack import packed_size
from stemcodecs.codecs.pixel_histogram import PixelHistogram
from stemcodecs.codecs.poisson_histogram import PoissonHistogram
from stemcodecs.quantize import PoissonQuantizer
from stemcodecs.quantize.guarantee import Deviation

Array = np.ndarray[Any, Any]
Coded = tuple[int, Array]
"""Bytes, and what is decoded from them."""


def flat(mean: float, positions: int = 1024, side: int = 64) -> Array:
    """Poisson counts of one mean everywhere."""
    return np.random.default_rng(7).poisson(mean, (positions, side, side)).astype(np.uint16)


def scans(folder: Path | None, quick: bool) -> dict[str, Array]:
    """The data of the table, as (pattern, y, x)."""
    found = {f"flat {mean:g}": flat(mean) for mean in (0.5, 5, 50, 500)}
    names = {
        "rotavirus 24": "rotavirus_4dstem_scan24x24_det256_u8.npy",
        "rotavirus 56": "rotavirus_4dstem_scan56x56_det128_u8.npy",
        "Siemens star": "aps_siemens_xptycho_516x128x128_u16.npy",
    }
    for name, file in names.items() if folder is not None else ():
        path = folder / file if folder else Path(file)
        if path.exists():
            stack = np.load(path)
            stack = stack.reshape(-1, *stack.shape[-2:])
            found[name] = stack[:128] if quick else stack
    return found


def ours(codec: PoissonHistogram) -> Callable[[Array], Coded]:
    """A codec of this package, a whole scan as one chunk."""

    def code(scan: Array) -> Coded:
        data = codec.encode_chunk(scan)
        return len(data), codec.decode_chunk(data)

    return code


def with_codes(r: float, store: Callable[[Array], int]) -> Callable[[Array], Coded]:
    """Another coder behind the codes of the fewest levels (at 1 σ: the integer square root)."""

    def code(scan: Array) -> Coded:
        table = PoissonQuantizer(r=r).table(scan.dtype)
        codes, n_levels = table.encode_compact(scan)
        return store(codes), table.decode(codes, n_levels)

    return code


def blosc(codes: Array) -> int:
    """Blosc with Zstandard 9 and bit shuffling, one thread."""
    import numcodecs

    numcodecs.blosc.use_threads = False
    return len(numcodecs.Blosc("zstd", 9, numcodecs.Blosc.BITSHUFFLE).encode(codes))


def jpeg_xl(codes: Array) -> int:
    """Lossless JPEG-XL, effort 7, one image per pattern."""
    import imagecodecs

    return sum(len(imagecodecs.jpegxl_encode(c, lossless=True, effort=7, numthreads=1)) for c in codes)


def rice(codes: Array) -> int:
    """Rice coding of FITS (fpack), one image per pattern."""
    import imagecodecs

    return sum(len(imagecodecs.rcomp_encode(c.astype(np.int16), nblock=32)) for c in codes)


def pcodec(codes: Array) -> int:
    """The numerical coder pcodec, level 8."""
    from pcodec import ChunkConfig, standalone

    wide = codes.astype(np.uint16).reshape(-1)
    return len(standalone.simple_compress(wide, ChunkConfig(compression_level=8)))


def sz3(r: float) -> Callable[[Array], Coded]:
    """SZ3 on √N with an absolute bound of r/2, rounded to counts."""

    def code(scan: Array) -> Coded:
        import imagecodecs

        roots = np.sqrt(scan.astype(np.float32))
        data = imagecodecs.sz3_encode(roots, mode="abs", abs=r / 2)
        decoded = imagecodecs.sz3_decode(data, shape=roots.shape, dtype=roots.dtype)
        return len(data), np.rint(np.square(np.maximum(decoded, 0))).astype(scan.dtype)

    return code


def anscombe(r: float) -> Callable[[Array], Coded]:
    """The tables of anscombe-transform with a step of 2r σ, and Blosc behind them."""

    def code(scan: Array) -> Coded:
        from anscombe_transform.codec import lookup, make_anscombe_lookup, make_inverse_lookup

        forward = make_anscombe_lookup(1.0, beta=2 * r, output_type="int16")
        # Its inverse numbers the codes that occur, so codes are numbered that way too.
        _, dense = np.unique(forward, return_inverse=True)
        codes = lookup(scan.astype(np.int32), dense.astype(np.uint16))
        codes = codes.astype(np.uint8) if codes.max() < 256 else codes
        return blosc(codes), lookup(codes.astype(np.int32), make_inverse_lookup(forward)).astype(scan.dtype)

    return code


def rows(r: float) -> dict[str, Callable[[Array], Coded]]:
    """Everything that is compared at one bound."""
    named = {
        f"stemcodecs r={r:g}": ours(PoissonHistogram(r=r)),
        "stemcodecs r=0.5, centroid": ours(PoissonHistogram(r=r, decoder="centroid")),
        "stemcodecs huang-191": ours(PoissonHistogram(preset="huang-191", decoder="centroid")),
        "levels + Blosc zstd-9 bitshuffle": with_codes(r, blosc),
        "levels + JPEG-XL e7": with_codes(r, jpeg_xl),
        "levels + pcodec": with_codes(r, pcodec),
        "levels + Rice (fpack)": with_codes(r, rice),
        "√N + SZ3": sz3(r),
        "anscombe-transform + Blosc": anscombe(r),
    }
    del named["stemcodecs huang-191" if r < 1 else "stemcodecs r=0.5, centroid"]
    return named


def table(data: dict[str, Array], r: float) -> None:
    """Print bits per pixel of every method on every scan."""
    print(f"\nbits per pixel at a bound of {r:g} σ")
    print(f"{'':34}" + "".join(f"{name:>15}" for name in data))
    for name, code in rows(r).items():
        cells = []
        for scan in data.values():
            try:
                size, decoded = code(scan)
            except ImportError as error:
                cells = [f"  not installed: {error.name}"]
                break
            deviation = Deviation.of(scan, decoded, PoissonQuantizer(r=str(Fraction(str(r)))))
            # A zero that is no zero any more is infinitely many of its sigmas away.
            broken = f"{deviation.largest_sigma:.2f}".replace("inf", "∞")
            cells.append(f"{8 * size / scan.size:.3f}" + (f" !{broken}" if deviation.violations else ""))
        print(f"{name:34}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


def fidelity(data: dict[str, Array]) -> None:
    """Print what quantisation does to the total counts and to the noise."""
    print("\nbias of the total counts / added noise variance over shot noise, in percent")
    print(f"{'':34}" + "".join(f"{name:>15}" for name in data))
    for codec in (
        PoissonHistogram(r=0.5),
        PoissonHistogram(r=0.5, decoder="centroid"),
        PoissonHistogram(r=1),
        PoissonHistogram(r=1, decoder="centroid"),
        PoissonHistogram(preset="huang-511", decoder="centroid"),
        PoissonHistogram(preset="huang-255", decoder="centroid"),
    ):
        cells = []
        for scan in data.values():
            found = Deviation.of(scan, codec.decode_chunk(codec.encode_chunk(scan)), codec)
            assert not found.violations
            cells.append(f"{100 * found.bias:+.2f} / {100 * found.added_variance:.1f}")
        bound = "r=" + str(codec.r) if codec.preset == "optimal" else codec.preset
        print(f"{bound + ', ' + codec.decoder:34}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


def speed(data: dict[str, Array], repeats: int = 7) -> None:
    """Print the speed of the lossy chain over that of the lossless one: CPU time on one thread, the least of rounds."""
    from stemcodecs.entropy.kernels.threads import set_threads

    set_threads(1)
    print("\nMB/s of raw data on one thread, encode / decode, and over lossless (pixel_histogram)")
    codecs: list[PixelHistogram | PoissonHistogram] = [PixelHistogram(), PoissonHistogram(r=1), PoissonHistogram(r=0.5)]
    codecs.append(PoissonHistogram(r=0.5, decoder="centroid"))
    for name, scan in data.items():
        coded = [codec.encode_chunk(scan) for codec in codecs]
        times = np.full((repeats + 1, len(codecs), 2), np.inf)
        # In turns, so that whatever else the machine does hits all of them; the first round compiles.
        for row in times:
            for i, codec in enumerate(codecs):
                start = time.thread_time()
                codec.encode_chunk(scan)
                middle = time.thread_time()
                codec.decode_chunk(coded[i])
                row[i] = middle - start, time.thread_time() - middle
        rates = scan.nbytes / 1e6 / times[1:].min(axis=0)
        line = f"{name:14} lossless {rates[0, 0]:5.0f} / {rates[0, 1]:5.0f}"
        for codec, (encoding, decoding) in zip(codecs[1:], rates[1:], strict=True):
            label = f"r={getattr(codec, 'r', '')} {getattr(codec, 'decoder', '')}"
            ratios = f"×{encoding / rates[0, 0]:.2f} / ×{decoding / rates[0, 1]:.2f}"
            line += f"   {label} {encoding:5.0f} / {decoding:5.0f} ({ratios})"
        print(line, flush=True)


def packing() -> None:
    """Print the fixed rates of a detector's stream."""
    print("\nfixed-width streams of 14-bit counts (bit_pack)")
    for preset in ("huang-511", "huang-255", "huang-191"):
        levels = PoissonQuantizer(preset=preset, saturation=1 << 14).levels(np.uint16).count
        bits = math.ceil(math.log2(levels))
        ratio = 14 * 1024 / (8 * packed_size(1024, bits))
        print(f"{preset}: {levels} levels, {bits} bits, {ratio:.2f}:1 of 14 bits, {ratio * 16 / 14:.2f}:1 of 16 bits")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("STEMCODECS_DATA", str(Path(__file__).parents[3] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with the real scans")
    parser.add_argument("--quick", action="store_true", help="parts of the real scans only")
    arguments = parser.parse_args()
    data = scans(arguments.data if arguments.data.is_dir() else None, arguments.quick)
    for r in (1.0, 0.5):
        table(data, r)
    fidelity(data)
    speed(data)
    packing()


if __name__ == "__main__":
    main()
