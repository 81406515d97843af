"""The two engines held against each other, and adapters: merged, per request, mismatched."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, job

pytestmark = pytest.mark.engine

SEGMENTS = """
import json, sys
from cluster.backfill.archive import inspect_file, list_files, plan_units, read_unit
from cluster.backfill.cut_stage import segment_offsets
from cluster.models.resolve import resolve_encoder
from cluster.backfill.segmenter import cut_session
from jobs.common.run import load_profile
from schemas.profiles.encoder import EncoderProfile

archive, changes, num_segments = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
profile = load_profile("encoders", "extractor-135m", EncoderProfile)
profile = resolve_encoder(profile.model_copy(update=changes))
offsets = segment_offsets(profile)
units = plan_units([inspect_file(archive, path) for path in list_files(archive)])
sessions = [session for unit in units for session in read_unit(archive, unit)]
segments = [segment for session in sessions for segment in cut_session(session, offsets, profile)]
"""

ENCODE = (
    SEGMENTS
    + """
from cluster.backfill.encoder import Encoder

encodings = Encoder(profile).encode(segments[:num_segments])
if profile.min_confidence is not None:
    assert all(0 < record["confidence"] <= 1 for e in encodings for record in e.records)
print("RESULT " + json.dumps([[record["semantic_text"] for record in e.records] for e in encodings]))
"""
)


def encode(archive: Path, num_segments: int = 4, **changes) -> list[list[str]]:
    """Record texts of the first segments, by an engine in a process of its own."""
    command = [sys.executable, "-c", ENCODE, str(archive), json.dumps(changes), str(num_segments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr[-4000:]
    return json.loads(lines[0].removeprefix("RESULT "))


@pytest.fixture(scope="module")
def records(archive) -> list[list[str]]:
    """Of the first segments, as they are encoded unless a test changes something."""
    return encode(archive)


@pytest.fixture(scope="session")
def adapter(tmp_path_factory) -> Path:
    """A LoRA adapter for SmolLM2 with random weights, small but not without effect."""
    folder = tmp_path_factory.mktemp("adapter") / "random"
    code = f"""
import torch
from pathlib import Path
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from cluster.models.sources import tokenizer_folder
from jobs.common.run import load_profile
from schemas.profiles.encoder import EncoderProfile
torch.manual_seed(3)
profile = load_profile("encoders", "extractor-135m", EncoderProfile)
base = AutoModelForCausalLM.from_pretrained(tokenizer_folder(profile))
config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
model = get_peft_model(base, config)
model.save_pretrained({str(folder)!r})
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    return folder


def test_vllm_computes_what_the_reference_engine_computes():
    done = subprocess.run(
        [sys.executable, "-m", "tests.logits"], cwd=ROOT, capture_output=True, text=True, timeout=1800
    )
    result = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert result, done.stderr[-4000:]
    assert float(result[0].split()[1]) < 1e-3


REFERENCE = """
import json, sys
import torch, xgrammar
from transformers import AutoModelForCausalLM, AutoTokenizer
from xgrammar.contrib.hf import LogitsProcessor
from cluster.backfill.encoder import encode
from cluster.models.asking import Answer
from cluster.models.sources import base_folder
from cluster.models.prompt import PromptBuilder

archive, num_segments = sys.argv[1], int(sys.argv[3])
exec(sys.stdin.read())  # profile and segments, as the other engine gets them
tokenizer = AutoTokenizer.from_pretrained(base_folder(profile))
model = AutoModelForCausalLM.from_pretrained(base_folder(profile), dtype=torch.float32).eval()
info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=model.config.vocab_size)
compiler = xgrammar.GrammarCompiler(info)

def generate(requests):
    replies = []
    for request in requests:
        grammar = compiler.compile_json_schema(request.schema, any_whitespace=False)
        output = model.generate(
            torch.tensor([request.prompt]), max_new_tokens=profile.max_tokens, do_sample=False,
            repetition_penalty=profile.repetition_penalty, logits_processor=[LogitsProcessor(grammar)],
        )[0, len(request.prompt):]
        text = tokenizer.decode(output, skip_special_tokens=True)
        replies.append(Answer(text, len(output) < profile.max_tokens, len(request.prompt), len(output)))
    return replies

encodings = encode(segments[:num_segments], generate, PromptBuilder(profile, tokenizer), profile)
print("RESULT " + json.dumps([[record["semantic_text"] for record in e.records] for e in encodings]))
"""


def test_vllm_gives_the_records_of_transformers_under_the_same_grammar(archive, records):
    """Same weights, same grammar, one segment at a time with transformers: the records must be the same."""
    command = [sys.executable, "-c", REFERENCE, str(archive), "{}", "4"]
    done = subprocess.run(command, cwd=ROOT, input=SEGMENTS, capture_output=True, text=True, timeout=1800)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr[-4000:]
    reference = json.loads(lines[0].removeprefix("RESULT "))
    assert any(reference)
    assert records == reference


def test_to_measure_confidence_changes_no_record(archive, records):
    assert any(records)
    assert encode(archive, min_confidence=0.0) == records


@pytest.mark.slow
def test_the_card_recipe_gives_complete_answers(archive):
    """transformers + outlines. Its grammar engine spells some texts with other tokens than xgrammar does, and
    greedy decoding then goes another way: what is compared is that every segment gets an answer."""
    reference = encode(archive, num_segments=2, engine="transformers")
    assert len(reference) == 2
    assert any(reference)


@pytest.mark.slow
def test_batch_and_order_do_not_change_the_records(archive):
    one_by_one = [encode(archive, num_segments=1)[0]]
    assert encode(archive, num_segments=6)[:1] == one_by_one


@pytest.mark.slow
def test_a_merged_adapter_answers_like_the_same_adapter_per_request(archive, adapter, records):
    merged = encode(archive, adapter=str(adapter))
    assert merged == encode(archive, adapter=str(adapter), adapter_mode="per_request")
    assert merged != records


def test_an_adapter_of_another_base_is_refused_before_any_work(archive, adapter, tmp_path):
    config = json.loads((adapter / "adapter_config.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    (other / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "somebody/else"})
    )
    from safetensors.numpy import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {name: value[:, :-1].copy() for name, value in weights.items()}, other / "adapter_model.safetensors"
    )
    profile = tmp_path / "profile.toml"
    text = Path("cluster/profiles/encoders/extractor-135m.toml").read_text()
    profile.write_text(text.replace('"shipped:default"', f'"{other}"'))
    done = job("jobs.backfill", "--archive", archive, "--store", tmp_path / "s", "--profile", profile, code=1)
    assert "does not fit base" in done.summary["error"]
    assert "somebody/else" in done.summary["error"]
