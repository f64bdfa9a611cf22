"""How kernels are compiled: one decorator, and a cache of machine code that sees every edit.

Numba keeps machine code beside the file that defines a function and compiles again when that file changes. A kernel
also holds the code of the helpers, and the constants, that it takes from other files: after an edit of one of those
the old machine code would run. Here the folder of a cached kernel is named by a digest of its own file and of all
files of stemcodecs that this one imports, directly or not.

Only the cache of our own functions is changed. Numba's settings hold as they are (``NUMBA_CACHE_DIR``,
``NUMBA_BOUNDSCHECK``, …), and those of the program around us are never touched.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba import types
from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher

__all__ = ["kernel"]

KEPT = 8
"""Folders of a module that are kept, the last used ones: switching between branches, or to bounds checks and back,
compiles nothing, and a day of edits does not fill the disk."""
_OURS = re.compile(rb"^(?:from|import) +(stemcodecs[\w.]*)(?: +import +(\([^)]*\)|[^\n]*))?", re.MULTILINE)
_given_up = False
_config: Any = numba.config


def kernel(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Compile a function for its arguments when it is first called: without the GIL, cached, unchecked.

    Bounds are not checked (``NUMBA_BOUNDSCHECK=1`` checks them), and division by zero does not raise. Kernels are
    compiled under ``NUMBA_DISABLE_JIT=1`` too: our intrinsics have no form that Python could run.

    Parameters
    ----------
    function : callable
        What to compile, as ``@kernel``.
    **options
        Further options of :func:`numba.njit`, as ``@kernel(forceinline=True)``.
    """
    if function is None:
        return partial(kernel, **options)
    plain = {"nopython": True, "nogil": True, "boundscheck": False, "error_model": "numpy", "no_cfunc_wrapper": True}
    if options.get("forceinline"):
        # Only kernels call these, and to call one from Python takes as long to compile as a small one of them.
        plain["no_cpython_wrapper"] = True
    return _Kernel(function, targetoptions=plain | options)


