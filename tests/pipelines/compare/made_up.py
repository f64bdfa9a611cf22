"""A report with numbers as they could be, of a small simulated scan: for what shows reports."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines.compare.report import (
    Group,
    Loss,
    Pictures,
    Recommendation,
    Report,
    Row,
    Sample,
    State,
)

SCAN, DETECTOR = (12, 12), (64, 64)
VALUES = 12 * 12 * 64 * 64
LOSSY = ("poisson:r=0.25", "poisson:r=0.5", "poisson:r=1", "isqrt + Blosc zstd-9, r=0.5")


def made_up_report(**changes: Any) -> Report:
    """A whole report; `changes` are fields of it that differ."""
    return replace(_report(), **changes)


@cache
def _report() -> Report:
    counts = simulate_scan("grains", SCAN, DETECTOR, mean_counts=3.0, seed=1).counts
    return Report(
        source="scans/gold on carbon.h5",
        dataset="/entry/data",
        shape=(*SCAN, *DETECTOR),
        dims=("scan_y", "scan_x", "det_y", "det_x"),
        dtype="uint16",
        sample=Sample(positions=144, of_positions=144, raw_bytes=2 * VALUES, of_bytes=2 * VALUES, blocks=1),
        rows=rows(),
        recommendation=Recommendation(
            advice=(
                "Smallest lossless: pixel_histogram, ratio 7.1, at 2.25 bits a value: "
                "`stemcodecs compress 'scans/gold on carbon.h5' gold.zarr`.",
                "If r = 0.5 σ is acceptable, 1.31 bits a value: stemcodecs compress --method poisson:r=0.5",
                "Fastest to read: Blosc LZ4, three times as fast, and 1.9 times as large.",
            ),
            findings=("Values are counts.", "37 hot pixels are brighter than their neighbours in every pattern."),
        ),
        pictures=pictures(counts),
        versions={"stemcodecs": "0.1.0", "numpy": "2.3.1", "zarr": "3.1.3"},
        machine={"processor": "made up", "cores": 2, "system": "Linux", "python": "3.12.4"},
        command="stemcodecs compare 'scans/gold on carbon.h5' --html report.html",
        date="2026-03-01T12:00:00Z",
        seconds=48.2,
    )


def rows() -> list[Row]:
    """Rows of every group and state."""

    def done(name: str, group: Group, bits: float, encode: float, decode: float, **more: Any) -> Row:
        size = int(bits * VALUES / 8)
        rates = {"encode_rate": encode, "decode_rate": decode}
        return Row(name=name, group=group, stored_bytes=size, bits_per_value=bits, **rates, **more)

    every = "every value comes back"
    lossless, lossy = Group.OURS_LOSSLESS, Group.OURS_LOSSY
    found = [
        done("Blosc zstd-9 bitshuffle, pixel-major", Group.PEERS_LOSSLESS, 2.88, 21.0, 940.0, guarantee=every),
        done("pixel_histogram", lossless, 2.25, 88.0, 210.0, guarantee=every),
        done("pixel_histogram:mode=scan", lossless, 2.21, 61.0, 150.0, guarantee=every),
        done("learned", lossless, 2.19, 2.1, 3.4, guarantee=every),
        done("gzip -9", Group.PEERS_LOSSLESS, 3.71, 6.2, 160.0, guarantee=every),
        done("PNG, tiled", Group.PEERS_LOSSLESS, 3.42, 9.1, 120.0, guarantee=every),
        done("Blosc LZ4", Group.PEERS_LOSSLESS, 4.31, 390.0, 1900.0, guarantee=every),
        done("JPEG-LS, tiled", Group.PEERS_LOSSLESS, 2.61, 44.0, 51.0, guarantee=every),
    ]
    for name, bits, r in zip(LOSSY, (1.72, 1.31, 0.92, 1.78), (0.25, 0.5, 1.0, 0.5), strict=True):
        loss = Loss(
            largest_error=r,
            total_bias=-1.2e-5 * r,
            added_noise=0.4 * r,
            dose_equivalent=1 / (1 + 0.16 * r * r),
            ssim_mean_pattern=1 - 1e-5 * r,
            ssim_images=1 - 2e-4 * r,
            diffraction_mse=0.01 * r,
            resolution=1.31e-9 * (1 + 0.03 * r),
            phase_mse=2e-5 * r,
        )
        group = lossy if name.startswith("poisson") else Group.PEERS_LOSSY
        found.append(done(name, group, bits, 120.0 / r, 260.0 / r, guarantee=f"|error| ≤ {r} σ", loss=loss))
    missing = "pip install 'stemcodecs[compare]'"
    found.append(Row(name="JPEG-XL", group=Group.PEERS_LOSSLESS, state=State.MISSING, note=missing))
    found.append(Row(name="TERSE", group=Group.PEERS_LOSSLESS, state=State.LOSES, note="(0, 3, 5, 8): 70001 is 4465"))
    found.append(Row(name="SZ3", group=Group.PEERS_LOSSY, state=State.FAILED, note="out of memory"))
    return found


def pictures(counts: np.ndarray[Any, Any]) -> Pictures:
    """Every picture that there may be; `counts` has the shape of the scan."""
    rng = np.random.default_rng(0)
    mean = counts.mean(axis=(0, 1))
    original = counts[3, 5]
    sigma = np.sqrt(np.maximum(original, 1.0))
    steps = dict(zip(LOSSY, (0.5, 1.0, 2.0, 1.0), strict=True))
    edges = np.linspace(-1.05, 1.05, 43)
    errors = {}
    for name, step in steps.items():
        drawn = rng.uniform(-step / 2, step / 2, 20_000) * (rng.random(20_000) < 0.7)
        errors[name] = (edges, np.histogram(drawn, edges)[0])
    phase = np.sin(np.arange(60) / 7)[:, None] * np.cos(np.arange(80) / 9)[None, :]
    frequencies = np.linspace(0, 5e8, 40)
    return Pictures(
        mean_pattern=mean,
        virtual_images={
            "bright field": counts[..., 24:40, 24:40].sum(axis=(2, 3)),
            "annular dark field": counts.sum(axis=(2, 3)) - counts[..., 16:48, 16:48].sum(axis=(2, 3)),
        },
        bits_map=0.5 * np.log2(2 * np.pi * np.e * (mean + 0.1)).clip(0.1),
        original=original,
        decoded={
            name: np.rint(original + rng.uniform(-step / 2, step / 2, original.shape) * sigma).clip(0)
            for name, step in steps.items()
        },
        errors=errors,
        reconstructions={
            "source": phase,
            **{name: phase + rng.normal(0, 0.02 * steps[name], phase.shape) for name in LOSSY},
        },
        frc={
            name: (frequencies, 1 / (1 + np.exp((frequencies - 3e8 / (1 + 0.05 * s)) / 3e7)), np.full(40, 0.172))
            for name, s in {"source": 0.0, **steps}.items()
        },
    )
