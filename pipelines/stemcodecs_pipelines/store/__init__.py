"""One store of one scan: written, read back, verified, repaired, written out again."""
