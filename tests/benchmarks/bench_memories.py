"""Memories: what a profile writes of plain statements and of the written corpus; what
cluster.language.dates reads.

    python -m tests.benchmarks.bench_memories dates --people tune
    python -m tests.benchmarks.bench_memories languages --people train tune --singles
    python -m tests.benchmarks.bench_memories plain corpus --profile default --people tune
    python -m tests.benchmarks.bench_memories corpus --profile default --min-confidence 0.5 0.6 --dump FILE

dates: every memory of the English people as they wrote it, read by cluster.language.dates on the day of its
session. Right is the day from which it holds; of those that only end, the day to which. No model.
languages: of how many segments a profile that reads these languages (`--languages`, English if none are
given) is not asked for their language, by what their people write as a rule. What is not as that language
says is shown, to be judged by hand. `--singles` adds the single segments, of whose language nothing is noted:
what is skipped of them is shown. No model.
plain: twelve statements that leave no doubt, and twelve messages that state nothing, each alone and with an
answer behind it. A statement is remembered if records say all that must be remembered of it, and deny or not
as it does; a record that says none of it is invented, as is every record of the others.
corpus: the sessions of these people (`--persons` names some of them), each language apart, measured as
`jobs.evaluate memories` measures a store. Secrets are not redacted before, and no session is left out.

With `--min-confidence` the profile's own bound counts as 0, every record's confidence is measured, and what
each bound would leave is shown, from the one encoding. `--dump` writes all records of the corpus as JSON
lines, with their confidence, whether they match a memory, and the gate that refused them, if one did; of a
refused record the text is as the model wrote it, and it matches if it would alone. Both measure, which costs
a little time. The model is loaded once, also for both parts.
"""

import argparse
import datetime as dt
import json
import time
from collections import Counter
from pathlib import Path

from jobs.sample.written import SPLITS, Written, read_people, read_segments
from schemas.profiles.encoder import LANGUAGES

PLAIN = {
    "My name is Anna.": "Anna",
    "I live in Oslo. I have a cat.": "Oslo; cat",
    "I work at a bakery, mostly nights.": "baker; ?night",
    "My sister is called Marit.": "sister Marit",
    "I'm allergic to shellfish.": "allerg shellfish",
    "I don't drink coffee any more.": "coffee",
    "My birthday is on 3 May.": "birth|born May|05-03",
    "We have two kids, Ada and Jon.": "Ada; Jon; ?kid|child|two",
    "I drive an old Volvo.": "Volvo",
    "My car broke down yesterday.": "car broke|break",
    "I'm vegetarian.": "vegetarian",
    "I moved to Bergen last month.": "Bergen; ?moved",
}
"""Statement -> what is to be said of it, `;` between memories: words that stand in one record, `|` between
alternatives, `?` before what may be left out."""

NOTHING_SAID = (
    "What time is it in Tokyo?",
    "Thanks!",
    "Can you make it shorter?",
    "ok",
    "How do I boil an egg?",
    "Write a poem about rain.",
    "lol",
    "That makes sense.",
    "Translate: I have a dog",
    "What is a mortgage?",
    "next please",
    "hmm not sure about that answer",
)
ANSWER = "Got it."
DAY = dt.datetime(2026, 1, 10, 9, tzinfo=dt.UTC)


# --- dates ----------------------------------------------------------------------------------------------


def dates(args) -> None:
    from cluster.language.dates import resolve

    counts, undated = Counter(), Counter()
    for memory in people(args).memories:
        if memory["language"] != "en":
            continue
        time, temporal = dt.datetime.fromisoformat(memory["session_time"]), memory["temporal"]
        found = resolve(memory["said"], time.date())
        side = "from" if temporal["t_valid_from"] else "to"
        wanted, got = temporal[f"t_valid_{side}"], getattr(found, f"valid_{side}")
        if not wanted:
            undated["with a date" if found.valid_from or found.valid_to else "without"] += 1
            continue
        verdict = "right" if got == wanted else "wrong" if got else "not resolved"
        counts[side, verdict] += 1
        if verdict != "right":
            print(f"  {verdict}: {time.date()} {memory['said']!r}: {side} {wanted}, read {got or 'nothing'}")
    for side, what in (("from", "memories that hold from a day"), ("to", "that only end on one")):
        by_verdict = {verdict: counts[side, verdict] for verdict in ("right", "wrong", "not resolved")}
        shown = ", ".join(f"{count} {verdict}" for verdict, count in by_verdict.items())
        print(f"{sum(by_verdict.values())} {what}: {shown}")
    print(f"{undated.total()} others: {undated['with a date']} get a date")


