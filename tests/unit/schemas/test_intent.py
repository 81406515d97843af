"""Intents as stores hold them: a killed writer's must be read by every later release."""

import pytest
from pydantic import ValidationError

from schemas.intent import Commit, Compact, Forget, Reembed, Rollback, read_intent

RUN = {
    "run_id": "op",
    "job": "any",
    "started_at": "2026-01-02T03:04:05+00:00",
    "encoder": "encoder-1",
    "embedder": "embedder-1",
    "embedder_profile": "{}",
    "config": "{}",
    "summary": "{}",
}

REMOVED = {"num_rows": 1, "num_rows_in_all_versions": 2, "num_rows_changed": 0, "sha256_of_keys": "e3b0c442"}

WRITTEN = {
    Commit: {
        "dim": 4,
        "turn_dim": 2,
        "inserts": {"turns": ["tables/turns/op-0.parquet"], "records": ["tables/records/op-0.parquet"]},
        "replaces": {"states": ["tables/states/op-0.parquet"]},
        "closed_segments": ["moon"],
    },
    Rollback: {"kind": "rollback", "to": "run1"},
    Reembed: {
        "kind": "reembed",
        "dim": 2,
        "turn_dim": None,
        "staged": {"turns": ["reembed/turns/0.parquet"], "states": []},
    },
    Compact: {"kind": "compact", "expired": ["run1", "run2"]},
    Forget: {
        "kind": "forget",
        "subject": {"user_id": "ann", "session_id": None, "record_id": "r1", "turns": [["s1", 0], ["s1", 2]]},
        "shown": "forgotten:073f8734",
        "remember": ["073f8734", "ecbd55b4"],
        "list": {"salt": "8a4f4e99", "secret_check": None},
        "found": {
            "removed": {"turns": REMOVED},
            "texts": ["I drink tea"],
            "ids": ["s1"],
            "touched": [["r2", 1]],
        },
        "known_traces": {"_slowwave/commit/x": "ab12"},
    },
}
"""What the release with STORE_VERSION 3 writes, but for `run` and `store_version`."""

STAGED = {
    Commit: ["tables/turns/op-0.parquet", "tables/records/op-0.parquet", "tables/states/op-0.parquet"],
    Reembed: ["reembed/turns/0.parquet"],
}


@pytest.mark.parametrize("kind", WRITTEN, ids=lambda kind: kind.__name__)
def test_each_kind_of_intent_is_read_as_it_was_written_and_written_as_it_was_read(kind):
    written = {"run": RUN, **WRITTEN[kind]}
    intent = read_intent(written | {"store_version": 3})
    assert type(intent) is kind
    assert intent.run == RUN
    assert intent.staged_paths == STAGED.get(kind, [])
    assert intent.model_dump(by_alias=True) == written


def test_what_a_forgetting_says_of_its_list_is_under_the_name_that_stores_have():
    assert read_intent({"run": RUN, **WRITTEN[Forget]}).made_with == {
        "salt": "8a4f4e99",
        "secret_check": None,
    }


def test_an_intent_does_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        read_intent({"run": RUN, **WRITTEN[Rollback]}).to = "run2"


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ({"kind": "prune", "user": "secret"}, "kind: .*'prune'"),
        ({"kind": None}, "kind: .*'None'"),
        ({"kind": "rollback", "user": "secret"}, r"rollback\.to: "),
        ({"dim": "secret"}, r"commit\.dim: "),
    ],
)
def test_an_intent_that_is_none_of_these_is_refused_by_its_field_and_without_its_content(written, named):
    with pytest.raises(ValueError, match=named) as refused:
        read_intent({"run": RUN, **written})
    assert "secret" not in str(refused.value)
