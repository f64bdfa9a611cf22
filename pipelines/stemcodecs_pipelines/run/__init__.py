"""How blocks are run: engines, clusters, plans, reductions, and what the terminal shows of it."""
