"""Tables in LanceDB: their indexes, versions and tags, and full text. The only module that knows lancedb.

What changes a table says how often: `alone` once, `settled` without a change of its rows. Whoever finds that
another writer was at it meanwhile raises Overtaken, and its work is begun anew (see cluster.store.writer).
"""

import contextlib
import dataclasses
import datetime as dt
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import lancedb
import pyarrow as pa
from lancedb.index import FTS, BTree
from lancedb.query import BooleanQuery, MatchQuery, Occur

from cluster.runtime import StageError
from cluster.store.clients import lance_options
from cluster.store.sql import MAX_IN
from schemas.store import TABLE_KEYS

Database: TypeAlias = lancedb.DBConnection
Table: TypeAlias = lancedb.table.Table

_STOP_WORDS = """a an and are as at be but by did do does for from had has have he her his i if in into is
    it its me my no not of on or our she so that the their them then there these they this to was we were
    what when where which who will with you your"""

STOP_WORDS = _STOP_WORDS.split()
"""English words that full text leaves out. The index's own list has words of other languages in it, such as
the Japanese for teacher."""

WORDS = FTS(base_tokenizer="icu/split", custom_stop_words=STOP_WORDS)
"""Full text of every script: Chinese, Japanese and Thai are cut into words by ICU's dictionaries, identifiers
at their punctuation. English is stemmed; what other languages put behind a word, the query allows for."""

INDEXES = {
    "segments": {"segment_id": BTree()},
    "rejections": {},
    "decisions": {"target_id": BTree()},
    "states": {},
    "turns": {"user_id": BTree(), "content": WORDS},
    "records": {"user_id": BTree(), "semantic_text": WORDS},
    "runs": {},
}

KEEP_UNNAMED = dt.timedelta(days=7)
"""How long versions stay that are no run's: a reader may have just opened one with plain lancedb."""


class Overtaken(Exception):
    """Another writer changed a table between two steps of this one."""


def broke_off(error: Exception) -> bool:
    """Whether a server's answer ended in its middle: where it is a list, Lance does not ask for it again."""
    return isinstance(error, RuntimeError | OSError | StageError) and "response body" in str(error)


def connect(uri: str) -> Database:
    return lancedb.connect(uri, storage_options=lance_options(uri) or None)


def text_column(name: str) -> str:
    """The column of a table that has full text."""
    return next(column for column, index in INDEXES[name].items() if isinstance(index, FTS))


# --- changes and versions -------------------------------------------------------------------------------


@contextlib.contextmanager
def alone(table: Table) -> Iterator[None]:
    """One change of a table that stands at its newest version. Overtaken when it was not the only one."""
    before = table.version
    yield
    if table.version != before + 1:
        raise Overtaken(f"table {table.name!r}, version {before + 1}")


@contextlib.contextmanager
def settled(table: Table) -> Iterator[None]:
    """Any number of changes that leave the rows as they are. Overtaken when another one changed them."""
    before = table.version
    yield
    dataset = table.to_lance()
    for version in range(before + 1, table.version + 1):
        if _operation(dataset, version) in CHANGES:
            raise Overtaken(f"table {table.name!r}, version {version}")


CHANGES = {"Append", "DataReplacement", "Delete", "Merge", "Overwrite", "Project", "Restore", "Update"}
"""Operations of Lance behind which a table has other rows or columns."""


def _operation(dataset: Any, version: int) -> str:
    try:
        return type(dataset.read_transaction(version).operation).__name__
    except TypeError:
        # pylance 14 cannot show a compaction that moved an index, and shows all others.
        return "Rewrite"


def make_indexes(table: Table, name: str) -> None:
    """Index what has no index yet, or one that cuts text into other words than this release does."""
    indexes = table.list_indices()
    for column, config in INDEXES[name].items():
        existing = [index for index in indexes if column in index.columns]
        if not existing or not all(_is_made_so(index, config) for index in existing):
            table.create_index(column, config=config, replace=bool(existing))


def _is_made_so(index: Any, config: object) -> bool:
    """Whether an index that is there has these settings, as far as it says."""
    if not isinstance(config, FTS):
        return True
    said, wanted = index.index_details or {}, dataclasses.asdict(config)
    known = said.keys() & wanted.keys()
    return bool(known) and all(said[name] == wanted[name] for name in known)


def bring_up(table: Table, name: str, schema: pa.Schema) -> None:
    """Bring a table of an earlier release, or a version of one, up to this release: columns that it lacks,
    one row of each key, full text that is cut into words as the query is. Leaves a table of this release as
    it is."""
    with settled(table):
        make_indexes(table, name)
    known = set(table.schema.names)
    if missing := [field for field in schema if field.name not in known]:
        with alone(table):
            table.add_columns(pa.schema(missing))
    _drop_repeats(table, name)


def settle(table: Table, name: str) -> None:
    """Index a table's new rows, and join its small files as they become many, which leaves the rows as they
    are. What a night costs and leaves grows with its own rows, not with the table's: see `num_to_join`."""
    with settled(table):
        make_indexes(table, name)
        dataset = table.to_lance()
        fragments = [fragment.metadata for fragment in dataset.get_fragments()]
        num_older = len(fragments) - num_to_join([one.num_rows for one in fragments])
        stay = [one.id for one in fragments[:num_older] if one.num_deletions <= one.num_rows]
        if len(stay) < len(fragments):
            dataset.optimize.compact_files(excluded_fragment_ids=stay)
        for index in {one["name"] for one in dataset.list_indices()}:
            _index_new_rows(dataset, index)
        table.checkout_latest()


