"""What self-absorption, noise and loss do to concentrations: a simulated specimen, reconstructed in several ways.

Run with ``python -m tests.benchmarks.bench_tomography [--check] [--pixels 48] [--phantom NAME] [--only NAME …]``;
needs torch and xraylib. A bead of Ca with pillars of Fe, 50 µm, 60 angles, a beam of 10 keV and 10⁷ photons a pixel:
7,000 counts of Ca and 22,000 of Fe at most, and most Fe radiation absorbed by the Ca around it. Rows:

- ``self-absorption``: the reconstruction as it is meant;
- ``without``: as if all fluorescence got out;
- ``tv``, ``stop``: with total variation, and with rows left as soon as they fit as noise allows;
- ``r=…``: from counts that ``poisson_histogram`` stored with |N' − N| ≤ r √N, with bits per count and what it costs.

``--check`` exits 1 where total masses are off by more than 1 % or the map of Fe by more than 3 % with self-absorption,
where leaving it out takes less than 10 % of a mass, or where r ≤ 1 moves a mass by more than 0.5 %.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from stemcodecs.codecs.pixel_histogram import PixelHistogram
from stemcodecs.codecs.poisson_histogram import PoissonHistogram
from stemcodecs.metrics import total_count_bias
from stemcodecs_pipelines.tomography.geometry import Geometry
from stemcodecs_pipelines.tomography.judge import ElementError, concentration_errors
from stemcodecs_pipelines.tomography.phantom import make_phantom
from stemcodecs_pipelines.tomography.problem import TomographyProblem, simulate
from stemcodecs_pipelines.tomography.reconstruct import element_densities
from stemcodecs_pipelines.tomography.settings import DescentSettings

Array = np.ndarray[Any, Any]

ANGLES = 60
SPECIMENS = {"calcium-iron": (50.0, 10.0), "calcium-scandium": (100.0, 20.0), "silica-titanium-iron": (30.0, 10.0)}
"""Field in µm and energy of the beam in keV; targets are those of the first."""
VARIANTS = {
    "self-absorption": DescentSettings(),
    "without": DescentSettings(self_absorption=False),
    "tv": DescentSettings(total_variation=0.03),
    "stop": DescentSettings(stop_at_noise=True),
}
BOUNDS = (0.5, 1.0, 2.0)
LARGEST_MASS_ERROR, LARGEST_MAP_ERROR = 0.01, 0.03
LEAST_BIAS = 0.1
LARGEST_MASS_CHANGE = 0.005


def measured(name: str, pixels: int) -> tuple[TomographyProblem, Array]:
    """The measurement, and the true densities."""
    field, energy = SPECIMENS[name]
    geometry = Geometry(
        angles=np.linspace(0, 2 * np.pi, ANGLES, endpoint=False),
        pixel_size=field * 1e-4 / pixels,
        photons=1e7,
        detector_distance=1.6,
        detector_diameter=0.9,
    )
    phantom = make_phantom(name, pixels)
    return simulate(phantom, geometry, energy), phantom.density


def stored(counts: Array, bound: float) -> tuple[Array, float]:
    """Counts as they come back from the codec, and bits per count."""
    codec = PoissonHistogram(r=bound) if bound else PixelHistogram()
    small = counts.astype(np.uint16)
    data = codec.encode_chunk(small)
    return codec.decode_chunk(data), 8 * len(data) / small.size


def reconstructed(
    name: str, problem: TomographyProblem, settings: DescentSettings, truth: Array, more: str = ""
) -> tuple[list[ElementError], Array]:
    """One row of the table."""
    began = time.perf_counter()
    density = element_densities(problem, settings).density
    seconds = time.perf_counter() - began
    errors = concentration_errors(problem.sections.elements, density, truth)
    cells = " ".join(f"{e.element} {e.mass_ratio:7.4f} {e.relative_error:6.4f}" for e in errors)
    print(f"{name:16s} {cells}  {seconds:5.0f} s  {more}", flush=True)
    return errors, density


def main() -> int:
    """Print the table; 1 if ``--check`` found a row that is off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*VARIANTS, *(f"r={bound:g}" for bound in BOUNDS)]
    parser.add_argument("--check", action="store_true", help="only what has a target; exit 1 where it is missed")
    parser.add_argument("--pixels", type=int, default=48)
    parser.add_argument("--phantom", choices=list(SPECIMENS), default="calcium-iron")
    parser.add_argument("--only", nargs="*", choices=names)
    options = parser.parse_args()
    wanted = options.only or (["self-absorption", "without", "r=0.5", "r=1"] if options.check else names)
    problem, truth = measured(options.phantom, options.pixels)
    largest = ", ".join(
        f"{line.name} {int(counts.max())}" for line, counts in zip(problem.sections.lines, problem.counts, strict=True)
    )
    print(f"{options.pixels}³ voxels, {ANGLES} angles; largest counts {largest}")
    print(f"smallest transmission {problem.transmission.min():.2f}; mass over the true one, relative error of the map")
    missed = []
    lossless: Array | None = None
    for name in wanted:
        if name in VARIANTS:
            errors, density = reconstructed(name, problem, VARIANTS[name], truth)
            if name == "self-absorption":
                lossless = density
                missed += [e for e in errors if abs(e.mass_ratio - 1) > LARGEST_MASS_ERROR]
                missed += [e for e in errors if e.element == "Fe" and e.relative_error > LARGEST_MAP_ERROR]
            if name == "without":
                missed += [e for e in errors if e.mass_ratio > 1 - LEAST_BIAS]
            continue
        decoded, bits = zip(*(stored(counts, float(name[2:])) for counts in problem.counts), strict=True)
        plain = [stored(counts, 0.0)[1] for counts in problem.counts]
        bias = max((total_count_bias(d, c) for d, c in zip(decoded, problem.counts, strict=True)), key=abs)
        more = f"{np.mean(bits):.2f} bits per count (lossless {np.mean(plain):.2f}), counts {bias:+.1e}"
        lossy = problem.with_counts(decoded)
        errors, density = reconstructed(name, lossy, VARIANTS["self-absorption"], truth, more)
        if lossless is not None:
            changes = concentration_errors(problem.sections.elements, density, lossless)
            moved = ", ".join(f"{e.element} {e.mass_ratio - 1:+.1e} {e.relative_error:.4f}" for e in changes)
            print(f"{'':16s} against lossless: {moved}")
            if float(name[2:]) <= 1:
                missed += [e for e in changes if abs(e.mass_ratio - 1) > LARGEST_MASS_CHANGE]
    for error in missed:
        print(f"short: {error}")
    if options.check and not missed:
        print("ok")
    return int(options.check and bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
