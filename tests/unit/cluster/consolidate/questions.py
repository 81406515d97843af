"""Questions to a decider, and a tokenizer that counts words."""

from cluster.consolidate.fold import Memory, Question, Source


def memory(text: str, day: int = 1, tags: tuple = (), record_id: str = "") -> Memory:
    time = f"2026-01-{day:02}T08:00:00+00:00"
    return Memory(
        record_id or f"r{day}", 1, "u", time, f"s{day}", 0, text, tags=tags, evidence=((f"s{day}", 0),)
    )


def question(
    target: str, *sources: str, score: float = 0.6, tags: tuple = (), source_tags: tuple = ()
) -> Question:
    newer = [Source(memory(text, day, source_tags), score) for day, text in enumerate(sources, 2)]
    return Question(memory(target, tags=tags), tuple(newer))


class Tokenizer:
    """Enough of a tokenizer to see the text of a prompt."""

    added_tokens_decoder: dict = {}  # noqa: RUF012 - a stand-in
    all_special_tokens = ("<|im_end|>",)

    def apply_chat_template(self, messages, **_):
        return "\n".join(message["content"] for message in messages)