def _index_new_rows(dataset: Any, index: str) -> None:
    """Give the rows that an index lacks a part of their own in it, or join that with its last parts."""
    found = dataset.stats.index_stats(index)
    if new := found["num_unindexed_rows"]:
        num = num_to_join([*found["num_indexed_rows_per_delta"], new])
        dataset.optimize.optimize_indices(index_names=[index], num_indices_to_merge=max(0, num - 1))


MAX_PARTS, MIN_JOINED, MAX_ROWS = 20, 4, 1 << 20


def num_to_join(rows: Sequence[int]) -> int:
    """How many of the last parts of a table or an index are to become one; 0 for none. `rows`: of each part.

    There are at most MAX_PARTS behind the last one of MAX_ROWS. When there is one more, those are joined that
    take the fewest written rows for each part that goes. So a row is written again some three times in a year
    of nights, and six in five years.
    """
    rows = rows[max((place + 1 for place, one in enumerate(rows) if one >= MAX_ROWS), default=0) :]
    if len(rows) <= MAX_PARTS:
        return 0
    return min(range(MIN_JOINED, len(rows) + 1), key=lambda num: sum(rows[-num:]) / (num - 1))


def drop_old_versions(table: Table, kept: dict[str, int]) -> None:
    """Remove versions that no tag names when they are a week old.

    `kept` (run -> version) is what tags must say: a writer that was stopped may have moved its own one.
    """
    retag(table, kept)
    table.to_lance().cleanup_old_versions(KEEP_UNNAMED, error_if_tagged_old_versions=False)


def retag(table: Table, kept: dict[str, int]) -> None:
    """Give these versions their runs' names, where they do not have them."""
    tags = table.tags.list()
    try:
        for run_id, version in kept.items():
            if run_id not in tags:
                table.tags.create(run_id, version)
            elif tags[run_id]["version"] != version:
                table.tags.update(run_id, version)
    except RuntimeError as error:
        if "already exists" not in str(error) and "not found" not in str(error):
            raise
        tags = table.tags.list()
        if any(run_id not in tags or tags[run_id]["version"] != version for run_id, version in kept.items()):
            raise Overtaken(f"a tag of table {table.name!r}") from error
        # They are as they must be: the client's second try met its own first one, whose answer was lost.


def tag(table: Table, run_id: str) -> None:
    """Give the table's version the run's name, or move the name to it."""
    retag(table, {run_id: table.version})


def _drop_repeats(table: Table, name: str) -> None:
    """Leave one row of each key: a release that ordered runs by a clock could insert a row twice."""
    keys = TABLE_KEYS[name]
    each = table.to_lance().to_table(columns=keys)
    if each.group_by(keys).aggregate([]).num_rows == each.num_rows:
        return
    life = [column for column in ("active",) if column in table.schema.names]
    rows = table.to_lance().to_table(columns=[*keys, *life], with_row_id=True)
    # The row that is kept comes first: an active one, and of these the one that was written last.
    order = [(column, "descending") for column in (*life, "_rowid")]
    seen, repeated = set(), []
    for row in rows.sort_by(order).to_pylist():
        key = tuple(row[column] for column in keys)
        if key in seen:
            repeated.append(row["_rowid"])
        seen.add(key)
    for start in range(0, len(repeated), MAX_IN):
        with alone(table):
            table.delete(f"_rowid IN ({', '.join(map(str, repeated[start : start + MAX_IN]))})")


# --- full text ------------------------------------------------------------------------------------------


def words_query(text: str, column: str) -> MatchQuery | BooleanQuery:
    """A full-text query for any of a text's words. Nothing in the text is an operator.

    Outside of English nothing is stemmed, so words of alphabets are also met when their ends differ:
    Москва finds Москве, and 서울 finds 서울에서.
    """
    words = dict.fromkeys(word.lower() for word in _INFLECTED.findall(text))
    exact = MatchQuery(text or " ", column)
    if not words:
        return exact
    alike = [_alike(word, column) for word in list(words)[:MAX_INFLECTED]]
    return BooleanQuery([(Occur.SHOULD, query) for query in (exact, *alike)])


def _alike(word: str, column: str) -> MatchQuery:
    """Words that begin as this one and differ in at most two characters at the end; short ones in one."""
    # A syllable of Korean is one character, and a particle behind a word has up to two.
    is_short = len(word) < 4 and not "\uac00" <= word[0] <= "\ud7a3"
    stem = max(2, len(word) - (1 if is_short else 2))
    return MatchQuery(word, column, fuzziness=1 if is_short else 2, prefix_length=stem)


_INFLECTED = re.compile(r"[\u0370-\u1cff\u1f00-\u1fff\uac00-\ud7a3]{2,}")
"""Words of alphabets other than Latin, Korean syllables included; not what ICU's dictionaries cut."""

MAX_INFLECTED = 32
"""Words of one query whose ends may differ: each costs a look into the list of all words."""
