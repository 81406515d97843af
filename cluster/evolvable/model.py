"""The evolvable model: one frozen language model, two adapters, memory queries and three projections.

    memory_generator:  queue, turns of a chunk  ->  K latents a turn
    retriever:         queue, a text            ->  one unit vector
    no adapter:        queue, an exchange       ->  logits of its answer (the language-model loss)

Every method takes a list of rows of any lengths and is differentiable, the queues included; rows never see
each other, so a batch equals its rows one by one. Rows are padded behind their end, where under causal
attention no token of theirs looks: so there is no mask, and attention takes its fast path. Letters in shapes:
H the base's hidden size, K `num_latents`, E `embedding_dim`, V the vocabulary, q the length of a row's queue
(0 allowed).
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, TaskType, get_peft_model, load_peft_weights, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel

from cluster.evolvable.batching import by_memory, passes
from cluster.evolvable.checkpoint import CONFIG_FILE, read_config
from cluster.evolvable.words import WordMemory
from cluster.models.row_batches import batches
from cluster.models.sources import ModelError, model_folder
from schemas.evolvable import EvolvableConfig

MEMORY_GENERATOR, RETRIEVER = "memory_generator", "retriever"
HEADS_FILE = "heads.safetensors"

PAST_STEP = 128
"""Latents by which queues may differ in a pass that shares what was read of them."""


class Chunk(NamedTuple):
    """Turns to be memorised in one pass, and the queue as it stood before the first of them."""

    queue: Tensor
    """[q, H], q <= queue_capacity."""
    turns: Sequence[Sequence[int]]
    """Token ids of each turn, as `Tokens.memory_ids` makes them."""
    num_known: int = 0
    """Turns at the beginning whose latents are known already and not asked for."""


class Text(NamedTuple):
    """A document or a query, and the memory with which it is read."""

    queue: Tensor
    """[q, H]."""
    ids: Sequence[int]
    """As `Tokens.document_ids` or `Tokens.query_ids` make them."""


class Answer(NamedTuple):
    """An exchange whose assistant part is to be predicted with the memory in view."""

    queue: Tensor
    """[q, H]."""
    ids: Sequence[int]
    """The whole exchange, see `Tokens.answer_ids`."""
    positions: Sequence[int]
    """Positions of `ids` that are predicted, ascending, none 0."""
    insert_at: int
    """The queue stands before this position of `ids`: behind the header of the user's message."""