class _Kernel(CPUDispatcher):  # type: ignore[misc]
    def __init__(self, py_func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(py_func, *args, **kwargs)
        self._cache = _KernelCache(py_func)

    def compile(self, sig: Any) -> Any:
        with _compiler_on():
            return super().compile(sig)

    def get_call_template(self, args: Any, kws: Any) -> Any:
        # To Numba 0 and 1 are of two types: what a kernel calls with both it would compile twice.
        values = {name: _of_any_value(kind) for name, kind in kws.items()}
        return super().get_call_template(tuple(map(_of_any_value, args)), values)


def _of_any_value(kind: Any) -> Any:
    return types.unliteral(kind) if isinstance(kind, types.IntegerLiteral) else kind


@contextlib.contextmanager
def _compiler_on() -> Iterator[None]:
    # With DISABLE_JIT, the parts of NumPy that Numba writes in Python could not be compiled into a kernel either. It is
    # off only while one of ours is compiled, and under the compiler's own lock: nothing else is compiled meanwhile.
    # The compiler makes many small objects that all live until it is done: to look for garbage among them, again and
    # again, took a fifth of its time.
    with global_compiler_lock:
        before, _config.DISABLE_JIT = _config.DISABLE_JIT, 0
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            _config.DISABLE_JIT = before
            if collecting:
                gc.enable()


class _KernelCache(NullCache):  # type: ignore[misc]
    """The cache of one kernel. It is opened when the kernel is first compiled, so that importing reads no sources,
    and given up with a warning where the disk does not take it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._opened: _Files | None = None

    @property
    def cache_path(self) -> str | None:
        files = self._files()
        return None if files is None else files.cache_path

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        files = self._files()
        if files is None:
            return None
        try:
            return files.load_overload(sig, target_context)
        except Exception:
            # Unpickling what a power cut left behind can raise anything. It is forgotten, and compiled anew.
            with contextlib.suppress(OSError):
                files.flush()
            return None

    def save_overload(self, sig: Any, cres: Any) -> None:
        files = self._files()
        if files is None or _given_up:
            return
        try:
            files.save_overload(sig, cres)
        except OSError as error:
            _give_up(f"{error.strerror} ({files.cache_path})")

    def flush(self) -> None:
        files = self._files()
        if files is not None:
            files.flush()

    def _files(self) -> _Files | None:
        if self._opened is None and not _given_up:
            try:
                self._opened = _Files(self._function)
            except (OSError, RuntimeError):
                # Numba's own error where neither its folder beside the sources nor the user's can be written.
                _give_up("no folder for them can be written")
        return self._opened


class _Files(FunctionCache):  # type: ignore[misc]
    """Numba's cache of a function, in a folder named by the digest of all that the function is made of."""

    def __init__(self, py_func: Callable[..., Any]) -> None:
        super().__init__(py_func)
        digest = _digest(py_func.__module__)
        # Numba chose the place: NUMBA_CACHE_DIR, the sources' __pycache__ or the user's cache folder.
        self._cache_path = _folder(self._cache_path, py_func.__module__, digest)
        self._cache_file = IndexDataCacheFile(self._cache_path, self._impl.filename_base, digest)

    def save_overload(self, sig: Any, data: Any) -> None:
        if not os.path.isdir(self._cache_path):
            os.makedirs(self._cache_path, exist_ok=True)
            _drop_old(Path(self._cache_path))
        super().save_overload(sig, data)


@cache
def _folder(base: str, module: str, digest: str) -> str:
    folder = os.path.join(base, f"{module.rpartition('.')[2]}-{digest}")
    with contextlib.suppress(OSError):
        os.utime(folder)  # used, whatever its age
    return folder


def _drop_old(folder: Path) -> None:
    # Whoever still uses one compiles again: Numba opens its files anew each time, and replaces them whole.
    name, _, digest = folder.name.rpartition("-")
    same = re.compile(rf"{re.escape(name)}-[0-9a-f]{{{len(digest)}}}")
    with contextlib.suppress(OSError):
        used = {p: p.stat().st_mtime for p in folder.parent.iterdir() if same.fullmatch(p.name) and p != folder}
        for old in sorted(used, key=used.__getitem__)[: -KEPT + 1]:
            shutil.rmtree(old, ignore_errors=True)


@cache
def _digest(module: str) -> str:
    """Of the sources of a module and of what it imports of ours, and of all else that machine code depends on and
    Numba does not distinguish, or not in a folder that two environments share.
    """
    versions = (numba.__version__, llvmlite.__version__)
    settings = (_config.BOUNDSCHECK, str(_config.OPT), _config.DEBUGINFO_DEFAULT)
    digest = hashlib.sha256(repr((versions, settings)).encode())
    seen, todo = {module}, [module]
    while todo:
        name = todo.pop()
        content, imported = _source(name)
        digest.update(name.encode() + content)
        new = sorted(imported - seen)
        seen.update(new)
        todo += new
    return digest.hexdigest()[:16]


@cache
def _source(name: str) -> tuple[bytes, frozenset[str]]:
    """Digest of the source of a loaded module, and the modules of ours that it imports at its top level."""
    module = sys.modules[name]
    source = module.__loader__.get_data(module.__file__)  # type: ignore[union-attr]
    imported = set()
    for found in _OURS.finditer(source):
        package = found[1].decode()
        names = re.findall(r"\w+", (found[2] or b"").decode())
        imported |= {package, *(f"{package}.{name}" for name in names)}
    return hashlib.sha256(source).digest(), frozenset(imported & sys.modules.keys())


def _give_up(reason: str) -> None:
    global _given_up
    if not _given_up:
        _given_up = True
        warnings.warn(
            f"compiled kernels cannot be kept: {reason}. All works, but every process compiles them again, which takes "
            "a minute: set NUMBA_CACHE_DIR to a folder that can be written, with 50 MB free",
            RuntimeWarning,
            stacklevel=2,
        )
