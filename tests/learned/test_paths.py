"""AVX-512 code is compiled, whatever this processor is: two inputs of sixteen lanes in one instruction."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import numpy as np
from numba import int64
from stemcodecs.compiled import kernel
from stemcodecs.learned.dense_ir import hidden_units
from stemcodecs.learned.path import PATHS, available

assert "avx512" in available(), available()

@kernel
def layer(path, x, w, bias, out):
    hidden_units(path, x, int64(2), w, int64(0), bias, int64(0), int64(1), out, int64(0), int64(15))

def arguments():
    return np.zeros(128, np.int32), np.zeros(8, np.int32), np.zeros(4, np.int32), np.zeros(128, np.int32)

from numba import typeof
layer.enable_caching = lambda: None
signature = tuple(typeof(a) for a in (PATHS["avx512"], *arguments()))
layer.compile(signature)
print(layer.inspect_asm(signature))
"""
FEATURES = "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+fma,+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512cd"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processor", "more", "instruction"),
    [("skylake-avx512", "", "vpmaddwd"), ("cascadelake", ",+avx512vnni", "vpdpwssd")],
)
def test_avx512_is_compiled(processor: str, more: str, instruction: str, tmp_path: Path) -> None:
    """And fused with the sum where the processor has VNNI."""
    target = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": FEATURES + more, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=os.environ | target, check=False
    )
    assert done.returncode == 0, done.stderr
    assert any(instruction in line and "zmm" in line for line in done.stdout.splitlines())
