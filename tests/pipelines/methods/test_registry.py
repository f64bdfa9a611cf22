"""Methods by name, and the command that lists them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import zarr
from typer.testing import CliRunner

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.cli import app
from stemcodecs_pipelines.methods.options import options_of
from stemcodecs_pipelines.methods.registry import METHODS, method_class, parse_method


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_is_and_what_holds(name):
    method = parse_method(name)
    assert method.name == method.text == name
    assert method.summary
    assert method.guarantee
    assert method_class(name).__doc__
    for known in options_of(method.Options):
        assert known.help
        # Where the method chooses, it says what.
        assert known.default_text
    # The defaults are allowed values.
    given = {known.name: known for known in options_of(method.Options) if known.default is not None}
    assert all(known.read(str(known.default)) == known.default for known in given.values())


def test_a_dash_is_as_good_as_an_underscore():
    assert parse_method("pixel-histogram:mode=pixel").text == "pixel_histogram:mode=pixel"


def test_unknown_methods_are_refused_with_those_there_are():
    with pytest.raises(
        ConfigurationError, match="no method 'telepathy'; there is: pixel_histogram, learned, poisson, pca, tcs"
    ):
        parse_method("telepathy:strength=3")


def test_the_guarantee_follows_the_options():
    assert parse_method("pca").guarantee == "no pointwise guarantee"
    assert parse_method("pca:residual=bounded,r=0.25").guarantee == "|N' - N| <= 0.25 * sqrt(N) for every count N"
    assert parse_method("pca:residual=lossless").exact
    assert not parse_method("pca").exact
    assert parse_method("pixel_histogram:model=scan").whole_detector
    assert not parse_method("pixel_histogram").whole_detector
    assert "≤ 1/3 σ" in parse_method("poisson:r=1/3").guarantee


@pytest.mark.parametrize("name", METHODS)
def test_a_room_is_loaded_without_the_registry_and_the_other_rooms(name):
    module = METHODS[name].partition(":")[0]
    rooms = {
        f"stemcodecs_pipelines.{room}"
        for room in ("histograms", "learned", "poisson", "pca", "temporal", "store", "compare")
    }
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.count(".") == 2 or name.endswith("registry")}
    assert not {name for name in loaded if name.rpartition(".")[0] in rooms - {module.rpartition(".")[0]}}
    assert "stemcodecs_pipelines.methods.registry" not in done.stdout.split()


@pytest.mark.slow
def test_the_command_lists_methods_and_options():
    text = run("methods").stdout
    for name in METHODS:
        assert f"{name}: " in text
        one = run("methods", name.replace("_", "-")).stdout
        for known in options_of(method_class(name).Options):
            assert f"  {known.name}" in one
            assert known.values in one
    refused = run("methods", "telepathy")
    assert refused.exit_code == 2
    assert (
        refused.stderr == "stemcodecs: no method 'telepathy'; there is: pixel_histogram, learned, poisson, pca, tcs\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "noted"),
    [
        (["--method", "pca", "--residual", "lossless", "--rank", "2"], "pca:rank=2,residual=lossless"),
        (["--method", "pca:rank=2", "--r", "0.25", "--residual", "bounded"], "pca:rank=2,residual=bounded,r=0.25"),
        (["--method", "poisson:gain=2", "--r", "1/3"], "poisson:gain=2,r=1/3"),
        (["--method", "poisson", "--preset", "huang-255"], "poisson:preset=huang-255"),
        (["--method", "pixel-histogram:mode=pixel"], "pixel_histogram:mode=pixel"),
    ],
)
def test_short_forms_are_noted_as_options(source, tmp_path, words, noted):
    done = run("compress", source, tmp_path / "out.zarr", *words)
    assert done.exit_code == 0, done.output
    assert zarr.open_group(tmp_path / "out.zarr", mode="r").attrs["stemcodecs"]["method"] == noted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rank", "5"], "--rank needs --method pca"),
        (["--r", "5"], "--r needs --method poisson or --method pca"),
        (["--method", "poisson", "--rank", "5"], "poisson has no option 'rank'; it has: r, preset, gain"),
        (["--method", "pixel_histogram", "--r", "1"], "pixel_histogram has no option 'r'; it has: mode, model"),
        (["--method", "telepathy", "--r", "1"], "no method 'telepathy'"),
    ],
)
def test_short_forms_that_do_not_fit_are_refused(source, tmp_path, words, message):
    done = run("compress", source, tmp_path / "out.zarr", *words)
    assert done.exit_code == 2
    assert done.stderr.lstrip().startswith(f"stemcodecs: {message}")
    assert not (tmp_path / "out.zarr").exists()


def test_help_of_compress_is_in_sections():
    text = run("compress", "--help").stdout
    titles = [line.rstrip(":") for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Arguments", "Source", "Method", "Chunks and memory", "Where it runs", "The run", "Options"]
