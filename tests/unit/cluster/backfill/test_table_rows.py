"""Rows of the store's tables: rejections show no secret, and ids tell users apart."""

import pyarrow as pa
import pytest

from cluster.backfill.archive import BadRow
from cluster.backfill.embed_stage import EmbedStage
from cluster.backfill.table_rows import MAX_RAW_CHARS, rejection_row
from schemas.store import REJECTIONS_SCHEMA
from tests.unit.cluster.backfill.scripted import (
    CARD,
    EMBEDDER,
    ENCODER,
    TOKEN,
    actor,
    cut,
    session,
    table,
    turn,
)


@pytest.mark.parametrize("escape", ["\n", "\t", "\r\n", "\u00a0", "\u200b", "\u3000", "\x0b"])
def test_white_space_before_a_secret_does_not_hide_it_in_a_rejection(escape):
    r"""Regression: in a repr a line break is `\n`, whose n glued to the secret, which then was no word."""
    raw = repr({"content": f"look{escape}{TOKEN}{escape}{CARD}"})
    row = rejection_row(BadRow("a.parquet:1", "invalid_session", f"turns[0]={raw}", raw=raw))
    for name in ("raw", "detail"):
        assert TOKEN not in row[name]
        assert CARD not in row[name]
        assert "look" in row[name]


def test_a_rejection_is_the_same_however_often_it_is_read():
    one = BadRow("a.parquet:1", "invalid_session", "turns=[]", raw="{}")
    assert rejection_row(one) == rejection_row(one)
    others = [
        BadRow("a.parquet:2", "invalid_session", "turns=[]", raw="{}"),
        BadRow("a.parquet:1", "broken_text", "turns=[]", raw="{}"),
        BadRow("a.parquet:1", "invalid_session", "turns=[]", raw="{1}"),
    ]
    assert len({rejection_row(row)["rejection_id"] for row in [one, *others]}) == 4


def test_long_and_unencodable_raw_text_is_kept_in_part():
    row = rejection_row(BadRow("a.parquet:1", "invalid_session", "bad", raw="a \ud800 " * 50_000))
    assert len(row["raw"]) == MAX_RAW_CHARS
    pa.Table.from_pylist([row], schema=pa.schema([field for field in REJECTIONS_SCHEMA if field.name in row]))


def test_users_whose_ids_hold_nul_share_no_id(tmp_path, files, encoder, embedder):
    """Regression: "a" with "b NUL c" and "a NUL b" with "c" had one turn between them."""
    pairs = [("a", "b\0c"), ("a\0b", "c")]
    rows = [session(0, user_id=user_id, session_id=session_id) for user_id, session_id in pairs]
    (result,) = cut(tmp_path, files, rows, batch_size=4)
    done = EmbedStage(ENCODER, EMBEDDER, files)(actor(files)(result.batches[0]))
    assert len({row["turn_id"] for row in table(files, "turns", done).to_pylist()}) == 8


def test_an_edited_turn_keeps_its_id(tmp_path, files, encoder, embedder):
    ids = []
    for text in ("first wording", "second wording"):
        (result,) = cut(tmp_path, files, [session(0, turns=[turn(text)])])
        (batch,) = result.batches
        done = EmbedStage(ENCODER, EMBEDDER, files)(actor(files)(batch))
        (row,) = table(files, "turns", done).to_pylist()
        ids.append((row["turn_id"], row["content"]))
    assert ids[0][0] == ids[1][0]
    assert ids[0][1] != ids[1][1]
