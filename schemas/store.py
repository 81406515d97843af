"""The memory store: Arrow schemas of its tables, and of the rows between the stages of a backfill.

Every data table has `run_id` (the run that wrote the row as it stands), `active`, and `closed_run_id` (the
run that replaced it): rows are closed, not deleted, so that a run can be explained and undone.
"""

import pyarrow as pa

STORE_VERSION = 4
"""Raised with every change of a schema below, or of what lies beside the tables; CHANGELOG.md says what
changed. A store of an earlier version is brought up to this one by the first job that writes it, or by
jobs.migrate; a store of a later one is refused."""

TIME = pa.timestamp("us", tz="UTC")

# --- between the stages --------------------------------------------------------------------------------

_PART = pa.struct(
    [("turn_index", pa.int32()), ("role", pa.string()), ("speaker", pa.string()), ("text", pa.string())]
)
_TURN = pa.struct(
    [
        ("turn_index", pa.int32()),
        ("role", pa.string()),
        ("content", pa.string()),
        ("speaker", pa.string()),
        ("time", TIME),
    ]
)
_KEYS = [
    ("segment_id", pa.string()),
    ("user_id", pa.string()),
    ("conversation_id", pa.string()),
    ("session_id", pa.string()),
    ("session_time", TIME),
]

SEGMENT_SCHEMA = pa.schema(
    [
        *_KEYS,
        ("first_turn", pa.int32()),
        ("last_turn", pa.int32()),
        ("start_char", pa.int64()),
        ("end_char", pa.int64()),
        ("num_tokens", pa.int32()),
        ("context", pa.list_(_PART)),
        ("current", pa.list_(_PART)),
        ("turns", pa.list_(_TURN)),
    ]
)
"""A segment as `cluster.backfill.segmenter` cuts it: from `start_char` of turn `first_turn` to `end_char`
(exclusive) of turn `last_turn`; `turns` are the turns that begin in this segment, whole."""

TEMPORAL = pa.struct([("t_ref", pa.string()), ("t_valid_from", pa.string()), ("t_valid_to", pa.string())])

EXTRA = pa.map_(pa.string(), pa.string())
"""Values of an encoder's extra fields by name, see schemas.record.ExtraField. Null where there are none."""

_RECORD = [
    ("record_id", pa.string()),
    ("memory_type", pa.string()),
    ("semantic_text", pa.string()),
    ("entities", pa.list_(pa.string())),
    ("temporal", TEMPORAL),
    ("tags", pa.list_(pa.string())),
    ("evidence_turns", pa.list_(pa.int32())),
    ("source_role", pa.string()),
    ("extra", EXTRA),
]
RECORD_TYPE = pa.struct(_RECORD[1:])
"""A record as the encoder gave it, in the order of schemas.record.EncodedRecord."""

_REJECTION = pa.struct([("reason", pa.string()), ("turns", pa.list_(pa.int32())), ("raw", pa.string())])


def encoded_schema(dim: int | None = None) -> pa.Schema:
    """A segment with its answer; with `dim` given, also with the vectors of its records and turns."""
    vector = [("vector", pa.list_(pa.float32(), dim))] if dim else []
    return pa.schema(
        [
            *_KEYS,
            ("first_turn", pa.int32()),
            ("last_turn", pa.int32()),
            ("start_char", pa.int64()),
            ("end_char", pa.int64()),
            ("outcome", pa.string()),
            ("num_calls", pa.int32()),
            ("prompt_tokens", pa.int32()),
            ("cached_tokens", pa.int32()),
            ("output_tokens", pa.int32()),
            ("turns", pa.list_(pa.struct([*[(f.name, f.type) for f in _TURN], *vector]))),
            ("records", pa.list_(pa.struct([*_RECORD, *vector]))),
            ("rejections", pa.list_(_REJECTION)),
            ("refusals", pa.list_(_REJECTION)),
        ]
    )


# --- tables of the store -------------------------------------------------------------------------------

EVIDENCE = pa.struct([("session_id", pa.string()), ("turn_index", pa.int32())])

_LIFE = [("active", pa.bool_()), ("run_id", pa.string()), ("closed_run_id", pa.string())]


def records_schema(dim: int) -> pa.Schema:
    """Memory records. Key: `record_id` (identity of a memory) and `revision`.

    `decision_id` names the decision that made this revision, null where the encoder made it. `closed_reason`
    of a closed row: `segment_replaced`, `edited`, or the action of the decision that closed it.
    """
    return pa.schema(
        [
            ("record_id", pa.string()),
            ("revision", pa.int32()),
            *_KEYS,
            ("memory_type", pa.string()),
            ("semantic_text", pa.string()),
            ("normalized_text", pa.string()),
            ("entities", pa.list_(pa.string())),
            ("temporal", TEMPORAL),
            ("tags", pa.list_(pa.string())),
            ("evidence", pa.list_(EVIDENCE)),
            ("source_role", pa.string()),
            ("created_at", TIME),
            ("updated_at", TIME),
            ("encoder", pa.string()),
            ("embedder", pa.string()),
            ("decision_id", pa.string()),
            ("closed_reason", pa.string()),
            *_LIFE,
            ("vector", pa.list_(pa.float32(), dim)),
            ("extra", EXTRA),
        ]
    )


