"""What a machine with a GPU must show: the numbers that a CPU computes, and how many of them a second.

    python -m tests.gpu.check                         # on a GPU; at most eight minutes
    python -m tests.gpu.check --only embedder lora    # some of the checks
    python -m tests.gpu.check --cpu --tiny            # the CPU stands in, to try the checks themselves

Each check is a process of its own, and one line of JSON on stdout: `check`, `device` (the card's name),
`status` (`held`, `failed`, or `not run` with `why`), `weights` (of which model), what was compared, and
speeds. The last line counts them. Nothing needs vLLM but the check of that name. `--tiny` takes tiny random
models. Where the package of a shipped model is not installed, a random one of the default encoder's size
stands in, or a tiny embedder. Exit codes: 0, all that ran held; 1, one failed, or none ran; 2, there is no
GPU, or wrong usage.

Bounds. A computation in float64 on the CPU tells how far the CPU is off in the model's own type, by rounding
alone. Another device rounds as often, in another order: it may be off `FACTOR` times as much. A wrong kernel
is off much more, and so is TF32 in the place of float32, which keeps 13 bits fewer of each number.
"""

import argparse
import contextlib
import copy
import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from cluster.models.resolve import resolve_embedder, resolve_encoder
from cluster.models.sources import ModelError, base_folder, model_folder
from cluster.profiles import SHIPPED
from jobs.sample.written import read_segments
from schemas.profiles.embedder import EmbedderProfile
from schemas.profiles.encoder import EncoderProfile
from schemas.record import RecordLimits

ROOT = Path(__file__).parents[2]
LIMIT_S = 480
FACTOR = 8


SHORT = RecordLimits(max_records=1, max_text_chars=16, max_items=1, max_item_chars=4)
"""Of the answers of random models: a grammar with long strings takes a minute to build."""


class NotRun(Exception):
    """Why a check cannot run here."""


@dataclass(frozen=True)
class Setting:
    """Where the checks run, and with what."""

    device: str = "cuda"
    """`cuda`, or `cpu` where that stands in."""
    tiny: bool = False

    @property
    def is_small(self) -> bool:
        """Whether speeds are measured on little work: a CPU would take minutes for a card's."""
        return self.tiny or self.device == "cpu"

    @property
    def num_steps(self) -> int:
        """Of a training: its loss falls from the first on the few examples that it has."""
        return 3 if self.tiny else 8

    @property
    def name(self) -> str:
        import torch

        threads = f"CPU, {torch.get_num_threads()} threads"
        return torch.cuda.get_device_name() if self.device == "cuda" else threads


@contextlib.contextmanager
def on(device: str) -> Iterator[None]:
    """Models that are loaded within, and take a GPU if there is one, take this device."""
    if device == "cuda":
        yield
    else:
        with mock.patch("torch.cuda.is_available", return_value=False):
            yield


