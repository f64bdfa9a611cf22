"""Golden bytes: what any released version wrote is decoded by this one, on every instruction path.

``NAME.bin`` in ``tests/fixtures/pixel_histogram/v*`` are chunks, ``NAME.npy`` the arrays in them, ``NAME.json`` the
configuration of a shared model. ``tests/fixtures/pixel_histogram/write.py`` wrote them, once per format version.
"""

from __future__ import annotations

import base64
import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from stemcodecs.codecs import NumcodecsPixelHistogram, PixelHistogram
from stemcodecs.entropy.chunk.header import COUNTS, DTYPES, STORED, VERSION, read_header
from stemcodecs.entropy.chunk.shared_calibration import shared_calibration
from stemcodecs.entropy.kernels.cpu import has_avx512
from stemcodecs.entropy.kernels.pixel_methods import CONTEXT, PACKED2, PACKED4, STATIC
from stemcodecs.entropy.model.model_bytes import read_histogram_model
from stemcodecs.entropy.model.shared_model import load_shared
from stemcodecs.entropy.values.calibration import FloatCalibration, IntegerCalibration, SharedCalibration, ValueTable
from tests import format_decoder
from tests.strategies import MODES, same_bits

FOLDER = Path(__file__).parent.parent / "fixtures" / "pixel_histogram"
WRITTEN = range(1, VERSION + 1)
CHUNKS = sorted(FOLDER.glob("v*/*.bin"))


def configuration(path: Path) -> dict[str, str]:
    shared = path.with_suffix(".json")
    return json.loads(shared.read_text()) if shared.exists() else {}


