"""What the README shows works, and continuous integration runs what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stemcodecs_pipelines.compare.demo import run_demo

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands(ending: str) -> list[str]:
    """Commands of the README that set everything up and end with something."""
    return [
        line for block in blocks("sh") for line in block.splitlines() if re.match(rf"python3 -m venv .*{ending}", line)
    ]


@pytest.mark.slow
def test_snippets_run_one_after_the_other_each_in_a_fresh_process(tmp_path):
    run_demo(str(tmp_path / "demo"), echo=lambda line: None, scan_shape=(8, 9), detector_shape=(24, 24))
    snippets = blocks("python")
    assert len(snippets) >= 3
    for snippet in snippets:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-"], input=snippet, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{snippet}\n{done.stderr}"


@pytest.mark.parametrize("ending", ["stemcodecs demo", "pytest"])
def test_setting_up_is_one_line_of_plain_shell(ending):
    (command,) = commands(ending)
    subprocess.run(["sh", "-n", "-c", command], check=True)


def test_continuous_integration_runs_the_readmes_test_command():
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"grep -E '(\^python3[^']*)' README\.md", script)
    found = [line for line in README.splitlines() if re.match(pattern, line)]
    assert found == commands("pytest")
    assert 'sh -c "$tests"' in script


def test_every_command_of_the_readme_exists():
    from typer.main import get_command

    from stemcodecs_pipelines.cli import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    used = {
        match.group(1)
        for block in blocks("sh")
        for line in block.splitlines()
        if (match := re.match(r"stemcodecs ([a-z]+)", line))
    }
    assert used
    assert used <= known


def test_every_linked_file_exists():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (REPOSITORY / target).exists(), target
