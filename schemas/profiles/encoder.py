"""The encoder: its prompt, how sessions are cut for it, and what looks at what it writes."""

from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from schemas.profiles.model import AskedProfile, ProfileBase, check_template
from schemas.record import (
    MAX_EXTRA_FIELDS,
    MEMORY_TYPES,
    RECORD_FIELDS,
    ExtraField,
    RecordField,
    RecordLimits,
    TypeName,
)
from schemas.store import records_schema

Gate = Literal["invented", "unsupported", "negation_lost", "not_speech", "nothing_said", "repeated"]
GATES: tuple[Gate, ...] = get_args(Gate)
"""Names of the gates of an encoder, see cluster.backfill.gates."""

LANGUAGES = tuple(
    """
    ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa
    fi fo fr fuv fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka
    kab kik kk km kn ko ku ky la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl nn no nso oc om
    or pa pcm pl ps pt qu ro ru rw sa sdh se si sk sl sn so sq sr st sv sw ta te tg th tk tl tr tt ug uk
    ur uz uzs vec vi vo wa wuu xh yo yue zh zu
    """.split()  # noqa: SIM905
)
"""Codes of the languages that are told apart, see cluster.language.identify."""


class PromptInWheel(ProfileBase):
    """A prompt constant that lives in somebody else's package: read there, never copied here."""

    package: str
    version: str
    path: str
    """Path inside the wheel."""
    constant: str
    """Name of the string constant; the module is parsed, not imported."""
    sha256: str
    """Of the constant's UTF-8 bytes. Another hash is another prompt, and is refused."""


class Example(ProfileBase):
    """A worked example, shown to the encoder as an earlier exchange of the chat."""

    current: str
    """Stands where the segment's current turns stand."""
    answer: str
    """The JSON that is right for it, with `, ` and `: ` as separators, as the decoder writes it."""


