"""The rules: a decider that needs no model. Precision first: what is not surely replaced stays.

Target and sources are read by cluster.consolidate.attributes, which says what counts as sure.
"""

from cluster.consolidate.attribute_reader import read_attributes
from cluster.consolidate.attributes import End, State, relation
from cluster.consolidate.fold import Question, Source, Verdict
from cluster.models.fingerprint import source_fingerprint


class Rules:
    """Deterministic decisions from the wording alone.

    Each clause of the target is compared with the sources, newest first; the first source that bears on it
    decides what happens to the clause:
      replaced   the same attribute has another value now, or has this one no longer
      restated   the same value in other words, or a more exact one
    All clauses replaced: delete. All restated by one source: update to its words, which unites the two. Some
    replaced: update to the clauses that stand. Otherwise: ignore.

    Tags must agree: two memories that both have tags and share none are about different things. A choice in a
    context ("prefers tea when ill") replaces another only where tags or a "now" say that the two compete.
    """

    load_s = 0.0
    num_calls = 0

    def decide(self, questions: list[Question]) -> list[Verdict]:
        return [self.judge(question) for question in questions]

    def judge(self, question: Question) -> Verdict:
        target = read_attributes(question.target.text)
        by_clause: dict[int, list[State]] = {}
        for state in target.states:
            by_clause.setdefault(state.clause, []).append(state)
        fates: dict[int, tuple[str, Source]] = {}
        for clause, states in by_clause.items():
            for source in reversed(question.sources):
                if found := self._fate(states, question, source):
                    fates[clause] = found, source
                    break
        num_clauses = len(target.clauses)
        if not fates:
            return Verdict("ignore")
        if len(fates) < num_clauses:
            kept = [
                clause
                for number, clause in enumerate(target.clauses)
                if number not in fates or fates[number][0] == "restated"
            ]
            if len(kept) == num_clauses:
                return Verdict("ignore")
            newest = fates[min(fates)][1].memory.record_id
            return Verdict("update", text=f"{' and '.join(kept)}.", reason=f"in part replaced by {newest}")
        sources = {source.memory.record_id: source for _, source in fates.values()}
        if {fate for fate, _ in fates.values()} == {"restated"}:
            if len(sources) > 1:
                return Verdict("ignore", reason="restated by several memories, in parts")
            (record_id, source), *_ = sources.items()
            return Verdict("update", text=source.memory.text, reason=f"restated by {record_id}")
        return Verdict("delete", reason=f"replaced by {', '.join(sorted(sources))}")

    def _fate(self, states: list[State], question: Question, source: Source) -> str:
        tags, others = set(question.target.tags), set(source.memory.tags)
        if tags and others and not tags & others:
            return ""
        year = question.target.session_time[:4]
        told = int(year) if year.isdigit() else 0
        found = set()
        for text in (source.memory.text, *source.wordings):
            newer = read_attributes(text)
            told_now: list[State | End] = [*newer.states, *newer.ends]
            for older in states:
                for one in told_now:
                    if older.attribute.startswith("choice ") and isinstance(one, State):
                        binds = one.is_change or tags & others or older.attribute.endswith(" as")
                        if not binds:
                            continue
                    found.add(relation(older, one, told))
        return "replaced" if "replaces" in found else "restated" if "restates" in found else ""


def rules_fingerprint() -> str:
    """16 hex digits over the source of the rules; the ledger knows decisions by it."""
    return source_fingerprint("cluster.consolidate.rules")
