"""The examples run as they are, with no data, and print the numbers that they promise."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
PAGE = REPOSITORY / "docs" / "examples.md"
FOR_USERS = sorted(EXAMPLES.glob("*.py"))
OF_PAPERS = sorted(EXAMPLES.glob("papers/*.py"))


# What an old Matplotlib calls of a newer pyparsing is not ours to mend.
OLD = tuple(map(int, version("matplotlib").split(".")[:2])) < (3, 10)
STRICT = ("-W", "error", *(("-W", "ignore::DeprecationWarning") if OLD else ()))


def run(name, folder, *words, **settings):
    command = [sys.executable, *STRICT, EXAMPLES / name, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def number(output, pattern):
    """The only number that stands where a pattern has its group."""
    (found,) = re.findall(pattern, output)
    return float(found)


def table(output, *, columns):
    """Rows of a printed table: what stands before the last columns, and the numbers in these."""
    found = []
    for line in output.splitlines():
        words = line.split()
        cells = [word.removeprefix("1/") for word in words[-columns:]]
        if len(words) > columns and all(re.fullmatch(r"[-+.\de]+|inf|nan", cell) for cell in cells):
            found.append((" ".join(words[:-columns]), [float(cell) for cell in cells]))
    return found


def is_picture(path):
    return path.stat().st_size > 10_000


def test_every_example_is_tested_and_on_the_page():
    tests = Path(__file__).read_text(encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    for path in FOR_USERS + OF_PAPERS:
        name = str(path.relative_to(EXAMPLES))
        assert f'run("{name}"' in tests, name
        assert f"(../examples/{name})" in page, name


@pytest.mark.parametrize("path", FOR_USERS + OF_PAPERS, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_shows(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 40 if path in FOR_USERS else len(text.splitlines()) <= 120
    assert text.startswith('"""')
    assert f"python {path.name}" in text


@pytest.mark.slow
def test_learned_lossless(tmp_path):
    lines = run("learned_lossless.py", tmp_path).splitlines()
    saved = {line.split(":")[0]: float(line.split()[-3]) for line in lines}
    assert saved.keys() == {"ptychography", "tilt series"}
    assert min(saved.values()) > 0.5


@pytest.mark.slow
def test_first_compression(tmp_path):
    output = run("first_compression.py", tmp_path)
    assert "every value agrees: True" in output
    bits = number(output, r"([\d.]+) bits a pixel")
    assert 1 < bits / number(output, r"go below ([\d.]+)") < 1.05
    assert number(output, r"([\d.]+) times smaller") == pytest.approx(16 / bits, rel=0.02)
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).poisson(2, (4, 5, 16, 16)).astype(np.uint16))
    assert "16 × 16 pixels of uint16" in run("first_compression.py", tmp_path, "mine.npy", "mine.zarr")
    assert (tmp_path / "mine.zarr" / "zarr.json").exists()


@pytest.mark.slow
def test_merlin_mib(tmp_path):
    pytest.importorskip("rsciio")
    output = run("merlin_mib.py", tmp_path)
    assert "8 × 12 × 64 × 64 of uint16, scan_y, scan_x, det_y, det_x" in output
    assert "no frame is left out" in output
    assert "every value verified" in output
    assert (tmp_path / "merlin.h5").exists()
    output = run("merlin_mib.py", tmp_path, "simulated.mib", "8", "11", "1")
    assert "8 × 11 × 64 × 64" in output
    assert "8 flyback frames, the last 1 of each line, are left out" in output


@pytest.mark.slow
def test_analyse_with_xarray(tmp_path):
    output = run("analyse_with_xarray.py", tmp_path)
    assert "dask" not in output  # numbers, not lazy arrays
    assert 1000 < number(output, r"bright field: .* mean ([\d.]+)") < 1300
    assert 0.05 < number(output, r"com_x ± ([\d.]+)") < 1
    for mean in re.search(r"decoded: \[([\d. ]+)\]", output).group(1).split():
        assert float(mean) == pytest.approx(1, abs=0.05)
    least, most, often = map(int, re.search(r"central pixel: (\d+) to (\d+) counts, most often (\d+)", output).groups())
    assert least < often < most


