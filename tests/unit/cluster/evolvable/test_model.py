import pytest
import torch
from safetensors.torch import save_file

from cluster.evolvable.checkpoint import read_config
from cluster.evolvable.model import Answer, Chunk, EvolvableModel, Text
from cluster.evolvable.tokens import Exchange
from cluster.models.sources import ModelError
from tests.tiny import lm_loss, save_released, tiny_base, tiny_model, tiny_tokenizer, tiny_tokens

KINDS = ("llama", "qwen3", "qwen3_5")
EXCHANGES = [Exchange(f"hello {n}", "well " * n) for n in range(6)]


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return tiny_model(request.param)


def rows_of(model):
    """A queue, and rows of all three passes that differ much in length."""
    tokens = tiny_tokens()
    ids, documents = tokens.memory_ids(EXCHANGES), tokens.document_ids([e.text for e in EXCHANGES])
    empty = model.empty_queue()
    queue = model.memorize([Chunk(empty, ids[:3])])[0].flatten(0, 1)
    chunks = [Chunk(queue, ids[3:5], 1), Chunk(empty, ids[5:]), Chunk(queue[:2], ids[1:5])]
    texts = [Text(queue[: 2 * n], documents[n]) for n in range(4)]
    answers = [
        Answer(queue, *tokens.answer_ids(EXCHANGES[3], first=False)),
        Answer(empty, *tokens.answer_ids(EXCHANGES[1], first=True)),
    ]
    return chunks, texts, answers


