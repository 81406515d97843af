"""The LoRA trainer that runs in the workers of a Ray Train group: trl's, with logits only for answers.

Everything a training leaves behind lies in one folder that all workers reach:

    metrics.jsonl    what was logged, one line a step, readable while the training runs
    checkpoints/     a checkpoint counts once its file `complete` is there
    adapter/         the PEFT folder, written last

A killed training goes on from its last complete checkpoint, with the same optimizer, order and random state.
"""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cluster.train.settings import (
    IGNORED,
    LoraSettings,
    Recipe,
    TrainingError,
    last_checkpoint,
    prepare,
)
from cluster.train.watching import Answers, callbacks

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel
    from trl import SFTConfig

EAGER_LENGTH = 1024
"""Up to here plain attention is quicker on a CPU than torch's fused kernel (SmolLM2, 290 tokens: 24 % against
12 % of a step), and its square of scores still small."""


def train_adapter(job: dict) -> None:
    """Runs in every worker of a Ray Train group; the first leaves `adapter/` and `result.json` in the output.

    `job` holds `task`, `data`, `output`, `base`, `base_revision`, `lora`, `recipe`.
    """
    import pyarrow.parquet as pq
    import ray.train
    import torch
    import transformers
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer

    from cluster.models.sources import model_folder

    transformers.utils.logging.disable_progress_bar()
    base = model_folder(job["base"], job["base_revision"])
    lora, recipe = LoraSettings(**job["lora"]), Recipe(**job["recipe"])
    output, first = Path(job["output"]), ray.train.get_context().get_world_rank() == 0
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows, examples, left_out = {}, {}, {}
    for part in ("train", "validation"):
        rows[part] = pq.read_table(Path(job["data"]) / f"{part}.parquet").to_pylist()
        if part == "validation":
            rows[part] = rows[part][: recipe.max_validation]
        examples[part], left_out[part] = prepare(
            rows[part], tokenizer, recipe.max_length, recipe.decision_weight
        )
        if not examples[part]:
            raise TrainingError(
                f"{part}.parquet: none of {len(rows[part])} examples can be used ({dict(left_out[part])}); "
                f"raise recipe.max_length={recipe.max_length}"
            )
    datasets = {part: Dataset.from_list(found) for part, found in examples.items()}
    checkpoints = output / "checkpoints"
    resume = last_checkpoint(checkpoints) if first else None
    # The others may look only when the first has cleaned up.
    if torch.distributed.is_initialized():
        shared = [resume]
        torch.distributed.broadcast_object_list(shared)
        resume = shared[0]
    answers = Answers(
        job["task"], [rows["validation"][example["row"]] for example in examples["validation"]], recipe
    )
    model = load_base(base, lora, recipe)
    trainer = answer_trainer(examples["train"], recipe)(
        model=model,
        args=arguments(recipe, checkpoints, on_gpu=torch.cuda.is_available()),
        train_dataset=datasets["train"].remove_columns("row"),
        eval_dataset=datasets["validation"].remove_columns("row"),
        processing_class=tokenizer,
        data_collator=AnswerCollator(tokenizer.pad_token_id),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(lora.target_modules),
            layers_to_transform=list(range(lora.first_layer, model.config.num_hidden_layers)) or None,
        ),
        callbacks=callbacks(recipe, output, answers),
    )
    if lora.start and not resume:
        go_on_with(lora.start, trainer.accelerator.unwrap_model(trainer.model))
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if not first:
        return
    save_adapter(trainer.accelerator.unwrap_model(trainer.model), job["base"], output / "adapter")
    counts = {
        "num_examples": len(examples["train"]),
        "num_validation": len(examples["validation"]),
        "left_out": {part: dict(found) for part, found in left_out.items()},
        "num_tokens": sum(len(example["input_ids"]) for example in examples["train"]),
        "num_learned_tokens": sum(
            label != IGNORED for example in examples["train"] for label in example["labels"]
        ),
        "num_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "num_steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "stopped_early": trainer.state.global_step < trainer.state.max_steps,
    }
    (output / "result.json").write_text(json.dumps(counts))


def go_on_with(start: str, model: "PeftModel") -> None:
    """Give the new adapter of a PEFT model the weights of another one. TrainingError where they do not
    fit."""
    from peft import load_peft_weights, set_peft_model_state_dict

    from cluster.models.sources import model_folder

    weights = load_peft_weights(str(model_folder(start, None)), device="cpu")
    try:
        loaded = set_peft_model_state_dict(model, weights)
        unfit = [*loaded.unexpected_keys, *(name for name in loaded.missing_keys if "lora_" in name)]
    except RuntimeError as error:
        unfit = [str(error)]
    if unfit:
        raise TrainingError(
            f"lora.start={start!r}: its weights do not fit this base, rank and target_modules "
            f"({unfit[0].splitlines()[0]}); give an adapter of this shape, or set these as it has them"
        )


def load_base(folder: Path, lora: LoraSettings, recipe: Recipe) -> "PreTrainedModel":
    """The frozen base, in 4 bits where asked."""
    import torch
    from transformers import AutoModelForCausalLM

    options = {}
    if lora.quantize == "4bit":
        check_can_quantize()
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, recipe.dtype),
        )
    if torch.cuda.is_available():
        options["device_map"] = {"": torch.cuda.current_device()}
    elif recipe.max_length <= EAGER_LENGTH:
        options["attn_implementation"] = "eager"
    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, recipe.dtype), **options)