@pytest.mark.slow
def test_own_loop(tmp_path):
    output = run("own_loop.py", tmp_path)
    assert "4 chunks" in output
    assert "every value the same" in output
    assert 1 < number(output, r"([\d.]+) bits a pixel") / number(output, r"go below ([\d.]+)") < 1.15


@pytest.mark.slow
def test_on_slurm(tmp_path):
    """Where nothing can be found by its name, no SLURM is there."""
    output = run("on_slurm.py", tmp_path, env={"PATH": str(tmp_path), "PYTHONPATH": ":".join(sys.path)})
    assert "no sbatch on this machine: 2 processes of its own (LocalCluster)" in output
    assert "........" in output  # eight blocks
    assert "every value verified" in output


@pytest.mark.slow
def test_movie_in_tenths(tmp_path):
    output = run("movie_in_tenths.py", tmp_path)
    assert "bins: 2" in output  # more than twenty times smaller
    assert "what was measured: (4, 96, 96) of uint32" in output


@pytest.mark.campaign
def test_movie_comparison(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("movie_comparison.py", tmp_path)
    assert "B = 30: bins, interpolate" in output
    assert all(is_picture(tmp_path / name) for name in ("movie_frames.png", "movie_quality.png"))


@pytest.mark.campaign
def test_choose_a_method(tmp_path):
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).poisson(2.0, (6, 6, 16, 16)).astype(np.uint16))
    output = run("choose_a_method.py", tmp_path, "mine.npy", "1")
    bits = {line[:42].strip(): line[42:56].strip() for line in output.splitlines()}
    assert 1.9 < float(bits["pixel_histogram"]) < 3  # no lossless code goes below 1.9 bits at a mean of 2
    assert float(bits["poisson:r=1"]) < float(bits["pixel_histogram"])
    assert "stemcodecs compress mine.npy" in output.split("What to do:")[1]


@pytest.mark.slow
def test_quantize_ladder(tmp_path):
    rows = table(run("quantize_ladder.py", tmp_path).replace(" σ", "").replace(" %", ""), columns=6)
    sizes = {name: bits for name, (bits, *_) in rows}
    assert sizes["r = 0.1"] > sizes["r = 0.25"] > sizes["r = 0.5, fewest levels"] > sizes["r = 1, fewest levels"]
    bounds = {"huang-511": 8**-0.5, "huang-255": 2**-0.5}
    for name, (_, _, largest, *_) in rows:
        bound = bounds[name] if name in bounds else float(name.split()[2].strip(","))
        assert 0 < largest <= bound + 5e-4, name


@pytest.mark.campaign
def test_tomography_self_absorption(tmp_path):
    for package in ("torch", "xraylib", "matplotlib"):
        pytest.importorskip(package)
    output = run("tomography_self_absorption.py", tmp_path, "tomogram.png")
    assert "with self-absorption: Fe mass × 0.99" in output
    assert "without: Fe mass × 0.7" in output
    assert is_picture(tmp_path / "tomogram.png")


@pytest.mark.campaign
def test_siemens_star(tmp_path):
    for package in ("torch", "matplotlib"):
        pytest.importorskip(package)
    output = run("siemens_star.py", tmp_path)
    errors = [float(line.split("error ")[1].split(",")[0]) for line in output.splitlines()]
    assert errors[1] < errors[0] < 0.01
    assert all(is_picture(tmp_path / f"star_{name}.png") for name in ("epie", "gradient"))


@pytest.mark.campaign
def test_rotavirus(tmp_path):
    for package in ("torch", "matplotlib"):
        pytest.importorskip(package)
    assert "pixel 0.921 nm, amplitude error 0.03" in run("rotavirus.py", tmp_path)
    assert is_picture(tmp_path / "rotavirus.png")


