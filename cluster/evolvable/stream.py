"""Many conversations through the model at once, each in causal order: a wavefront.

The memory after a chunk needs the memory before it, so one conversation is sequential; but the next chunks
of many conversations make one batch. Vectors of documents need only the memory before their exchange, so
they leave the sequence: they wait in a pool of their own, which is drained in large batches of like length,
and the two adapters are not switched for every chunk.

A document's vector is made with the memory before its exchange, and never changes when the conversation
goes on.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cluster.evolvable.batching import closes, passes
from cluster.evolvable.model import Chunk, EvolvableModel, Text
from cluster.evolvable.state import State, hash_exchanges
from cluster.evolvable.tokens import Exchange, Tokens
from cluster.models.row_batches import batches


@dataclass(frozen=True)
class Conversation:
    """A conversation to be embedded, all of it, and what is known of its beginning."""

    key: str
    exchanges: Sequence[Exchange]
    state: State | None = None
    """As an earlier run has left it."""


@dataclass(frozen=True)
class Embedded:
    """A conversation's new vectors and its state, or why there are none."""

    key: str
    first: int = 0
    """Number of the first exchange with a new vector; those before keep theirs."""
    vectors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """float32 [num_exchanges - first, E], unit norm."""
    state: State | None = None
    error: str = ""
    """Empty unless the conversation failed; then nothing of it is to be used."""


@dataclass
class Work:
    """What was computed, for reports. Padding counts in the `_padded` numbers only."""

    num_chunks: int = 0
    num_batches: int = 0
    memory_tokens: int = 0
    memory_tokens_padded: int = 0
    retriever_tokens: int = 0


class _Running:
    """A conversation in the wavefront."""

    def __init__(self, conversation: Conversation, model: EvolvableModel, tokens: Tokens):
        self.key, exchanges, state = conversation.key, conversation.exchanges, conversation.state
        unchanged = state.num_unchanged(exchanges) if state else 0
        if state and unchanged < state.num_turns:
            # The state knows something that is not so any more: read anew, keep the vectors before it.
            state = None
        start = state.num_turns if state else 0
        self.first = unchanged
        self.hashes = hash_exchanges(exchanges)
        self.ids = tokens.memory_ids(exchanges[start:], first=start == 0)
        self.documents = tokens.document_ids([exchange.text for exchange in exchanges[self.first :]])
        self.next, self.start = start, start
        self.open = [list(ids) for ids in state.open_ids] if state else []
        self.window = model.empty_queue() if state is None else torch.from_numpy(state.latents.copy())
        self.window = self.window.to(model.device, torch.float32)
        self.vectors: dict[int, np.ndarray] = {}
        self.error = ""

    @property
    def num_turns(self) -> int:
        return self.start + len(self.ids)

    @property
    def is_read(self) -> bool:
        return self.next >= self.num_turns

    @property
    def is_done(self) -> bool:
        return bool(self.error) or (self.is_read and len(self.vectors) == self.num_turns - self.first)


