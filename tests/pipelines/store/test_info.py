"""What a store says about itself."""

from __future__ import annotations

import pytest

from tests.test_architecture import modules_after


@pytest.mark.slow
def test_info_reads_a_store_without_the_heavy_packages(store):
    code = f"from stemcodecs_pipelines.store.info import info; info({str(store)!r}).rows()"
    assert not {"numba", "xarray", "dask", "distributed", "zarr"} & modules_after(code)
