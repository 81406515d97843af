import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.consolidate.attribute_reader import read_attributes
from cluster.consolidate.attributes import keys
from cluster.consolidate.fold import PINNED, UNITE, Folded, Memory, Pair, Question, Verdict, fold, layers
from cluster.consolidate.rules import Rules
from tests.unit.cluster.consolidate.memories import memory


def answers(**by_target: Verdict):
    """A decider with fixed answers, "ignore" for all others; keeps what it was asked."""

    def decide(questions: list[Question]) -> list[Verdict]:
        decide.batches.append([question.target.record_id for question in questions])
        decide.asked += questions
        return [by_target.get(question.target.record_id, Verdict("ignore")) for question in questions]

    decide.batches, decide.asked = [], []
    return decide


def run(memories, pairs, decide, **options) -> Folded:
    return fold(memories, [Pair(*pair, 0.9) for pair in pairs], decide, decider="test", **options)


def closed(folded: Folded) -> dict[str, str]:
    return {
        change.memory.record_id: change.closed_reason for change in folded.changes if change.closed_reason
    }


def revised(folded: Folded) -> dict[str, Memory]:
    return {change.memory.record_id: change.revised for change in folded.changes if change.revised}


DELETE = Verdict("delete")


# --- decisions ------------------------------------------------------------------------------------------


def test_equal_timestamps_cannot_delete_both_facts():
    both = [memory("a", 1, "User lives in Lyon."), memory("b", 1, "User lives in Oslo.")]
    folded = run(both, [("a", "b")], lambda questions: [DELETE] * len(questions))
    assert closed(folded) == {"a": "delete"}
    with pytest.raises(ValueError, match="newer"):
        run(both, [("a", "b"), ("b", "a")], answers())


def test_nobody_is_asked_about_a_pinned_memory_which_stays_and_still_closes_older_ones():
    told = [memory("old", 1, "User lives in Rome."), memory("pin", 2, "User lives in Lyon.", is_pinned=True)]
    told.append(memory("new", 3, "User lives in Oslo."))
    decide = answers(old=DELETE, pin=DELETE)
    folded = run(told, [("old", "pin"), ("old", "new"), ("pin", "new")], decide)
    assert closed(folded) == {"old": "delete"} and decide.batches == [["old"]]
    (kept,) = [row for row in folded.decisions if row["target_id"] == "pin"]
    assert (kept["decider"], kept["action"], kept["outcome"]) == (PINNED, "ignore", "applied")
    assert (kept["source_ids"], kept["reason"]) == (["new"], "it is pinned by hand")


def test_a_pinned_memory_is_not_united_with_a_newer_repeat_and_others_are():
    told = [memory(name, day, "User sings.") for day, name in enumerate(("a", "b", "c"), 1)]
    told[1] = replace(told[1], is_pinned=True)
    folded = run(told, [], answers())
    assert closed(folded) == {"a": "unite"} and "b" not in revised(folded)
    assert {row["target_id"]: row["decider"] for row in folded.decisions} == {"a": UNITE, "b": PINNED}


def test_candidates_never_cross_a_user():
    with pytest.raises(ValueError, match="two users"):
        run([memory("a", 1, "x"), memory("b", 2, "y", user="v")], [("a", "b")], answers())


def test_a_dated_and_an_undated_memory_never_close_each_other():
    told = [memory("oslo", 1, "User lives in Oslo."), memory("bergen", 1, "User lives in Bergen.")]
    told[1] = replace(told[1], session_time="")
    with pytest.raises(ValueError, match="only one of them has a time"):
        run(told, [("bergen", "oslo")], answers())
    assert closed(run([told[0], replace(told[1], text=told[0].text)], [], answers())) == {}


def test_order_of_ingestion_decides_between_undated_memories():
    told = [memory("z", 1, "User lives in Oslo."), memory("a", 2, "User lives in Bergen.")]
    told = [replace(one, session_time="", ingested_at=night) for one, night in zip(told, "12", strict=True)]
    assert closed(run(told, [("z", "a")], answers(z=DELETE))) == {"z": "delete"}
    with pytest.raises(ValueError, match="newer"):
        run(told, [("a", "z")], answers())


