"""What happens beside the steps of an adapter's training: measuring, logging, checkpoints, early stopping."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.train.settings import COMPLETE, Recipe, answer_is_valid, token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Answers:
    """Validation prompts that the model answers by itself, and how good the answers are."""

    def __init__(self, task: str, rows: list[dict], recipe: Recipe):
        self.task, self.max_tokens = task, recipe.max_answer_tokens
        step = max(1, len(rows) // max(1, recipe.num_answers))
        self.rows = rows[::step][: recipe.num_answers]

    def measure(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> dict[str, float]:
        """Shares of answers that end by themselves, are valid, and are the expected text to the letter."""
        import torch

        if not self.rows:
            return {}
        was_training = model.training
        model.eval()
        counts: Counter[str] = Counter()
        for row in self.rows:
            prompt = tokenizer.apply_chat_template(
                row["messages"], tokenize=False, add_generation_prompt=True
            )
            ids = torch.tensor([token_ids(tokenizer, prompt)], device=model.device)
            with torch.inference_mode():
                made = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=self.max_tokens,
                    do_sample=False,
                    pad_token_id=tokenizer.pad_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                )[0, ids.shape[1] :]
            text = tokenizer.decode(made, skip_special_tokens=True)
            counts["complete"] += tokenizer.eos_token_id in made
            counts["valid"] += answer_is_valid(self.task, text, row["num_turns"])
            counts["exact"] += text == row["completion"]
        model.train(was_training)
        names = ("complete", "valid", "exact")
        return {f"eval_{name}_answers": counts[name] / len(self.rows) for name in names}


def callbacks(recipe: Recipe, output: Path, answers: Answers) -> list:
    """What happens beside the steps: answers, metrics file, checkpoints, report to Ray, early stopping."""
    import time

    import ray.train
    from transformers import EarlyStoppingCallback, TrainerCallback

    class Watch(TrainerCallback):
        def __init__(self) -> None:
            self.started_s = None

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % recipe.save_every_steps == 0:
                control.should_save = True

        def on_evaluate(
            self,
            args: Any,
            state: Any,
            control: Any,
            model: Any = None,
            processing_class: Any = None,
            **kwargs: Any,
        ) -> None:
            if state.is_world_process_zero:
                state.log_history[-1] |= answers.measure(model, processing_class)
                self.write(state)
            # Not of every step: Ray Train fetches reports every two seconds and lets workers wait for it.
            ray.train.report(state.log_history[-1])

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            state.log_history[-1]["time"] = round(time.time(), 1)
            if state.is_world_process_zero:
                self.write(state)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()

        def write(self, state: Any) -> None:
            # Whole, because a training that goes on takes steps back that no checkpoint holds.
            lines = [json.dumps(entry) + "\n" for entry in state.log_history]
            (unfinished := output / "metrics.jsonl.unfinished").write_text("".join(lines))
            unfinished.rename(output / "metrics.jsonl")

    found = [Watch()]
    if recipe.early_stopping:
        found.append(EarlyStoppingCallback(recipe.early_stopping))
    return found
