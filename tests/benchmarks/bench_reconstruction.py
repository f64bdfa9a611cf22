"""Ptychography as the judge: how well and how fast objects are found, and what loss costs them.

Run with ``python -m tests.benchmarks.bench_reconstruction [--check] [--full] [--only NAME …] [--pictures FOLDER]``;
needs torch, and for ``star`` and ``rotavirus`` the real scans. Parts:

- ``star``: the Siemens star by ePIE and by gradients with one and three probe modes;
- ``rotavirus``: capsids in 56×56 patterns of five counts a pixel;
- ``equal``: gradients against ePIE in equal time, on a simulated object;
- ``positions``: random errors of one pixel, found again;
- ``thick``: two slices against one on a thick simulated object;
- ``loss``: |N' − N| ≤ r √N, the tables of 511, 255 and 191 levels, and PCA on the detector, against lossless;
- ``memory``: a scan that is read in segments, against the memory that was stated;
- ``tomography``: element maps from fluorescence.

Amplitude errors are Σ(√I − √N)² / ΣN. ``--check`` exits 1 where a target is missed; times are CPU seconds, held against
twice the wall time of two free cores. ``--full`` takes ``loss`` to the star and ``memory`` to a scan of 10 GB as well.
``tomography`` is a benchmark of its own, `tests.benchmarks.bench_tomography`, which is run with its ``--check``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from stemcodecs.codecs.pixel_histogram import PixelHistogram
from stemcodecs.codecs.poisson_histogram import PoissonHistogram
from stemcodecs.lowrank import DetectorEncoder
from stemcodecs.metrics import align_objects, dose_equivalent, fourier_ring_correlation, phase_mse
from stemcodecs_pipelines import PtychographyProblem, Reconstruction, judge, reconstruct
from stemcodecs_pipelines.ptychography.amplitudes import Amplitudes
from stemcodecs_pipelines.ptychography.forward import diffraction_patterns, thick_patterns
from stemcodecs_pipelines.ptychography.geometry import raster_positions, wavelength_of
from stemcodecs_pipelines.ptychography.gradient import GradientSettings, working_bytes
from stemcodecs_pipelines.ptychography.judge import faded
from stemcodecs_pipelines.ptychography.plot import draw_reconstruction
from stemcodecs_pipelines.ptychography.probe import aperture_probe, free_flight, probe_from_patterns
from tests.pipelines.ptychography.simulated import phantom

Array = np.ndarray[Any, Any]

PIXEL, WAVELENGTH = 2e-11, 2e-12
RATIOS = (6, 10, 16, 55, 164)
BATCH = 16


class Report:
    """Prints figures, and remembers which missed their target."""

    def __init__(self, data: Path, pictures: Path | None) -> None:
        self.data, self.pictures = data, pictures
        self.missed: list[str] = []

    def hold(self, what: str, value: float, most: float) -> None:
        """A figure that must not be larger than a target."""
        ok = value <= most
        print(f"{'ok   ' if ok else 'SHORT'} {what}: {value:.4g} (at most {most:.4g})", flush=True)
        if not ok:
            self.missed.append(what)

    def draw(self, result: Reconstruction, name: str) -> None:
        """A picture, where pictures are wanted."""
        if self.pictures is not None:
            draw_reconstruction(result, self.pictures / f"{name}.png")


def timed(run: Callable[[], Reconstruction]) -> tuple[Reconstruction, float]:
    """A result and the CPU seconds that it took."""
    start = time.process_time()
    return run(), time.process_time() - start


def star_problem(data: Path) -> PtychographyProblem:
    """The Siemens star, with its given probe and positions."""
    given = np.load(data / "aps_siemens_scan_probe.npz")
    patterns = np.load(data / "aps_siemens_xptycho_516x128x128_u16.npy")
    return PtychographyProblem.of(patterns, given["scan"], given["probe"].reshape(128, 128))


def star(report: Report) -> None:
    """Errors and times on the Siemens star."""
    problem = star_problem(report.data)
    for name, method, settings, most, seconds in (
        ("gradient, 1 mode", "gradient", {}, 0.0130, 60.0),
        ("gradient, 3 modes", "gradient", {"modes": 3}, 0.0087, 60.0),
        ("ePIE", "epie", {}, 0.0150, 120.0),
    ):
        result, spent = timed(lambda m=method, s=settings: reconstruct(problem, m, **s))
        report.hold(f"star, {name}, error", result.error, most)
        report.hold(f"star, {name}, CPU seconds", spent, seconds)
        report.draw(result, f"star_{method}_{settings.get('modes', 1)}")


def rotavirus(report: Report) -> None:
    """The probe from defocus and patterns; the picture is to be looked at."""
    patterns = np.load(report.data / "rotavirus_4dstem_scan56x56_det128_u8.npy")
    wavelength = wavelength_of(300e3, "electron")
    # The bright-field disc of 1.03 mrad has a radius of 61.7 pixels.
    pixel = wavelength / (128 * 1.03e-3 / 61.7)
    optics = {"pixel_size": pixel, "wavelength": wavelength}
    probe = probe_from_patterns(patterns[::2, ::2].mean((0, 1)), defocus=-13.5e-6, **optics)
    positions = raster_positions((56, 56), (3.125e-9, 3.125e-9), 126)
    problem = PtychographyProblem.of(patterns, positions, probe, metres=True, **optics)
    result, spent = timed(lambda: reconstruct(problem, "gradient", iterations=8))
    report.hold("rotavirus, error", result.error, 0.0556)
    report.hold("rotavirus, CPU seconds", spent, 360.0)
    # A wrong rotation explains the patterns worse, once the object has formed.
    turned = raster_positions((56, 56), (3.125e-9, 3.125e-9), -126)
    wrong = reconstruct(PtychographyProblem.of(patterns, turned, probe, metres=True, **optics), iterations=5)
    report.hold("rotavirus, error against that with the scan turned wrongly", result.errors[4] / wrong.errors[4], 0.99)
    report.draw(result, "rotavirus")


def simulated(dose: float = 4e4, side: int = 48, rows: int = 14) -> tuple[PtychographyProblem, Array]:
    """Poisson counts of a smooth phase object, and the object."""
    optics = {"pixel_size": PIXEL, "wavelength": WAVELENGTH}
    probe = aperture_probe(side, semi_angle=0.021, defocus=1.6e-8, **optics)
    positions = raster_positions((rows, rows), (5.0, 5.0))
    positions = positions + np.random.default_rng(0).uniform(-1, 1, positions.shape)
    frame = PtychographyProblem.of(np.zeros((rows**2, side, side), np.uint16), positions, probe, **optics)
    truth = phantom(frame.object_shape)
    rate = dose * diffraction_patterns(truth, probe, frame.positions)
    counts = np.random.default_rng(1).poisson(rate).astype(np.uint16)
    return frame.with_patterns(counts), truth


def agreement(result: Reconstruction, truth: Array, problem: PtychographyProblem) -> tuple[float, float]:
    """Phase MSE, and the mean correlation with the truth over all rings."""
    support = problem.covered(0.5)
    frc = fourier_ring_correlation(*faded(align_objects(result.object, truth, support), truth, support))
    return phase_mse(result.object, truth, support), float(frc.correlation.mean())


def equal(report: Report) -> None:
    """Both methods with the same seconds."""
    problem, truth = simulated()
    reconstruct(problem, "gradient", iterations=1)  # the first use of torch costs time of its own
    gradient, spent = timed(lambda: reconstruct(problem, "gradient", batch=BATCH))
    _, once = timed(lambda: reconstruct(problem, "epie", iterations=4))
    iterations = max(4, round(4 * spent / once))
    epie, spent_epie = timed(lambda: reconstruct(problem, "epie", iterations=iterations))
    (mse, frc), (mse_epie, frc_epie) = (agreement(r, truth, problem) for r in (gradient, epie))
    print(f"      gradient {spent:.1f} s: phase MSE {mse:.3g} rad², FRC {frc:.3f}")
    print(f"      ePIE     {spent_epie:.1f} s: phase MSE {mse_epie:.3g} rad², FRC {frc_epie:.3f}")
    report.hold("phase MSE of gradients over that of ePIE in equal time", mse / mse_epie, 1.0)
    report.hold("FRC of ePIE over that of gradients in equal time", frc_epie / frc, 1.0)


def positions(report: Report) -> None:
    """Random errors of one pixel."""
    problem, _ = simulated()
    wrong = np.random.default_rng(5).normal(0, 1 / np.sqrt(2), problem.positions.shape)
    start = PtychographyProblem.of(problem.patterns, problem.positions + wrong, problem.probe)
    result = reconstruct(start, "gradient", refine_positions=True, iterations=40, batch=BATCH)

    def rest(found: Array) -> float:
        difference = found - problem.positions
        return float(np.sqrt(((difference - difference.mean(0)) ** 2).sum(1).mean()))

    print(f"      positions are off by {rest(start.positions):.3f} pixels (root mean square)")
    report.hold("positions, refined, pixels", rest(result.positions), 0.15)


def thick(report: Report) -> None:
    """A specimen of two layers, farther apart than the depth of focus."""
    problem, _ = simulated()
    distance = 1e-8
    layers = np.stack([phantom(problem.object_shape, 0.4, seed=s) for s in (1, 2)])
    flight = free_flight(problem.side, distance, PIXEL, WAVELENGTH)
    rate = 4e4 * thick_patterns(layers, problem.probe, problem.positions, flight)
    problem = problem.with_patterns(np.random.default_rng(0).poisson(rate))
    one = reconstruct(problem, "gradient", batch=BATCH)
    two = reconstruct(problem, "gradient", batch=BATCH, slices=2, slice_thickness=distance)
    support = problem.covered(0.5)
    errors = [phase_mse(r.object, layers.prod(0), support) for r in (one, two)]
    print(f"      phase MSE of the projection: one slice {errors[0]:.3g}, two {errors[1]:.3g} rad²")
    report.hold("thick object, error of two slices over that of one", two.error / one.error, 0.9)
    report.hold("thick object, phase MSE of two slices over that of one", errors[1] / errors[0], 0.5)


def stores(counts: Array) -> dict[str, tuple[Array, float]]:
    """What comes back from each store, and its ratio."""
    found = {}
    codecs = {f"r = {r:g}": PoissonHistogram(r=r, decoder="centroid") for r in (0.25, 0.5, 1)}
    codecs |= {f"{n} levels": PoissonHistogram(preset=f"huang-{n}", decoder="centroid") for n in (511, 255, 191)}
    for name, codec in codecs.items():
        data = codec.encode_chunk(counts)
        found[name] = codec.decode_chunk(data), counts.nbytes / len(data)
    for ratio in RATIOS:
        components = counts[0].size / ratio
        if components > len(counts):
            print(f"      PCA {ratio}:1 is left out: {components:.0f} components of {len(counts)} patterns are all")
            continue
        encoder = DetectorEncoder.fit(counts, ratio=ratio)
        found[f"PCA {ratio}:1"] = encoder.decode(encoder.encode(counts)), ratio
    return found


def loss_table(report: Report, title: str, problem: PtychographyProblem, truth: Array | None, **settings: Any) -> None:
    """Resolution, phase error and dose equivalent of every store against lossless."""
    counts = problem.patterns.read(tuple(slice(0, n) for n in problem.patterns.leading))
    support = problem.covered(0.5)
    given: dict[str, Any] = {"truth": truth, "support": support, **settings}
    lossless = judge(counts, counts, problem, "gradient", **given).original
    reference = lossless.reconstruction.object if truth is None else truth
    known: dict[str, float] = {}

    def error(patterns: Array) -> float:
        # Each store asks for the same thinned scans.
        key = hashlib.sha1(np.ascontiguousarray(patterns)).hexdigest()
        if key not in known:
            found = reconstruct(problem.with_patterns(patterns), "gradient", **settings)
            known[key] = phase_mse(found.object, reference, support)
        return known[key]

    ratio = counts.nbytes / len(PixelHistogram().encode_chunk(counts))
    print(f"{title}: period in pixels at which the FRC of two halves falls below half a bit, phase MSE in rad², dose")
    print(f"      {'lossless':12} {ratio:7.2f}:1  {lossless.resolution:7.3f}  {lossless.phase_mse:9.2e}")
    for name, (decoded, ratio) in stores(counts).items():
        verdict = judge(counts, decoded, problem, "gradient", **given).stored
        dose = dose_equivalent(counts, decoded, error, refinements=1)
        print(
            f"      {name:12} {ratio:7.2f}:1  {verdict.resolution:7.3f}  {verdict.phase_mse:9.2e}  {dose:6.1%}",
            flush=True,
        )
        if name in ("511 levels", "255 levels"):
            report.hold(f"{title}, {name}: period over lossless", verdict.resolution / lossless.resolution, 1.05)


def loss(report: Report, *, full: bool = False) -> None:
    """The tables of the simulated object, and of the star."""
    problem, truth = simulated(rows=20)
    # In pixels, as for the star, whose pixel is not stated.
    plain = PtychographyProblem.of(problem.patterns, problem.positions, problem.probe)
    loss_table(report, "simulated object", plain, truth, batch=BATCH)
    if full:
        loss_table(report, "Siemens star", star_problem(report.data), None, iterations=10)


_CHILD = """
import resource, sys
import numpy as np, zarr
from stemcodecs_pipelines import PtychographyProblem, reconstruct
from stemcodecs_pipelines.run.memory import share_freed_blocks
share_freed_blocks()  # as the command does
from tests.benchmarks.bench_reconstruction import grid, round_probe
def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def run(patterns, memory):
    problem = PtychographyProblem.of(patterns, grid(patterns.shape[0]), round_probe())
    reconstruct(problem, "gradient", iterations=1, batch=int(sys.argv[3]), memory=memory)