def test_a_deleted_source_no_longer_speaks_what_replaced_it_does():
    """A chain Lyon, Oslo, Rome: Oslo is gone when Lyon is decided, and Rome is what Lyon yields to."""
    chain = [memory("lyon", 1, "Lyon."), memory("oslo", 2, "Oslo."), memory("rome", 3, "Rome.")]
    decide = answers(lyon=DELETE, oslo=DELETE)
    folded = run(chain, [("lyon", "oslo"), ("oslo", "rome")], decide)
    assert decide.batches == [["oslo"], ["lyon"]]
    assert [source.memory.record_id for source in decide.asked[1].sources] == ["rome"]
    assert closed(folded) == {"lyon": "delete", "oslo": "delete"}


def test_a_rewritten_source_feeds_older_targets_with_its_new_text():
    chain = [memory("a", 1, "One."), memory("b", 2, "Two."), memory("c", 3, "Three.")]
    decide = answers(b=Verdict("update", text="Two and three."))
    run(chain, [("a", "b"), ("b", "c")], decide)
    assert decide.asked[1].sources[0].memory.text == "Two and three."


def test_sources_are_shown_with_their_dates_in_order():
    decide = answers()
    many = [memory("a", 1, "One."), memory("c", 9, "Nine."), memory("b", 5, "Five.")]
    run(many, [("a", "c"), ("a", "b")], decide)
    assert [source.memory.session_time[:10] for source in decide.asked[0].sources] == [
        "2026-01-05",
        "2026-01-09",
    ]


def test_a_failed_decision_changes_nothing_and_is_recorded_as_failed():
    decide = answers(a=Verdict("", "failed", reason="OSError: connection refused"))
    folded = run([memory("a", 1, "One."), memory("b", 2, "Two.")], [("a", "b")], decide)
    assert folded.changes == []
    assert [(row["outcome"], row["reason"]) for row in folded.decisions] == [
        ("failed", "OSError: connection refused")
    ]


def test_a_refused_decision_changes_nothing_and_is_recorded():
    decide = answers(a=Verdict("update", "refused", text="User owns 7 boats.", reason="invented: 7"))
    folded = run([memory("a", 1, "One."), memory("b", 2, "Two.")], [("a", "b")], decide)
    assert folded.changes == []
    assert folded.decisions[0]["outcome"] == "refused"


def test_a_second_run_asks_for_nothing_and_changes_the_same():
    memories = [memory("a", 1, "One."), memory("b", 2, "Two."), memory("c", 3, "Three.")]
    pairs, ledger = [("a", "b"), ("b", "c"), ("a", "c")], {}
    first = run(memories, pairs, remembering(ledger, answers(a=DELETE, b=DELETE)))
    folded = run(memories, pairs, remembering(ledger, None))
    assert closed(folded) == closed(first) == {"a": "delete", "b": "delete"}
    assert folded.num_known == folded.num_questions == 2
    assert folded.decisions == []


# --- revisions ------------------------------------------------------------------------------------------


def test_an_update_keeps_identity_and_unites_evidence():
    folded = run(
        [
            memory("a", 1, "User has a dog.", entities=("Rex",)),
            memory("b", 2, "User's dog is called Rex.", entities=("Rex",), tags=("pet",)),
        ],
        [("a", "b")],
        answers(a=Verdict("update", text="User has a dog called Rex.")),
    )
    new = revised(folded)["a"]
    assert (new.record_id, new.revision, new.text) == ("a", 2, "User has a dog called Rex.")
    assert new.evidence == (("u-01", 0), ("u-02", 0))
    assert (new.entities, new.tags) == (("Rex",), ("pet",))
    assert folded.changes[0].is_rewritten
    assert folded.changes[0].decision_id == folded.decisions[0]["decision_id"]


def test_a_new_revision_is_above_all_that_the_record_ever_had():
    returned = memory("a", 1, "One.", last_revision=4)
    folded = run(
        [returned, memory("b", 2, "Two.")], [("a", "b")], answers(a=Verdict("update", text="Three."))
    )
    assert revised(folded)["a"].revision == 5