class EvolvableModel(nn.Module):
    """See the module. Only adapters, memory queries and projections are trainable; the base is frozen."""

    def __init__(self, config: EvolvableConfig, base: PreTrainedModel):
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self._active: str | None = ""
        base.requires_grad_(False)
        lora = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=config.lora_r,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=list(config.lora_targets),
        )
        # The attributes bear the names that the released checkpoints use for their weights.
        self.model = get_peft_model(base, lora, adapter_name=MEMORY_GENERATOR)
        self.model.add_adapter(RETRIEVER, lora)
        hidden, dim = self.hidden_size, config.embedding_dim
        self.memory_queries = nn.Parameter(torch.empty(1, config.num_latents, hidden))
        self.latent_to_mem = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU())
        self.mem_to_latent = nn.Sequential(nn.Linear(hidden, hidden))
        self.mem_to_emb = nn.Sequential(nn.Linear(hidden, dim), nn.ReLU(), nn.Linear(dim, dim))
        if config.num_words:
            self.word_memory = WordMemory(self.model.get_input_embeddings().weight.shape[0], config.num_words)
        nn.init.normal_(self.memory_queries, std=config.query_std)
        for module in (self.latent_to_mem, self.mem_to_latent, self.mem_to_emb):
            for layer in module:
                if isinstance(layer, nn.Linear):
                    nn.init.eye_(layer.weight)
                    nn.init.zeros_(layer.bias)
        dtype = getattr(torch, config.trainable_dtype)
        self._adapters = [p for name, p in self.model.named_parameters() if ".lora_" in name]
        for parameter in [*self._adapters, *self.projection_parameters()]:
            parameter.data = parameter.data.to(dtype)
        self._trainable(True)

    @classmethod
    def from_base(cls, config: EvolvableConfig) -> "EvolvableModel":
        """A new model over pretrained base weights: adapters without effect, projections the identity."""
        folder = model_folder(config.base, config.base_revision)
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, config.dtype))
        return cls(config, base)

    @property
    def hidden_size(self) -> int:
        return self.model.get_input_embeddings().weight.shape[1]

    @property
    def device(self) -> torch.device:
        return self.memory_queries.device

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Both adapters, memory queries, projections."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def adapter_parameters(self) -> list[nn.Parameter]:
        """Of both adapters."""
        return list(self._adapters)

    def projection_parameters(self) -> list[nn.Parameter]:
        """All that is learned beside the adapters: memory queries, projections, the gate of a word memory."""
        return [p for name, p in self.named_parameters() if not name.startswith("model.")]

    def empty_queue(self) -> Tensor:
        """The memory of a conversation that has not begun: [0, H]."""
        return self.memory_queries.new_zeros(0, self.hidden_size)

    # --- the three passes -----------------------------------------------------------------------------

    def memorize(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        """Latents of each chunk's turns from `num_known` on: [turns, K, H] a chunk."""
        num_latents = self.config.num_latents
        pieces, starts = [], []
        words = iter(self._words([ids for chunk in chunks for ids in chunk.turns]))
        queries = self.memory_queries[0].to(self._base_dtype)
        for chunk, queue in zip(chunks, self._prefixes([c.queue for c in chunks]), strict=True):
            row, offset, slots = [queue], len(queue), []
            for index, _ in enumerate(chunk.turns):
                row += [(turn := next(words)), queries]
                offset += len(turn)
                if index >= chunk.num_known:
                    slots.append(offset)
                offset += num_latents
            pieces.append(torch.cat(row))
            starts.append(slots)
        hidden = self._run(MEMORY_GENERATOR, self._backbone, _pad(pieces))
        rows = torch.tensor([row for row, slots in enumerate(starts) for _ in slots], device=self.device)
        first = torch.tensor([slot for slots in starts for slot in slots], device=self.device)
        within = torch.arange(num_latents, device=self.device)
        latents = hidden[rows[:, None], first[:, None] + within]
        flat = self.latent_to_mem(latents.to(self.memory_queries.dtype))
        if self.config.num_words:
            asked = [ids for chunk in chunks for ids in chunk.turns[chunk.num_known :]]
            flat = self.word_memory(flat, asked, self.model.get_input_embeddings())
        return list(flat.split([len(slots) for slots in starts]))

    @property
    def can_share(self) -> bool:
        """Whether `represent_shared` works: all layers attend to everything before, so that what was computed
        for a memory serves its beginnings as well."""
        config = self.model.get_base_model().config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
        return not kinds and not getattr(config, "sliding_window", None)

    def represent_shared(self, texts: Sequence[Text], max_tokens: int) -> Tensor:
        """As `represent`, where queues that are beginnings of one tensor are read once for all their texts:
        the keys and values of the longest serve the others. At most `max_tokens` in one pass over texts."""
        logs: list[Tensor] = []
        row_of = torch.empty(len(texts), dtype=torch.long)
        for indexes in by_memory(texts).values():
            row_of[indexes] = len(logs)
            logs.append(max((texts[index].queue for index in indexes), key=len))
        known = self._run(RETRIEVER, self._keys_and_values, _pad(self._prefixes(logs)))
        words = self._words([text.ids for text in texts])
        order, found = [], []
        for batch in self._by_past(texts, max_tokens):
            ends = torch.tensor([len(texts[index].queue) for index in batch], device=self.device)
            rows, past = row_of[batch].to(self.device), int(ends.max())
            kept = [tensor[rows, :, :past] for tensor in known]
            hidden = self._run(RETRIEVER, self._behind(ends), _pad([words[index] for index in batch]), *kept)
            found.append(self._vectors(hidden, [len(texts[index].ids) for index in batch]))
            order += batch
        return torch.cat(found)[torch.tensor(order, device=self.device).argsort()]

    @staticmethod
    def _by_past(texts: Sequence[Text], max_tokens: int) -> Iterator[list[int]]:
        """Indexes of texts, whose queues are alike and whose words are: what a row has less of than the
        longest of its batch is computed for nothing, and of the queue it is most of attention."""
        steps: dict[int, list[int]] = {}
        for index, text in enumerate(texts):
            steps.setdefault(-(-len(text.queue) // PAST_STEP), []).append(index)
        for step, group in steps.items():
            past = step * PAST_STEP
            yield from batches(group, lambda index, past=past: past + len(texts[index].ids), max_tokens)

    def represent(self, texts: Sequence[Text]) -> Tensor:
        """Unit vectors of the texts: float32 [len(texts), E]."""
        parts = zip(
            self._prefixes([t.queue for t in texts]), self._words([t.ids for t in texts]), strict=True
        )
        rows = [torch.cat(part) for part in parts]
        return self._vectors(self._run(RETRIEVER, self._backbone, _pad(rows)), list(map(len, rows)))

    def represent_all(self, texts: Sequence[Text], max_tokens: int, *, share: bool = True) -> Tensor:
        """Unit vectors of any number of texts, in passes of at most `max_tokens`; `share`: with what they
        remember together read once, where the base allows it. float32 [len(texts), E]."""
        found: list[Tensor | None] = [None] * len(texts)
        for indexes, shared in passes(texts, max_tokens, share=share and self.can_share):
            batch = [texts[index] for index in indexes]
            vectors = self.represent_shared(batch, max_tokens) if shared else self.represent(batch)
            for index, vector in zip(indexes, vectors, strict=True):
                found[index] = vector
        return torch.stack(found)

    def _vectors(self, hidden: Tensor, lengths: list[int]) -> Tensor:
        """From the last hidden state of each row."""
        ends = torch.tensor(lengths, device=self.device) - 1
        last = hidden[torch.arange(len(lengths), device=self.device), ends].to(self.memory_queries.dtype)
        return nn.functional.normalize(self.mem_to_emb(self.latent_to_mem(last)).float(), dim=-1)

    def answer_logits(self, answers: Sequence[Answer]) -> list[Tensor]:
        """Logits that predict `ids[positions]` of each row: float32 [len(positions), V], adapters off."""
        words = self._words([answer.ids for answer in answers])
        rows, wanted = [], []
        for answer, queue, text in zip(
            answers, self._prefixes([a.queue for a in answers]), words, strict=True
        ):
            rows.append(torch.cat([text[: answer.insert_at], queue, text[answer.insert_at :]]))
            # What predicts a token is the position before it, which for the first behind the queue is in it.
            shift = [len(queue) if position >= answer.insert_at else 0 for position in answer.positions]
            wanted.append([p + s - 1 for p, s in zip(answer.positions, shift, strict=True)])
        keep = sorted({position for at in wanted for position in at})
        column = {position: index for index, position in enumerate(keep)}
        # Logits of the other positions would be computed for nothing.
        kept = torch.tensor(keep, device=self.device)
        logits = self._run(None, lambda embeds: self._lm_logits(embeds, kept), _pad(rows))
        return [logits[row, [column[p] for p in at]].float() for row, at in enumerate(wanted)]

    # --- files ----------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write adapters, memory queries, projections and config; the base is named, not copied."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder, selected_adapters=[MEMORY_GENERATOR, RETRIEVER])
        heads = {k: v.contiguous() for k, v in self.state_dict().items() if not k.startswith("model.")}
        save_file(heads, folder / HEADS_FILE)
        # Last: a folder with a config is complete.
        (folder / CONFIG_FILE).write_text(self.config.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path, *, base: str | None = None, **overrides: Any) -> "EvolvableModel":
        """Load what `save` wrote, or a released checkpoint; `overrides` are fields of the config.

        `base` replaces the base that the folder names, for one that has moved. ModelError when weights are
        missing or do not fit.
        """
        folder = Path(folder)
        values = read_config(folder).model_dump() | overrides | ({"base": base} if base else {})
        config = EvolvableConfig.model_validate(values)
        if not (folder / CONFIG_FILE).is_file():
            return cls._load_released(folder, config)
        model = cls.from_base(config)
        for adapter in (MEMORY_GENERATOR, RETRIEVER):
            weights = load_peft_weights(str(folder / adapter), device="cpu")
            set_peft_model_state_dict(model.model, weights, adapter_name=adapter)
        model._take(load_file(folder / HEADS_FILE), folder, whole=False)
        model._trainable(True)
        return model

    @classmethod
    def _load_released(cls, folder: Path, config: EvolvableConfig) -> "EvolvableModel":
        """The layout of MiG-NJU/EvoEmbedding-*: one state dict of wrapper, base, adapters and, unused here,
        the static embedder beside which it was trained."""
        weights: dict[str, Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            weights |= {k: v for k, v in load_file(file).items() if not k.startswith("emb_model.")}
        if any(".base_layer." in name for name in weights):
            # The checkpoint brings the base's weights with it; only its shape is needed.
            shape = AutoConfig.from_pretrained(model_folder(config.base, config.base_revision))
            base = AutoModelForCausalLM.from_config(shape, dtype=getattr(torch, config.dtype))
            model = cls(config, base)
        else:
            model = cls.from_base(config)
        model._take(weights, folder, whole=True)
        return model

    def _take(self, weights: dict[str, Tensor], folder: Path, *, whole: bool) -> None:
        """Load weights by name. `whole`: adapters too, and the base's if there are any."""
        has_base = any(".base_layer." in name for name in weights)
        try:
            missing, unexpected = self.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            raise ModelError(
                f"model {folder} does not fit base {self.config.base!r}: {str(error)[:300]}"
            ) from None
        needed = [
            name
            for name in missing
            if not name.startswith("model.") or (whole and (has_base or ".lora_" in name))
        ]
        # An output layer that is tied to the embeddings is stored once.
        if needed and self.model.get_base_model().config.get_text_config().tie_word_embeddings:
            needed = [name for name in needed if "lm_head" not in name and "embed_tokens" not in name]
        if needed or unexpected:
            raise ModelError(
                f"model {folder} does not fit base {self.config.base!r}: {len(needed)} weights are missing "
                f"and {len(unexpected)} unknown, such as {(needed + unexpected)[0]}"
            )

    # --- the base -------------------------------------------------------------------------------------

    @property
    def _base_dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype

    def _words(self, ids: list[Sequence[int]]) -> list[Tensor]:
        """Input embeddings of each id list: [length, H]."""
        flat = torch.tensor([i for row in ids for i in row], dtype=torch.long, device=self.device)
        return list(self.model.get_input_embeddings()(flat).split([len(row) for row in ids]))

    def _prefixes(self, queues: list[Tensor]) -> list[Tensor]:
        """mem_to_latent of each queue: [q, H], in the base's dtype."""
        flat = self.mem_to_latent(torch.cat(queues).to(self.device, self.memory_queries.dtype))
        return list(flat.to(self._base_dtype).split([len(queue) for queue in queues]))

    def _backbone(self, embeds: Tensor) -> Tensor:
        """Hidden states after the final norm: [B, width, H]. The output layer is left out."""
        backbone = self.model.get_base_model().get_decoder()
        return backbone(inputs_embeds=embeds, use_cache=False).last_hidden_state

    def _keys_and_values(self, embeds: Tensor) -> tuple[Tensor, ...]:
        """Of every layer, [B, heads, width, size] each: keys, values, keys, values and so on."""
        cache = DynamicCache()
        self.model.get_base_model().get_decoder()(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
        return tuple(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))

    def _behind(self, ends: Tensor) -> Callable[..., Tensor]:
        """A pass over rows that stand behind the first `ends` [B] positions of what is known."""

        def run(embeds: Tensor, *known: Tensor) -> Tensor:
            width, past = embeds.shape[1], known[0].shape[2]
            places, before = torch.arange(width, device=self.device), torch.arange(past, device=self.device)
            seen = (before < ends[:, None])[:, None].expand(-1, width, -1)
            own = (places <= places[:, None]).expand(len(ends), -1, -1)
            hidden_from = ~torch.cat([seen, own], dim=2)[:, None]
            # Additive once, instead of in every layer: a quarter of attention's time on a CPU.
            mask = embeds.new_zeros(hidden_from.shape).masked_fill(hidden_from, -torch.inf)
            hidden = self.model.get_base_model().get_decoder()(
                inputs_embeds=embeds,
                attention_mask=mask,
                position_ids=ends[:, None] + places,
                past_key_values=DynamicCache(zip(known[::2], known[1::2], strict=True)),
                use_cache=True,
            )
            return hidden.last_hidden_state

        return run

    def _lm_logits(self, embeds: Tensor, keep: Tensor) -> Tensor:
        base = self.model.get_base_model()
        return base(inputs_embeds=embeds, use_cache=False, logits_to_keep=keep).logits

    def _run(self, adapter: str | None, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Call with one adapter, or none, switched on."""

        def run(*inputs: Tensor) -> Tensor:
            # Inside, because a checkpointed call runs again during backward, when another adapter is on.
            self._switch(adapter)
            return function(*inputs)

        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(run, *inputs, use_reentrant=False)
        return run(*inputs)

    def _switch(self, adapter: str | None) -> None:
        # peft walks through all modules for it, which for a small base takes longer than the pass.
        if adapter == self._active:
            return
        self._active = adapter
        tuner = self.model.base_model
        trainable = self.memory_queries.requires_grad
        if adapter is None:
            tuner.disable_adapter_layers()
        else:
            tuner.enable_adapter_layers()
            tuner.set_adapter(adapter)
        # peft freezes what it switches off; both adapters are learned at once.
        for parameter in self._adapters:
            parameter.requires_grad_(trainable)

    def _trainable(self, trainable: bool) -> None:
        for parameter in [*self.adapter_parameters(), *self.projection_parameters()]:
            parameter.requires_grad_(trainable)


def _pad(rows: list[Tensor]) -> Tensor:
    """Rows [length, H], padded behind: [B, width, H]."""
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)