def compared(exact: np.ndarray, cpu: np.ndarray, here: np.ndarray, epsilon: float = 2.0**-23) -> dict:
    """Largest differences from float64. `epsilon` is the type's: a bound is never below its spacing."""
    exact, cpu, here = (np.asarray(values, np.float64).ravel() for values in (exact, cpu, here))
    off_by, cpu_off_by = (float(np.abs(values - exact).max()) for values in (here, cpu))
    bound = FACTOR * max(cpu_off_by, epsilon * float(np.abs(exact).max()))
    # Not `>`: what is no number is off too.
    return {"off_by": off_by, "cpu_off_by": cpu_off_by, "bound": bound, "holds": bool(off_by <= bound)}


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Of the second of two calls: the first loads kernels."""
    import torch

    def once() -> float:
        started_s = time.monotonic()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.monotonic() - started_s

    once()
    return once()


# --- models and texts -----------------------------------------------------------------------------------


def shipped(kind: type, name: str) -> EncoderProfile | EmbedderProfile:
    folder = "encoders" if kind is EncoderProfile else "embedders"
    return kind.model_validate(tomllib.loads((SHIPPED / folder / f"{name}.toml").read_text("utf-8")))


@functools.cache
def scratch() -> Path:
    """Models that are made here; deleted with the process."""
    folder = tempfile.TemporaryDirectory(prefix="gpu-check-")
    scratch.kept = folder
    return Path(folder.name)


@functools.cache
def encoder_profile(setting: Setting) -> tuple[EncoderProfile, str]:
    """The default encoder as the transformers engine takes it, resolved, and whose weights it has."""
    # What judges records, and what transformers does not tell, has no part in this.
    plain = {"engine": "transformers", "min_confidence": None, "calibrated": False, "second_look": False}
    plain |= {"entailment": False}
    given = shipped(EncoderProfile, "default").model_copy(update=plain)
    if not setting.tiny:
        try:
            return resolve_encoder(given), "shipped"
        except (ModelError, ImportError) as error:
            print(f"random weights: {error}", file=sys.stderr)
    made: dict = {"base": str(random_base(setting)), "adapter": None, "max_tokens": 256}
    if setting.tiny:
        made |= {"max_tokens": 32, "limits": SHORT}
    return resolve_encoder(given.model_copy(update=made)), "tiny" if setting.tiny else "random"


def random_base(setting: Setting) -> Path:
    """A random language model with a tokenizer of bytes; but for --tiny of the default encoder's size."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny import tiny_base, tiny_tokenizer

    folder = scratch() / ("tiny" if setting.tiny else "random")
    if setting.tiny:
        model = tiny_base()
    else:
        torch.manual_seed(0)
        sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
        heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=262, max_position_embeddings=8192, **sizes, **heads))
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def embedder_profile(setting: Setting) -> tuple[EmbedderProfile, str]:
    for name in () if setting.tiny else ("default", "minilm"):
        profile = shipped(EmbedderProfile, name)
        try:
            model_folder(profile.model, None)
        except (ModelError, ImportError) as error:
            print(f"embedder {name}: {error}", file=sys.stderr)
        else:
            return resolve_embedder(profile), f"shipped, {name}"
    from tests.tiny import tiny_reader

    (folder := scratch() / "reader").mkdir(exist_ok=True)
    tiny_reader(folder)
    return resolve_embedder(EmbedderProfile(name="tiny", model=str(folder), max_seq_len=128)), "tiny"


def segments(num: int) -> list[dict]:
    """Single segments of the written corpus, as `role` and `text`, with what is to be remembered of them."""
    written, memories = read_segments(), {}
    for memory in written.memories:
        memories.setdefault(memory["session_id"], []).append(memory["semantic_text"])
    return [
        {
            "current": [{"role": turn["role"], "text": turn["content"]} for turn in session["turns"]],
            "memories": memories.get(session["session_id"], []),
        }
        for session in written.sessions[:num]
    ]


def prompts(profile: EncoderProfile, num: int) -> tuple[object, list[list[int]]]:
    """The tokenizer, and token ids of prompts."""
    from transformers import AutoTokenizer

    from cluster.models.prompt import PromptBuilder

    tokenizer = AutoTokenizer.from_pretrained(base_folder(profile))
    prompt = PromptBuilder(profile, tokenizer)
    return tokenizer, [prompt([], segment["current"], None) for segment in segments(num)]


# --- the encoder ----------------------------------------------------------------------------------------


