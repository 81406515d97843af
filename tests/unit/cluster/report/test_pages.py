"""The pages of the report: they tell what happened, hold together, and show hostile text as text."""

import base64
import datetime as dt
import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.report import pages, rendering
from cluster.report.contents import Rejected, UserState
from cluster.report.memories import UserPage, user_page
from cluster.report.overview import Overview, ages, money, overview
from cluster.report.page_of_store import of_store
from cluster.report.page_of_user import of_user
from cluster.report.runs import nights_of, runs_of
from cluster.runtime.shown import harmless
from cluster.store import files
from cluster.store.errors import StoreError
from cluster.store.files import everything
from cluster.store.store import Store
from tests.e2e.operations.stores import ANN
from tests.unit.cluster.report import nights as story
from tests.unit.cluster.report.reading import Page, pages_in, problems
from tests.unit.cluster.store.stores import commit, segment

NOW = dt.datetime(2026, 3, 12, 8, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def written(nights, tmp_path_factory) -> dict[str, str]:
    """Name -> content of the pages of the eleven nights, with the page of one user."""
    folder = tmp_path_factory.mktemp("report") / "pages"
    names = pages.write_report(nights.uri, str(folder), ANN, now=NOW)
    found = pages_in(folder)
    assert sorted(found) == names and len(names) == 2
    return found


@pytest.fixture(scope="module")
def index(written) -> Page:
    return Page(written["index.html"])


@pytest.fixture(scope="module")
def of_ann(written) -> Page:
    return Page(next(html for name, html in written.items() if name != "index.html"))


# --- how pages are made -----------------------------------------------------------------------------------


def test_pages_are_whole_their_links_lead_somewhere_and_they_ask_for_nothing(written):
    assert problems(written) == []
    assert "http://" not in "".join(written.values()) and "https://" not in "".join(written.values())
    assert any(one.get("href", "").startswith("user-") for one in Page(written["index.html"]).of("a"))


def test_the_policy_of_a_page_lets_only_its_own_style_and_script_work(written):
    for html in written.values():
        page = Page(html)
        policy = next(one["content"] for one in page.of("meta") if one.get("http-equiv"))
        assert "default-src 'none'" in policy and "unsafe" not in policy
        for tag, content in page.raw.items():
            digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy
        assert ("script-src" in policy) == ("script" in page.raw)


def test_a_page_follows_light_and_dark_and_fits_a_phone(written):
    for html in written.values():
        page = Page(html)
        assert "prefers-color-scheme: dark" in page.raw["style"]
        assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.of("meta")
        light, dark = re.findall(r":root \{(.*?)\}", page.raw["style"], re.DOTALL)
        names = [set(re.findall(r"(--\w+):", one)) for one in (light, dark)]
        assert names[0] == names[1] and set(re.findall(r"var\((--\w+)\)", page.raw["style"])) <= names[0]


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_from_their_ground_in_light_and_dark(index):
    """4.5 to 1 for text and 3 to 1 for marks, as WCAG 2 asks for."""
    for scheme in re.findall(r":root \{(.*?)\}", index.raw["style"], re.DOTALL):
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for ground in ("ground", "raised"):
            for name in ("ink", "quiet", "link", "good", "bad", "warn"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
        for name in ("s0", "s1", "s2", "s3", "s4", "past"):
            assert contrast(colours[name], colours["ground"]) >= 3, name


def test_whatever_scrolls_sideways_is_reached_by_the_keyboard_and_has_a_name(written):
    for html in written.values():
        wide = [one for one in Page(html).of("div") if one.get("class") == "wide"]
        assert wide and all(one.get("tabindex") == "0" and one.get("aria-labelledby") for one in wide)


def test_making_a_report_writes_nothing_into_the_store(own_nights, tmp_path):
    before = dict(everything(own_nights.uri))
    pages.write_report(own_nights.uri, str(tmp_path / "out"), ANN)
    assert dict(everything(own_nights.uri)) == before


# --- what the report tells --------------------------------------------------------------------------------


def test_every_run_is_told_with_how_it_ended(index, written):
    rows = re.findall(r'<tr id="run-\w+">(.*?)</tr>', written["index.html"], re.DOTALL)
    shown = [Page(row).text for row in rows]
    assert [line.split()[0] for line in shown] == list(reversed(story.ALL))
    told = dict(zip(reversed(story.ALL), shown, strict=True))
    assert "failed" in told[story.FAILURE] and story.FAILED in told[story.FAILURE]
    assert "stopped" in told[story.CAPPED] and "max_cost=0.5: reached" in told[story.CAPPED]
    assert f"back to run {story.DECIDED}" in told[story.BACK]
    assert f"undone by the rollback {story.BACK}" in told[story.IMPORTED]
    assert "removed 2 records" in told[story.FORGOT] and "reembed" in told[story.EMBEDDED]
    assert "interrupted" in told[story.KILLED] and "dry_run" in told[story.DRY]
    assert "its view has expired" in told[story.FIRST] and "unchanged" in told[story.UNCHANGED]


def test_the_last_night_is_told_with_what_came_in_and_what_it_changed(index):
    for part in (
        "The store is well.",
        f"backfill {story.LAST}",
        "segments encoded 1",
        "memories written 1",
        "records refused by gates 2",
        "rejections 1",
        "added 1",
        "superseded 0",
        "Stages of last night",
    ):
        assert part in index.text


def test_costs_are_summed_up_once_and_reckoned_ahead(index):
    assert "4,100 tokens read, 450 written; 0.8000 paid to endpoints" in index.text
    found = re.search(
        r"The next 30 nights ([\d,]+) tokens and (\S+), if they are like the last (\d)", index.text
    )
    assert found and found[3] == "7"


def test_no_conversation_is_in_the_report_of_a_store(written, nights):
    said = nights.rows("turns", ["content"]).column("content").to_pylist()
    said += nights.rows("records", ["semantic_text"]).column("semantic_text").to_pylist()
    assert said and not [text for text in said if text in written["index.html"]]
    assert "what she said" not in written["index.html"]


def test_a_night_that_failed_is_told_with_its_reason_and_its_rejections(own_nights):
    story.manifest(own_nights, story.run_id(12), "backfill", "failed", error=story.FAILED)
    page = Page(of_store(overview(own_nights.uri, now=NOW)))
    assert "The store is not well." in page.text and f"backfill: {story.FAILED}" in page.text
    assert "Nothing to compare" in page.text


def test_the_first_night_of_a_store_can_be_reported(tmp_path):
    store = Store(str(tmp_path / "store"), must_exist=False)
    commit(store, "run1", segment("tea", "I drink tea", records=["Ann drinks tea"]))
    names = pages.write_report(store.uri, str(tmp_path / "out"), "ann")
    assert len(names) == 2 and problems(pages_in(tmp_path / "out")) == []


def test_a_store_without_a_backfill_has_no_last_night(tmp_path):
    store = Store(str(tmp_path / "store"), must_exist=False)
    commit(store, "run1", segment("tea", "I drink tea", records=["Ann drinks tea"]), job="import")
    found = overview(store.uri, now=NOW)
    assert found.last is None and found.money.projected is None
    assert "No night has been run yet." in Page(of_store(found)).text


def test_users_are_classed_by_how_long_ago_they_said_anything():
    said = [None, NOW, NOW - dt.timedelta(days=2), NOW - dt.timedelta(days=400)]
    found = ages([UserState(str(time), 1, 1, time, None) for time in said], NOW)
    assert {name: num for name, num in found.items() if num} == dict.fromkeys(
        ["no date", "a day", "a week", "longer"], 1
    )


def test_the_projection_is_of_nights_alone(nights):
    entries = runs_of(nights)
    found = money(entries, nights_of(entries))
    # Of the last seven nights three encoded, of 900 and 100 tokens each, and one was stopped at 550.
    assert found.num_recent == 7 and found.projected.tokens == round((3 * 1000 + 550) * 30 / 7)


def test_a_report_goes_into_a_bucket_as_a_page_of_html(nights, monkeypatch):
    put = {}
    monkeypatch.setattr(
        files.obstore, "put", lambda store, path, data, attributes: put.update({path: attributes})
    )
    monkeypatch.setattr(files, "bucket", lambda url: url)
    pages.write_report(nights.uri, "s3://bucket/report", now=NOW)
    assert put == {"index.html": {"Content-Type": "text/html; charset=utf-8"}}


# --- a user's page ----------------------------------------------------------------------------------------


def test_a_user_s_page_tells_each_memory_with_both_times_decisions_and_what_was_said(of_ann):
    for part in (
        "User lives in Lyon.",
        "User lives in Oslo.",
        "I live in Lyon with my",
        f"until run {story.DECIDED}: delete",
        "applied: delete “User lives in Lyon.” because of “User lives in Oslo.” (newer), by rules",
        "3 memories hold, 1 were closed",
        "When they were true",
        "When they were known",
    ):
        assert part in of_ann.text
    assert "moon" not in of_ann.text and "cat" not in of_ann.text.lower().split(), "nobody else's"


def test_a_user_s_page_tells_the_values_of_extra_fields(tmp_path):
    store = Store(str(tmp_path / "store"), must_exist=False)
    tea = segment("tea", "I drink tea", records=["Ann drinks tea"])
    tea["records"] = [row | {"extra": [("mood", "good <b>")]} for row in tea["records"]]
    commit(store, "run1", tea)
    names = pages.write_report(store.uri, str(tmp_path / "out"), "ann")
    written = "".join((tmp_path / "out" / name).read_text("utf-8") for name in names)
    assert '<dt>mood</dt><dd dir="auto">good &lt;b&gt;</dd>' in written


def test_each_statement_of_the_timelines_leads_to_its_memory(of_ann):
    leads = [one["href"] for one in of_ann.of("a") if one["href"].startswith("#m")]
    articles = {f"#{one['id']}" for one in of_ann.of("article")}
    assert len(articles) == 4 and set(leads) - {"#main"} == articles
    assert len(leads) == 1 + 2 * 4, "the link to the content, and one in each timeline"


def test_the_search_is_hidden_where_no_script_runs(of_ann):
    (form,) = of_ann.of("form")
    assert "hidden" in form and form["role"] == "search"
    assert not [one for one in of_ann.of("article") if "hidden" in one]
    assert {"for": "words"} in of_ann.of("label")


def test_a_user_of_whom_there_is_nothing_has_no_page(nights, tmp_path):
    with pytest.raises(StoreError, match=r"--user-id bob: .* has no memory of this user"):
        pages.write_report(nights.uri, str(tmp_path / "out"), "bob")
    assert not (tmp_path / "out").exists()


def test_the_path_of_a_user_s_page_holds_nothing_that_the_user_wrote(tmp_path):
    store = Store(str(tmp_path / "store"), must_exist=False)
    hostile = "../../<b>x'\"\u202e"
    commit(store, "run1", segment("tea", "I drink tea", user=hostile, records=["Ann drinks tea"]))
    names = pages.write_report(store.uri, str(tmp_path / "out"), hostile)
    assert all(re.fullmatch(r"index\.html|user-[0-9a-f]{12}\.html", name) for name in names)
    assert {path.name for path in tmp_path.iterdir()} == {"store", "out"}


# --- hostile text -----------------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "'\"><svg onload=alert(1)>",
    "</style><style>*{display:none}</style>",
    "</title></svg><b>bold</b>",
    "&lt;b&gt; &amp;#60;b&#62; &#x3c;i>",
    "<!-- --> <![CDATA[ x ]]> <?php ?>",
    "javascript:alert(1)",
    "{{ 7 * 7 }} {% raw %}",
    "\x1b[31mred\x1b[0m \x9b2J \b\b \x00",
    "abc\u202efed \u2066\u2069 \U000e0041 \u2028",
    "=cmd|'/c calc'!A0",
    "half \ud800",
    "\ufeff\u200b\u00ad",
]
TEXTS = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(), max_size=40),
    st.text(st.sampled_from("<>&\"'/=!-[]{}%#\x1b\u202e x\n"), max_size=40),
)

