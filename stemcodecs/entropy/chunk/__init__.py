"""One chunk: array in, bytes out, and back, whole or in part."""
