"""`python -m tests.e2e.impatient jobs.NAME ...` is that job, and says after a second what it waits for."""

import runpy
import sys

from cluster.runtime import resources

if __name__ == "__main__":
    resources.WAITS_EVERY_S = 1.0
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
