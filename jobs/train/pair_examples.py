"""Labelled pairs of memories: what jobs.train.pairs learns from, and chooses thresholds on.

They are written down as pairs, or told by the memories of the written corpus: what one supersedes or repeats,
and, as keeps, later ones that resemble it and replace nothing.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jobs.train.corpus import read_lines

OTHERS = ("sister", "friend Tom", "colleague", "neighbour Ayse", "son", "mother")
"""Of whom the same is said, so that it is learned that it then replaces nothing."""


@dataclass(frozen=True)
class Example:
    """A labelled pair."""

    older: str
    newer: str
    label: str
    is_sure: bool = field(default=True, compare=False)
    """Not of a keep that is one only because nothing else was written."""


@dataclass(frozen=True)
class Data:
    """What a training has."""

    train: list[Example]
    """Learned from."""
    tune: list[Example]
    """Labelled, to choose thresholds on."""
    alike: list[Example]
    """Memories of the tune people that resemble each other: keeps that nobody has labelled."""

    @property
    def num_train(self) -> dict[str, int]:
        return dict(Counter(one.label for one in self.train))


def training_examples(corpus: Path, *, num_keeps: int, other_share: float, seed: int) -> list[Example]:
    """Each pair of texts once, the surest label first."""
    written = [*labelled(corpus / "pairs"), *labelled(corpus / "people" / "train")]
    told = [one for memories in _people(corpus / "people" / "train") for one in _told(memories)]
    keeps = resembling(corpus / "people" / "train", num_keeps)
    others = _of_others([*written, *told], other_share, seed)
    found: dict[tuple[str, str], Example] = {}
    for one in (*written, *told, *keeps, *others):
        found.setdefault((one.older, one.newer), one)
    return list(found.values())


def labelled(folder: Path) -> list[Example]:
    """The labelled pairs of a folder: lines of the kind `pair`, or lines of a file of nothing else."""
    return [
        Example(line["older"], line["newer"], line["label"])
        for path in sorted(folder.glob("*.jsonl"))
        for line in read_lines(path)
        if line.get("kind", "pair") == "pair"
    ]


def _people(folder: Path) -> Iterator[list[dict]]:
    """The memories of each person of a folder, oldest first."""
    for path in sorted(folder.glob("*.jsonl")):
        memories = [
            memory | {"time": line["time"]}
            for line in read_lines(path)
            if line["kind"] == "session"
            for memory in line["memories"]
        ]
        yield sorted(memories, key=lambda memory: memory["time"])


def _ended_by(memories: list[dict]) -> dict[str, dict[str, str]]:
    """Memory id -> ids of those that supersede or repeat it -> label."""
    found: dict[str, dict[str, str]] = {memory["id"]: {} for memory in memories}
    for memory in memories:
        for older in memory.get("supersedes", []):
            found.get(older, {})[memory["id"]] = memory.get("how", "delete")
        if memory.get("same_as") in found:
            found[memory["same_as"]][memory["id"]] = "unite"
    return found


def _told(memories: list[dict]) -> Iterator[Example]:
    text = {memory["id"]: memory["text"] for memory in memories}
    for older, by in _ended_by(memories).items():
        for newer, label in by.items():
            yield Example(text[older], text[newer], label)


def resembling(folder: Path, num_keeps: int) -> list[Example]:
    """Memories of one person that resemble each other, where the later one ends nothing that is written."""
    return [one for memories in _people(folder) for one in _resembling(memories, num_keeps)]


def _resembling(memories: list[dict], num_keeps: int) -> Iterator[Example]:
    from cluster.consolidate.pair_features import likeness

    ended_by = _ended_by(memories)
    for number, older in enumerate(memories):
        ends: set[str] = set()
        open_ones = [older["id"]]
        while open_ones:
            new = ended_by.get(open_ones.pop(), {}).keys() - ends
            ends |= new
            open_ones += new
        later = [
            (likeness(older["text"], newer["text"]), place)
            for place, newer in enumerate(memories[number + 1 :], number + 1)
            if newer["time"] > older["time"] and newer["id"] not in ends
        ]
        for score, place in sorted(later, reverse=True)[:num_keeps]:
            if score > 0:
                yield Example(older["text"], memories[place]["text"], "keep", is_sure=False)


def _of_others(examples: Iterable[Example], share: float, seed: int) -> Iterator[Example]:
    rng = random.Random(seed)
    for one in examples:
        if one.label not in ("delete", "unite") or not one.newer.startswith("User "):
            continue
        if one.older.startswith("User") and rng.random() < share:
            newer = f"User's {rng.choice(OTHERS)}{one.newer.removeprefix('User')}"
            yield Example(one.older, newer, "keep")