def check_encoder(setting: Setting) -> dict:
    """Log-probabilities of all tokens of prompts, in both types; tokens a second, read and written."""
    import torch
    from transformers import AutoModelForCausalLM

    profile, weights = encoder_profile(setting)
    _, ids = prompts(profile, 2 if setting.tiny else 4)

    def load(dtype, device: str):
        return AutoModelForCausalLM.from_pretrained(base_folder(profile), dtype=dtype).to(device).eval()

    @torch.inference_mode()
    def logprobs(dtype, device: str) -> np.ndarray:
        model, found = load(dtype, device), []
        for prompt in ids:
            row = torch.tensor([prompt], device=device)
            told = model(row).logits[0, :-1].double().log_softmax(-1)
            found.append(told.gather(1, row[0, 1:, None]).flatten().cpu().numpy())
        return np.concatenate(found)

    exact, result = logprobs(torch.float64, "cpu"), {"weights": weights}
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        of_cpu, of_here = logprobs(dtype, "cpu"), logprobs(dtype, setting.device)
        result[name] = compared(exact, of_cpu, of_here, torch.finfo(dtype).eps)
    model = load(torch.bfloat16, setting.device)
    num_rows, num_new = (2, 4) if setting.is_small else (64, 64)
    length = min(map(len, ids))
    batch = torch.tensor([ids[row % len(ids)][:length] for row in range(num_rows)], device=setting.device)
    mask = torch.ones_like(batch)

    @torch.inference_mode()
    def write() -> None:
        options = {"max_new_tokens": num_new, "min_new_tokens": num_new, "do_sample": False}
        model.generate(input_ids=batch, attention_mask=mask, pad_token_id=0, **options)

    with torch.inference_mode():
        read_s = seconds_of(lambda: model.model(batch), setting.device)
    result["prompt_tokens_per_s"] = round(batch.numel() / read_s)
    result["output_tokens_per_s"] = round(num_rows * num_new / seconds_of(write, setting.device), 1)
    return result


def check_records(setting: Setting) -> dict:
    """Answers under the grammar, by the engine as it is: to the letter the same in float32."""
    from cluster.models.asking import Request
    from cluster.models.engine import make_engine
    from schemas.record import answer_schema

    profile, weights = encoder_profile(setting)
    _, ids = prompts(profile, num := 1 if setting.is_small else 4)
    requests = [
        Request(
            prompt,
            answer_schema(len(segment["current"]), profile.limits, profile.fields),
            profile.max_tokens,
        )
        for prompt, segment in zip(ids, segments(num), strict=True)
    ]
    texts, seconds = {}, {}
    for device in dict.fromkeys(("cpu", setting.device)):
        with on(device):
            engine = make_engine(profile)
        # Twice: the grammar is built in the first call.
        engine.generate(requests[:1])
        started_s = time.monotonic()
        replies = engine.generate(requests)
        texts[device], seconds[device] = [reply.text for reply in replies], time.monotonic() - started_s
    num_tokens = sum(reply.output_tokens for reply in replies)
    return {
        "weights": weights,
        "texts": {"num": num, "holds": texts[setting.device] == texts["cpu"] and all(texts["cpu"])},
        "output_tokens_per_s": round(num_tokens / seconds[setting.device], 1),
    }


def check_vllm(setting: Setting) -> dict:
    """vLLM beside transformers: log-probabilities of a prompt; tokens a second of the default encoder."""
    if importlib.util.find_spec("vllm") is None:
        raise NotRun("the package vllm is not installed")
    if setting.tiny:
        raise NotRun("vLLM takes longer to start than all tiny checks together; leave --tiny out")

    def result(*command: str) -> str:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not lines:
            raise RuntimeError(done.stderr[-2000:])
        return lines[-1].removeprefix("RESULT ")

    off_by = float(result("-m", "tests.logits"))
    archive, num = str(scratch() / "archive"), str(16 if setting.is_small else 192)
    sample = [sys.executable, "-m", "jobs.sample", "--archive", archive]
    subprocess.run(sample, cwd=ROOT, check=True, capture_output=True)
    raw = ("--part", "raw", "--recipe", "0", "--num-segments", num)
    speeds = json.loads(result("-m", "tests.benchmarks.bench_encoder", "--archive", archive, *raw))
    return {
        "weights": "shipped",
        # The bound of tests/e2e/test_engines.py.
        "logprobs": {"off_by": off_by, "bound": 1e-3, "holds": off_by < 1e-3},
        "tokens_per_s": round(speeds["tokens_per_s"]),
        "output_tokens_per_s": round(speeds["output_tokens_per_s"]),
        "startup_s": round(speeds["startup_s"], 1),
    }


# --- embedders ------------------------------------------------------------------------------------------


