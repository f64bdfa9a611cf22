"""Tiny integer networks, fitted to a scan."""