def check_can_quantize() -> None:
    """Raise TrainingError where 4-bit training cannot run."""
    import importlib.util

    import torch

    missing = [
        what
        for what, there in {
            "a CUDA device": torch.cuda.is_available(),
            "the package bitsandbytes": importlib.util.find_spec("bitsandbytes") is not None,
        }.items()
        if not there
    ]
    if missing:
        raise TrainingError(
            f"lora.quantize='4bit': this worker lacks {' and '.join(missing)}; set lora.quantize='none', "
            "or train on a GPU with bitsandbytes installed"
        )


def arguments(recipe: Recipe, checkpoints: Path, on_gpu: bool) -> "SFTConfig":
    """trl's settings for a recipe."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=recipe.num_epochs,
        max_steps=recipe.max_steps or -1,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.accumulation,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        # Below 1, a share of the steps.
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        max_length=None,
        # Weights are no argument of the model.
        remove_unused_columns=False,
        bf16=recipe.dtype == "bfloat16",
        gradient_checkpointing=recipe.gradient_checkpointing,
        eval_strategy="steps",
        eval_steps=recipe.eval_every_steps,
        # Evaluations are always saved, so that the best of them can be gone back to.
        save_strategy="steps",
        save_steps=recipe.eval_every_steps,
        save_total_limit=3,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        restore_callback_states_from_checkpoint=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        seed=recipe.seed,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        ddp_find_unused_parameters=False,
    )


class AnswerCollator:
    """Examples -> tensors [batch, length], padded at the right."""

    PADDING: ClassVar = {"labels": IGNORED, "weights": 0.0, "attention_mask": 0}

    def __init__(self, pad_id: int):
        self.padding = self.PADDING | {"input_ids": pad_id}

    def __call__(self, examples: list[dict]) -> dict:
        import torch

        length = max(len(example["input_ids"]) for example in examples)
        rows = [example | {"attention_mask": [1] * len(example["input_ids"])} for example in examples]
        return {
            name: torch.tensor([row[name] + [padding] * (length - len(row[name])) for row in rows])
            for name, padding in self.padding.items()
        }


def answer_trainer(examples: list[dict], recipe: Recipe) -> type:
    """trl's SFTTrainer, with logits only where something is learned, and tokens that weigh differently.

    trl 1.16 leaves out the prompt's logits on GPUs with Triton only; elsewhere it computes all of them in
    float32, which at SmolLM2's size costs more than the rest of the model.
    """
    import torch
    from trl import SFTTrainer

    num_learned = [sum(label != IGNORED for label in example["labels"]) for example in examples]
    # A constant, so that the loss is as large as a mean over tokens would be on the whole.
    num_step = sum(num_learned) / len(examples) * recipe.batch_size * recipe.accumulation

    class AnswerTrainer(SFTTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            lengths = [len(ids) for ids in (train_dataset or self.train_dataset)["input_ids"]]
            batch = self.args.per_device_train_batch_size * self.accelerator.num_processes
            return StepSampler(lengths, batch * self.args.gradient_accumulation_steps, self.args.seed)

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            labels = inputs["labels"][:, 1:]
            is_learned = labels != IGNORED
            # A large vocabulary costs as much as the rest of the model: no row of it for what nobody learns.
            head = self.accelerator.unwrap_model(model).get_output_embeddings()
            picked = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][:, :-1][is_learned][None],))
            try:
                logits = model(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    use_cache=False,
                ).logits
            finally:
                picked.remove()
            # Flat: over [batch, vocabulary, position] torch walks a large vocabulary in strides.
            logits, labels = logits[0].float(), labels[is_learned]
            losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
            loss = (losses * inputs["weights"][:, 1:][is_learned]).sum()
            num_labels = labels.numel()
            if num_items_in_batch is None:
                loss = loss / num_labels
            elif recipe.loss_mean == "examples":
                loss = loss / num_step
            else:
                # The count is of all workers, whose gradients are averaged.
                loss = loss / num_items_in_batch * self.accelerator.num_processes
            with torch.no_grad():
                num_correct = (logits.argmax(dim=-1) == labels).sum()
                counted = torch.stack([num_correct, torch.full_like(num_correct, num_labels)])
            counts = self.accelerator.gather_for_metrics(counted[None]).sum(dim=0)
            mode = "train" if self.model.training else "eval"
            self._metrics[mode]["mean_token_accuracy"].append((counts[0] / counts[1]).item())
            return (loss, None) if return_outputs else loss

    return AnswerTrainer


class StepSampler:
    """Indexes of examples for one epoch: the steps are drawn at random, each step's batches by length.

    So little of a batch is padding, and yet every step sees a fair sample. transformers sorts over 50
    batches, after which whole steps are of one kind, such as empty answers.
    """

    def __init__(self, lengths: list[int], num_step: int, seed: int):
        self.lengths, self.num_step, self.seed, self.epoch = lengths, num_step, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(self.lengths)))
        random.Random(f"{self.seed} {self.epoch}").shuffle(order)
        for first in range(0, len(order), self.num_step):
            yield from sorted(order[first : first + self.num_step], key=self.lengths.__getitem__)


def save_adapter(model: "PeftModel", base_name: str, folder: Path) -> None:
    """A plain PEFT folder, weights in bfloat16, whole or not at all."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.inference_mode = base_name, True
    config.save_pretrained(unfinished)
    # Told that the embedding is not trained, peft need not ask the hub whether it grew.
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file(
        {name: weight.detach().cpu().to(torch.bfloat16).contiguous() for name, weight in weights.items()},
        unfinished / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
