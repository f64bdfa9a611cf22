"""Kernels run the code that stands in their files, wherever it can or cannot be cached."""

from __future__ import annotations

import ast
import gc
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher
from numba.core.errors import TypingError

import stemcodecs
import stemcodecs_pipelines
from stemcodecs import compiled

PACKAGE = Path(stemcodecs.__file__).parent
UPPER = Path(stemcodecs_pipelines.__file__).parent

PROBE = {
    "probe": """
import numpy as np
from stemcodecs.compiled import kernel
from stemcodecs.probe_helper import stretched

@kernel
def probe(values):
    out = np.zeros(values.size, np.int64)
    for i in range(values.size):
        out[i] = stretched(values[i])
    return out

@kernel
def beyond(values, i):
    return values[i]
""",
    "probe_helper": """
from stemcodecs.compiled import kernel
from stemcodecs.probe_constant import STEP

@kernel(forceinline=True)
def stretched(x):
    return x * STEP
""",
    "probe_constant": "STEP = 2\n",
}
"""Three modules put into a copy of the package: a kernel, a helper that it takes in, and a constant of the helper."""

RUN = """
import numpy as np
from stemcodecs.probe import probe
print(probe(np.array([1, 5]))[1], sum(probe.stats.cache_hits.values()), probe.stats.cache_path)
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of the package without its caches, in a folder of its own."""
    shutil.copytree(PACKAGE, tmp_path / "code" / "stemcodecs", ignore=shutil.ignore_patterns("__pycache__"))
    for name, source in PROBE.items():
        (tmp_path / "code" / "stemcodecs" / f"{name}.py").write_text(source)
    return tmp_path / "code"


def start(copy, code=RUN, flags=("-W", "error"), **environment):
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA_", "PYTHONPYCACHE"))}
    return subprocess.Popen(
        [sys.executable, *flags, "-c", code],
        cwd=copy,
        env=inherited | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(copy, code=RUN, **options):
    """Standard output and standard error of a process that imports the copy."""
    process = start(copy, code, **options)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out.split(), err


def edit(copy, name, old, new):
    path = copy / "stemcodecs" / f"{name}.py"
    source = path.read_text()
    assert old in source
    path.write_text(source.replace(old, new))


@pytest.mark.slow
def test_an_edit_in_any_file_that_a_kernel_takes_code_from_is_run(copy):
    assert run(copy)[0][:2] == ["10", "0"]
    edit(copy, "probe_constant", "2", "3")
    assert run(copy)[0][:2] == ["15", "0"]
    edit(copy, "probe_helper", "x * STEP", "x * STEP + 1")
    assert run(copy)[0][:2] == ["16", "0"]
    # Back to what was there first, which is still cached: else this test would show nothing.
    edit(copy, "probe_helper", "x * STEP + 1", "x * STEP")
    edit(copy, "probe_constant", "3", "2")
    assert run(copy)[0][:2] == ["10", "1"]


@pytest.mark.slow
def test_numbas_own_setting_chooses_the_place(copy, tmp_path):
    *_, place = run(copy, NUMBA_CACHE_DIR=str(tmp_path / "here"))[0]
    assert Path(place).is_relative_to(tmp_path / "here")
    assert not list(copy.rglob("*.nbi"))


@pytest.mark.slow
def test_processes_share_a_cache(copy):
    together = [start(copy) for _ in range(3)]
    for process in together:
        out, err = process.communicate()
        assert out.split()[0] == "10", err


@pytest.mark.slow
def test_old_folders_go_and_only_those(copy):
    cache = copy / "stemcodecs" / "__pycache__"
    for age in range(12):
        old = cache / f"probe-{age:016x}"
        old.mkdir(parents=True)
        (old / "probe.nbc").write_bytes(b"")
        os.utime(old, (1e9 - age, 1e9 - age))
    others = [cache / "probe-of-mine", cache / "other-0000000000000000"]
    for other in others:
        other.mkdir()
    place = Path(run(copy)[0][2])
    left = {path for path in cache.iterdir() if path.name.startswith("probe-0") or path == place}
    assert left == {place, *(cache / f"probe-{age:016x}" for age in range(compiled.KEPT - 1))}
    assert all(other.is_dir() for other in others)


def without_place(copy, tmp_path):
    """An environment in which no folder for a cache can be made, whoever runs this."""
    (tmp_path / "file").write_text("")
    (copy / "stemcodecs" / "__pycache__").write_text("")
    return dict.fromkeys(("HOME", "XDG_CACHE_HOME"), str(tmp_path / "file"))


TWO = "import numpy as np\nfrom stemcodecs.probe import beyond, probe\nbeyond(np.arange(3), 1)\n"


@pytest.mark.slow
def test_without_a_place_for_the_cache_there_is_one_warning(copy, tmp_path):
    out, err = run(copy, TWO + RUN, flags=("-W", "always"), **without_place(copy, tmp_path))
    assert out == ["10", "0", "None"]
    assert err.count("Warning") == 1
    assert "set NUMBA_CACHE_DIR to a folder that can be written" in err


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="no limit on the size of files")
def test_on_a_full_disk_there_is_one_warning(copy):
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    out, err = run(copy, full + TWO + RUN, flags=("-W", "always"))
    assert out[:2] == ["10", "0"]
    assert err.count("Warning") == 1
    assert "set NUMBA_CACHE_DIR to a folder that can be written" in err
    assert not list(copy.rglob("*.tmp.*"))


