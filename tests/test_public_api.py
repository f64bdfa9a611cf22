"""Every name that users may import, listed: adding or dropping one is a decision, not an accident."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

import pytest

import stemcodecs
import stemcodecs.codecs
import stemcodecs_pipelines
from stemcodecs import errors

PUBLIC = {
    "stemcodecs": ["__version__", "open"],
    "stemcodecs.codecs": [
        "BitPack",
        "Learned",
        "NumcodecsBitPack",
        "NumcodecsLearned",
        "NumcodecsPca",
        "NumcodecsPixelHistogram",
        "NumcodecsPoissonHistogram",
        "NumcodecsPoissonQuantize",
        "NumcodecsTcs",
        "Pca",
        "PixelHistogram",
        "PoissonHistogram",
        "PoissonQuantize",
        "Tcs",
    ],
    "stemcodecs.accessor": ["StemAccessor"],
    "stemcodecs.lowrank": [
        "DetectorEncoder",
        "LowRankModel",
        "PcaBasis",
        "contrast_factor",
        "exact_basis",
        "fractional_scattering",
        "open_with_model",
        "probe_mask",
        "rates",
        "write_model",
    ],
    "stemcodecs.metrics": [
        "FourierRingCorrelation",
        "align_objects",
        "bits_per_pixel",
        "diffraction_mse",
        "dose_equivalent",
        "fourier_ring_correlation",
        "half_bit_resolution",
        "phase_mse",
        "poisson_entropy",
        "psnr",
        "shannon_bound",
        "smse",
        "ssim",
        "total_count_bias",
    ],
    "stemcodecs.quantize": ["PRESETS", "Levels", "PoissonQuantizer", "huang_levels", "optimal_levels"],
    "stemcodecs.readers": ["Axis", "Scan", "open_scan"],
    "stemcodecs.simulate": [
        "KINDS",
        "MOTIONS",
        "MOVIES",
        "Movie",
        "Simulation",
        "TiltSeries",
        "simulate_movie",
        "simulate_scan",
        "simulate_tilt_series",
    ],
    "stemcodecs.movies": ["with_decoder"],
    "stemcodecs.temporal": ["Sampling"],
    "stemcodecs.location": ["JOURNAL", "Location", "write_error"],
    "stemcodecs.store": ["State", "open", "require_complete", "state"],
    "stemcodecs_pipelines": [
        "CompressResult",
        "DaskEngine",
        "Info",
        "Judgement",
        "Plan",
        "PtychographyProblem",
        "RankChoice",
        "Reconstruction",
        "Report",
        "ScanHistograms",
        "ThreadEngine",
        "TomographyProblem",
        "choose_rank",
        "compare",
        "compress",
        "decompress",
        "element_maps",
        "histograms",
        "info",
        "judge",
        "pca_basis",
        "pixel_counts",
        "reconstruct",
        "repair",
        "verify",
    ],
}
BASES = {
    "StemcodecsError": ["Exception"],
    "ConfigurationError": ["StemcodecsError", "ValueError"],
    "CorruptChunkError": ["StemcodecsError", "ValueError"],
    "DestinationError": ["StemcodecsError"],
    "FormatVersionError": ["StemcodecsError", "ValueError"],
    "IncompleteStoreError": ["StemcodecsError"],
    "MissingPartError": ["SourceError"],
    "ReadBackError": ["StemcodecsError"],
    "SourceError": ["StemcodecsError"],
    "SourceMismatchError": ["SourceError"],
    "UnsupportedDtypeError": ["StemcodecsError", "TypeError"],
    "NotCountsError": ["ConfigurationError"],
    "ValueRangeError": ["StemcodecsError", "ValueError"],
    "VerificationError": ["StemcodecsError"],
    "WorkersLostError": ["StemcodecsError"],
}
CODECS = ("bit_pack", "learned", "pca", "pixel_histogram", "poisson_histogram", "poisson_quantize", "tcs")


@pytest.mark.parametrize("module", PUBLIC)
def test_exported_names(module: str) -> None:
    imported = importlib.import_module(module)
    assert sorted(imported.__all__) == sorted(PUBLIC[module])
    for name in imported.__all__:
        assert getattr(imported, name) is not None


def test_errors() -> None:
    found = dict(inspect.getmembers(errors, inspect.isclass))
    assert {name: [base.__name__ for base in error.__bases__] for name, error in found.items()} == BASES


def test_no_other_module_has_errors_of_its_own() -> None:
    for module in modules():
        for name, value in inspect.getmembers(importlib.import_module(module), inspect.isclass):
            if issubclass(value, Exception) and value.__module__.startswith("stemcodecs"):
                assert value.__module__ == "stemcodecs.errors", f"{module}.{name}"


def modules() -> list[str]:
    packages = (stemcodecs, stemcodecs_pipelines)
    found = [m.name for p in packages for m in pkgutil.walk_packages(p.__path__, f"{p.__name__}.")]
    # These need an extra: slurm, train.
    optional = {"stemcodecs_pipelines.run.slurm"}
    if find_spec("torch") is None:
        temporal = ("birnat", "export", "networks", "tiled_network", "train")
        optional |= {f"stemcodecs_pipelines.temporal.{name}" for name in temporal}
        optional |= {f"stemcodecs_pipelines.learned.{name}" for name in ("l3c_float", "l3c_training")}
    return [name for name in found if name not in optional]


@pytest.mark.parametrize("module", modules())
def test_every_module_has_what_it_exports(module: str) -> None:
    imported = importlib.import_module(module)
    for name in getattr(imported, "__all__", []):
        assert hasattr(imported, name), f"{module}.{name}"


@pytest.mark.parametrize("module", PUBLIC)
def test_every_exported_class_and_function_is_documented(module: str) -> None:
    imported = importlib.import_module(module)
    for name in imported.__all__:
        value: Any = getattr(imported, name)
        if callable(value):
            assert inspect.getdoc(value), f"{module}.{name}"


@pytest.mark.parametrize("group", ["zarr.codecs", "numcodecs.codecs"])
def test_entry_points(group: str) -> None:
    """What a fresh process finds by name, without any import of ours."""
    found = {e.name: e for e in entry_points(group=group) if e.name.startswith("stemcodecs.")}
    assert sorted(found) == [f"stemcodecs.{name}" for name in CODECS]
    for name, entry in found.items():
        codec = entry.load()
        assert getattr(codec, "codec_id", name) == name
        assert codec.__doc__


@pytest.mark.slow
@pytest.mark.parametrize("module", ["stemcodecs", "stemcodecs.codecs", "stemcodecs.errors", "stemcodecs_pipelines"])
def test_importing_is_light(module: str) -> None:
    """Neither compilers nor plots nor readers are loaded before they are needed."""
    heavy = ("numba", "llvmlite", "xarray", "dask", "distributed", "h5py", "matplotlib", "torch", "rsciio", "pandas")
    program = f"import sys, {module}; print(*(m for m in {heavy!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'compress'"):
        stemcodecs.compress  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'NumcodecsGzip'"):
        stemcodecs.codecs.NumcodecsGzip  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'encode'"):
        stemcodecs_pipelines.encode  # noqa: B018


@pytest.mark.slow
def test_a_function_is_not_hidden_by_the_room_of_its_name() -> None:
    """Whichever is imported first."""
    for module, name in (("histograms.scan_histograms", "histograms"), ("compare.run", "compare")):
        first = f"from stemcodecs_pipelines.{module} import {name} as f"
        then = f"from stemcodecs_pipelines import {name}"
        for program in (f"{first}; {then}; assert {name} is f", f"{then}; {first}; assert {name} is f"):
            subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["stemcodecs", "stemcodecs_pipelines"])
def test_a_module_runs_as_the_command(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: stemcodecs [OPTIONS] ")
