"""The xarray accessor ``Dataset.stem``: virtual images, mean pattern and centre of mass of a scan.

What was computed when the store was written comes from there and costs nothing, as long as it describes the data: the
values are those of the store that :func:`stemcodecs.open` opened, at most cut along the scan. Everything else is lazy
where the data is lazy, one Dask task per chunk. Marked values (:mod:`stemcodecs.marks`) are left out of both.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import numpy as np
import xarray as xr

from stemcodecs.errors import ConfigurationError
from stemcodecs.marks import find_marks, mark_of

__all__ = ["StemAccessor"]

_SELECTIONS = ("getitem-", "rechunk-")
"""Layers of a Dask graph that choose among values or cut them into other chunks, and change none."""
_REMEMBERED = 256
_opened: OrderedDict[str, dict[str, str]] = OrderedDict()
"""Names of the Dask arrays of opened stores: for that of ``data`` those of the other variables."""


def remember_opened(dataset: xr.Dataset) -> None:
    """Keep which lazy arrays belong to one store, so that its images are not taken for those of other values."""
    names = {str(name): str(getattr(variable.data, "name", "")) for name, variable in dataset.data_vars.items()}
    root = names.pop("data", "")
    if root:
        _opened[root] = names
        _opened.move_to_end(root)
        while len(_opened) > _REMEMBERED:
            _opened.popitem(last=False)


def _root(array: Any, wanted: Any) -> str | None:
    """Name of the Dask array that `array` was selected from, if nothing but selections lie between."""
    name, graph = getattr(array, "name", None), getattr(array, "dask", None)
    dependencies = getattr(graph, "dependencies", None)
    while isinstance(name, str) and name not in wanted:
        before = dependencies.get(name, ()) if isinstance(dependencies, dict) else ()
        if not name.startswith(_SELECTIONS) or len(before) != 1:
            return None
        name = next(iter(before))
    return name


@xr.register_dataset_accessor("stem")  # type: ignore[no-untyped-call]
class StemAccessor:
    """Views of a 4D-STEM scan or a stack of patterns.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :func:`stemcodecs.open` gives it: ``data`` with the detector in the last two dimensions.

    Notes
    -----
    Detector positions and radii are in pixels, whatever the calibration, as the virtual detectors
    of a store are (``attrs["stemcodecs"]["virtual_detectors"]``).

    Marked values are left out of every sum: the largest value of an integer dtype of 16 bits and more, NaN and
    infinity, and the pixels where the variable ``pixel_mask`` is not zero, if the dataset has one.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    @property
    def data(self) -> xr.DataArray:
        """The scan.

        Raises
        ------
        ConfigurationError
            The dataset has no ``data`` with a detector.
        """
        if "data" not in self._dataset or self._dataset["data"].ndim < 2:
            raise ConfigurationError(
                "the dataset has no variable data with a detector; open a store with stemcodecs.open"
            )
        return self._dataset["data"]

    @property
    def detector_dims(self) -> tuple[str, str]:
        """Names of the detector's dimensions, rows first."""
        y, x = self.data.dims[-2:]
        return str(y), str(x)

    @property
    def detector_shape(self) -> tuple[int, int]:
        """Rows and columns of the detector."""
        height, width = self.data.shape[-2:]
        return height, width

    @property
    def _provenance(self) -> dict[str, Any]:
        said = self._dataset.attrs.get("stemcodecs")
        # NetCDF has no nested attributes: a Dataset carries them as text.
        found = json.loads(said) if isinstance(said, str) else said
        return dict(found) if isinstance(found, dict) else {}

    @property
    def _known(self) -> dict[str, float]:
        return dict(self._provenance.get("virtual_detectors") or {})

    def _stored(self, name: str, *, whole: int) -> xr.DataArray | None:
        """A stored variable, where it still describes the data, which must be whole in the last `whole` dimensions.

        Shapes alone do not tell: a flipped detector, a rolled one, a product with 2 and the data of another store
        have the same.
        """
        if name not in self._dataset:
            return None
        variable, data = self._dataset[name], self.data
        root = _root(data.data, _opened)
        if root is None or _root(variable.data, {_opened[root].get(name)}) is None:
            return None
        shape = tuple(self._provenance.get("shape", ()))
        if len(shape) != data.ndim or not all(self._untouched(str(dim), n) for dim, n in self._last(shape, whole)):
            return None
        # Along the scan both were cut as one, which only coordinates can tell.
        return variable if all(dim in self._dataset.indexes for dim in data.dims) else None

    def _last(self, shape: tuple[int, ...], count: int) -> list[tuple[Any, int]]:
        return list(zip(self.data.dims, shape, strict=True))[-count:]

    def _untouched(self, dim: str, size: int) -> bool:
        """Whether a dimension has the coordinates that it was written with."""
        if dim not in self._dataset.indexes:
            return False
        coordinate = self._dataset[dim]
        scale, offset = coordinate.attrs.get("scale"), coordinate.attrs.get("offset")
        if scale is None or offset is None or coordinate.size != size:
            return False
        return bool(np.array_equal(coordinate.values, offset + scale * np.arange(size, dtype=np.float64)))

    @property
    def _masked_pixels(self) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """Pixels that are marked in every pattern, bool of shape (det_y, det_x)."""
        if "pixel_mask" not in self._dataset or set(self._dataset["pixel_mask"].dims) != set(self.detector_dims):
            return None
        masked: np.ndarray[Any, np.dtype[np.bool_]] = (
            self._dataset["pixel_mask"].transpose(*self.detector_dims).values != 0
        )
        return masked

    def mean_pattern(self) -> xr.DataArray:
        """Mean over all scan positions, shape (det_y, det_x); stored, or lazy float64.

        Each pixel's mean is over the patterns where it carries no mark; NaN where it always does.
        """
        stored = self._stored("mean_pattern", whole=self.data.ndim)
        if stored is not None:
            return stored
        data, positions = self.data, self.data.dims[:-2]
        mark = mark_of(data.dtype)
        if data.dtype.kind == "f" or mark is not None:
            known: xr.DataArray = xr.apply_ufunc(np.isfinite, data, dask="allowed") if mark is None else data != mark
            counted: xr.DataArray = known.sum(positions)
            total = data.where(known, data.dtype.type(0)).sum(positions, dtype=np.float64)
            mean: xr.DataArray = total / counted.where(counted > 0)
        else:
            mean = data.mean(positions, dtype=np.float64)
        masked = self._masked_pixels
        if masked is not None:
            mean = mean.where(xr.DataArray(~masked, dims=self.detector_dims))
        return mean.rename("mean_pattern")

    def sum_image(self) -> xr.DataArray:
        """Sum of all detector pixels at every scan position; stored, or lazy."""
        stored = self._stored("sum_image", whole=2)
        if stored is not None:
            return stored
        return self.virtual_image(np.ones(self.detector_shape, bool)).rename("sum_image")

    def virtual_image(self, mask: Any) -> xr.DataArray:
        """Sum over the detector, weighted by a mask.

        Parameters
        ----------
        mask : array of shape (det_y, det_x)
            Boolean: the sum is exact (int64 for integer counts). Numbers: weights, the sum is
            float64. Marked values count as zero.

        Returns
        -------
        xarray.DataArray
            One value per scan position, lazy where the data is.

        Raises
        ------
        ConfigurationError
            The mask has another shape than the detector.
        """
        weights = np.asarray(mask)
        if weights.shape != self.detector_shape:
            raise ConfigurationError(
                f"the mask has shape {weights.shape}, the detector {self.detector_shape}; give one "
                "value for every detector pixel"
            )
        # A mask of zeros and ones keeps counts integers, and their sum exact at any dose.
        exact = weights.dtype == bool and self.data.dtype.kind in "bui"
        masked = self._masked_pixels
        if masked is not None:
            weights = np.where(masked, weights.dtype.type(0), weights)
        return self._per_pattern(_masked_sum, weights, dtype=np.dtype(np.int64 if exact else np.float64)).rename(
            "virtual_image"
        )

    def _per_pattern(self, function: Any, weights: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> xr.DataArray:
        dims = list(self.detector_dims)
        image: xr.DataArray = xr.apply_ufunc(
            function,
            self.data,
            kwargs={"weights": weights, "dtype": dtype},
            input_core_dims=[dims],
            dask="parallelized",
            # Only a detector that is cut into chunks is put together first.
            dask_gufunc_kwargs={"allow_rechunk": True},
            output_dtypes=[dtype],
        )
        return image

    def disk_mask(
        self, radius: float, center: tuple[float, float] | None = None
    ) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Pixels within `radius` of `center`, bool of shape (det_y, det_x).

        Parameters
        ----------
        radius : float
            In pixels.
        center : (float, float), optional
            Row and column in pixels; default the centre of the bright-field disk of the store.
        """
        y, x = self._center(center)
        rows, columns = np.ogrid[: self.detector_shape[0], : self.detector_shape[1]]
        inside: np.ndarray[Any, np.dtype[np.bool_]] = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        return inside

    def _center(self, center: tuple[float, float] | None) -> tuple[float, float]:
        if center is not None:
            return center
        if not self._known:
            raise ConfigurationError(
                "the dataset does not say where the bright-field disk is; give center=(row, column)"
            )
        return self._known["center_y"], self._known["center_x"]

    def annulus(self, inner: float, outer: float, center: tuple[float, float] | None = None) -> xr.DataArray:
        """Virtual image of the pixels with inner < distance ≤ outer.

        Parameters
        ----------
        inner, outer : float
            Radii in pixels.
        center : (float, float), optional
            As for `disk_mask`.

        Raises
        ------
        ConfigurationError
            The radii leave no ring.
        """
        if not 0 <= inner < outer:
            raise ConfigurationError(f"an annulus from {inner} to {outer} is empty; give inner < outer")
        ring = self.disk_mask(outer, center) & ~self.disk_mask(inner, center)
        return self.virtual_image(ring).rename("annulus")

    def bright_field(self, radius: float | None = None, center: tuple[float, float] | None = None) -> xr.DataArray:
        """Sum of the bright-field disk; without arguments the image that the store has.

        Parameters
        ----------
        radius : float, optional
            In pixels; default the radius of the disk found when the store was written.
        center : (float, float), optional
            As for `disk_mask`.
        """
        stored = self._stored("bright_field", whole=2)
        if radius is None and center is None and stored is not None:
            return stored
        mask = self.disk_mask(self._radius("radius", radius), center)
        return self.virtual_image(mask).rename("bright_field")

    def dark_field(
        self,
        inner: float | None = None,
        outer: float | None = None,
        center: tuple[float, float] | None = None,
    ) -> xr.DataArray:
        """Annular dark field; without arguments the image that the store has.

        Parameters
        ----------
        inner : float, optional
            In pixels; default where the stored dark field starts.
        outer : float, optional
            In pixels; default the edge of the detector.
        center : (float, float), optional
            As for `disk_mask`.
        """
        stored = self._stored("annular_dark_field", whole=2)
        if inner is None and outer is None and center is None and stored is not None:
            return stored
        mask = ~self.disk_mask(self._radius("inner", inner), center)
        if outer is not None:
            mask &= self.disk_mask(outer, center)
        return self.virtual_image(mask).rename("annular_dark_field")

    def _radius(self, name: str, value: float | None) -> float:
        if value is not None:
            return value
        if name not in self._known:
            raise ConfigurationError(
                f"the dataset does not say how large the bright-field disk is; give {name}= in pixels"
            )
        return self._known[name]

    def center_of_mass(self, mask: Any = None) -> xr.Dataset:
        """Centre of mass of every pattern, in detector pixels.

        Parameters
        ----------
        mask : array of shape (det_y, det_x), optional
            Weights of the pixels; default all, which a store has already.

        Returns
        -------
        xarray.Dataset
            ``com_y`` and ``com_x`` per scan position; NaN where a pattern has no counts.
        """
        y, x = self._stored("com_y", whole=2), self._stored("com_x", whole=2)
        if mask is None and y is not None and x is not None:
            return xr.Dataset({"com_y": y, "com_x": x})
        weights = np.ones(self.detector_shape) if mask is None else np.asarray(mask, np.float64)
        total = self.virtual_image(weights)
        # A pattern without counts has no centre: NaN, not a division that warns.
        total = total.where(total != 0)
        rows, columns = np.indices(self.detector_shape)
        return xr.Dataset(
            {
                "com_y": self.virtual_image(weights * rows) / total,
                "com_x": self.virtual_image(weights * columns) / total,
            }
        )

    def to_hyperspy(self) -> Any:
        """The scan as a lazy HyperSpy signal with calibrated axes.

        Returns
        -------
        hyperspy.signals.Signal2D

        Raises
        ------
        ConfigurationError
            HyperSpy is not installed.
        """
        try:
            from hyperspy.signals import Signal2D
        except ImportError as error:
            raise ConfigurationError("to_hyperspy needs HyperSpy; install it with: pip install hyperspy") from error
        data = self.data
        axes = []
        for i, name in enumerate(data.dims):
            values = np.asarray(data[name]) if name in data.coords else np.arange(data.shape[i])
            axes.append(
                {
                    "name": str(name),
                    "size": data.shape[i],
                    # HyperSpy's axes are linear; the coordinates of a store are, by construction.
                    "scale": float(values[1] - values[0]) if len(values) > 1 else 1.0,
                    "offset": float(values[0]),
                    "units": data[name].attrs.get("units", "") if name in data.coords else "",
                    "navigate": i < data.ndim - 2,
                }
            )
        return Signal2D(data.data, axes=axes).as_lazy()


def _masked_sum(
    patterns: np.ndarray[Any, Any], *, weights: np.ndarray[Any, Any], dtype: np.dtype[Any]
) -> np.ndarray[Any, Any]:
    """Weighted sum over the last two dimensions without marked values, one pattern at a time to stay small."""
    flat = patterns.reshape(-1, *patterns.shape[-2:])
    out = np.empty(len(flat), dtype)
    for i, pattern in enumerate(flat):
        marks = find_marks(pattern)
        if weights.dtype == bool:
            out[i] = pattern.sum(dtype=dtype, where=weights if marks is None else weights & ~marks)
        else:
            values = pattern if marks is None else np.where(marks, pattern.dtype.type(0), pattern)
            out[i] = np.vdot(values.astype(np.float64), weights)
    return out.reshape(patterns.shape[:-2])