# --- languages ------------------------------------------------------------------------------------------


def languages(args) -> None:
    from cluster.backfill.cut_stage import cut_sessions
    from cluster.backfill.encoder import skipped
    from cluster.models.resolve import resolve_encoder
    from jobs.common.run import load_profile
    from schemas.profiles.encoder import EncoderProfile

    given = load_profile("encoders", args.profile, EncoderProfile)
    profile = resolve_encoder(given.model_copy(update={"languages": tuple(args.languages)}))
    found = people(args)
    writes = {memory["user_id"]: memory["language"] for memory in found.memories}
    sessions = found.sessions + (read_segments().sessions if args.singles else [])
    segments = [one for one in cut_sessions(sessions, profile) if profile.asks_about(one)]
    skipped(segments[0], profile)  # loads what tells languages apart
    started_s = time.process_time()
    unread = [bool(skipped(segment, profile)) for segment in segments]
    seconds = time.process_time() - started_s
    print(f"{len(segments)} segments, {len(segments) / seconds:,.0f} a second of processor time")
    counts, wrong = Counter(), []
    for segment, is_unread in zip(segments, unread, strict=True):
        language = writes.get(segment["user_id"], "single segments")
        counts[language, is_unread] += 1
        # Of a person's language there may be other messages, so that each is worth a look.
        if is_unread != (language not in (*args.languages, "single segments")):
            wrong.append((language, is_unread, segment))
    for language in dict.fromkeys(language for language, _ in counts):
        num = counts[language, True] + counts[language, False]
        print(f"{language}: {counts[language, True]} of {num} segments skipped")
    for language, is_unread, segment in wrong:
        said = " / ".join(part["text"] for part in segment["current"] if part["role"] == "user")
        what = "skipped" if is_unread else "not skipped"
        print(f"  {what}: {language}, {segment['user_id']}: {' '.join(said.split())[:100]}")


# --- engines --------------------------------------------------------------------------------------------


def load(args):
    """The profile's encoder; one that measures confidence where that is asked for."""
    from cluster.backfill.encoder import Encoder
    from cluster.models.resolve import resolve_encoder
    from jobs.common.run import load_profile
    from schemas.profiles.encoder import EncoderProfile

    profile = load_profile("encoders", args.profile, EncoderProfile)
    if args.min_confidence or args.dump:
        profile = EncoderProfile.model_validate(profile.model_dump() | {"min_confidence": 0.0})
    encoder = Encoder(resolve_encoder(profile), max_num_seqs=args.max_num_seqs)
    print(f"profile {profile.name}: loaded in {encoder.load_s:.0f} s")
    return encoder


def encode(encoder, sessions: list[dict]) -> list[tuple[dict, object]]:
    """Segments of the sessions with their encodings; prints what they cost."""
    from cluster.backfill.cut_stage import cut_sessions

    segments = cut_sessions(sessions, encoder.profile)
    started_s = time.monotonic()
    encodings = encoder.encode(segments)
    seconds = time.monotonic() - started_s
    outcomes = Counter(encoding.outcome for encoding in encodings)
    asked, output = len(segments) - outcomes["skipped"], sum(one.output_tokens for one in encodings)
    print(
        f"{asked} segments (and {outcomes['skipped']} skipped) in {seconds:.1f} s: "
        f"{asked / seconds:.2f} segments/s, {output / seconds:.1f} output tokens/s; "
        f"{outcomes['split']} split, {outcomes['partial'] + outcomes['rejected']} with a rejection"
    )
    return list(zip(segments, encodings, strict=True))


def bounds(args) -> list[float]:
    return sorted({0.0, *args.min_confidence})


def is_sure(confidence: float | None, bound: float) -> bool:
    """As the gate judges it: what is not known passes."""
    return confidence is None or confidence >= bound