class Wavefront:
    """Embeds conversations, see the module.

    `max_active` conversations are read side by side; what they hold is the memory this takes. A batch has
    at most `memory_tokens` or `retriever_tokens` tokens, padding included, unless one row alone has more.
    `share_memory`: where the base allows it, a memory that several texts begin with is read once for them.
    """

    def __init__(
        self,
        model: EvolvableModel,
        tokens: Tokens,
        *,
        max_active: int = 64,
        memory_tokens: int = 16_384,
        retriever_tokens: int = 32_768,
        share_memory: bool = True,
    ):
        self.model, self.tokens, self.work = model.eval(), tokens, Work()
        self._max_active = max_active
        self._memory_tokens, self._retriever_tokens = memory_tokens, retriever_tokens
        self._pool: list[tuple[_Running, int, Text]] = []
        self._share = share_memory and model.can_share

    def run(self, conversations: Iterable[Conversation]) -> Iterator[Embedded]:
        """Embed all conversations, the longest first; results come as they are ready.

        One that fails costs itself: its result has an `error`. RuntimeError when all fail.
        """
        waiting = sorted(conversations, key=lambda c: sum(len(e.text) for e in c.exchanges))
        active: list[_Running] = []
        num_all, num_failed = len(waiting), 0
        while waiting or active:
            # What only waits for its vectors takes no place in the wavefront.
            while waiting and sum(not running.is_read for running in active) < self._max_active:
                conversation = waiting.pop()
                try:
                    active.append(_Running(conversation, self.model, self.tokens))
                except Exception as error:
                    num_failed += 1
                    yield Embedded(conversation.key, error=f"{type(error).__name__}: {error}")
            self._advance([running for running in active if not running.error and not running.is_read])
            # Draining waits until its batches are full, or nothing else can go on.
            pooled = sum(_length(text) for _, _, text in self._pool)
            if pooled >= 4 * self._retriever_tokens or all(r.is_read or r.error for r in active):
                self._drain()
            for running in [running for running in active if running.is_done]:
                active.remove(running)
                num_failed += bool(running.error)
                yield self._result(running)
        if num_all > 1 and num_failed == num_all:
            raise RuntimeError(f"evolvable embedder: all {num_all} conversations failed")

    def query(self, state: State | None, text: str) -> np.ndarray:
        """A question's vector against a conversation as it stands: float32 [E], unit norm."""
        return self.queries([(state, text)])[0]

    def queries(self, asked: Sequence[tuple[State | None, str]]) -> np.ndarray:
        """Vectors of questions, each against its conversation: float32 [len(asked), E]."""
        texts = []
        for (state, _), ids in zip(asked, self.tokens.query_ids([text for _, text in asked]), strict=True):
            queue = self.model.empty_queue() if state is None else torch.from_numpy(state.latents.copy())
            texts.append(Text(self.model.config.asked_with(queue), ids))
        return self.represent(texts)

    @torch.inference_mode()
    def represent(self, texts: Sequence[Text]) -> np.ndarray:
        """Vectors of any number of texts: float32 [len(texts), E]."""
        if not texts:
            return np.zeros((0, self.model.config.embedding_dim), np.float32)
        return self.model.represent_all(texts, self._retriever_tokens, share=self._share).cpu().numpy()

    # --- one round ------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _advance(self, running: list[_Running]) -> None:
        """Read the next chunk of each conversation, and put its documents into the pool."""
        jobs = []
        for one in running:
            if one.open and closes(one.open, one.ids[one.next - one.start], self.model.config):
                one.open, one.window = [], self._newest(one.window)
            turns, num_open = list(one.open), len(one.open)
            while one.next - one.start + len(turns) - num_open < len(one.ids):
                ids = one.ids[one.next - one.start + len(turns) - num_open]
                if turns and closes(turns, ids, self.model.config):
                    break
                turns.append(ids)
            before = len(one.window) - num_open * self.model.config.num_latents
            jobs.append((one, Chunk(one.window[:before], turns, num_open)))
        for batch in batches(jobs, lambda job: self._chunk_length(job[1]), self._memory_tokens):
            self.work.num_chunks += len(batch)
            lengths = [self._chunk_length(chunk) for _, chunk in batch]
            self.work.memory_tokens += sum(lengths)
            self.work.memory_tokens_padded += max(lengths) * len(lengths)
            self._safely(batch, self._memorize)

    def _memorize(self, batch: list[tuple[_Running, Chunk]]) -> None:
        self.work.num_batches += 1
        capacity, num_latents = self.model.config.queue_capacity, self.model.config.num_latents
        for (one, chunk), latents in zip(batch, self.model.memorize([c for _, c in batch]), strict=True):
            if not torch.isfinite(latents).all():
                one.error = "its latents are not finite numbers"
                continue
            end = len(one.window)
            one.window = torch.cat([one.window, latents.float().flatten(0, 1)])
            for _ in range(len(chunk.turns) - chunk.num_known):
                if one.next >= one.first:
                    queue = one.window[max(0, end - capacity) : end]
                    self._pool.append((one, one.next, Text(queue, one.documents[one.next - one.first])))
                one.next += 1
                end += num_latents
            one.open = [list(ids) for ids in chunk.turns]

    @torch.inference_mode()
    def _drain(self) -> None:
        """Vectors of all documents in the pool."""
        pool, self._pool = self._sharing([job for job in self._pool if not job[0].error]), []

        def represent(batch: list[tuple[_Running, int, Text]], shared: bool) -> None:
            vectors = self._represent([text for _, _, text in batch], shared)
            for (one, number, _), vector in zip(batch, vectors, strict=True):
                if not np.isfinite(vector).all():
                    one.error = f"the vector of exchange {number} is not of finite numbers"
                one.vectors[number] = vector

        texts = [text for _, _, text in pool]
        for indexes, shared in passes(texts, self._retriever_tokens, share=self._share):
            self._safely([pool[index] for index in indexes], functools.partial(represent, shared=shared))

    def _sharing(self, pool: list[tuple[_Running, int, Text]]) -> list[tuple[_Running, int, Text]]:
        """The same jobs; of each conversation, the queues that hold all of its latents so far, and so are
        beginnings of the longest of them, are slices of that."""
        whole: dict[_Running, torch.Tensor] = {}
        num_latents = self.model.config.num_latents
        for one, number, text in pool:
            if len(text.queue) == number * num_latents >= len(whole.get(one, ())):
                whole[one] = text.queue
        return [
            (one, number, text._replace(queue=whole[one][: number * num_latents]))
            if len(text.queue) == number * num_latents
            else (one, number, text)
            for one, number, text in pool
        ]

    def _represent(self, batch: list[Text], shared: bool) -> np.ndarray:
        self.work.num_batches += 1
        self.work.retriever_tokens += sum(len(text.queue) + len(text.ids) for text in batch)
        if shared:
            return self.model.represent_shared(batch, self._retriever_tokens).cpu().numpy()
        return self.model.represent(batch).cpu().numpy()

    def _safely(self, batch: list[tuple], work: Callable[[list[tuple]], None]) -> None:
        """Do it; where that fails, halve the batch until the one to blame is alone."""
        try:
            return work(batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0][0].error = f"{type(error).__name__}: {error}"
                return None
        middle = len(batch) // 2
        self._safely(batch[:middle], work)
        self._safely(batch[middle:], work)

    # --- sizes ----------------------------------------------------------------------------------------

    def _newest(self, latents: Tensor) -> Tensor:
        return latents[-self.model.config.queue_capacity :]

    def _chunk_length(self, chunk: Chunk) -> int:
        return len(chunk.queue) + sum(len(ids) + self.model.config.num_latents for ids in chunk.turns)

    def _result(self, one: _Running) -> Embedded:
        if one.error:
            return Embedded(one.key, error=one.error)
        state = State(one.hashes, tuple(map(tuple, one.open)), one.window.cpu().numpy())
        numbers = range(one.first, one.num_turns)
        vectors = np.zeros((0, self.model.config.embedding_dim), np.float32)
        if numbers:
            vectors = np.stack([one.vectors[number] for number in numbers])
        return Embedded(one.key, one.first, vectors, state)


def _length(text: Text) -> int:
    return len(text.queue) + len(text.ids)
