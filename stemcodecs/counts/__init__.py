"""The counts behind the values of a whole scan, for codecs that need to know them: one map for all chunks."""