# --- plain statements -----------------------------------------------------------------------------------


def plain(args, encoder) -> None:
    written = {(text, answer): [] for answer in ("", ANSWER) for text in (*PLAIN, *NOTHING_SAID)}
    users = {f"plain-{number:02}": key for number, key in enumerate(written)}
    for segment, one in encode(encoder, [plain_session(user, *key) for user, key in users.items()]):
        found = [(record["semantic_text"], record.get("confidence")) for record in one.records]
        written[users[segment["user_id"]]] += found
    for bound in bounds(args):
        for answer in ("", ANSWER):
            left = {
                text: [record for record, confidence in records if is_sure(confidence, bound)]
                for (text, behind), records in written.items()
                if behind == answer
            }
            judged = [judge(text, wanted, left[text]) for text, wanted in PLAIN.items()]
            others = [left[text] for text in NOTHING_SAID]
            name = "with an answer" if answer else "alone"
            remembered, wrong = sum(whole for whole, _ in judged), [found for _, found in judged]
            print(
                f"{f'bound {bound:g}, ' if args.min_confidence else ''}{name}: "
                f"{remembered} of {len(PLAIN)} statements remembered, "
                f"{sum(map(len, wrong))} records invented beside {sum(map(bool, wrong))} of them; "
                f"{sum(map(len, others))} records of {sum(map(bool, others))} of {len(others)} messages "
                "that state nothing"
            )
    for (text, answer), records in written.items():
        shown = [record + (f" ({sure:.2f})" if sure is not None else "") for record, sure in records]
        print(f"  {text}{' / ' + answer if answer else ''} -> {' | '.join(shown) or '-'}")


def plain_session(user_id: str, text: str, answer: str) -> dict:
    turns = [("user", text)] + ([("assistant", answer)] if answer else [])
    return {
        "user_id": user_id,
        "conversation_id": user_id,
        "session_id": user_id,
        "session_time": DAY,
        "turns": [{"role": role, "content": said, "speaker": None, "time": DAY} for role, said in turns],
    }


def judge(text: str, wanted: str, records: list[str]) -> tuple[bool, list[str]]:
    """Whether the records say all that must be said of a statement, and those that say none of it."""
    from cluster.evaluate.memories import denies, holds_keys

    memories = [memory.strip() for memory in wanted.split(";")]
    says = {
        memory: [
            record
            for record in records
            if denies(record) == denies(text)
            and holds_keys(record, [word.split("|") for word in memory.removeprefix("?").split()])
        ]
        for memory in memories
    }
    is_whole = all(says[memory] for memory in memories if not memory.startswith("?"))
    return is_whole, [record for record in records if not any(record in found for found in says.values())]


# --- the written corpus ---------------------------------------------------------------------------------


def corpus(args, encoder) -> None:
    found = people(args)
    gold = [memory for memory in found.memories if memory["keys"]]
    pairs = encode(encoder, found.sessions)
    rows = [kept_row(segment, record) for segment, one in pairs for record in one.records]
    refused = [
        refused_row(segment, item)
        for segment, one in pairs
        if one.outcome != "skipped"
        for item in one.refusals
    ]
    reasons = Counter(row["refused_by"] for row in refused)
    print(
        f"{len(rows)} records; refused: {', '.join(f'{n} {name}' for name, n in reasons.items()) or 'none'}"
    )
    boards = measured(rows, gold)
    print(HEAD)
    for language, board in boards.items():
        print(line(language, board))
    if args.min_confidence:
        print(f"\n{'bound':8}{HEAD}")
        for bound in bounds(args):
            sure = [row for row in rows if is_sure(row["confidence"], bound)]
            for language, board in measured(sure, gold).items():
                print(f"{bound:<8g}{line(language, board)}")
    if args.dump:
        dump(args.dump, rows, refused, gold, boards)


def people(args) -> Written:
    """The people of the splits, or those of them that are named."""
    found = read_people(tuple(args.people))
    if not args.persons:
        return found
    names = set(args.persons.split(","))
    if unknown := names - {row["user_id"] for row in found.sessions}:
        raise SystemExit(
            f"--persons {','.join(sorted(unknown))}: nobody of --people {' '.join(args.people)} is called so"
        )
    return Written(
        sessions=[row for row in found.sessions if row["user_id"] in names],
        memories=[row for row in found.memories if row["user_id"] in names],
    )


