"""Detector-aware compression of 4D-STEM scans, ptychography and EM movies in Zarr."""

from typing import TYPE_CHECKING, Any

from stemcodecs._version import __version__

if TYPE_CHECKING:
    from stemcodecs.store import open

__all__ = ["__version__", "open"]


def __getattr__(name: str) -> Any:
    # xarray takes half a second to import; `import stemcodecs` does not wait for it.
    if name == "open":
        from stemcodecs.store import open

        return open
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