def check_embedder(setting: Setting) -> dict:
    """Vectors of messages, and how many a second."""
    from cluster.embed.embedder import Embedder

    profile, weights = embedder_profile(setting)
    texts = [part["text"] for segment in segments(1200) for part in segment["current"]]
    few = texts[:24]
    with on("cpu"):
        reference = Embedder(profile)
    of_cpu = reference.embed(few)
    reference.model.double()
    exact = reference.embed(few)
    with on(setting.device):
        embedder = Embedder(profile)
    result = {"weights": weights, "vectors": compared(exact, of_cpu, embedder.embed(few))}
    many = few if setting.is_small else texts
    seconds = seconds_of(lambda: embedder.embed(many), setting.device)
    return result | {"vectors_per_s": round(len(set(many)) / seconds, 1)}


def evolvable_models(setting: Setting) -> Iterator[tuple]:
    """Name, model on the CPU in float32 without dropout, tokens."""
    import torch

    from cluster.evolvable.model import EvolvableModel
    from cluster.evolvable.tokens import Tokens
    from schemas.evolvable import EvolvableConfig
    from tests.tiny import tiny_model, tiny_tokens

    # The attention of the released bases: Qwen3 (4B), and linear attention (0.8B).
    for kind in ("qwen3", "qwen3_5"):
        yield kind, tiny_model(kind, lora_dropout=0.0), tiny_tokens()
    if not setting.tiny:
        profile, weights = encoder_profile(setting)
        # The published constants.
        config = EvolvableConfig(base=str(base_folder(profile)), lora_dropout=0.0)
        model, generator = EvolvableModel.from_base(config), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.trainable_parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
        yield f"135m, {weights}", model.eval(), Tokens.of_base(config)


def check_evolvable(setting: Setting) -> dict:
    """Vectors and memories of conversations; exchanges a second with the published constants."""
    import torch

    from tests.benchmarks.bench_evolvable import make_conversations, timed, wavefront

    result: dict = {}
    for name, model, tokens in evolvable_models(setting):
        few = make_conversations(2, 6, 20)

        def read(model, some=few, tokens=tokens) -> list[np.ndarray]:
            vectors, states, _ = wavefront(model, tokens, some, {})
            # Results come as they are ready; conversations differ in length, and so do memories.
            states = sorted(states, key=lambda state: state.hashes)
            return [
                np.concatenate([vectors[key].ravel() for key in sorted(vectors)]),
                np.concatenate([state.latents.ravel() for state in states]),
            ]

        of_cpu, exact = read(model), read(copy.deepcopy(model).double())
        model.to(setting.device)
        found = zip(("vectors", "latents"), zip(exact, of_cpu, read(model), strict=True), strict=True)
        result[name] = {what: compared(*numbers) for what, numbers in found}
    many = make_conversations(2 if setting.is_small else 64, 6 if setting.is_small else 40, 60)
    for dtype in ("float32", "bfloat16"):
        model.model.to(getattr(torch, dtype))
        wavefront(model, tokens, many[:2], {})
        seconds, _ = timed(functools.partial(wavefront, model, tokens, many, {}))
        rate = sum(len(one.exchanges) for one in many) / seconds
        result[f"exchanges_per_s_{dtype}"] = round(rate, 1)
    return result | {"weights": name}


# --- training -------------------------------------------------------------------------------------------


