"""From any numeric array to 16-bit counts, and back bit by bit."""
