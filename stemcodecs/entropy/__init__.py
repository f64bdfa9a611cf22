"""The entropy coder: integer rANS kernels, histogram banks and contexts."""
