"""A language model behind a provider's batch API: a file of requests goes up, a file of answers comes back.

It costs less, and may take a day. Answers go into the same ledger of paid answers as those of direct
requests. What makes a killed run find its batches again is a note on each, a file
`batches/ROLE/FINGERPRINT/NAME.json`, which is put before the step that it speaks of:

    NAME, keys   a file of that name may lie at the provider, and is of no use: it is deleted
    + file_id    a batch may have been created of that file: it is looked for, by NAME in its metadata
    + batch_id   the batch is waited for
    + left       every answer is in the ledger; these files of the provider are deleted, then the note

A creation is never sent twice: where its answer is lost, by a kill, a time-out or a 5xx, the batch is looked
for. Where there is none, its file is withdrawn, so that a creation which is still under way finds nothing to
run, and it is looked for once more. Only then the requests are sent again, as another batch.
"""

import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from cluster.models.asking import Answer, Request
from cluster.models.batch_api import ENDED, URL, Provider, SentBatch, may_pass, read_line, retry_after
from cluster.models.endpoint import Endpoint, EndpointError, estimated_tokens, is_odd, short
from cluster.models.paid_answers import MAX_FAILURES, Budget, Paid, Responses
from cluster.runtime.log import write
from cluster.runtime.progress import duration
from cluster.store.files import HOME
from schemas.endpoint import EndpointConfig

if TYPE_CHECKING:
    from openai.types import Batch

MAX_BYTES = 100_000_000
"""Of one file of requests; OpenAI takes 200 MB, others 100 MB."""

MAX_RESENT = 2
"""How often a request goes into another batch at most, where one expired, failed, or lost it."""

MAX_FETCHES = 4
"""How often a file is fetched at most that has fewer lines than the batch has answers."""

NUM_WRITERS = 16
"""Answers that are put into the ledger side by side."""

_NOT_OFFERED = (403, 404, 405)
"""Status of what a provider does not do, or not with this key."""

_QUEUE_FULL = re.compile(r"token_limit|enqueued|queue|rate.?limit", re.IGNORECASE)
"""How providers say that a batch failed because others wait already."""


class Notes:
    """Notes on batches, in the ledger of a role."""

    def __init__(self, responses: Responses):
        self._files, self._role = responses.files, f"batches/{responses.role}"
        self._folder = f"{self._role}/{responses.fingerprint}"

    def all(self) -> tuple[list[SentBatch], list[SentBatch]]:
        """Notes of this fingerprint, and those of others: another model's, or another prompt's."""
        own: list[SentBatch] = []
        others: list[SentBatch] = []
        for path in self._files.paths(self._role):
            if found := self._files.get_json(path):
                (own if path.startswith(f"{self._folder}/") else others).append(SentBatch(**found))
        return own, others

    def put(self, sent: SentBatch) -> SentBatch:
        self._files.put_json(self._path(sent), asdict(sent))
        return sent

    def delete(self, sent: SentBatch) -> None:
        self._files.delete([self._path(sent)])

    def place(self, sent: SentBatch) -> str:
        """Where the note lies, for people."""
        return f"{self._files.uri}/{HOME}/{self._files.folder}/{self._path(sent)}"

    def _path(self, sent: SentBatch) -> str:
        return f"{self._folder}/{sent.name}.json"


