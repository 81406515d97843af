"""The cross-encoder, with a model made on the spot."""

import json

import pytest

from cluster.models.reranker import Reranker


def test_nothing_is_loaded_before_it_is_asked():
    assert Reranker("no/such-model").model == "no/such-model"


@pytest.mark.slow
def test_any_cross_encoder_of_a_folder_scores_each_text(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "where", "is", "ann", "oslo", "tea"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=64, num_labels=1, **sizes)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    rerank = Reranker(str(tmp_path))
    scores = rerank("where is ann", ["ann is in oslo", "tea", "ann is in oslo"])
    assert scores[0] == pytest.approx(scores[2]) != scores[1]