_seen: dict[str, tuple[Overview, UserPage]] = {}


def models(nights) -> tuple[Overview, UserPage]:
    if nights.uri not in _seen:
        _seen[nights.uri] = overview(nights.uri, now=NOW), user_page(nights.uri, ANN, now=NOW)
    return _seen[nights.uri]


def with_text(value, text: str):
    """A model of a page with this text wherever others could have written it."""
    import dataclasses

    if isinstance(value, str):
        return text
    if isinstance(value, tuple | list):
        return type(value)(with_text(one, text) for one in value)
    if isinstance(value, dict):
        return {name: with_text(one, text) for name, one in value.items()}
    if dataclasses.is_dataclass(value):
        told = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: with_text(one, text) for name, one in told.items()})
    return value


def hostile_overview(found: Overview, text: str) -> Overview:
    """A store whose ids, users, reasons, jobs and samples are this text; keys of counts stay."""
    import dataclasses

    def entry(one):
        counts = {name: text if isinstance(value, str) else value for name, value in one.counts.items()}
        return dataclasses.replace(one, reason=text, counts=counts, status=text, undone_by=text)

    entries = tuple(map(entry, found.entries))
    by_id = {one.run_id: one for one in entries}
    own = [
        dataclasses.replace(night, runs=tuple(by_id[one.run_id] for one in night.runs))
        for night in found.nights
    ]
    health = dataclasses.replace(found.health, problems=(text,), notes=(text, text), lease=None)
    sample = dict.fromkeys(("source", "user_id", "detail", "raw", "session_id"), text)
    return dataclasses.replace(
        found,
        uri=text,
        entries=entries,
        nights=tuple(own),
        last=next(night for night in own if night.label == found.last.label),
        rejected=(Rejected(text, text, 2, (sample, sample)),),
        refused={text: 1},
        users=tuple(dataclasses.replace(user, user_id=text) for user in found.users),
        health=health,
    )


