"""From candidate examples to a training set: share of empty answers, split by user, files, data card."""

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.runtime import hide_secrets
from cluster.store.files import put_below
from jobs.common.markdown import render
from jobs.distill.config import DistillConfig
from jobs.distill.identity import deidentified
from schemas.profiles.model import ModelProfile
from schemas.training import (
    EVOLVABLE_COLUMNS,
    EVOLVABLE_SCHEMA,
    MESSAGE_TYPE,
    PROFILE_FILE,
    REJECTED_SCHEMA,
    TRAINING_SCHEMA,
    hash_rows,
)

if TYPE_CHECKING:
    import polars as pl
    from transformers import PreTrainedTokenizerBase

QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
LENGTHS = ("prompt_chars", "prompt_tokens", "completion_chars", "completion_tokens")
DESCRIBED = pa.schema(
    [
        *(("user_id", pa.string()), ("session_id", pa.string()), ("label", pa.string())),
        *(
            ("messages", pa.list_(MESSAGE_TYPE)),
            ("completion", pa.string()),
            ("kinds", pa.list_(pa.string())),
        ),
        *(("prompt_tokens", pa.int64()), ("completion_tokens", pa.int64())),
    ]
)
"""Columns of the examples of any task that the card counts."""


@dataclass
class Candidates:
    """What a task found, before it is a set. `examples` are rows of the task's schema, with `prompt_tokens`,
    `completion_tokens` and `kinds` (memory types or the like, for the card) besides."""

    examples: list[dict] = field(default_factory=list)
    rejected: list[dict] = field(default_factory=list)
    """Rows of REJECTED_SCHEMA."""
    left_out: Counter = field(default_factory=Counter)
    """What never became a candidate, by reason."""
    coverage: dict = field(default_factory=dict)
    """What of the source the set rests on, for the card."""
    num_left: int = 0
    """Requests that a cap or a failure left open."""
    sources: dict = field(default_factory=dict)
    """Who made and who judged it, for the card."""

    def add(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        task: str,
        source: dict,
        messages: list[dict],
        completion: str,
        label: str,
        origin: str,
        kinds: list[str],
    ) -> None:
        """Append an example without current turns; `source` has source_id, user_id and session_id."""
        shown = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        lengths = [
            len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (shown, completion)
        ]
        self.examples.append(
            source
            | {"task": task, "messages": messages, "completion": completion, "num_turns": 0, "label": label}
            | {"origin": origin, "kinds": kinds}
            | dict(zip(("prompt_tokens", "completion_tokens"), lengths, strict=True))
        )


def draw(value: str, seed: int) -> float:
    """A number in [0, 1) that only the value and the seed decide."""
    digest = hashlib.sha256(f"{seed}\0{value}".encode()).digest()
    return int.from_bytes(digest[:7]) / (1 << 56)


def split(found: Candidates, config: DistillConfig) -> dict[str, list[dict]]:
    """train and validation, each in an order by hash; what is over the share of empty answers, of single
    records, or of decisions that change nothing, is rejected."""
    parts: dict[str, list[dict]] = {"train": [], "validation": []}
    draws = {user_id: draw(user_id, config.seed) for user_id in {row["user_id"] for row in found.examples}}
    share = config.validation_fraction
    if share and len(draws) > 1:
        # Of a few users none may fall below the share, and without validation nothing can be trained.
        share = max(share, math.nextafter(min(draws.values()), 1))
    for example in found.examples:
        parts["validation" if draws[example["user_id"]] < share else "train"].append(example)
    for name, examples in parts.items():
        examples.sort(key=lambda example: draw(example["source_id"] + example["completion"], config.seed))
        for label, setting, besides in SHARES:
            examples = capped(examples, label, setting, config, found, besides)
        parts[name] = examples
    return parts


SHARES = (
    ("record", "max_single_fraction", "empty"),
    ("empty", "max_empty_fraction", None),
    ("ignore", "max_ignore_fraction", None),
)
"""Labels of examples, the setting that caps their share, and the label that does not count for it."""


def capped(
    examples: list[dict],
    label: str,
    setting: str,
    config: DistillConfig,
    found: Candidates,
    besides: str | None = None,
) -> list[dict]:
    """The examples with at most the set share of this label, the first of them; those with the label
    `besides` stay and do not count. All of them where the task has no such setting."""
    share = getattr(config, setting, None)
    if share is None:
        return examples
    num_others = sum(example["label"] not in (label, besides) for example in examples)
    num_allowed = int(num_others * share / (1 - share))
    kept, count = [], 0
    for example in examples:
        count += example["label"] == label
        if example["label"] == label and count > num_allowed:
            detail = f"{setting}={share}"
            found.rejected.append(rejection(example, example["completion"], f"{label}_over_share", detail))
        else:
            kept.append(example)
    return kept


def rejection(source: dict, candidate: str, reason: str, detail: str, scores: str | None = None) -> dict:
    """A row of REJECTED_SCHEMA; `source` has source_id, user_id and session_id."""
    ids = {name: source[name] for name in ("source_id", "user_id", "session_id")}
    return ids | {"candidate": candidate, "reason": reason, "detail": detail, "scores": scores}


