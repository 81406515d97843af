"""How much memory a piece of code takes, in a process of its own."""

import subprocess
import sys

PEAK = """
def peak_kib():
    # Not ru_maxrss, which begins with what the process that started this one had.
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1])
"""


def peak_mib(code: str, *arguments: str, imports: str = "") -> tuple[int, str]:
    """(MiB that `code` takes beyond what `imports` have taken, what it printed)."""
    whole = (
        f"import sys\n{imports}\n{PEAK}\nbefore = peak_kib()\n{code}\nprint((peak_kib() - before) >> 10)\n"
    )
    command = [sys.executable, "-c", whole, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed, _, peak = done.stdout.strip().rpartition("\n")
    return int(peak), printed