@pytest.mark.slow
def test_files_of_the_cache_cut_short_are_made_again(copy):
    run(copy)
    for kind in ("nbc", "nbi"):
        for path in copy.rglob(f"probe.probe-*.{kind}"):
            path.write_bytes(path.read_bytes()[:20])
        assert run(copy)[0][:2] == ["10", "0"]
    assert run(copy)[0][:2] == ["10", "1"]


@pytest.mark.slow
def test_code_with_bounds_checks_is_cached_apart(copy):
    code = """
import numpy as np
from stemcodecs.probe import beyond
try:
    beyond(np.arange(3), 4)
    print("unchecked")
except IndexError:
    print("checked")
"""
    assert run(copy, code)[0] == ["unchecked"]
    assert run(copy, code, NUMBA_BOUNDSCHECK="1")[0] == ["checked"]
    assert run(copy, code)[0] == ["unchecked"]


@pytest.mark.slow
def test_numba_disable_jit_leaves_our_kernels_compiled_and_others_not(copy):
    code = """
import numba
from concurrent.futures import ThreadPoolExecutor
before = numba.config.DISABLE_JIT
with ThreadPoolExecutor(2) as pool:  # compiled one after the other, each in its turn
    list(pool.map(lambda call: call(), [lambda: beyond(np.arange(3), 1), lambda: probe(np.arange(3.0))]))
assert numba.config.DISABLE_JIT == before == 1
assert probe.signatures
assert not hasattr(numba.njit(lambda x: x), "signatures")
"""
    assert run(copy, f"{TWO}{code}{RUN}", NUMBA_DISABLE_JIT="1")[0][0] == "10"


def modules():
    """Every module of both packages, by name."""
    for package in (PACKAGE, UPPER):
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            yield ".".join(parts).removesuffix(".__init__"), path


@pytest.mark.slow
def test_every_kernel_is_made_by_our_decorator():
    for name, path in modules():
        if name == compiled.__name__:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "numba":
                made = {alias.name for alias in node.names} & {"njit", "jit", "vectorize", "guvectorize", "cfunc"}
                assert not made, f"{name}:{node.lineno}: use stemcodecs.compiled.kernel"


def uncached(function):
    made = compiled.kernel(function)
    made._cache = NullCache()
    return made


def test_what_is_called_with_several_numbers_is_compiled_once():
    @uncached
    def multiple(x, factor):
        return x * factor

    @uncached
    def both(x):
        return multiple(x, 2) + multiple(x, factor=3)

    assert both(7) == 35
    assert len(multiple.signatures) == 1


@pytest.mark.parametrize("collecting", [True, False])
def test_the_collector_of_garbage_is_as_it_was(collecting):
    @uncached
    def one_more(x):
        return x + 1

    @uncached
    def impossible(x):
        return x.nothing

    before = gc.isenabled()
    try:
        gc.enable() if collecting else gc.disable()
        assert one_more(1) == 2
        with pytest.raises(TypingError):
            impossible(1)
        assert gc.isenabled() == collecting
    finally:
        gc.enable() if before else gc.disable()


def test_the_digest_of_a_kernel_covers_every_module_that_its_code_comes_from():
    kernels = 0
    for name, path in modules():
        if "import kernel" not in path.read_text(encoding="utf-8"):
            continue
        module = importlib.import_module(name)
        covered, todo = {name}, [name]
        while todo:
            new = compiled._source(todo.pop())[1] - covered
            covered |= new
            todo += new
        kernels += 1
        for value in vars(module).values():
            if isinstance(value, Dispatcher | FunctionType) or hasattr(value, "_defn"):
                home = str(value.__module__)
                assert not home.startswith("stemcodecs") or home in covered, (name, value)
    assert kernels > 10