def write(
    config: DistillConfig, parts: dict[str, list[dict]], found: Candidates, facts: dict
) -> tuple[dict, str]:
    """Write the folder; returns counts for the summary and the hash of the data. The card is put last."""
    if config.deidentify:
        parts = {name: [deidentified(row, config.seed) for row in rows] for name, rows in parts.items()}
        found.rejected = [deidentified(row, config.seed) for row in found.rejected]
    schema = EVOLVABLE_SCHEMA if config.task == "evolvable" else TRAINING_SCHEMA
    tables = {
        name: pa.Table.from_pylist(
            [{key: example[key] for key in schema.names} for example in examples], schema=schema
        )
        for name, examples in parts.items()
    }
    learned = EVOLVABLE_COLUMNS if config.task == "evolvable" else schema.names
    data_hash = hash_rows(table.select(learned).to_pylist() for table in tables.values())
    found.rejected.sort(key=lambda row: (row["reason"], row["source_id"], row["candidate"]))
    tables["rejected"] = pa.Table.from_pylist(found.rejected, schema=REJECTED_SCHEMA)
    for name, table in tables.items():
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        put_below(config.output, f"{name}.parquet", sink.getvalue().to_pybytes())
    for name in parts if config.jsonl else ():
        put_below(config.output, f"{name}.jsonl", chats(parts[name]).encode())
    card = {
        "task": config.task,
        "data_hash": data_hash,
        "licence": config.licence,
        "deidentified": config.deidentify,
        **found.sources,
        **facts,
        "coverage": found.coverage,
        "left_out": dict(found.left_out),
        "rejected": dict(Counter(row["reason"] for row in found.rejected).most_common()),
        "split": {"by": "user", "validation_fraction": config.validation_fraction, "seed": config.seed},
        "parts": {name: describe(examples) for name, examples in parts.items()},
    }
    put_below(config.output, "card.md", hide_secrets(card_text(card)).encode())
    whole = json.dumps(card, indent=1, ensure_ascii=False, default=str)
    put_below(config.output, "card.json", hide_secrets(whole).encode())
    summary = {
        "num_train": len(parts["train"]),
        "num_validation": len(parts["validation"]),
        "num_empty": sum(example["label"] == "empty" for part in parts.values() for example in part),
        "num_rejected": len(found.rejected),
        "num_left_out": sum(found.left_out.values()),
    }
    return summary, data_hash


def chats(examples: list[dict]) -> str:
    """JSON lines `{"messages": [...]}`, the answer last."""
    answered = [
        [*example["messages"], {"role": "assistant", "content": example["completion"]}]
        for example in examples
    ]
    return "".join(json.dumps({"messages": messages}, ensure_ascii=False) + "\n" for messages in answered)


def write_profile(config: DistillConfig, student: ModelProfile) -> None:
    """The student's profile, resolved: without adapter and hashes, which a training will decide."""
    gone = {*student.WITHOUT_ADAPTER, "adapter_mode", "base_hash", "adapter_hash"}
    put_below(config.output, PROFILE_FILE, student.model_dump_json(exclude=gone, indent=1).encode())


def describe(examples: list[dict]) -> dict:
    """Sizes and distributions of one part."""
    import polars as pl

    chars = pl.element().struct.field("content").str.len_chars()
    rows = pl.from_arrow(pa.Table.from_pylist(examples, DESCRIBED)).with_columns(
        prompt_chars=pl.col("messages").list.eval(chars).list.sum(),
        completion_chars=pl.col("completion").str.len_chars(),
    )
    return {
        "num_examples": rows.height,
        "num_users": rows["user_id"].n_unique(),
        "num_sessions": rows.n_unique(["user_id", "session_id"]),
        "labels": counts(rows["label"]),
        "kinds": counts(rows["kinds"].explode().drop_nulls()),
        **{name: quantiles(rows[name].cast(pl.Int64)) for name in LENGTHS},
    }


def counts(values: "pl.Series") -> dict[str, int]:
    """How often each value of a polars series occurs, the most frequent first."""
    found = values.to_frame("value").group_by("value", maintain_order=True).len("count")
    return dict(found.sort("count", descending=True, maintain_order=True).iter_rows())


def quantiles(values: "pl.Series") -> dict[str, int]:
    """Minimum, 5, 25, 50, 75, 95 %, maximum and sum of a polars series of integers."""
    if not len(values):
        return {}
    ordered = values.sort()
    shown = {f"p{round(q * 100)}": ordered[round(q * (len(ordered) - 1))] for q in QUANTILES}
    return shown | {"sum": ordered.sum()}


def card_text(card: dict) -> str:
    """The card in Markdown."""
    parts = card["parts"]
    sizes = [
        {"": what} | {part: values[what] for part, values in parts.items()}
        for what in ("num_examples", "num_users", "num_sessions")
    ]
    for group in ("labels", "kinds"):
        sizes += [
            {"": f"{group.removesuffix('s')} {what}"}
            | {part: values[group].get(what, 0) for part, values in parts.items()}
            for what in sorted({what for values in parts.values() for what in values[group]})
        ]
    return render(
        "distill/card.md.j2",
        task=card["task"],
        facts={name: value for name, value in card.items() if not isinstance(value, dict)},
        counted={
            title: [{"what": what, "count": count} for what, count in card[name].items()]
            for name, title in (("coverage", "Coverage"), ("left_out", "Left out"), ("rejected", "Rejected"))
        },
        sizes=sizes,
        lengths=[
            {"": f"{part} {what}"} | values[what]
            for part, values in parts.items()
            for what in LENGTHS
            if values[what]
        ],
    )
