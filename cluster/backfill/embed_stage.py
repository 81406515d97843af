"""The embedding of answers: rows of the store's tables, with vectors, as the commit takes them."""

import time
import traceback
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from cluster.backfill.table_rows import ledger_row, record_row, segment_rejections, turn_row
from cluster.embed.embedder import TEXTS, Embedder
from cluster.embed.turn_embedder import turn_embedder
from cluster.store.files import Files
from cluster.store.staging import Sealed, known_columns
from schemas.profiles.embedder import EmbedderProfile
from schemas.stage_items import EmbeddedBatch, EncodedBatch
from schemas.store import REJECTIONS_SCHEMA, SEGMENTS_SCHEMA, records_schema, turns_schema

_EMBEDDED = ("num_records", "num_turns", "num_rejections")


class EmbedStage:
    """Actor: answers of a batch -> rows of the store's tables, with vectors, without the run's columns.

    They lie in tables/ENCODER-EMBEDDER/HASH/, where HASH is of the answers: of others, there are others.
    """

    def __init__(self, encoder: str, profile: EmbedderProfile, files: Files):
        self._files, self._profile = files, profile
        self._row_tables = turn_embedder(profile).row_tables
        self._sealed = Sealed(files, f"tables/{encoder}-{profile.fingerprint}")
        self._embedder: Embedder | None = None
        self._load_s = 0.0

    def __call__(self, batch: EncodedBatch) -> EmbeddedBatch:
        started_s, self._load_s = time.monotonic(), 0.0
        done = EmbeddedBatch(**vars(batch))
        if not batch.failure:
            try:
                done = self._embedded(done)
            except Exception as error:
                traceback.print_exc()
                done = replace(done, failure=f"it cannot embed: {type(error).__name__}: {error}")
        embed_s = time.monotonic() - started_s - self._load_s
        return replace(done, embed_load_s=self._load_s, embed_s=embed_s)

    def _embedded(self, batch: EmbeddedBatch) -> EmbeddedBatch:
        """With what it gave for the tables, staged now or before."""
        key = Path(batch.encoded).stem.rpartition("-")[2]
        sealed = self._sealed.find(key)
        if sealed is None:
            if self._embedder is None:
                self._embedder = Embedder(self._profile)
                self._load_s = self._embedder.load_s
            segments = self._files.get_table(batch.encoded).to_pylist()
            tables = self._tables(segments, self._embedder)
            counts = {name: tables[name.removeprefix("num_")].num_rows for name in _EMBEDDED}
            # What a gate refused is kept beside them, but it is no failure.
            counts["num_rejections"] = sum(len(segment["rejections"]) for segment in segments)
            sealed = self._sealed.put(key, tables, dim=self._embedder.dim, **counts)
        return replace(batch, users=tuple(self._users(**sealed["tables"])), **sealed)

    def _users(self, turns: str | None = None, **_: str) -> list[str]:
        """Users of whom a later stage embeds turns, all of a user's together."""
        if turns is None or "turns" in self._row_tables:
            return []
        return self._files.get_table(turns, columns=["user_id"]).column("user_id").unique().to_pylist()

    def _tables(self, segments: list[dict], embedder: Embedder) -> dict[str, pa.Table]:
        """Rows of `encoded_schema()` -> those columns of the store's tables that they give."""
        rows = {
            "turns": [turn_row(segment, turn) for segment in segments for turn in segment["turns"]],
            "records": [record_row(segment, record) for segment in segments for record in segment["records"]],
        }
        embedded = [(row, TEXTS[name](row)) for name in self._row_tables for row in rows[name]]
        vectors = embedder.embed([text for _, text in embedded])
        for (row, _), vector in zip(embedded, vectors, strict=True):
            row["vector"] = vector
        dim = embedder.dim
        return {
            "turns": known_columns(rows["turns"], turns_schema(dim)),
            "records": known_columns(rows["records"], records_schema(dim)),
            "rejections": known_columns(
                [row for segment in segments for row in segment_rejections(segment)], REJECTIONS_SCHEMA
            ),
            "segments": known_columns([ledger_row(segment) for segment in segments], SEGMENTS_SCHEMA),
        }
