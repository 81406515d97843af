"""Work in progress, from which somebody was erased: the rest of it is never taken for the whole."""

import pyarrow as pa

from cluster.forget.rules import Subject
from cluster.forget.scrub import clean_staging
from cluster.store.files import Files
from cluster.store.staging import Sealed


def test_what_was_staged_with_somebody_who_is_erased_is_made_again(tmp_path):
    files = Files(str(tmp_path), "staging")
    sealed = Sealed(files, "reembed/e")
    rows = pa.table({"user_id": ["ann", "bob"], "text": ["of ann", "of bob"]})
    for key, table in (("both", rows), ("bob", rows.slice(1)), ("ann", rows.slice(0, 1))):
        sealed.put(key, {"turns": table})
    files.put("reembed/e/cut.parquet", b"PAR1 of ann, cut off")
    files.put("attempts/run/batch", b"")
    assert clean_staging(files, Subject("ann")) == 3
    assert [key for key in ("both", "bob", "ann") if sealed.find(key)] == ["bob"]
    tables = [files.get_table(path) for path in files.paths() if path.endswith(".parquet")]
    assert [table.column("user_id").to_pylist() for table in tables] == [["bob"], ["bob"]]
    assert files.exists("attempts/run/batch")
