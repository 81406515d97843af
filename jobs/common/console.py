"""The command `slowwave`: `slowwave JOB ...` is `python -m jobs.JOB ...`, and alone it lists the jobs.

No job is imported before it is run: the list is read from the files.
"""

import ast
import difflib
import runpy
import sys
from pathlib import Path

JOBS = Path(__file__).parents[1]


def main() -> None:
    """Run the job that the first argument names. Exits 2 where there is none of that name."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(listing())
        return
    known = jobs()
    name = name.removeprefix("jobs.")
    if name not in known:
        print(f"error: {unknown(name, list(known))}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [str(known[name]), *arguments]
    runpy.run_module(f"jobs.{name}", run_name="__main__", alter_sys=True)


def jobs() -> dict[str, Path]:
    """Everything that can be run: name -> the file that says so."""
    found = {}
    for path in sorted(JOBS.rglob("*.py")):
        if 'if __name__ == "__main__":' in path.read_text("utf-8").splitlines():
            parts = path.relative_to(JOBS).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__main__" else parts)] = path
    return found


def listing() -> str:
    """Every job in one line, with what its file opens with."""
    known = jobs()
    width = max(map(len, known))
    lines = [f"  {name:{width}}  {purpose(path)}" for name, path in known.items()]
    return "\n".join(["usage: slowwave JOB [OPTIONS], the same as python -m jobs.JOB [OPTIONS]", "", *lines])


def purpose(path: Path) -> str:
    """What the first line of a job's documentation says behind the job's name."""
    said = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]
    return said.partition(": ")[2]


def unknown(name: str, known: list[str]) -> str:
    """What is wrong with a name, and which one may have been meant."""
    (nearest,) = difflib.get_close_matches(name, known, n=1, cutoff=0)
    return f"{name!r}: no such job; the nearest name is {nearest!r}, and `slowwave` lists them all"