run(np.ones((100, 64, 64), np.uint16), 1 << 20)  # what Python and PyTorch take for themselves
before = peak()
run(zarr.open_array(sys.argv[1], mode="r"), int(sys.argv[2]))
print(peak() - before)
"""


def grid(count: int) -> Array:
    """Positions of a hundred rows."""
    return raster_positions((100, count // 100), (3.0, 3.0))


def round_probe() -> Array:
    """A Gaussian beam of ten pixels on 64²."""
    return np.exp(-(np.hypot(*(np.mgrid[:64, :64] - 32)) ** 2) / 50).astype(complex)


def memory(report: Report, *, full: bool = False) -> None:
    """Peak memory of scans that are read in segments: of 160 MB (330 MB of amplitudes), and of 10 GB."""
    segments(report, count=20_000, held=64 << 20, batch=64)
    if full:
        # Larger batches: each moves the whole object, whose eleven megapixels would take all the time.
        segments(report, count=1_250_000, held=1 << 30, batch=1024)


def segments(report: Report, *, count: int, held: int, batch: int) -> None:
    """Peak memory of one pass over a number of patterns of 64², in segments of some bytes, over what was stated."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.zarr"
        patterns = zarr.create_array(path, shape=(count, 64, 64), dtype="u2", chunks=(500, 64, 64))
        # Few random blocks, over and over: what is measured does not depend on the counts.
        blocks = [np.random.default_rng(seed).poisson(1.0, (500, 64, 64)).astype(np.uint16) for seed in range(40)]
        for number, start in enumerate(range(0, count, 500)):
            patterns[start : start + 500] = blocks[number % len(blocks)]
        problem = PtychographyProblem.of(patterns, grid(count), round_probe())
        stated = Amplitudes(problem, held).held_bytes + working_bytes(problem, GradientSettings(batch=batch))
        size = f"{count * 64 * 64 * 2 / 1e9:.3g} GB"
        print(f"      a scan of {size}: stated {stated / 1e6:.0f} MB", flush=True)
        command = [sys.executable, "-c", _CHILD, str(path), str(held), str(batch)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(f"      taken {int(done.stdout) / 1e6:.0f} MB")
    report.hold(f"memory of a scan of {size}, bytes over those stated", int(done.stdout) / stated, 1.0)


def tomography(report: Report) -> None:
    """Element maps with and without self-absorption, in a process of their own."""
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.bench_tomography", "--check"])
    report.hold("tomography, exit status", done.returncode, 0)


PARTS: dict[str, Callable[[Report], None]] = {
    "star": star,
    "rotavirus": rotavirus,
    "equal": equal,
    "positions": positions,
    "thick": thick,
    "loss": loss,
    "memory": memory,
    "tomography": tomography,
}


def main() -> int:
    """Run the parts; 1 if ``--check`` found one that is short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("STEMCODECS_DATA", str(Path(__file__).parents[3] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with the real scans")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--full", action="store_true", help="the loss table of the star, and a scan of 10 GB, as well")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--pictures", type=Path, help="folder for pictures")
    options = parser.parse_args()
    report = Report(options.data, options.pictures)
    for name in options.only:
        if name in ("star", "rotavirus") and not options.data.is_dir():
            print(f"      {name}: the real scans are not here; left out")
            continue
        if name == "loss":
            loss(report, full=options.full and options.data.is_dir())
        elif name == "memory":
            memory(report, full=options.full)
        else:
            PARTS[name](report)
    if options.check:
        print(f"short: {', '.join(report.missed)}" if report.missed else "ok")
    return int(options.check and bool(report.missed))


if __name__ == "__main__":
    raise SystemExit(main())