class EncoderProfile(AskedProfile):
    """A model that writes memory records: prompt, template, and how sessions are cut for it."""

    # Where a prompt was read; what it says is in `system_prompt`.
    NOT_IN_FINGERPRINT = AskedProfile.NOT_IN_FINGERPRINT | {"system_prompt_in_wheel"}
    WITHOUT_ADAPTER: ClassVar[dict[str, object]] = AskedProfile.WITHOUT_ADAPTER | {
        "calibrated": False,
        "entailment": False,
    }
    ADDED = frozenset(
        {
            "gates",
            "dates",
            "min_confidence",
            "calibrated",
            "entailment",
            "languages",
            "second_look",
            "second_look_min_records",
            "memory_types",
            "extra_fields",
        }
    )

    system_prompt: str | None = None
    """Text of the system message."""
    system_prompt_in_wheel: PromptInWheel | None = None
    """Or where to read it."""
    user_template: str
    """The user message; `{session_date}`, `{previous}` and `{current}` are filled in."""
    examples: tuple[Example, ...] = ()
    """For bases that were not trained for the task. They are the same in every prompt, so that the prefix
    cache computes them once."""
    turn_template: str = "{role}: {content}"
    """One turn; `{index}` is its number among the current turns, from 0."""
    shown_as: tuple[tuple[Annotated[str, Field(min_length=1, max_length=1)], str], ...] = ()
    """Characters that the model is shown as others (pairs): the quotation mark that ends a JSON string, which
    a small model cannot copy into one."""
    no_previous: str = "(no previous turns)"
    """Stands for `{previous}` where there is none."""
    session_date_template: str = ""
    """Stands for `{session_date}` where the session has a time; `{date}` is its day as YYYY-MM-DD."""

    fields: tuple[RecordField, ...] = RECORD_FIELDS
    """Keys of a record that the model writes, in this order. The runtime fills in the others."""
    memory_types: tuple[TypeName, ...] = Field(MEMORY_TYPES, min_length=1)
    """Types that a record may have, of your own too: the answer is held to them, and the prompt must say what
    they mean. `event` alone means something to the store: what happens on its day, and is over then."""
    extra_fields: tuple[ExtraField, ...] = ()
    """Fields of your own that each record has behind `fields`: the answer is held to them, and `instructions`
    name them."""
    limits: RecordLimits = RecordLimits()
    max_turns: int = Field(4, ge=1, le=32)
    """Current turns per segment."""
    max_current_tokens: int = Field(1024, ge=16)
    """Tokens of a segment's current turns, by the encoder's own tokenizer."""
    max_context_tokens: int = Field(512, ge=0)
    """Tokens of earlier turns shown as context."""
    max_tokens: int = Field(512, ge=16)
    """Tokens of one answer."""
    required_role: Literal["user", "assistant"] | None = None
    """Segments in whose current turns nobody of this role speaks are not shown to the model: no records."""
    languages: tuple[Literal[LANGUAGES], ...] = ()  # type: ignore[valid-type]  # a long list, kept as text
    """Codes of the languages that the model reads; empty for all. Segments whose current turns, those of
    `required_role` if one is given, are surely in none of them are not shown to it: no records."""
    evidence_by: Literal["model", "words"] = "model"
    """Who says which turns a record rests on. `words`: the turn of `required_role` (of any role, if there is
    none) that shares most words with it, for small models, which copy well and count badly."""
    gates: tuple[Gate, ...] = ()
    """What looks at every record before it is stored, in this order; see cluster.backfill.gates."""
    min_confidence: float | None = Field(None, ge=0, le=1)
    """Records whose words the model was less sure of are refused, by the gate `unsure` behind the others; see
    cluster.models.confidence. 0 refuses none and has them measured; not given, nothing is."""
    calibrated: bool = False
    """Whether the confidence in a record is how likely it is right, by `calibration.json` in the adapter's
    folder; see cluster.backfill.calibration. For English."""
    entailment: bool = False
    """Whether the calibration also weighs what a model says that reads record and turns, which lies in the
    adapter's folder; see cluster.backfill.entailment. Where the package of its base is not installed, this is
    taken as off, and the calibration goes by words alone."""
    dates: Literal["model", "resolve"] = "model"
    """Who says when a record holds. `resolve`: its own words of time, read on the day of the message; the
    text then names the date. See cluster.language.dates."""
    second_look: bool = False
    """Whether what users state of themselves, and no record of the answer has half the words of, is then
    asked about, sentence by sentence: a small model tells one thing of a message and stops. For English."""
    second_look_min_records: int = Field(0, ge=0, le=1)
    """Records that an answer of the second look must have. With 1 the model speaks of every such sentence,
    also of a turn that is one sentence, and `min_confidence` judges what it says."""
    max_splits: int = Field(2, ge=0, le=6)
    """How often a segment whose answer was cut is halved before what still fails is rejected."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.system_prompt is None) == (self.system_prompt_in_wheel is None):
            raise ValueError("give exactly one of system_prompt and system_prompt_in_wheel")
        check_template(self.user_template, "{previous}", "{current}")
        if "{content}" not in self.turn_template:
            raise ValueError("turn_template lacks {content}; the model would see no conversation")
        if self.session_date_template and "{session_date}" not in self.user_template:
            raise ValueError("user_template lacks {session_date}, the place of session_date_template")
        for name in ("semantic_text", "memory_type", "evidence_turns"):
            if name not in self.fields:
                raise ValueError(f"fields lacks {name!r}; a record cannot be stored without it")
        if len(set(self.memory_types)) < len(self.memory_types):
            raise ValueError(f"memory_types={list(self.memory_types)}: has one twice; name each once")
        self._check_extra_fields()
        if self.min_confidence is not None and self.engine != "vllm":
            raise ValueError(
                f"min_confidence={self.min_confidence}: engine {self.engine!r} tells no probabilities; "
                "leave it out or use engine 'vllm'"
            )
        if self.calibrated and (self.min_confidence is None or not self.adapter):
            raise ValueError(
                f"calibrated with min_confidence={self.min_confidence}, adapter={self.adapter!r}: it needs "
                "both; set them, or leave it out"
            )
        if self.entailment and not self.calibrated:
            raise ValueError("entailment: a calibration weighs it; set calibrated = true, or leave it out")
        return self

    def _check_extra_fields(self) -> None:
        names = [one.name for one in self.extra_fields]
        if len(names) > MAX_EXTRA_FIELDS:
            raise ValueError(f"extra_fields: are {len(names)}; leave it at {MAX_EXTRA_FIELDS}")
        if len(set(names)) < len(names):
            raise ValueError(f"extra_fields={names}: has one twice; name each once")
        if taken := {*RECORD_FIELDS, *records_schema(1).names} & set(names):
            name = min(taken)
            raise ValueError(f"extra_fields: name={name!r} is a column of every record; choose another name")

    @property
    def instructions(self) -> str:
        """The system message: `system_prompt`, and what is to be written into the extra fields."""
        assert self.system_prompt is not None, "resolve the profile first"
        return "\n".join([self.system_prompt, *self._extra_lines])

    @property
    def _extra_lines(self) -> list[str]:
        if not self.extra_fields:
            return []
        told = 'Each record also has these keys, with "" where nobody says anything of it:'
        return ["", told, *(one.instruction for one in self.extra_fields)]

    @property
    def _more(self) -> dict:
        # The lines are this release's: in other words they are another prompt.
        return super()._more | ({"extra_lines": self._extra_lines} if self.extra_fields else {})

    def shown(self, text: str) -> str:
        """A turn's text, or what is to be learned of it, as the model sees it."""
        table: dict[str, str | int | None] = dict(self.shown_as)
        return text.translate(str.maketrans(table))

    def asks_about(self, segment: dict) -> bool:
        """Whether somebody speaks in this row of SEGMENT_SCHEMA whom the model is to hear; the languages are
        looked at by cluster.backfill.encoder.skipped."""
        return self.required_role is None or any(
            part["role"] == self.required_role for part in segment["current"]
        )

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together. System prompt, examples and the template's own text are
        estimated at four characters a token and then doubled, because a foreign tokenizer may need more."""
        shown = [self.system_prompt or "", *self._extra_lines, self.user_template]
        for example in self.examples:
            shown += [self.user_template, example.current, example.answer]
        fixed_tokens = sum(map(len, shown)) // 2
        turn_tokens = 16 * self.max_turns
        return (
            fixed_tokens
            + turn_tokens
            + self.max_context_tokens
            + self.max_current_tokens
            + self.max_tokens
            + 128
        )
