"""Whole scans: Dask graphs over the chunk codecs, and the command line."""