@pytest.mark.parametrize("path", CHUNKS, ids=lambda p: f"{p.parent.name}-{p.stem}")
@pytest.mark.parametrize("simd", ["portable", "avx512"])
def test_golden_bytes_decode(path: Path, simd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if simd == "avx512" and not has_avx512():
        pytest.skip("this processor has no AVX-512")
    monkeypatch.setenv("STEMCODECS_SIMD", simd)
    expected = np.load(path.with_suffix(".npy"))
    for codec in (PixelHistogram(**configuration(path)), NumcodecsPixelHistogram(**configuration(path))):
        decoded = codec.decode_chunk(path.read_bytes())
        assert same_bits(decoded, expected)
        assert decoded.flags.f_contiguous == expected.flags.f_contiguous


@pytest.mark.parametrize("path", CHUNKS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_independent_decoder_reads_golden_bytes(path: Path) -> None:
    """What FORMAT.md says of a version stays true, whatever later versions write."""
    expected = np.load(path.with_suffix(".npy"))
    shared = base64.b64decode(configuration(path).get("model", "").rpartition(",")[2])
    decoded = np.asarray(format_decoder.decode(path.read_bytes(), shared))
    assert same_bits(decoded.astype(expected.dtype), np.ascontiguousarray(expected).reshape(expected.shape))


def test_golden_bytes_cover_the_format() -> None:
    assert {p.parent.name for p in CHUNKS} == {f"v{v}" for v in WRITTEN}
    headers = {p.stem: read_header(p.read_bytes()) for p in CHUNKS}
    assert {h.kind for h in headers.values()} == {STORED, COUNTS}
    assert {h.dtype.str for h in headers.values()} == set(DTYPES)
    assert {h.flags for h in headers.values()} == {0, 1, 2}
    assert any(h.shared for h in headers.values())
    assert any(h.tile != (1, 1) for h in headers.values())
    assert {len(h.numbers.specials) for h in headers.values()} == {0, 1, 2}
    groups = [g for h in headers.values() for g in h.groups]
    assert all(any(getattr(g, part) for g in groups) for part in ("words", "low", "patches", "exceptions"))
    methods: dict[str, set[int]] = {}
    for name, header in headers.items():
        if header.kind == COUNTS and not header.shared:
            model = read_histogram_model(header.model, header.layout.detector)
            methods[name] = {c.method for c in model.classes}
    assert set().union(*methods.values()) == {PACKED4, PACKED2, STATIC, CONTEXT}
    assert CONTEXT not in methods["mode_pixel"]
    assert all(CONTEXT in methods[f"mode_{mode}"] for mode in MODES[1:3])
    assert headers["mode_scan"].selections.any()


def test_golden_bytes_cover_calibrations() -> None:
    found = [read_header(p.read_bytes()).calibration for p in CHUNKS if p.parent.name == "v2"]
    assert {type(c) for c in found} == {ValueTable, IntegerCalibration, FloatCalibration}
    integers = [c for c in found if isinstance(c, IntegerCalibration)]
    assert all(any(getattr(c, part) is not None for c in integers) for part in ("gain", "offset", "shift"))
    floats = [c for c in found if isinstance(c, FloatCalibration)]
    assert all(any(getattr(c, part) is not None for c in floats) for part in ("dark", "gain", "scale"))
    assert {c.single for c in floats} == {c.scale_divides for c in floats} == {False, True}


def test_golden_bytes_cover_what_version_2_does_not_have() -> None:
    paths = [p for p in CHUNKS if p.parent.name == "v4"]
    assert {p.read_bytes()[4] for p in paths} == {4}
    found = [read_header(p.read_bytes()).calibration for p in paths]
    integers = [c for c in found if isinstance(c, IntegerCalibration)]
    assert {c.reversed for c in integers} == {False, True}
    assert {c.fraction > 0 for c in integers if c.reversed} == {False, True}
    assert any(c.shift is not None for c in integers)
    assert {c.base != 0 for c in integers} == {False, True}
    floats = [c for c in found if isinstance(c, FloatCalibration)]
    assert {c.signed_zeros for c in floats} == {c.corrections is not None for c in floats} == {False, True}
    signed = [c for c in floats if c.signed_zeros]
    assert any(c.gain is not None and (c.gain < 0).any() for c in signed)
    assert any(c.scale is not None for c in signed)


def test_golden_bytes_cover_further_calibrations_of_a_scan() -> None:
    """Shared models of version 4 and 5, of every kind of chunk that takes their maps."""
    found = {p.stem: p for p in CHUNKS if p.parent.name == "v6"}
    headers = {name: read_header(p.read_bytes()) for name, p in found.items()}
    models = {name: load_shared(*configuration(path).values()) for name, path in found.items()}
    versions = {(path.read_bytes()[4], models[name].data[4]) for name, path in found.items()}
    assert versions == {(3, 4), (5, 5), (6, 5)}
    maps = [shared_calibration(models[n], h.dtype, h.calibration)[1] for n, h in headers.items()]  # type: ignore[arg-type]
    integers = [c for c in maps if isinstance(c, IntegerCalibration)]
    assert all(any(getattr(c, part) is not None for c in integers) for part in ("gain", "offset", "shift"))
    assert {c.reversed for c in integers} == {c.base != 0 for c in integers} == {False, True}
    assert {c.reversed for c in integers if c.shift is not None} == {False, True}
    floats = [c for c in maps if isinstance(c, FloatCalibration)]
    assert {c.signed_zeros for c in floats} == {c.corrections is not None for c in floats} == {False, True}
    assert {c.scale is not None for c in floats if c.signed_zeros} == {False, True}


def test_golden_bytes_cover_calibrations_of_a_scan() -> None:
    """Chunks that take it, of every kind, and one of the same array that has its own."""
    found = {p.stem: p for p in CHUNKS if p.parent.name == "v3"}
    headers = {name: read_header(p.read_bytes()) for name, p in found.items()}
    alike = {name for name, h in headers.items() if isinstance(h.calibration, SharedCalibration)}
    assert alike == {"shared_table", "shared_pixel_gain", "shared_float_gain"}
    kinds = {
        type(
            shared_calibration(
                load_shared(*configuration(found[n]).values()),
                headers[n].dtype,
                headers[n].calibration,  # type: ignore[arg-type]
            )[1]
        )
        for n in alike
    }
    assert kinds == {ValueTable, IntegerCalibration, FloatCalibration}
    own = headers["shared_own"]
    assert not own.shared
    assert own.calibration is not None


@pytest.mark.parametrize("version", WRITTEN)
def test_golden_bytes_are_small(version: int) -> None:
    assert sum(p.stat().st_size for p in (FOLDER / f"v{version}").iterdir()) < 200_000


def test_golden_bytes_are_never_written_over(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "write.py", tmp_path)
    (tmp_path / f"v{VERSION}").mkdir()
    with pytest.raises(SystemExit, match="never written again"):
        runpy.run_path(str(tmp_path / "write.py"), run_name="__main__")
    assert not list((tmp_path / f"v{VERSION}").iterdir())
