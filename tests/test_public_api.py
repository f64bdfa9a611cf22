"""Every name that users may import, listed: adding or dropping one is a decision, not an accident."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from importlib.metadata import entry_points
from typing import Any

import pytest

import stemcodecs
import stemcodecs.codecs
from stemcodecs import errors

PUBLIC = {
    "stemcodecs": ["__version__", "open"],
    "stemcodecs.codecs": [
        "BitPack",
        "NumcodecsBitPack",
        "NumcodecsPca",
        "NumcodecsPixelHistogram",
        "NumcodecsPoissonHistogram",
        "NumcodecsPoissonQuantize",
        "Pca",
        "PixelHistogram",
        "PoissonHistogram",
        "PoissonQuantize",
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
    "stemcodecs.metrics": ["bits_per_pixel", "poisson_entropy", "shannon_bound"],
    "stemcodecs.ptychography": ["diffraction_patterns", "epie", "phase_error"],
    "stemcodecs.quantize": ["PRESETS", "Levels", "PoissonQuantizer", "huang_levels", "optimal_levels"],
    "stemcodecs.readers": ["Axis", "Scan", "open_scan"],
    "stemcodecs.simulate": ["KINDS", "Simulation", "simulate_scan"],
    "stemcodecs.store": ["JOURNAL", "Location", "State", "open", "require_complete", "state"],
}
ERRORS = {
    "ConfigurationError": ValueError,
    "CorruptChunkError": ValueError,
    "DestinationError": Exception,
    "FormatVersionError": ValueError,
    "IncompleteStoreError": Exception,
    "SourceError": Exception,
    "StemcodecsError": Exception,
    "UnsupportedDtypeError": TypeError,
    "ValueRangeError": ValueError,
    "VerificationError": Exception,
}
CODECS = ("bit_pack", "pca", "pixel_histogram", "poisson_histogram", "poisson_quantize")


@pytest.mark.parametrize("module", PUBLIC)
def test_exported_names(module: str) -> None:
    imported = importlib.import_module(module)
    assert sorted(imported.__all__) == sorted(PUBLIC[module])
    for name in imported.__all__:
        assert getattr(imported, name) is not None


def test_errors() -> None:
    found = dict(inspect.getmembers(errors, inspect.isclass))
    assert sorted(found) == sorted(ERRORS)
    for name, base in ERRORS.items():
        assert issubclass(found[name], errors.StemcodecsError)
        assert issubclass(found[name], base)


def modules() -> list[str]:
    return [m.name for m in pkgutil.walk_packages(stemcodecs.__path__, "stemcodecs.")]


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


@pytest.mark.parametrize("module", ["stemcodecs", "stemcodecs.codecs", "stemcodecs.errors"])
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
