"""Small archives, an encoder and an embedder that follow a script, for the tests of a backfill's stages.

Stand-ins: a tokenizer whose tokens are words, and the models. What the stages stage, reuse, reject and redact
is the real thing.
"""

import datetime as dt
import re

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.backfill.archive import inspect_file, list_files, plan_units
from cluster.backfill.cut_stage import NOTHING_FORGOTTEN, cut_unit
from cluster.backfill.encode_stage import EncodeStage
from cluster.backfill.encoder import Encoding
from cluster.backfill.ledger import Ledger
from cluster.backfill.staged import encoded_folder, plan_path
from schemas.archive import ARCHIVE_SCHEMA
from schemas.profiles.embedder import EmbedderProfile
from schemas.profiles.encoder import EncoderProfile

PROFILE = EncoderProfile(
    name="scripted",
    base="none",
    base_hash="0" * 16,
    system_prompt="Remember.",
    user_template="{previous}\n{current}",
    max_turns=2,
    max_current_tokens=16,
    max_context_tokens=4,
)
EMBEDDER = EmbedderProfile(name="scripted", model="none", model_hash="0" * 16)
ENCODER = PROFILE.fingerprint

# Put together from pieces, so that scanners of this repository have nothing to report.
PASSWORD = "hunter" + "2!"
TOKEN = "ghp_" + "a1B2" * 9
CARD = "4111" + " 1111" * 3
PEM = "\n".join(
    ["-----BEGIN RSA " + "PRIVATE KEY-----", "MIIEow" + "A1b+" * 14, "-----END RSA PRIVATE KEY-----"]
)
SECRETS = [PASSWORD, TOKEN, CARD, "MIIEow"]


def word_offsets(texts):
    return [[match.span() for match in re.finditer(r"\S+", text)] for text in texts]


def session(number, num_turns=4, **changes):
    return {
        "user_id": "user",
        "conversation_id": None,
        "session_id": f"session{number}",
        "session_time": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "turns": [turn(f"Turn {index} of session {number}") for index in range(num_turns)],
    } | changes


def turn(content, role="user"):
    return {"role": role, "content": content, "speaker": None, "time": None}


def cut(
    tmp_path,
    files,
    rows,
    ledger=None,
    batch_size=3,
    forgotten=NOTHING_FORGOTTEN,
    mask_contacts=False,
    redaction_rules=(),
    profile=PROFILE,
    **options,
):
    """Cut an archive of these rows; the results of its row groups."""
    archive = tmp_path / "archive"
    archive.mkdir(exist_ok=True)
    schema = pa.schema([pa.field(field.name, field.type) for field in ARCHIVE_SCHEMA])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), archive / "a.parquet", **options)
    inspected = [inspect_file(str(archive), path) for path in list_files(str(archive))]
    return [
        cut_unit(
            unit,
            archive=str(archive),
            profile=profile,
            ledger=ledger or ledger_of([]),
            batch_size=batch_size,
            files=files,
            forgotten=forgotten,
            mask_contacts=mask_contacts,
            redaction_rules=redaction_rules,
        )
        for unit in plan_units(inspected)
    ]


def planned(files, results):
    """Staged segments, in the order of the batches."""
    batches = [batch.batch_id for result in results for batch in result.batches]
    return [row for batch_id in batches for row in files.get_table(plan_path(batch_id)).to_pylist()]


def ledger_of(segments, outcome="complete", written_by=ENCODER, **filters):
    names = ("user_id", "session_id", "segment_id", "encoder", "outcome")
    rows = [row | {"encoder": written_by, "outcome": outcome} for row in segments]
    return Ledger.of(
        pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in names}), **filters
    )


class ScriptedEncoder:
    """Stand-in for cluster.backfill.encoder.Encoder: answers one record a segment; `poison` texts make it
    fail.

    With `error` a BaseException, the process dies on them.
    """

    def __init__(self, poison=(), error=ValueError):
        self.poison, self.error, self.calls, self.num_loads, self.load_s = set(poison), error, [], 0, 0.5

    def load(self, profile, **engine):
        self.num_loads += 1
        return self

    def encode(self, segments):
        self.calls.append([segment["segment_id"] for segment in segments])
        if self.poison & {segment["segment_id"] for segment in segments}:
            raise self.error("poisoned")
        return [encoding(segment) for segment in segments]


def encoding(segment):
    text = f"The user said {segment['current'][0]['text']}"
    record = {
        "record_id": segment["segment_id"][::-1],
        "memory_type": "fact",
        "semantic_text": text,
        "entities": [],
        "temporal": {"t_ref": "2026-01-02", "t_valid_from": "", "t_valid_to": ""},
        "tags": [],
        "evidence_turns": [segment["first_turn"]],
        "source_role": "user",
    }
    return Encoding(records=[record], num_calls=1, prompt_tokens=10, cached_tokens=4, output_tokens=5)


def segment_ids(files, batch):
    return files.get_table(plan_path(batch.batch_id)).column("segment_id").to_pylist()


def actor(files, attempt="attempt1", paid=None):
    return EncodeStage(PROFILE, files, attempt, paid or {}, {"max_num_seqs": 2})


def encoded_paths(files, batch):
    return files.paths(encoded_folder(ENCODER, batch.batch_id))


def encoded(files, batch):
    (path,) = encoded_paths(files, batch)
    return files.get_table(path).to_pylist()


def outcomes(files, batch):
    return {
        row["segment_id"]: [rejection["reason"] for rejection in row["rejections"]] or row["outcome"]
        for row in encoded(files, batch)
    }


class ScriptedEmbedder:
    """Stand-in for cluster.embed.embedder.Embedder: two numbers that tell texts apart."""

    def __init__(self):
        self.texts, self.num_loads, self.load_s, self.dim = [], 0, 0.25, 2

    def load(self, profile):
        self.num_loads += 1
        return self

    def embed(self, texts):
        self.texts += texts
        return [[float(len(text)), float(sum(map(ord, text)) % 97)] for text in texts]


def table(files, name, row):
    """A staged table that the result of the embed stage names."""
    path = row.tables.get(name)
    return files.get_table(path) if path else None
