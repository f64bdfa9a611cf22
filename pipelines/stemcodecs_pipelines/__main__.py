"""``python -m stemcodecs_pipelines``: the command."""

from stemcodecs_pipelines.cli import main

if __name__ == "__main__":
    main()
