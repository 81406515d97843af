"""How much memory a piece of code takes, in a process of its own."""

import inspect
import subprocess
import sys


def peak_kib() -> int:
    """What this process has taken at most since its start."""
    # Not ru_maxrss, which begins with what the process that started this one had.
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1])


def peak_mib(code: str, *arguments: str, imports: str = "") -> tuple[int, str]:
    """(MiB that `code` takes beyond what `imports` have taken, what it printed)."""
    peak = inspect.getsource(peak_kib)
    whole = (
        f"import sys\n{imports}\n{peak}\nbefore = peak_kib()\n{code}\nprint((peak_kib() - before) >> 10)\n"
    )
    command = [sys.executable, "-c", whole, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed, _, mib = done.stdout.strip().rpartition("\n")
    return int(mib), printed