def turns_schema(dim: int) -> pa.Schema:
    """Raw turns, redacted. Key: `turn_id`.

    `vector` is null where an evolvable embedder has no vector of the turn (yet).
    """
    return pa.schema(
        [
            ("turn_id", pa.string()),
            *_KEYS,
            ("turn_index", pa.int32()),
            ("role", pa.string()),
            ("speaker", pa.string()),
            ("time", TIME),
            ("content", pa.string()),
            ("embedder", pa.string()),
            *_LIFE,
            ("vector", pa.list_(pa.float32(), dim)),
        ]
    )


SEGMENTS_SCHEMA = pa.schema(
    [
        *_KEYS,
        ("first_turn", pa.int32()),
        ("last_turn", pa.int32()),
        ("start_char", pa.int64()),
        ("end_char", pa.int64()),
        ("outcome", pa.string()),
        ("num_records", pa.int32()),
        ("num_calls", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("cached_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("encoder", pa.string()),
        *_LIFE,
    ]
)
"""The ledger: which segment was paid for, by which encoder, with what outcome. Key: `segment_id`. `outcome`:
complete | split | partial | rejected | skipped, as encoded, or what a rollback made of it."""

ROLLED_BACK = "rolled_back"
"""Outcome of a segment that a rollback took out: it stays known, so that no nightly run brings it back."""

RESTORED = "restored"
"""Outcome of a segment that a rollback brought back: it stays, although the archive no longer has it."""

BY_HAND = "hand"
"""`encoder` of revisions that a person made, of whom jobs.edit is the tool: no encoder writes over them. Also
the `decider` of the decisions that say so, and the `outcome` of segments that stand for what was added."""

REJECTIONS_SCHEMA = pa.schema(
    [
        ("rejection_id", pa.string()),
        ("stage", pa.string()),
        ("source", pa.string()),
        ("user_id", pa.string()),
        ("session_id", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw", pa.string()),
        ("run_id", pa.string()),
    ]
)
"""Bad rows with their reason. Key: `rejection_id`, a hash of source and content: one rejection per bad row,
however often it is read. `source` is `file:row` of the archive, the segment's id, or `user:ID` where an
evolvable embedder could not read a user's turns."""

DECISIONS_SCHEMA = pa.schema(
    [
        ("decision_id", pa.string()),
        ("user_id", pa.string()),
        ("target_id", pa.string()),
        ("target_revision", pa.int32()),
        ("source_ids", pa.list_(pa.string())),
        ("source_revisions", pa.list_(pa.int32())),
        ("decider", pa.string()),
        ("model", pa.string()),
        ("prompt", pa.string()),
        ("action", pa.string()),
        ("text", pa.string()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("raw", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("cached_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("decided_at", TIME),
        ("run_id", pa.string()),
    ]
)
"""Update decisions, the ledger of consolidation. Key: `decision_id`, a hash of what was asked (texts and
dates of target and sources) and of the decider's fingerprint (`decider`): no decision is asked for twice.
`model` and `prompt` (a fingerprint) say what that decider was, null where no model was asked.
`action`: update | delete | ignore | unite; of an edit by hand see schemas.edit. `outcome`: applied |
refused (a guard said no, `reason` says which) | failed."""

RUNS_SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("job", pa.string()),
        ("started_at", TIME),
        ("finished_at", TIME),
        ("encoder", pa.string()),
        ("embedder", pa.string()),
        ("embedder_profile", pa.string()),
        ("versions", pa.string()),
        ("config", pa.string()),
        ("summary", pa.string()),
        ("sequence", pa.int64()),
    ]
)
"""Finished runs. `versions` (JSON: table -> version) is the store's view as of the run, `sequence` its place:
the number of the head that made it visible, which no clock can change."""

STATES_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("num_turns", pa.int32()),
        ("hashes", pa.binary()),
        ("open_ids", pa.list_(pa.list_(pa.int32()))),
        ("hidden_size", pa.int32()),
        ("latents", pa.list_(pa.float32())),
        ("embedder", pa.string()),
        ("run_id", pa.string()),
    ]
)
"""Memories of an evolvable embedder, one a user, see cluster.evolvable.state; no rows with other embedders.
Key: `user_id`. `num_turns` counts exchanges; 0 where a user's turns could not be read."""

TABLE_KEYS = {
    "segments": ["segment_id"],
    "rejections": ["rejection_id"],
    "decisions": ["decision_id"],
    "states": ["user_id"],
    "turns": ["turn_id"],
    "records": ["record_id", "revision"],
}
"""Data tables in the order in which a run is published (records last: they are what readers look at)."""


def table_schemas(dim: int, turn_dim: int | None = None) -> dict[str, pa.Schema]:
    """Schemas of the data tables for vectors of `dim` numbers; those of turns of `turn_dim`, if given."""
    return {
        "segments": SEGMENTS_SCHEMA,
        "rejections": REJECTIONS_SCHEMA,
        "decisions": DECISIONS_SCHEMA,
        "states": STATES_SCHEMA,
        "turns": turns_schema(turn_dim or dim),
        "records": records_schema(dim),
    }