def check_evolvable_step(setting: Setting) -> dict:
    """Gradient of the memory queries, which has come through all chunks; the loss falls; steps a second."""
    from cluster.train.evolvable import Training
    from cluster.train.evolvable_samples import histories_of, reading_of
    from cluster.train.settings import EvolvableSettings, Recipe
    from tests.unit.cluster.evolvable.conversations import sample

    num = 2 if setting.tiny else 4
    histories, _ = histories_of([sample(number) for number in range(num)], "check")
    result: dict = {}
    for name, model, tokens in evolvable_models(setting):
        rate = 2e-4 if name.startswith("135m") else 3e-3
        recipe = Recipe(learning_rate=rate, schedule="constant", accumulation=num)

        def stepped(model, recipe=recipe, tokens=tokens) -> tuple[Training, float, np.ndarray]:
            """After a step: the training, the loss before it, and the gradient of the memory queries."""
            readings = [reading_of(history, tokens) for history in histories]
            training = Training(model.train(), readings, recipe, EvolvableSettings(pass_tokens=4000))
            loss = training.step(1)["loss"]
            return training, loss, model.memory_queries.grad.double().cpu().numpy()

        exact, of_cpu = (stepped(one)[2] for one in (copy.deepcopy(model).double(), copy.deepcopy(model)))
        training, loss, gradient = stepped(model.to(setting.device))
        result[name] = {"gradient": compared(exact, of_cpu, gradient)}
        started_s, losses = time.monotonic(), [loss]
        losses += [training.step(number)["loss"] for number in range(2, 2 + setting.num_steps)]
        result["steps_per_s"] = round(setting.num_steps / (time.monotonic() - started_s), 2)
        result[name]["loss"] = falls(losses)
    return result | {"weights": name}


def falls(losses: list[float]) -> dict:
    return {"first": losses[0], "last": losses[-1], "holds": bool(losses[-1] < losses[0] < float("inf"))}


def check_lora(setting: Setting, quantize: str = "none") -> dict:
    """The LoRA trainer on a few examples: the first loss is the CPU's, and falls; tokens a second."""
    from cluster.train.settings import TrainingError
    from cluster.train.trainer import check_can_quantize

    profile, weights = encoder_profile(setting)
    if quantize == "4bit":
        try:
            check_can_quantize()
        except TrainingError as error:
            raise NotRun(str(error)) from None
    with on(setting.device):
        losses, rate = train_lora(setting.device, profile, quantize, setting.num_steps)
    result = {"weights": weights, "loss": falls(losses), "tokens_per_s": round(rate)}
    if quantize == "none":
        with on("cpu"):
            (wanted, *_), _ = train_lora("cpu", profile, quantize, 2)
        # A number in bfloat16 is right to 2**-8, and a mean over tokens is better than its worst.
        off_by, bound = abs(losses[0] - wanted), 2**-8 * wanted
        result["first_loss"] = {"cpu": wanted, "off_by": off_by, "bound": bound, "holds": off_by <= bound}
    return result


def check_qlora(setting: Setting) -> dict:
    """The same with the base in 4 bits: its loss falls."""
    return check_lora(setting, "4bit")


