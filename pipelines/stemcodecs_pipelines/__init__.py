"""Pipelines over whole scans: the public functions, in the words of the command.

``from stemcodecs_pipelines import compress, verify`` loads what each of them needs when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stemcodecs_pipelines.compare.run import compare
    from stemcodecs_pipelines.histograms.pixel_counts import pixel_counts
    from stemcodecs_pipelines.histograms.scan_histograms import ScanHistograms, histograms
    from stemcodecs_pipelines.pca.fit import RankChoice, choose_rank, pca_basis
    from stemcodecs_pipelines.ptychography.judge import Judgement, judge
    from stemcodecs_pipelines.ptychography.problem import PtychographyProblem
    from stemcodecs_pipelines.ptychography.reconstruct import reconstruct
    from stemcodecs_pipelines.ptychography.reconstruction import Reconstruction
    from stemcodecs_pipelines.run.engine import DaskEngine, ThreadEngine
    from stemcodecs_pipelines.run.plan import Plan
    from stemcodecs_pipelines.store.compress import CompressResult, compress
    from stemcodecs_pipelines.store.decompress import decompress
    from stemcodecs_pipelines.store.info import Info, info
    from stemcodecs_pipelines.store.repair import repair
    from stemcodecs_pipelines.store.verify import Report, verify
    from stemcodecs_pipelines.tomography.element_maps import element_maps
    from stemcodecs_pipelines.tomography.problem import TomographyProblem

_PLACES = {
    "CompressResult": "store.compress",
    "DaskEngine": "run.engine",
    "Info": "store.info",
    "Judgement": "ptychography.judge",
    "Plan": "run.plan",
    "PtychographyProblem": "ptychography.problem",
    "RankChoice": "pca.fit",
    "Reconstruction": "ptychography.reconstruction",
    "Report": "store.verify",
    "ScanHistograms": "histograms.scan_histograms",
    "ThreadEngine": "run.engine",
    "TomographyProblem": "tomography.problem",
    "choose_rank": "pca.fit",
    "compare": "compare.run",
    "compress": "store.compress",
    "decompress": "store.decompress",
    "element_maps": "tomography.element_maps",
    "histograms": "histograms.scan_histograms",
    "info": "store.info",
    "judge": "ptychography.judge",
    "pca_basis": "pca.fit",
    "pixel_counts": "histograms.pixel_counts",
    "reconstruct": "ptychography.reconstruct",
    "repair": "store.repair",
    "verify": "store.verify",
}

__all__ = [
    "CompressResult",
    "DaskEngine",
    "Info",
    "Judgement",
    "Plan",
    "PtychographyProblem",
    "RankChoice",
    "Reconstruction",
    "Report",
    "ScanHistograms",
    "ThreadEngine",
    "TomographyProblem",
    "choose_rank",
    "compare",
    "compress",
    "decompress",
    "element_maps",
    "histograms",
    "info",
    "judge",
    "pca_basis",
    "pixel_counts",
    "reconstruct",
    "repair",
    "verify",
]

# The first import of a room makes it an attribute of this package, where it would hide the function of the same name.
# So that happens now (a room by itself is empty), and is undone.
for _room in ("histograms", "compare"):
    import_module(f"stemcodecs_pipelines.{_room}")
    del globals()[_room]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"stemcodecs_pipelines.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
