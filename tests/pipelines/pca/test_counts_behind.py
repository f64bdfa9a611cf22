"""``compress --method pca`` of counts in disguise: eigen-patterns are those of the counts, values keep their units."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from stemcodecs.errors import VerificationError
from stemcodecs.lowrank import rates
from stemcodecs_pipelines.cli import app
from stemcodecs_pipelines.methods.registry import parse_method

Array = np.ndarray[Any, Any]

SCAN, DETECTOR = (12, 13), (14, 12)
RANDOM = np.random.default_rng(9)
# A smooth specimen: where integers begin to count, the noise of neighbouring patterns tells.
SLOWLY = np.sin(np.arange(SCAN[0] * SCAN[1]) / 9).reshape(SCAN)
RATE = np.tensordot(np.stack([1 + SLOWLY, 1.2 - SLOWLY], -1), 0.2 + RANDOM.gamma(0.5, 1.5, (2, *DETECTOR)), 1)
COUNTS = RANDOM.poisson(RATE)
GAIN = RANDOM.normal(0.4, 0.04, DETECTOR).astype(np.float32)
MONITOR = RANDOM.normal(1, 0.05, (*SCAN, 1, 1)).astype(np.float32)
DOSE = COUNTS.sum((2, 3), keepdims=True).astype(np.float32)
BACK: dict[str, tuple[Callable[[], Array], Callable[[Array], Array], str]] = {
    "gain": (lambda: COUNTS.astype("f4") * GAIN, lambda v: v / GAIN, "counts times a gain per pixel"),
    "pedestal": ((lambda: (COUNTS + 30000).astype("u2")), lambda v: v - 30000, "counts; offset 30000 ADU"),
    "dose": (lambda: COUNTS.astype("f4") / DOSE, lambda v: v * DOSE, "counts divided by a dose of each pattern"),
    "gain and monitor": (
        lambda: COUNTS.astype("f4") * GAIN / MONITOR, lambda v: v * MONITOR / GAIN, "counts times a gain per pixel"
    ),
    "reversed": (lambda: (65535 - COUNTS).astype("u2"), lambda v: 65535 - v, "65535 less counts"),
    "scaled": (lambda: (17 * COUNTS + 100).astype("i4"), lambda v: (v - 100) / 17, "counts times 17; offset 100 ADU"),
}  # fmt: skip
"""Values, how they become counts again in floating point, and what is said of them."""
GAP = np.zeros(DETECTOR, bool)
GAP[8, 2:4], GAP[2, 3] = True, True
WHOLE = tuple(slice(0, n) for n in COUNTS.shape)


QUICK = {
    ("gain", "none"), ("gain", "bounded"), ("gain", "lossless"), ("gain and monitor", "bounded"), ("dose", "none"),
    ("dose", "lossless"), ("pedestal", "none"), ("reversed", "bounded"), ("scaled", "none"),
}  # fmt: skip


def quick_first(names: Iterable[str], quick: set[tuple[str, str]]) -> list[Any]:
    """Every name with every residual; what a few cases show already is slow."""
    pairs = [(name, residual) for name in names for residual in ("none", "bounded", "lossless")]
    return [pair if pair in quick else pytest.param(*pair, marks=pytest.mark.slow) for pair in pairs]


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def compress(values: Array, folder: Path, method: str) -> tuple[Path, Path, str]:
    np.save(folder / "scan.npy", values)
    source, store = folder / "scan.npy", folder / "out.zarr"
    code, output = run("compress", source, store, "--method", method, "--chunk", "6,8")
    assert code == 0, output
    return source, store, output


def data_of(store: Path) -> Any:
    return zarr.open_group(store, mode="r")["data"]


def bytes_of(store: Path) -> int:
    attributes: Any = zarr.open_group(store, mode="r").attrs["stemcodecs"]
    return int(attributes["stored_bytes"])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Array, int]]:
    """What the counts themselves decode to, and take."""
    found = {}
    for residual in ("none", "bounded", "lossless"):
        folder = tmp_path_factory.mktemp(residual)
        dtype = "f4" if residual == "none" else "u2"
        _, store, _ = compress(COUNTS.astype(dtype), folder, f"pca:rank=2,residual={residual}")
        found[residual] = data_of(store)[:], bytes_of(store)
    return found


@pytest.mark.parametrize(("name", "residual"), quick_first(BACK, QUICK))
def test_the_model_is_that_of_the_counts(name: str, residual: str, tmp_path: Path, plain: Any) -> None:
    make, back, words = BACK[name]
    values = make()
    source, store, output = compress(values, tmp_path, f"pca:rank=2,residual={residual}")
    assert f"the values are {words}" in output
    assert words in run("info", store)[1]
    code, output = run("verify", source, store)
    assert code == 0, output
    data = data_of(store)
    decoded = data[:]
    assert decoded.dtype == values.dtype
    of_counts, size = plain[residual]
    behind = back(decoded.astype("f8"))
    if residual == "lossless":
        assert decoded.tobytes() == values.tobytes()
    elif residual == "bounded":
        assert (np.abs(behind - COUNTS) <= 0.5 * np.sqrt(COUNTS) + 1e-3).all()
        assert np.abs(behind - of_counts).max() < 1e-3
    elif values.dtype.kind == "f":
        # Rates in the units of the values.
        assert np.abs(behind - of_counts).max() < 1e-4 * of_counts.max()
    else:
        assert np.abs(behind - of_counts).max() <= 0.5 + 1e-4
        real = rates(data)[:]
        assert np.abs(back(real.astype("f8")) - of_counts).max() < 1e-2
    # The map is all that is added.
    assert bytes_of(store) < 1.05 * size + 900 + 2 * 4 * COUNTS[0, 0].size
    for part in (np.s_[2, 3], np.s_[1:9:3, 2, 3:5, 1:9], np.s_[11, :, 3]):
        assert data[part].tobytes() == np.ascontiguousarray(decoded[part]).tobytes()


@pytest.mark.parametrize(
    ("name", "residual"),
    quick_first(("gain", "dose", "scaled"), {("gain", "none"), ("dose", "bounded"), ("scaled", "lossless")}),
)
def test_marks_and_what_is_no_count_stay_exact(name: str, residual: str, tmp_path: Path) -> None:
    values = BACK[name][0]()
    floats = values.dtype.kind == "f"
    values[..., GAP] = np.nan if floats else -1
    values[2, 3, 4, 5], values[3, 3, 4, 6] = (0.3333, -0.0) if floats else (-1, 2**31 - 1)
    source, store, _ = compress(values, tmp_path, f"pca:rank=2,residual={residual}")
    decoded = data_of(store)[:]
    exact = np.broadcast_to(GAP, values.shape).copy()
    exact[2, 3, 4, 5] = exact[3, 3, 4, 6] = True
    assert (decoded.view("u4")[exact] == values.view("u4")[exact]).all()
    assert run("verify", source, store)[0] == 0
    # Gaps tell the fit nothing.
    behind = BACK[name][1](decoded.astype("f8"))
    error = (behind - RATE)[~exact]
    assert np.sqrt((error**2).mean()) < (0.5 if residual == "none" else 1.1) * np.sqrt(RATE.mean())
    method = parse_method(f"pca:rank=2,residual={residual}").of_array(data_of(store).metadata.to_dict())
    # Without a residual a count may be any, but no mark.
    for index in ((2, 3, 4, 5), (3, 3, 4, 6), (5, 6, 8, 2), *([] if residual == "none" else [(5, 6, 7, 7)])):
        wrong = decoded.copy()
        wrong[index] = values.max() if index == (5, 6, 7, 7) else values[1, 1, 1, 1]
        with pytest.raises(VerificationError) as caught:
            method.compare(values, wrong, WHOLE)
        assert caught.value.index == index


def test_verify_finds_a_count_beyond_the_bound(tmp_path: Path) -> None:
    values = COUNTS.astype("f4") * GAIN
    _, store, _ = compress(values, tmp_path, "pca:rank=2,residual=bounded")
    assert run("info", store)[1].count("for every count N behind a value") == 1
    values[9, 8, 7, 6] = np.float32(60) * GAIN[7, 6]
    np.save(tmp_path / "other.npy", values)
    code, output = run("verify", tmp_path / "other.npy", store)
    assert code == 2
    assert "(9, 8, 7, 6)" in output


def test_a_rank_is_chosen_for_the_counts(tmp_path: Path) -> None:
    values = COUNTS.astype("f4") * GAIN
    source, store, output = compress(values, tmp_path, "pca:residual=lossless")
    assert "is stored smallest" in output
    assert run("verify", source, store)[0] == 0


def test_what_is_mostly_below_zero_counts_is_refused(tmp_path: Path) -> None:
    dark = RANDOM.normal(100, 1, DETECTOR).astype("f4")
    adu = np.rint(3 * COUNTS + 100 + 4 * RANDOM.standard_normal(COUNTS.shape)).astype("f4")
    np.save(tmp_path / "scan.npy", (adu - dark) * GAIN)
    code, output = run("compress", tmp_path / "scan.npy", tmp_path / "out.zarr", "--method", "pca:rank=2")
    assert code == 2
    assert "below zero counts" in output