def shape_of(html: str):
    return Page(html).shape()


def is_shown(text: str, page: Page) -> bool:
    """Whether a text stands on the page, as a reader sees it: white space is one space."""
    return " ".join(harmless(text).split()) in page.text


@settings(max_examples=25, deadline=None)
@given(text=TEXTS)
@example(text=HOSTILE[0])
@example(text=HOSTILE[2])
@example(text=HOSTILE[-4])
def test_whatever_was_said_it_stays_text_on_the_page_of_a_user(nights, text):
    _, page = models(nights)
    memories = tuple(hostile_memory(memory, text) for memory in page.memories)
    plain, hostile = (
        of_user(UserPage(name, name, NOW, page.run_id, found, page.runs), pages.INDEX)
        for name, found in (
            ("word", tuple(hostile_memory(one, "word") for one in page.memories)),
            (text, memories),
        )
    )
    assert problems({"index.html": "<h1></h1>", "user.html": hostile}) == []
    assert shape_of(hostile) == shape_of(plain)
    assert Page(hostile).raw == Page(plain).raw
    assert not set(hostile) & {"\x1b", "\x9b", "\x00", "\u202e", "\u2066", "\ufeff"}
    assert is_shown(text, Page(hostile))


def hostile_memory(memory, text):
    """A memory of which everything that others write is this text."""
    import dataclasses

    def revision(one):
        decision = one.row["decision"] and with_text(one.row["decision"], text) | {
            "decided_at": one.row["decision"]["decided_at"]
        }
        evidence = [
            turn | {"content": text, "speaker": text, "session_id": text} for turn in one.row["evidence"]
        ]
        row = one.row | {
            "semantic_text": text,
            "memory_type": text,
            "decision": decision,
            "evidence": evidence,
        }
        return dataclasses.replace(one, row=row | {"run_id": text, "closed_reason": text})

    return dataclasses.replace(
        memory,
        record_id=text,
        revisions=tuple(map(revision, memory.revisions)),
        decisions=tuple(with_text(one, text) for one in memory.decisions),
    )


@settings(max_examples=25, deadline=None)
@given(text=TEXTS)
@example(text=HOSTILE[1])
@example(text=HOSTILE[-4])
def test_whatever_users_are_called_and_errors_say_it_stays_text_in_the_report(nights, text):
    found, _ = models(nights)
    plain, hostile = (of_store(hostile_overview(found, word)) for word in ("word", text))
    assert problems({"index.html": hostile}) == []
    # An empty reason is none.
    if text:
        assert shape_of(hostile) == shape_of(plain)
    assert Page(hostile).raw == Page(plain).raw
    assert not set(hostile) & {"\x1b", "\x9b", "\x00", "\u202e", "\u2066", "\ufeff"}
    assert is_shown(text, Page(hostile))


def test_templates_turn_escaping_off_nowhere():
    for path in Path(rendering.TEMPLATES).iterdir():
        text = path.read_text("utf-8")
        assert "safe" not in re.findall(r"\|\s*(\w+)", text) and "autoescape" not in text
        # An attribute without quotation marks ends at a space of its value.
        assert not re.search(r"=\{\{", text)
