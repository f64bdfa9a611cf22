"""What a worker that we start does about its memory."""

from __future__ import annotations

from typing import Any

from distributed import WorkerPlugin

from stemcodecs_pipelines.run.memory import share_freed_blocks

__all__ = ["SharedBlocks"]


class SharedBlocks(WorkerPlugin):
    """Makes the threads of a worker share freed blocks, see `share_freed_blocks`."""

    name = "stemcodecs-shared-blocks"

    def setup(self, worker: Any) -> None:
        """Run in every worker when it connects."""
        share_freed_blocks()
