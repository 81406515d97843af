"""Distributions with entry points, as pip would have installed them: a folder for sys.path, without pip."""

from pathlib import Path

DECIDER = """
from cluster.consolidate.fold import Verdict

class Decider:
    def decide(self, questions):
        return [Verdict("ignore") for question in questions]
"""


def install(
    site: Path, groups: dict[str, dict[str, str]], sources: dict[str, str], name: str = "mine", version="1.2"
) -> Path:
    """Put modules (path -> source) and the metadata of a distribution into a folder.

    `groups` has entry points: group -> name -> "module:object".
    """
    for path, source in sources.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(source, encoding="utf-8")
    metadata = site / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{entry} = {value}" for entry, value in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site
