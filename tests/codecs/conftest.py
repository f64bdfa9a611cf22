"""Both ways in which Zarr calls a codec."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zarr

PIPELINES = "zarr.core.codec_pipeline"


@pytest.fixture(params=["BatchedCodecPipeline", "FusedCodecPipeline"])
def pipeline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Zarr's usual codec pipeline, and the fused one (Zarr 3.3 and later), here and in processes begun here."""
    if not hasattr(zarr.core.codec_pipeline, request.param):
        pytest.skip("this Zarr has no fused codec pipeline")
    path = f"{PIPELINES}.{request.param}"
    monkeypatch.setenv("ZARR_CODEC_PIPELINE__PATH", path)
    with zarr.config.set({"codec_pipeline.path": path}):
        yield request.param
