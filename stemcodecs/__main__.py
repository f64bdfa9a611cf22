"""``python -m stemcodecs``: the command, which belongs to the upper floor; so it is run by name and not imported."""

import runpy

if __name__ == "__main__":
    runpy.run_module("stemcodecs_pipelines", run_name="__main__", alter_sys=True)
