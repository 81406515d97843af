"""Items and results of stages: frozen classes with references to staged files, and counts.

On a cluster they travel as rows of Arrow tables, see cluster.runtime.rows. Each section is one flow.
"""

from dataclasses import dataclass, field

# --- backfill: file -> units (row groups) -> batches of segments -> answers -> rows of the tables ---------


@dataclass(frozen=True)
class ArchiveFile:
    """A Parquet file of an archive."""

    path: str
    """In the archive, with forward slashes."""
    known: bytes | None = None
    """The `identity` of the content that is already known: a file that still has it need not be read. None if
    the identity is not to be computed."""


@dataclass(frozen=True)
class RowGroup:
    """A row group that can be read."""

    row_group: int
    first_row: int
    keys: bytes
    """16 bytes for each row: the key of its session."""


@dataclass(frozen=True)
class BadRow:
    """A row, row group or file that cannot be used."""

    source: str
    reason: str
    detail: str
    raw: str = ""
    user_id: str | None = None
    session_id: str | None = None


@dataclass(frozen=True)
class InspectedFile:
    """What a file holds, from its footer and its key columns."""

    path: str
    row_groups: tuple[RowGroup, ...] = ()
    bad: tuple[BadRow, ...] = ()
    identity: bytes = b""
    """Identifies its content. Empty if that is not possible, or was not asked for."""
    is_known: bool = False
    """Whether it still has the known content, so that nothing of it was read."""


@dataclass(frozen=True)
class Batch:
    """Segments that are encoded together."""

    batch_id: str
    num_segments: int
    num_tokens: int
    """Of the segments that the encoder is asked about."""
    num_asked: int = 0
    """Segments that the encoder is asked about."""
    num_other_language: int = 0
    """Segments that are skipped because of their language."""
    joined: tuple[str, ...] = ()
    """Ids of the batches that this one consists of; empty if it is a single one, staged in plan/BATCH."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Ids under which its segments are staged, in their order."""
        return self.joined or (self.batch_id,)


@dataclass(frozen=True)
class UnitCut:
    """Result of cutting a unit of the archive: staged batches of segments not paid for yet."""

    unit_id: str
    num_sessions: int = 0
    num_segments: int = 0
    num_redactions: int = 0
    num_forgotten: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason -> sessions that were not wanted."""
    num_unknown_times: int = 0
    unknown_times: tuple[str, ...] = ()
    """The first of these: row, field and value."""
    num_rejections: int = 0
    rejections: str = ""
    """Path of the staged rejections; empty where there are none."""
    batches: tuple[Batch, ...] = ()
    closed_segments: tuple[str, ...] = ()
    """Ids of segments that the archive no longer has."""
    rows: bytes = b""
    """For each row of the unit a cluster.backfill.watermark.ROW."""


@dataclass(frozen=True)
class EncodedBatch:
    """A batch with its answers, or with the reason why a worker gave it back."""

    batch_id: str
    encoded: str = ""
    """Path of the staged answers."""
    failure: str = ""
    """Why the worker gave the batch back; empty where it did not."""
    is_stopped: bool = False
    """Whether a cap on costs was reached: `failure` says which."""
    worker: str = ""
    num_segments: int = 0
    num_segments_encoded: int = 0
    """Those paid for now."""
    num_segments_rejected: int = 0
    num_complete: int = 0
    num_split: int = 0
    num_partial: int = 0
    num_rejected: int = 0
    num_skipped: int = 0
    num_refused: int = 0
    """Records that a gate refused."""
    num_values_left_out: int = 0
    """Values of extra fields that their records are kept without."""
    num_calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    encode_load_s: float = 0.0
    encode_s: float = 0.0
    """Its share of the worker's seconds, without loading: batches that are in work at the same time share
    each second equally."""


@dataclass(frozen=True)
class EmbeddedBatch(EncodedBatch):
    """A batch whose rows of the store's tables are staged."""

    tables: dict[str, str] = field(default_factory=dict)
    """Table -> path of its staged rows; tables without rows are left out."""
    users: tuple[str, ...] = ()
    """Users whose turns these are, where a later stage embeds turns."""
    dim: int = 0
    num_records: int = 0
    num_turns: int = 0
    num_rejections: int = 0
    embed_load_s: float = 0.0
    embed_s: float = 0.0


# --- turns through an evolvable embedder ------------------------------------------------------------------