@pytest.mark.campaign
def test_judge_loss(tmp_path):
    pytest.importorskip("matplotlib")
    assert run("judge_loss.py", tmp_path).count("of the dose") == 3
    assert is_picture(tmp_path / "judge_loss.png")


@pytest.mark.slow
def test_paper_lossless_histograms(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("papers/lossless_histograms.py", tmp_path, "--scan", "16", "--detector", "32", "--steps", "200")
    bits = {name: found for name, (found, *_) in table(output, columns=3)}
    for name, (found, of_float, of_counts) in table(output, columns=3):
        assert of_float == pytest.approx(32 / found, abs=0.01), name
        assert of_counts == pytest.approx(16 / found, abs=0.01), name
    # Few positions: histograms cost as much as they save, the default knows better.
    assert bits["gzip of float32"] > 1.4 * bits["pixel-local histograms"]
    assert bits["PNG of counts"] > 1.4 * bits["stemcodecs, default"]
    assert bits["Shannon bound"] < bits["stemcodecs, default"] < bits["pixel-local histograms"]
    assert is_picture(tmp_path / "lossless_histograms.png")


@pytest.mark.campaign
def test_paper_movies_against_jpeg(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("papers/movies_against_jpeg.py", tmp_path, "--side", "48")
    parts = re.split(r"^(fibres|nanoparticles), B = (\d+)$", output, flags=re.MULTILINE)[1:]
    assert len(parts) == 18
    for kind, ratio, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        rows = dict(table(text, columns=3))
        (share, psnr, alike), (_, jpeg_psnr, jpeg_alike) = rows["bins, interpolate"], rows["JPEG"]
        assert share >= int(ratio) * 0.9, kind  # 1/share of the raw bytes
        assert psnr > jpeg_psnr + 3, kind
        assert alike > jpeg_alike, kind
    assert output.count("the paper: TCS-DL") == 2
    assert is_picture(tmp_path / "movies_against_jpeg.png")


@pytest.mark.campaign
@pytest.mark.parametrize("method", ["epie", "gradient"])
def test_paper_detector_levels(method, tmp_path):
    pytest.importorskip("matplotlib")
    if method == "gradient":
        pytest.importorskip("torch")
    output = run("papers/detector_levels.py", tmp_path, "--rows", "7", "--bits", "12", "--method", method)
    rows = dict(table(output, columns=4))
    assert [cells[0] for cells in rows.values()] == [14, 9, 8, 8]
    (_, bits, error, period) = rows.pop("all")
    for name, (_, stored, found, resolution) in rows.items():
        assert stored < bits, name
        if name != "191":
            assert found == pytest.approx(error, rel=0.1), name
            assert resolution == pytest.approx(period, rel=0.1), name
    assert rows["511"][1] > rows["255"][1] > rows["191"][1]
    assert is_picture(tmp_path / "detector_levels.png")


@pytest.mark.campaign
def test_paper_pca_ladder(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("papers/pca_ladder.py", tmp_path, "--rows", "10", "--side", "24")
    phase = {name: found for name, (found, *_) in table(output, columns=3)}
    lossless = phase["lossless 1:1"]
    own = [phase[f"own scan {ratio}:1"] for ratio in (6, 10, 16, 55, 164)]
    assert own == sorted(own)
    assert own[0] < 3 * lossless
    for ratio in (10, 16):
        assert phase[f"own scan {ratio}:1"] < phase[f"contrast-matched {ratio}:1"] < phase[f"mismatched {ratio}:1"]
    assert number(output, r"contrast factor ([\d.]+)") == pytest.approx(
        number(output, r"is ([\d.]+) in truth"), rel=0.2
    )
    assert all(math.isfinite(error) for error in phase.values())
    assert is_picture(tmp_path / "pca_ladder.png")