def test_repeats_are_united_without_a_call_and_the_newest_stays():
    decide = answers()
    folded = run(
        [
            memory("a", 1, "User lives in Lyon."),
            memory("b", 2, "The user now lives in  Lyon"),
            memory("c", 3, "x"),
        ],
        [],
        decide,
    )
    assert decide.asked == []
    assert closed(folded) == {"a": "unite"}
    assert revised(folded)["b"].evidence == (("u-01", 0), ("u-02", 0))
    assert not folded.changes[1].is_rewritten
    assert [row["action"] for row in folded.decisions] == ["unite"]


def test_the_same_sentence_of_two_users_is_not_a_repeat():
    assert run([memory("a", 1, "Same."), memory("b", 2, "Same.", user="v")], [], answers()).changes == []


def test_events_of_two_days_are_not_repeats():
    first = memory("a", 1, "User has a meeting.", memory_type="event", temporal=("", "2026-01-05", ""))
    second = memory("b", 2, "User has a meeting.", memory_type="event", temporal=("", "2026-01-12", ""))
    assert run([first, second], [], answers()).changes == []


def test_tomorrow_of_two_days_is_not_a_repeat():
    first = memory("a", 1, "User flies tomorrow.", temporal=("2026-01-01", "", ""))
    second = memory("b", 8, "User flies tomorrow.", temporal=("2026-01-08", "", ""))
    assert run([first, second], [], answers()).changes == []


def test_an_update_to_the_words_of_a_source_unites_the_two():
    folded = run(
        [memory("a", 1, "User lives in Lyon."), memory("b", 2, "User lives in Lyon's old town.")],
        [("a", "b")],
        answers(a=Verdict("update", text="User lives in Lyon's old town.")),
    )
    assert closed(folded) == {"a": "unite"}
    assert revised(folded)["b"].evidence == (("u-01", 0), ("u-02", 0))


def test_moving_back_leaves_the_old_place_and_not_the_one_between():
    memories = [
        memory("first", 1, "User lives in Lyon."),
        memory("between", 2, "User moved to Oslo."),
        memory("back", 3, "User lives in Lyon."),
    ]
    folded = fold(memories, all_pairs(memories), Rules().decide, decider="rules")
    assert closed(folded) == {"first": "unite", "between": "delete"}


def test_layers_put_every_source_before_its_targets():
    edges = {0: {1: 1.0, 3: 1.0}, 1: {2: 1.0}, 2: {4: 1.0}, 3: {4: 1.0}}
    assert layers(edges) == [[2, 3], [1], [0]]


def test_a_question_shows_the_newest_sources_up_to_the_limit():
    memories = [memory(str(day), day, f"Text {day}.") for day in range(1, 8)]
    decide = answers()
    run(memories, [("1", str(day)) for day in range(2, 8)], decide, max_sources=2)
    assert [source.memory.record_id for source in decide.asked[0].sources] == ["6", "7"]


# --- properties -----------------------------------------------------------------------------------------


def remembering(ledger: dict, decide, crash_after: int | None = None, batch: int = 1000):
    """`decide` behind a ledger, in batches; dies when it has answered `crash_after` questions anew."""
    spent = 0

    def ask(questions):
        nonlocal spent
        found = [ledger.get(question.decision_id("test")) for question in questions]
        missing = [number for number, verdict in enumerate(found) if verdict is None]
        for start in range(0, len(missing), batch):
            part = missing[start : start + batch]
            for number, verdict in zip(part, decide([questions[n] for n in part]), strict=True):
                found[number] = verdict
                ledger[questions[number].decision_id("test")] = Verdict(
                    **(vars(verdict) | {"is_known": True})
                )
            spent += len(part)
            if crash_after is not None and spent >= crash_after:
                raise KeyboardInterrupt
        return found

    return ask