@dataclass(frozen=True)
class UsersToRead:
    """Users whose turns one call reads, each whole."""

    users: tuple[str, ...]
    turns: tuple[str, ...] = ()
    """Staged files with new turns of theirs, without vectors."""
    closed: tuple[str, ...] = ()
    """Ids of segments of theirs that the run closes."""


@dataclass(frozen=True)
class UnreadUser:
    """A user whose turns could not be embedded, and why."""

    user_id: str
    detail: str


@dataclass(frozen=True)
class UsersRead:
    """Staged turns with vectors, and memories, of some users."""

    key: str
    """Of the staged folder: a hash of all that it was made from."""
    tables: dict[str, str] = field(default_factory=dict)
    """Table -> path."""
    rejections: tuple[UnreadUser, ...] = ()
    dim: int = 0
    num_users: int = 0
    num_turns: int = 0
    num_turns_embedded: int = 0
    num_turns_embedded_now: int = 0
    """Those that no earlier run had staged."""
    num_states: int = 0
    replaces: bool = False
    """Whether some of the turns stand in the store."""
    embed_s: float = 0.0


# --- a new vector generation ------------------------------------------------------------------------------


@dataclass(frozen=True)
class TableSlice:
    """Rows of a table at a version of it."""

    number: int
    table: str
    version: int
    offset: int
    num_rows: int


@dataclass(frozen=True)
class EmbeddedSlice:
    """The same rows, staged with new vectors."""

    number: int
    table: str
    path: str
    num_rows: int
    num_rows_embedded: int
    """Those that no earlier run had staged: all or none."""
    dim: int
    embed_s: float


# --- consolidation: users -> pairs of memories -> decisions and revisions ---------------------------------


@dataclass(frozen=True)
class UserGroup:
    """Users whose memories one task compares."""

    group_id: str
    user_ids: tuple[str, ...]


@dataclass(frozen=True)
class PlannedGroup:
    """A group whose memories and pairs are staged in GROUP/."""

    group_id: str
    num_users: int = 0
    num_memories: int = 0
    num_new: int = 0
    num_pairs: int = 0
    num_repeats: int = 0
    num_targets: int = 0
    expected_calls: int = 0
    """Of a model, as `expected_tokens`; rules cost nothing."""
    expected_tokens: int = 0


@dataclass(frozen=True)
class DecidedGroup(PlannedGroup):
    """A group whose decisions and revisions are staged, or for which the budget did not suffice."""

    is_stopped: bool = False
    cap: str = ""
    """The cap on costs, where that is what stopped it."""
    failure: str = ""
    """Why the decider can decide nothing now; empty otherwise."""
    num_layers: int = 0
    num_decisions: int = 0
    num_decisions_known: int = 0
    num_rows_decisions: int = 0
    num_rows_records: int = 0
    num_united: int = 0
    num_deleted: int = 0
    num_rewritten: int = 0
    num_refused: int = 0
    num_failed: int = 0
    num_calls: int = 0
    spent_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


# --- distillation: part of a batch -> answers -> checked -> judged ----------------------------------------


@dataclass(frozen=True)
class ShownSegments:
    """Segments of a batch that a student is shown."""

    batch_id: str
    segment_ids: tuple[str, ...]
    signatures: bytes
    """Their signatures, int32 [segments, NUM_HASHES] of cluster.distill.examples."""


@dataclass(frozen=True)
class ShownUnit:
    """A unit of the archive, cut for a student."""

    cut: UnitCut
    shown: tuple[ShownSegments, ...]
    """One for each batch of the cut."""
    num_not_shown: int


@dataclass(frozen=True)
class Part:
    """Segments of a batch that a teacher is asked about."""

    part_id: str
    batch_id: str
    segment_ids: tuple[str, ...]


@dataclass(frozen=True)
class TaughtPart(Part):
    """A part with a teacher's answers."""

    taught: str
    """Path of the staged answers."""
    num_left: int
    """Segments that a cap or a failure left without an answer."""
    teach_counts: dict[str, int]
    error: str


@dataclass(frozen=True)
class CheckedPart(TaughtPart):
    """A part whose answers the verifier has seen."""

    checked: str
    """Path of the staged rows."""
    num_to_judge: int


@dataclass(frozen=True)
class JudgedPart(CheckedPart):
    """A part whose records have been scored."""

    judged: str
    """Path of the staged scores."""
    judge_counts: dict[str, int]