class BatchEndpoint(Paid):
    """An endpoint within Paid that is asked through its batch API where `batch` of its settings says so.

    Where it does not, batches that an earlier run left open are cancelled first, and what they have answered
    is kept.
    """

    def __init__(self, config: EndpointConfig, responses: Responses, budget: Budget):
        self.config, self._endpoint = config, Endpoint(config)
        super().__init__(self._endpoint, responses, budget)
        self._notes = Notes(responses)
        if config.batch:
            self.counts.update(num_batches=0, num_resumed=0)
        self._found: dict[str, Answer] = {}
        """What batches gave to this run: answers, and refusals, which the ledger does not keep."""
        self._num_kept = 0
        self._sent_times: Counter[str] = Counter()
        self._own, others = self._notes.all()
        for sent in others:
            # They may be paid yet; who runs with their settings again keeps their answers.
            budget.take(sent.tokens, sent.cost)
            self._say(f"batch {sent.batch_id or sent.name}, of another model or prompt, is open")

    def found(self, requests: list[Request]) -> dict[str, Answer | None]:
        if not self._own and not (self.config.batch and requests):
            return super().found(requests)
        import openai

        try:
            provider = Provider(self._endpoint)
            if self.config.batch:
                return self._by_batches(provider, requests)
            self._cancel_own(provider)
        except openai.OpenAIError as error:
            remedy = (
                "mend it and run again: open batches are waited for, and nothing is paid for twice"
                if may_pass(error)
                else f"check base_url, model, the key in {self.config.api_key_env}, and whether there is a "
                "batch API: batch = false asks without it"
            )
            raise EndpointError(f"{self.config.base_url}: {short(error)}; {remedy}") from None
        return self._found | super().found([one for one in requests if one.key not in self._found])

    # --- what is sent --------------------------------------------------------------------------------------

    def _by_batches(self, provider: Provider, requests: list[Request]) -> dict[str, Answer | None]:
        """Send what no batch has, and wait for the batches, until every request is answered or given up."""
        left = self._open_ones(provider)
        most = 1 + min(MAX_RESENT, self.config.max_retries)
        while True:
            on_their_way = {key for sent in left for key in sent.requests}
            waiting = [
                request
                for request in requests
                if request.key not in on_their_way
                and request.key not in self._found
                and self._sent_times[request.key] < most
            ]
            fitting = [request for request in waiting if self._fits(request)]
            if any(self._sent_times[request.key] for request in fitting):
                time.sleep(self.config.batch_poll_s)
            for some, data in self._files_of(fitting):
                left.append(self._submit(provider, some, data))
            if not left:
                break
            self._wait(provider, left)
            left = []
        self.counts["num_capped"] += len(waiting)
        num_failed = sum(request.key not in self._found for request in requests) - len(waiting)
        self.counts["num_failed"] += num_failed
        if num_failed and not self._num_kept:
            raise EndpointError(self.last_error)
        return {request.key: self._found.get(request.key) for request in requests}

    def _fits(self, request: Request) -> bool:
        """Reserve what the request may cost; False where a cap leaves no room for it."""
        most = self._endpoint.at_most(request, in_batch=True)
        if fits := self.budget.fits(*most):
            self.budget.take(*most)
        return fits

    def _files_of(self, requests: list[Request]) -> Iterator[tuple[list[Request], bytes]]:
        """Requests in as many files as there must be."""
        some: list[Request] = []
        lines: list[bytes] = []
        num_bytes = 0
        for request in requests:
            body = self._endpoint.body(request) | self.config.extra_body
            found = {"custom_id": request.key, "method": "POST", "url": URL, "body": body}
            line = json.dumps(found, ensure_ascii=False).encode() + b"\n"
            if some and (len(some) == self.config.batch_max_requests or num_bytes + len(line) > MAX_BYTES):
                yield some, b"".join(lines)
                some, lines, num_bytes = [], [], 0
            some.append(request)
            lines.append(line)
            num_bytes += len(line)
        if some:
            yield some, b"".join(lines)

    def _submit(self, provider: Provider, requests: list[Request], data: bytes) -> SentBatch:
        """Upload and create, so that there is one batch of these requests, whatever answer gets lost."""
        import openai

        most = [self._endpoint.at_most(request, in_batch=True) for request in requests]
        tokens, cost = sum(pair[0] for pair in most), sum(pair[1] for pair in most)
        tokens_of = {request.key: estimated_tokens(request.messages) for request in requests}
        for attempt in range(1 + self.config.max_retries):
            sent = SentBatch(uuid.uuid4().hex, time.time(), tokens_of, tokens, cost)
            try:
                sent = self._notes.put(sent)
                sent = self._notes.put(replace(sent, file_id=provider.upload(sent, data)))
                sent = self._notes.put(replace(sent, batch_id=provider.create(sent)))
            except openai.OpenAIError as error:
                if not may_pass(error):
                    self._clear(provider, replace(sent, left=[sent.file_id] if sent.file_id else []))
                    raise
                found = self._resolved(provider, sent)
                if found is None:
                    if attempt == self.config.max_retries:
                        raise
                    time.sleep(retry_after(error, attempt))
                    continue
                sent = found
            self.counts["num_batches"] += 1
            self.counts["num_asked"] += len(requests)
            self.counts["num_in_doubt"] += len(self.responses.in_doubt & tokens_of.keys())
            self._sent_times.update(tokens_of.keys())
            return sent
        raise AssertionError("every attempt returns or raises")

    def _resolved(self, provider: Provider, sent: SentBatch) -> SentBatch | None:
        """A batch whose creation, or whose run, broke off: with its id where it was created. Else None, and
        nothing is left of it."""
        import openai

        try:
            if not sent.file_id:
                for file_id in provider.uploaded(sent):
                    provider.delete(file_id)
            else:
                if not (batch_id := provider.created(sent)):
                    self._withdraw(provider, sent)
                    time.sleep(self.config.batch_poll_s)
                    batch_id = provider.created(sent)
                if batch_id:
                    return self._notes.put(replace(sent, batch_id=batch_id))
        except openai.APIStatusError as error:
            if error.status_code not in _NOT_OFFERED:
                raise
            if sent.file_id:
                raise EndpointError(
                    f"{self._named(sent)}: nobody knows whether it was created, for batches are not listed "
                    f"({short(error)}); look there, delete {self._notes.place(sent)} if it was not, and run "
                    "again"
                ) from None
        self._notes.delete(sent)
        return None

    @staticmethod
    def _withdraw(provider: Provider, sent: SentBatch) -> None:
        """Delete the file of requests, where files can be deleted."""
        import openai

        try:
            provider.delete(sent.file_id)
        except openai.APIStatusError as error:
            if error.status_code not in _NOT_OFFERED:
                raise

    # --- what comes back -----------------------------------------------------------------------------------

    def _open_ones(self, provider: Provider) -> list[SentBatch]:
        """Batches that an earlier run has left, after whatever it left half done is done."""
        left, self._own = self._own, []
        found = []
        for sent in left:
            if sent.left is not None:
                self._clear(provider, sent)
            elif resolved := sent if sent.batch_id else self._resolved(provider, sent):
                self.budget.take(resolved.tokens, resolved.cost)
                self.counts["num_resumed"] += len(resolved.requests)
                self._sent_times.update(resolved.requests.keys())
                found.append(resolved)
        if found:
            self._say(f"{len(found)} batches of an earlier run are open")
        return found

    def _cancel_own(self, provider: Provider) -> None:
        left = self._open_ones(provider)
        for sent in left:
            provider.cancel(sent)
        if left:
            self._say("batch = false: they are cancelled, and what they answered is kept")
            self._wait(provider, left)

    def _wait(self, provider: Provider, left: list[SentBatch]) -> None:
        """Until these batches have ended, and their answers are kept. EndpointError after batch_timeout_s,
        and where somebody else cancelled one."""
        begun_s, open_ones = time.monotonic(), {sent.name: sent for sent in left}
        ended: list[tuple[SentBatch, Batch]] = []
        states = {sent.name: ("unknown", 0) for sent in left}
        while True:
            for sent in list(open_ones.values()):
                if (batch := self._look(provider, sent)) is None:
                    continue
                num_done = batch.request_counts.completed if batch.request_counts else 0
                if batch.status in ENDED:
                    num_done = self._keep(provider, sent, batch)
                    ended.append((sent, batch))
                    del open_ones[sent.name]
                states[sent.name] = (batch.status, num_done)
            waited_s = time.monotonic() - begun_s
            self._tell(sum(len(sent.requests) for sent in left), list(states.values()), waited_s)
            if not open_ones:
                break
            if waited_s >= self.config.batch_timeout_s:
                named = ", ".join(f"{sent.batch_id} ({states[name][0]})" for name, sent in open_ones.items())
                raise EndpointError(
                    f"{self.config.base_url}: batch_timeout_s={self.config.batch_timeout_s:g}: not done are "
                    f"{named}. They go on there: run again to wait for them"
                )
            time.sleep(min(self.config.batch_poll_s, self.config.batch_timeout_s - waited_s))
        self._judge_ends(ended)

    def _tell(self, total: int, states: list[tuple[str, int]], waited_s: float) -> None:
        """A line on how far the batches are. `states`: of each its status, and how much of it is answered."""
        done = sum(count for _, count in states)
        how = ", ".join(f"{count} {status}" for status, count in Counter(s for s, _ in states).items())
        text = f"{done:,} of {total:,} requests answered in batches ({how}), {duration(waited_s)}"
        self._say(text, done=done, total=total)

    def _say(self, text: str, **fields: int) -> None:
        write(f"[{self.responses.role}] {text}", **fields)

    def _named(self, sent: SentBatch) -> str:
        return f"{self.config.base_url}: batch {sent.batch_id or sent.name}"

    def _look(self, provider: Provider, sent: SentBatch) -> "Batch | None":
        """How far a batch is; None where the provider does not answer now, which a long wait outlasts."""
        import openai

        try:
            return provider.look(sent)
        except openai.NotFoundError as error:
            raise EndpointError(
                f"{self._named(sent)}: it is not known there ({short(error)}); use the key that created "
                f"it, or delete {self._notes.place(sent)} to have its requests sent, and paid for, anew"
            ) from None
        except openai.OpenAIError as error:
            if not may_pass(error):
                raise
            self._say(f"batch {sent.batch_id}: no answer ({short(error)})")
            return None

    def _keep(self, provider: Provider, sent: SentBatch, batch: "Batch") -> int:
        """Answers of a batch that has ended -> ledger; returns how many. Nothing stays at the provider."""
        answers: dict[str, Answer] = {}
        refusals: dict[str, Answer] = {}
        unheard = set(sent.requests)
        files = [file_id for file_id in (batch.output_file_id, batch.error_file_id) if file_id]
        num_completed = batch.request_counts.completed if batch.request_counts else 0
        known = {batch.output_file_id: num_completed}
        for line in (
            line for file_id in files for line in self._lines(provider, sent, file_id, known.get(file_id, 0))
        ):
            key = str(line.get("custom_id"))
            if key not in sent.requests or key in answers:
                continue
            unheard.discard(key)
            answer, problem = read_line(line, sent.requests[key])
            if answer is None:
                self.last_error = f"{self._named(sent)}: {problem}; mend it and run again"
            elif answer.is_unread:
                # Costs nothing and is not kept: another setting may mend it.
                refusals[key] = answer
            else:
                answers[key] = answer
        # A run that was killed here has kept, and counted, some of them.
        new = [key for key in answers if not self.responses.has(key)]
        with ThreadPoolExecutor(NUM_WRITERS) as writers:
            list(writers.map(lambda key: self.responses.put(key, answers[key], in_batch=True), new))
        self._found |= answers | refusals
        self._num_kept += len(answers)
        prompt_tokens = sum(answers[key].prompt_tokens for key in new)
        output_tokens = sum(answers[key].output_tokens for key in new)
        cost = self.config.cost(prompt_tokens, output_tokens, in_batch=True)
        self.budget.give_back((sent.tokens, sent.cost), (prompt_tokens + output_tokens, cost))
        if batch.status == "completed" and unheard:
            self.counts["num_in_doubt"] += len(unheard)
            num_lost = len(unheard)
            self.last_error = (
                f"{self._named(sent)}: {num_lost} requests are in neither of its files; run again"
            )
        self._clear(provider, self._notes.put(replace(sent, left=[sent.file_id, *files])))
        odd = [one.refusal for one in refusals.values() if is_odd(one)]
        if len(odd) >= MAX_FAILURES and not answers:
            raise self._endpoint.refuses_all(odd[0])
        return len(answers)

    def _lines(self, provider: Provider, sent: SentBatch, file_id: str, num_known: int) -> list[dict]:
        """Lines of a file, which are so many at least. One with fewer is fetched again: what of it did not
        arrive would be paid for again."""
        import openai

        try:
            for left in reversed(range(MAX_FETCHES)):
                if len(lines := list(provider.lines(file_id))) >= num_known or not left:
                    break
                self._say(f"file {file_id}: {len(lines)} lines of {num_known} arrived; it is fetched again")
                time.sleep(min(1.0, self.config.batch_poll_s))
            return lines
        except openai.NotFoundError as error:
            raise EndpointError(
                f"{self._named(sent)}: its file {file_id} is gone, and the answers with it ({short(error)}); "
                f"delete {self._notes.place(sent)} to have them paid for anew"
            ) from None

    def _clear(self, provider: Provider, sent: SentBatch) -> None:
        """Delete the provider's files, then the note. Where the provider fails, the next run tries again."""
        import openai

        try:
            for file_id in sent.left or ():
                provider.delete(file_id)
        except openai.OpenAIError as error:
            files = ", ".join(sent.left or ())
            is_later = may_pass(error)
            who = "the next run deletes them" if is_later else "delete them there"
            self._say(
                f"files {files} of batch {sent.batch_id} are still at the provider ({short(error)}): {who}"
            )
            if is_later:
                return
        self._notes.delete(sent)

    def _judge_ends(self, ended: "list[tuple[SentBatch, Batch]]") -> None:
        """Requests of batches that expired or failed may be sent again. EndpointError where somebody else
        cancelled one."""
        has_progress = any(batch.status != "failed" for _, batch in ended)
        for sent, batch in ended:
            if batch.status == "failed":
                errors = (batch.errors.data if batch.errors else None) or []
                said = "; ".join(f"{error.code}: {error.message}" for error in errors) or "no reason given"
                self.last_error = f"{self._named(sent)} failed, {said}; mend it and run again"
                if has_progress and _QUEUE_FULL.search(said):
                    # The others had to be done first. This costs no try.
                    self._sent_times.subtract(sent.requests.keys())
            elif batch.status == "expired":
                self.last_error = f"{self._named(sent)} expired before all was answered; run again"
            elif batch.status == "cancelled" and self.config.batch:
                raise EndpointError(
                    f"{self._named(sent)} was cancelled; what it answered is kept: run again to send the rest"
                )
