"""Shipped recipes say what their sources publish."""

import tomllib

import pytest

from jobs.common.cli import UsageError
from jobs.common.run import CONFIGS
from jobs.train import evolvable
from jobs.train.__main__ import COMMANDS
from jobs.train.config import TASKS, EvolvableTraining, TrainConfig
from schemas.evolvable import EvolvableConfig


def recipe(name: str) -> TrainConfig:
    text = (CONFIGS / "train" / f"{name}.toml").read_text(encoding="utf-8")
    settings = {"task": "encoder", "data": "data", "output": "output"} | tomllib.loads(text)
    return TASKS[settings["task"]].model_validate(settings)


@pytest.mark.parametrize(("name", "rate"), [("encoder_v0", 2e-4), ("encoder_v0_small", 1e-3)])
def test_the_recipe_of_encoder_v0_is_its_card_s(name, rate):
    """Model card: r 16, alpha 32, dropout 0.05, q/k/v/o, 3 epochs, 1 x 16 examples a step, 2e-4, bf16. The
    small one differs in its rate."""
    config = recipe(name)
    lora, learned = config.lora, config.recipe
    assert (lora.rank, lora.alpha, lora.dropout, lora.first_layer, lora.quantize) == (16, 32, 0.05, 0, "none")
    assert lora.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert (learned.num_epochs, learned.batch_size * learned.accumulation) == (3, 16)
    assert (learned.learning_rate, learned.dtype) == (rate, "bfloat16")


def test_lightmem_s_recipe_is_within_its_ranges():
    config = recipe("lightmem")
    lora, learned = config.lora, config.recipe
    assert lora.rank in (16, 32) and lora.alpha in (32, 64) and lora.dropout == 0.05
    assert {name.removesuffix("_proj") for name in lora.target_modules} == {
        *("q", "k", "v", "o", "gate", "up", "down")
    }
    assert lora.quantize == "4bit" and learned.gradient_checkpointing
    assert 2e-5 <= learned.learning_rate <= 5e-5 and learned.schedule == "cosine" and learned.warmup == 0.05
    assert 1 <= learned.num_epochs <= 3 and 1 <= learned.batch_size <= 4
    assert 2048 <= learned.max_length <= 4096 and learned.early_stopping


def test_a_training_that_goes_on_reads_as_its_model_does_but_for_what_is_set(tmp_path):
    model = EvolvableConfig(base="other/base", num_latents=4, max_turn_tokens=64, queue_capacity=32)
    (tmp_path / "evolvable.json").write_text(model.model_dump_json())
    places = {"data": "data", "output": "out"}

    def settled(**settings):
        config = EvolvableTraining(**places, evolvable={"start": str(tmp_path), **settings})
        return evolvable.settle(config)

    found = settled(max_turn_tokens=96)
    assert found.base == "other/base"
    memory = found.evolvable
    assert (memory.num_latents, memory.max_turn_tokens, memory.queue_capacity) == (4, 96, 32)
    with pytest.raises(UsageError, match=r"evolvable\.num_latents=8: .* has 4; leave it out"):
        settled(num_latents=8)
    assert settled(num_latents=4) == settled()


@pytest.mark.parametrize("way", ["option", "file"])
def test_only_an_evolvable_training_goes_on_with_a_model(way, tmp_path, capsys):
    (file := tmp_path / "t.toml").write_text('[evolvable]\nstart = "model"\n')
    argv = ["--evolvable.start", "model"] if way == "option" else ["--config", str(file)]
    with pytest.raises(SystemExit) as refused:
        COMMANDS.main(["--task", "encoder", "--data", "data", "--output", "out", *argv])
    assert refused.value.code == 2
    assert "evolvable is for jobs.train evolvable" in capsys.readouterr().err