@torch.no_grad()
def test_a_batch_equals_its_rows_one_by_one(model):
    chunks, texts, answers = rows_of(model)
    for together, chunk in zip(model.memorize(chunks), chunks, strict=True):
        assert together.shape == (len(chunk.turns) - chunk.num_known, 2, 32)
        torch.testing.assert_close(together, model.memorize([chunk])[0], atol=1e-5, rtol=0)
    vectors = model.represent(texts)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    for vector, text in zip(vectors, texts, strict=True):
        torch.testing.assert_close(vector, model.represent([text])[0], atol=1e-5, rtol=0)
    for together, answer in zip(model.answer_logits(answers), answers, strict=True):
        assert together.shape == (len(answer.positions), 262)
        torch.testing.assert_close(together, model.answer_logits([answer])[0], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("max_tokens", [10, 60, 1000])
def test_texts_that_share_a_memory_equal_those_that_read_it_alone(model, max_tokens):
    if not model.can_share:
        pytest.skip("linear attention keeps no state of a memory's beginnings")
    tokens, logs = tiny_tokens(), torch.randn(2, 12, 32)
    asked = [(0, 12, "ab"), (1, 3, "abcdef"), (0, 5, "x" * 40), (1, 12, "c"), (0, 0, "d"), (0, 1, "ef")]
    documents = tokens.document_ids([text for *_, text in asked])
    texts = [Text(logs[row][:n], ids) for (row, n, _), ids in zip(asked, documents, strict=True)]
    shared = model.represent_shared(texts, max_tokens)
    torch.testing.assert_close(shared, model.represent(texts), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_turn_sees_the_queue_and_nothing_after_it(model):
    chunks, _, _ = rows_of(model)
    whole = model.memorize([chunks[2]])[0]
    shorter = model.memorize([chunks[2]._replace(turns=chunks[2].turns[:2])])[0]
    torch.testing.assert_close(whole[:2], shorter, atol=1e-5, rtol=0)
    without = model.memorize([chunks[2]._replace(queue=model.empty_queue())])[0]
    assert (whole - without).abs().max() > 1e-3


@torch.no_grad()
def test_adapters_are_for_their_own_pass_and_off_for_the_answer(model):
    _, texts, answers = rows_of(model)
    vector, logits = model.represent(texts[:1]), model.answer_logits(answers[1:])[0]
    for name, parameter in model.named_parameters():
        if "lora_B.memory_generator" in name:
            parameter.add_(1.0)
    torch.testing.assert_close(model.represent(texts[:1]), vector)
    ids = torch.tensor([answers[1].ids])
    with model.model.disable_adapter():
        plain = model.model(input_ids=ids).logits[0, [p - 1 for p in answers[1].positions]]
    torch.testing.assert_close(logits, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.answer_logits(answers[1:])[0], logits)
    for name, parameter in model.named_parameters():
        if "lora_B.memory_generator" in name:
            parameter.sub_(1.0)


def losses(model, checkpointing: bool):
    """Loss and gradients of a step that uses all three passes, with dropout."""
    model.train()
    model.gradient_checkpointing = checkpointing
    model.zero_grad()
    torch.manual_seed(0)
    chunks, texts, answers = rows_of(model)
    latents = model.memorize(chunks)[0].flatten(0, 1)
    vectors = model.represent([texts[0], texts[1]._replace(queue=latents)])
    loss = lm_loss(model, [answers[0]._replace(queue=latents), answers[1]]) + vectors[0] @ vectors[1]
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.eval()
    model.gradient_checkpointing = False
    return loss.detach(), gradients


def test_everything_but_the_base_learns_and_checkpointing_changes_nothing():
    model = tiny_model()
    loss, gradients = losses(model, checkpointing=False)
    assert set(gradients) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())
    assert not any("base_layer" in name or "embed_tokens" in name for name in gradients)
    again, recomputed = losses(model, checkpointing=True)
    torch.testing.assert_close(again, loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(recomputed[name], gradient, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_new_model_starts_as_its_base():
    """Adapters without effect and identity projections: the vector is the base's state behind a ReLU."""
    base = tiny_base()
    (ids,) = tiny_tokens().document_ids(["hello"])
    state = base.get_decoder()(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    model = EvolvableModel(tiny_model(embedding_dim=32).config, base).eval()
    vector = model.represent([Text(model.empty_queue(), ids)])[0]
    torch.testing.assert_close(vector, torch.nn.functional.normalize(state.relu(), dim=0))


@torch.no_grad()
def test_a_bfloat16_base_takes_float32_queues():
    model = EvolvableModel(tiny_model(dtype="bfloat16").config, tiny_base().to(torch.bfloat16)).eval()
    chunks, texts, answers = rows_of(model)
    assert model.memorize(chunks)[0].dtype == torch.float32
    assert model.represent(texts).dtype == torch.float32
    assert model.answer_logits(answers)[0].dtype == torch.float32
    half = EvolvableModel(
        tiny_model(dtype="bfloat16", trainable_dtype="bfloat16").config, tiny_base().to(torch.bfloat16)
    ).eval()
    torch.testing.assert_close(half.represent(texts[:1]), model.represent(texts[:1]), atol=0.05, rtol=0)


# --- files ----------------------------------------------------------------------------------------------


@pytest.fixture
def base_folder(tmp_path):
    tiny_base().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@torch.no_grad()
@pytest.mark.parametrize("num_words", [0, 2])
def test_a_saved_model_is_the_same_when_loaded(tmp_path, base_folder, num_words):
    model = tiny_model(base=str(base_folder), num_words=num_words)
    model.save(tmp_path / "saved")
    loaded = EvolvableModel.load(tmp_path / "saved").eval()
    assert loaded.config == model.config
    chunks, texts, _ = rows_of(model)
    torch.testing.assert_close(loaded.memorize(chunks)[0], model.memorize(chunks)[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(loaded.represent(texts), model.represent(texts), atol=1e-6, rtol=0)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name, p in loaded.named_parameters() if p.requires_grad} == names
    size = sum(file.stat().st_size for file in (tmp_path / "saved").rglob("*") if file.is_file())
    assert size < 4 * sum(p.numel() for p in model.trainable_parameters()) + 40_000


@torch.no_grad()
def test_a_released_checkpoint_brings_its_base(tmp_path, base_folder):
    model = tiny_model(seed=3, max_chunk_turns=16, max_chunk_tokens=2048)
    folder = save_released(model, tmp_path / "released", base_folder)
    loaded = EvolvableModel.load(folder).eval()
    assert (loaded.config.embedding_dim, loaded.config.queue_capacity) == (16, 12)
    assert read_config(folder) == loaded.config
    _, texts, answers = rows_of(model)
    torch.testing.assert_close(loaded.represent(texts), model.represent(texts), atol=1e-6, rtol=0)
    torch.testing.assert_close(lm_loss(loaded, answers), lm_loss(model, answers), atol=1e-5, rtol=0)


def test_what_does_not_fit_is_refused_by_name(tmp_path, base_folder):
    model = tiny_model()
    with pytest.raises(ModelError, match=r"evolvable\.json nor a readable config\.json"):
        EvolvableModel.load(tmp_path)
    folder = save_released(model, tmp_path / "rank", base_folder, lora_r=8)
    with pytest.raises(ModelError, match="does not fit base"):
        EvolvableModel.load(folder)
    save_file({"mem_to_emb.2.weight": torch.zeros(16, 16)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="weights are missing"):
        EvolvableModel.load(folder)
    tiny_model(base=str(base_folder)).save(tmp_path / "saved")
    with pytest.raises(ModelError, match="2 weights are missing and 0 unknown, such as word_memory"):
        EvolvableModel.load(tmp_path / "saved", num_words=2)