def kept_row(segment: dict, record: dict) -> dict:
    """A record as `jobs.evaluate memories` reads it, and what is dumped of it."""
    return {
        **{name: record[name] for name in ("record_id", "semantic_text", "entities", "temporal")},
        "revision": 1,
        "user_id": segment["user_id"],
        "session_id": segment["session_id"],
        "active": True,
        "evidence": [
            {"session_id": segment["session_id"], "turn_index": turn} for turn in record["evidence_turns"]
        ],
        "confidence": record.get("confidence"),
        "refused_by": "",
    }


def refused_row(segment: dict, item: dict) -> dict:
    """The same of a record that a gate refused."""
    raw = json.loads(item["raw"]) | {"record_id": "", "evidence_turns": item["turns"]}
    return kept_row(segment, raw) | {"confidence": item.get("confidence"), "refused_by": item["reason"]}


HEAD = "language  must  records  recall  precision  negations lost  numbers lost  dates right  dates wrong"


def measured(rows: list[dict], gold: list[dict]) -> dict[str, dict]:
    """Language -> what jobs.evaluate memories measures."""
    from jobs.evaluate.memories import measure

    languages = sorted({row["language"] for row in gold}, key=lambda name: (name != "en", name))
    return {name: measure(rows, [row for row in gold if row["language"] == name]) for name in languages}


def line(language: str, board: dict) -> str:
    recall, precision, right, wrong = (
        "-" if board[name] is None else f"{board[name]:.3f}"
        for name in ("recall", "precision", "dates_resolved", "dates_wrong")
    )
    return (
        f"{language:8}  {board['num_must']:4}  {board['num_records']:7}  {recall:>6}  {precision:>9}  "
        f"{board['num_negations_lost']:14}  {board['num_numbers_lost']:12}  {right:>11}  {wrong:>11}"
    )


def dump(
    path: Path, rows: list[dict], refused: list[dict], gold: list[dict], boards: dict[str, dict]
) -> None:
    language_of = {row["user_id"]: row["language"] for row in gold}
    wrong = {record_id for board in boards.values() for record_id in board["wrong"]}
    with path.open("w", encoding="utf-8") as file:
        for row in [*rows, *refused]:
            if row["refused_by"]:
                is_match = not any(board["wrong"] for board in measured([row], gold).values())
            else:
                is_match = row["record_id"] not in wrong
            shown = {
                "user_id": row["user_id"],
                "language": language_of.get(row["user_id"]),
                "session_id": row["session_id"],
                "turns": [turn["turn_index"] for turn in row["evidence"]],
                "text": row["semantic_text"],
                "confidence": row["confidence"],
                "is_match": is_match,
                "refused_by": row["refused_by"],
            }
            file.write(json.dumps(shown, ensure_ascii=False) + "\n")
    print(f"{len(rows) + len(refused)} records in {path}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=["dates", "languages", "plain", "corpus"])
    parser.add_argument("--profile", default="default", help="name, TOML file or folder of an adapter")
    parser.add_argument("--people", nargs="+", default=["tune"], choices=SPLITS)
    parser.add_argument("--persons", help="names of some of them, with commas")
    parser.add_argument("--languages", nargs="+", default=["en"], choices=LANGUAGES, metavar="CODE")
    parser.add_argument("--singles", action="store_true", help="the single segments too")
    parser.add_argument("--min-confidence", nargs="+", type=float, default=[], metavar="X")
    parser.add_argument("--dump", type=Path, metavar="FILE")
    parser.add_argument("--max-num-seqs", type=int, default=64)
    args = parser.parse_args()
    # Before the minutes that an encoder takes.
    people(args)
    if args.dump:
        args.dump.touch()
    if "dates" in args.parts:
        dates(args)
    if "languages" in args.parts:
        languages(args)
    if {"plain", "corpus"} & set(args.parts):
        encoder = load(args)
        for name, part in (("plain", plain), ("corpus", corpus)):
            if name in args.parts:
                part(args, encoder)


if __name__ == "__main__":
    main()