def any_verdict(questions: list[Question]) -> list[Verdict]:
    """A decider that says anything at all, but the same to the same question."""
    found = []
    for question in questions:
        choice = int(question.decision_id("test")[:8], 16) % 6
        newest = question.sources[-1].memory.text
        found.append(
            [
                DELETE,
                DELETE,
                Verdict("ignore"),
                Verdict("update", text=f"{question.target.text} {newest}"[:60]),
                Verdict("update", text=newest),
                Verdict("", "failed"),
            ][choice]
        )
    return found


@st.composite
def worlds(draw) -> tuple[list[Memory], list[tuple[str, str]]]:
    num = draw(st.integers(1, 14))
    memories = [
        memory(
            f"m{number}",
            draw(st.integers(1, 5)),
            draw(st.sampled_from(["Red.", "Green.", "Blue.", "User likes tea.", "User now likes tea."])),
            user=draw(st.sampled_from(["u", "u", "v"])),
        )
        for number in range(num)
    ]
    allowed = all_pairs(memories)
    pairs = draw(st.lists(st.sampled_from(allowed), max_size=30, unique=True)) if allowed else []
    return memories, [(pair.target, pair.source) for pair in pairs]


def all_pairs(memories: list[Memory]) -> list[Pair]:
    return [
        Pair(old.record_id, new.record_id, 0.9)
        for old in memories
        for new in memories
        if old.user_id == new.user_id and old.order < new.order
    ]


def outcome(folded: Folded):
    return folded.changes, sorted(map(repr, folded.decisions))


