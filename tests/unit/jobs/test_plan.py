"""What a backfill commits of its batches."""

import json

from cluster.files import Files
from cluster.stages import segment_rejections
from cluster.store import Store
from jobs.plan import staged_tables
from schemas.store import REJECTIONS_SCHEMA, RUNS_SCHEMA


def test_a_rejection_that_is_retried_in_vain_stands_once(tmp_path):
    """Regression: each --retry-rejected added it again."""
    store = Store(str(tmp_path / "store"), must_exist=False)
    segment = {"segment_id": "5e9", "user_id": "ann", "session_id": "s1"}
    segment["rejections"] = [{"reason": "invalid_answer", "turns": [0], "raw": "{"}]
    for run_id in ("run1", "run2"):
        path = f"{run_id}.parquet"
        known = [name for name in REJECTIONS_SCHEMA.names if name in segment_rejections(segment)[0]]
        schema = REJECTIONS_SCHEMA.empty_table().select(known).schema
        Files(store.uri, "staging").put_rows(path, segment_rejections(segment), schema)
        inserts, replaces = staged_tables([{"tables": json.dumps({"rejections": path})}])
        run = dict.fromkeys(RUNS_SCHEMA.names, "") | {"run_id": run_id, "job": "backfill"}
        run |= {"started_at": "2026-01-02T03:04:05+00:00", "config": "{}", "summary": "{}"}
        store.commit(run, 4, inserts=inserts, replaces=replaces)
    (row,) = store.rows("rejections", ["rejection_id", "run_id"]).to_pylist()
    assert row["run_id"] == "run2"


def test_rows_of_all_batches_are_committed():
    done = [{"tables": json.dumps({"turns": f"t{number}", "segments": f"s{number}"})} for number in (1, 2)]
    assert staged_tables(done) == ({"turns": ["t1", "t2"], "segments": ["s1", "s2"]}, {"rejections": []})
