"""The written corpus as trainings read it: where it lies, its lines, and the records that readers marked."""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

from jobs.common.cli import UsageError

CORPUS = Path(__file__).parents[1] / "sample" / "corpus"

RECORDS = CORPUS / "records.jsonl"
"""Records that the default encoder wrote and readers marked."""

GOOD, FALSE = "good", ("false", "nonsense")
"""Marks of records. What is true and yet of little use stands between them."""


MEASURED_SHARE = 0.2
"""Of the sessions of marked records, those from which the entailment model does not learn."""


@dataclass(frozen=True)
class MarkedRecord:
    """A record that an encoder wrote, and what a reader says of it."""

    text: str
    evidence: list[tuple[str, str]]
    """Role and text of each turn or sentence that it was written of."""
    label: str
    session_id: str = ""
    mean: float = 0.0
    least: float = 0.0
    """Probabilities of its tokens, where they are given."""


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def read_marked(path: str, option: str, needed: tuple[str, ...], remedy: str) -> list[MarkedRecord]:
    """Records of a file. UsageError, which names the option, where there is none, and for the first line that
    lacks what is needed."""
    if not Path(path).is_file():
        raise UsageError(f"{option} {path}: no such file")
    found = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            evidence = [(str(role), str(text)) for role, text in row["evidence"]]
            more = {"session_id": row.get("session_id", "")} | {name: row[name] for name in needed}
            found.append(MarkedRecord(row["text"], evidence, row["label"], **more))
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"{option} {path}: line {number}: {type(error).__name__}: {error}; give {remedy}"
            ) from None
    return found


def is_measured(session_id: str, share: float = MEASURED_SHARE) -> bool:
    """Whether a session of marked records is kept back: always the same ones."""
    return zlib.crc32(session_id.encode()) % 1_000 < share * 1_000