def train_lora(device: str, profile: EncoderProfile, quantize: str, steps: int) -> tuple[list[float], float]:
    """Loss of each step, and tokens a second from the second step on."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback

    from cluster.models.prompt import PromptBuilder
    from cluster.train.settings import LoraSettings, Recipe, prepare
    from cluster.train.trainer import AnswerCollator, answer_trainer, arguments, load_base

    lora = LoraSettings(dropout=0.0, quantize=quantize)
    recipe = Recipe(batch_size=4, accumulation=1, learning_rate=1e-3, schedule="constant", max_steps=steps)
    tokenizer, _ = prompts(profile, 0)
    prompt = PromptBuilder(profile, tokenizer)
    rows = [
        {
            "task": "encoder",
            "messages": prompt.messages([], segment["current"], None),
            "completion": json.dumps({"records": [{"semantic_text": text} for text in segment["memories"]]}),
        }
        for segment in segments(4)
    ]
    examples, left_out = prepare(rows, tokenizer, recipe.max_length)
    assert len(examples) == len(rows), left_out
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    ended_s: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__) -> None:
            ended_s.append(time.monotonic())

    data = Dataset.from_list(examples).remove_columns("row")
    with tempfile.TemporaryDirectory() as folder:
        trainer = answer_trainer(examples, recipe)(
            model=load_base(base_folder(profile), lora, recipe),
            args=arguments(recipe, Path(folder), on_gpu=device == "cuda"),
            train_dataset=data,
            eval_dataset=data,
            processing_class=tokenizer,
            data_collator=AnswerCollator(tokenizer.pad_token_id),
            peft_config=LoraConfig(
                task_type="CAUSAL_LM",
                r=lora.rank,
                lora_alpha=lora.alpha,
                target_modules=list(lora.target_modules),
            ),
            callbacks=[Clock()],
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    num_tokens = sum(len(example["input_ids"]) for example in examples) * (steps - 1)
    return losses, num_tokens / (ended_s[-1] - ended_s[0])


# --- the run --------------------------------------------------------------------------------------------

CHECKS: dict[str, Callable[[Setting], dict]] = {
    "encoder": check_encoder,
    "embedder": check_embedder,
    "evolvable": check_evolvable,
    "evolvable_step": check_evolvable_step,
    "lora": check_lora,
    "qlora": check_qlora,
    "records": check_records,
    "vllm": check_vllm,
}
"""In the order in which they run: what needs most time comes last."""


def run_check(name: str, setting: Setting) -> dict:
    """Its line. `failed` where a comparison does not hold; an error of the check itself is raised."""
    line = {"check": name, "device": setting.name}
    started_s = time.monotonic()
    try:
        found = CHECKS[name](setting)
    except NotRun as error:
        return line | {"status": "not run", "why": str(error)}
    except ModuleNotFoundError as error:
        return line | {"status": "not run", "why": f"the package {error.name} is not installed"}
    holds = comparisons(found)
    assert holds, f"check {name!r} compares nothing"
    status = "held" if all(holds) else "failed"
    return line | {"status": status} | found | {"seconds": round(time.monotonic() - started_s, 1)}


def comparisons(found: dict) -> list[bool]:
    """Every `holds` in a result."""
    holds = [found["holds"]] if "holds" in found else []
    for value in found.values():
        holds += comparisons(value) if isinstance(value, dict) else []
    return holds


def in_own_process(name: str, setting: Setting, left_s: float) -> dict:
    """The line of a check, of which a crash and a hang cost the check alone."""
    line = {"check": name, "device": setting.name}
    if left_s <= 0:
        return line | {"status": "not run", "why": f"the {LIMIT_S} s of all checks are over"}
    command = [sys.executable, "-m", "tests.gpu.check", "--check", name]
    command += ["--cpu"] * (setting.device == "cpu") + ["--tiny"] * setting.tiny
    # In a session of its own, so that what it has started ends with it.
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        told, _ = child.communicate(timeout=left_s)
    except subprocess.TimeoutExpired:
        return line | {"status": "failed", "why": f"it was not done when the {LIMIT_S} s of all were over"}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    lines = [json.loads(one) for one in told.splitlines() if one.startswith('{"check": ')]
    return (
        lines[-1] if lines else line | {"status": "failed", "why": f"exit code {child.returncode}, see above"}
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu", action="store_true", help="let the CPU stand in for a GPU")
    parser.add_argument("--tiny", action="store_true", help="tiny random models")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS), metavar="CHECK")
    parser.add_argument("--check", choices=list(CHECKS), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    started_s = time.monotonic()
    import torch

    if not options.cpu and not torch.cuda.is_available():
        parser.error(
            "no CUDA device is found by torch; run it on a machine with a GPU, or let --cpu stand in"
        )
    setting = Setting("cpu" if options.cpu else "cuda", options.tiny)
    if options.check:
        with on(setting.device):
            line = run_check(options.check, setting)
        print(json.dumps(line), flush=True)
        return 0
    counts = {"held": 0, "failed": 0, "not run": 0}
    for name in options.only:
        line = in_own_process(name, setting, LIMIT_S - (time.monotonic() - started_s))
        counts[line["status"]] += 1
        print(json.dumps(line), flush=True)
        if line["status"] == "not run":
            print(f"{name}: not run: {line['why']}", file=sys.stderr)
    is_good = counts["held"] > 0 and not counts["failed"]
    summary = {"status": "done" if is_good else "failed", "device": setting.name, **counts}
    print(json.dumps(summary | {"seconds": round(time.monotonic() - started_s, 1)}), flush=True)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