@given(worlds(), st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_same_result_for_any_order_of_arrival(world, rng: random.Random):
    memories, pairs = world
    expected = outcome(run(memories, pairs, any_verdict))
    rng.shuffle(memories)
    rng.shuffle(pairs)
    assert outcome(run(memories, pairs, any_verdict)) == expected


@given(worlds(), st.integers(1, 4))
@settings(max_examples=100)
def test_same_result_for_any_batch_size(world, batch):
    expected = outcome(run(*world, any_verdict))
    assert outcome(run(*world, remembering({}, any_verdict, batch=batch))) == expected


@given(worlds(), st.integers(1, 12), st.integers(1, 3))
@settings(max_examples=150)
def test_same_result_after_a_crash_at_any_point_and_nothing_is_asked_twice(world, crash_after, batch):
    expected = run(*world, any_verdict)
    asked: list[str] = []

    def counting(questions):
        asked.extend(question.decision_id("test") for question in questions)
        return any_verdict(questions)

    ledger: dict[str, Verdict] = {}
    try:
        folded = run(*world, remembering(ledger, counting, crash_after, batch))
    except KeyboardInterrupt:
        folded = run(*world, remembering(ledger, counting, batch=batch))
    assert folded.changes == expected.changes
    assert len(asked) == len(set(asked))


@given(worlds())
@settings(max_examples=200)
def test_what_is_closed_always_has_a_newer_active_memory_that_stands_for_it(world):
    """Whatever a decider says, also "delete" to everything."""
    memories, pairs = world
    by_id = {one.record_id: one for one in memories}
    for decide in (any_verdict, lambda questions: [DELETE] * len(questions)):
        folded = run(memories, pairs, decide)
        gone = closed(folded)
        reasons = {row["decision_id"]: row["source_ids"] for row in folded.decisions}
        for change in folded.changes:
            if not change.closed_reason:
                continue
            open_ones, standing = [change.memory.record_id], []
            while open_ones:
                record_id = open_ones.pop()
                if record_id not in gone:
                    standing.append(record_id)
                    continue
                decision = next(c.decision_id for c in folded.changes if c.memory.record_id == record_id)
                open_ones += reasons[decision]
            assert standing
            assert all(by_id[one].order > change.memory.order for one in standing)
            assert all(by_id[one].user_id == change.memory.user_id for one in standing)


@given(worlds())
@settings(max_examples=100)
def test_decisions_name_the_revisions_whose_texts_were_shown(world):
    """So that a decision can be read, and asked again, from the rows that are kept."""
    memories, pairs = world
    shown: dict[str, Question] = {}

    def watched(questions):
        shown.update({question.decision_id("test"): question for question in questions})
        return any_verdict(questions)

    folded = run(memories, pairs, watched)
    texts = {(one.record_id, one.revision): one.text for one in memories}
    texts |= {(one.record_id, one.revision): one.text for one in revised(folded).values()}
    for row in folded.decisions:
        if question := shown.get(row["decision_id"]):
            assert texts[row["target_id"], row["target_revision"]] == question.target.text
            named = zip(row["source_ids"], row["source_revisions"], strict=True)
            assert [texts[one] for one in named] == [source.memory.text for source in question.sources]


ATTRIBUTES = ["User lives in {}.", "User works at {}.", "User's partner is {}.", "User's mother lives in {}."]
VALUES = ["Lyon", "Oslo", "Rome"]


@st.composite
def lives(draw) -> list[Memory]:
    """Statements about attributes of two users, on a day each; the id names attribute, user and day."""
    said = draw(
        st.lists(
            st.tuples(st.sampled_from("uv"), st.integers(0, 3), st.integers(1, 20), st.sampled_from(VALUES)),
            min_size=1,
            max_size=14,
            unique_by=lambda item: item[:3],
        )
    )
    return [
        memory(f"{user}-{attribute}-{day:02}", day, ATTRIBUTES[attribute].format(value), user)
        for user, attribute, day, value in said
    ]


def pairs_by_slot(memories: list[Memory]) -> list[Pair]:
    named = {one.record_id: keys(read_attributes(one.text)) for one in memories}
    return [pair for pair in all_pairs(memories) if named[pair.target] & named[pair.source]]


@given(lives())
@settings(max_examples=150)
def test_rules_leave_exactly_the_newest_statement_of_each_fact(memories):
    folded = fold(memories, pairs_by_slot(memories), Rules().decide, decider="rules")
    active = {one.record_id for one in memories} - closed(folded).keys()
    assert active == {max(ids) for ids in by_fact(memories).values()}


def by_fact(memories: list[Memory]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in memories:
        found.setdefault(one.record_id[:-3], []).append(one.record_id)
    return found


@given(lives(), st.randoms(use_true_random=False), st.integers(1, 4))
@settings(max_examples=150)
def test_nights_end_the_same_in_whatever_order_memories_arrive(memories, rng: random.Random, num_nights):
    """Archives come late: what was said in January may arrive after what was said in March."""
    rng.shuffle(memories)
    active: dict[str, Memory] = {}
    for night in (memories[number::num_nights] for number in range(num_nights)):
        new = {one.record_id for one in night}
        active |= {one.record_id: one for one in night}
        standing = list(active.values())
        pairs = [pair for pair in pairs_by_slot(standing) if {pair.target, pair.source} & new]
        for change in fold(standing, pairs, Rules().decide, decider="rules").changes:
            del active[change.memory.record_id]
            if change.revised:
                active[change.memory.record_id] = change.revised
    assert active.keys() == {max(ids) for ids in by_fact(memories).values()}


def test_of_each_extra_field_the_newest_value_stands():
    old = memory("a", 1, "User lives in Lyon.", extra=(("mood", "bad"), ("place", "Lyon")))
    new = memory("b", 2, "User lives in Lyon.", extra=(("mood", "good"),))
    united = run([old, new], [], answers())
    assert closed(united) == {"a": UNITE}
    assert revised(united)["b"].extra == (("mood", "good"), ("place", "Lyon"))
    moved = memory("c", 2, "User lives in Oslo.", extra=(("place", "Oslo"),))
    updated = run([old, moved], [("a", "c")], answers(a=Verdict("update", text="User moved to Oslo.")))
    assert dict(revised(updated)["a"].extra) == {"mood": "bad", "place": "Oslo"}


def test_extra_fields_ask_nothing_and_change_no_question():
    plain, other = memory("a", 1, "One."), memory("b", 2, "Two.")
    asked = answers(), answers()
    run([plain, other], [("a", "b")], asked[0])
    run([replace(plain, extra=(("mood", "bad"),)), other], [("a", "b")], asked[1])
    assert [[one.decision_id("d") for one in decide.asked] for decide in asked] == [
        [asked[0].asked[0].decision_id("d")]
    ] * 2
