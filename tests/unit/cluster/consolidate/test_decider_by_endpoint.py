"""Deciding by a model behind an endpoint, on a real store: caps, refusals, and what is paid once."""

import pytest

from cluster.consolidate.decider import ModelDecider
from cluster.consolidate.stages import DecideStage, plan_for_model
from cluster.store.files import Files
from cluster.store.store import Store
from schemas.profiles.decider import DeciderProfile
from schemas.stage_items import UserGroup
from tests import endpoint as served
from tests.unit.cluster.consolidate.nights import DELETE, IGNORE, settings_of
from tests.unit.cluster.consolidate.questions import question
from tests.unit.cluster.store.stores import commit, segment

MOVES = {"ann": ("Lyon", "Oslo"), "bob": ("Rome", "Ghent"), "cyd": ("Graz", "Turin")}


def profile_at(base_url: str, **settings) -> DeciderProfile:
    return DeciderProfile(
        name="remote",
        engine="openai",
        endpoint=served.table(base_url, **settings),
        base_hash="tokenizer",
        system_prompt="Decide.",
        user_template="<STORED>{target}</STORED>\n<NEWER>\n{sources}\n</NEWER>",
    )


def decider_at(server, folder, **settings) -> ModelDecider:
    profile = profile_at(server.base_url, **settings)
    return ModelDecider(profile, files=Files(str(folder), "staging"), role="decider")


LYON = question("User lives in Lyon.", "User likes tea.", "User moved to Oslo.")


def test_a_question_is_asked_by_messages_under_its_schema_and_paid_once(tmp_path):
    with served.Endpoint(lambda messages: DELETE) as server:
        for _ in range(2):
            [verdict] = decider_at(server, tmp_path).decide([LYON])
            assert (verdict.action, verdict.outcome, verdict.prompt_tokens) == ("delete", "applied", 100)
        assert list(server.paid.values()) == [1]
        (body,) = server.requests
    assert "User moved to Oslo." in body["messages"][-1]["content"]
    assert "updated_text" in body["response_format"]["json_schema"]["schema"]["properties"]


def test_too_long_a_question_is_asked_once_more_with_its_newest_source_alone(tmp_path):
    def reply(messages):
        if "tea" in messages[-1]["content"]:
            return served.Odd("the prompt is too long", status=400)
        return DELETE

    with served.Endpoint(reply) as server:
        [verdict] = decider_at(server, tmp_path).decide([LYON])
    assert (verdict.action, verdict.outcome) == ("delete", "applied")


def test_a_refusal_is_a_failed_decision_with_what_was_said(tmp_path):
    with served.Endpoint(lambda messages: served.Odd("", refusal="I would rather not.")) as server:
        [verdict] = decider_at(server, tmp_path).decide([LYON])
    assert (verdict.action, verdict.outcome) == ("", "failed")
    assert verdict.reason == "refused: I would rather not."


def test_a_question_at_which_the_server_fails_is_failed_and_its_neighbours_are_decided(tmp_path):
    def reply(messages):
        return served.Odd("broken", status=500) if "Oslo" in messages[-1]["content"] else IGNORE

    with served.Endpoint(reply) as server:
        failed, decided = decider_at(server, tmp_path).decide([LYON, question("User is 30.", "User is 31.")])
    assert (failed.outcome, decided.action) == ("failed", "ignore")
    assert failed.reason.startswith("Unanswered: ")


# --- the stage -----------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    """Three users who moved, each from and to another town: three questions that differ."""
    store = Store(str(tmp_path / "store"), must_exist=False)
    told = [
        segment(f"{user}-{town}", f"I live in {town}.", user=user, session=f"s{number}", records=[text])
        for user, (old, new) in MOVES.items()
        for number, (town, text) in enumerate(
            ((old, f"User lives in {old}."), (new, f"User moved to {new}."))
        )
    ]
    commit(store, "night-1", *told)
    return store


def decided(store, profile, max_cost: float | None = None) -> dict:
    settings = settings_of(store.uri, min_similarity=1.0, decider=profile.fingerprint)
    files = Files(store.uri, "staging/consolidate/now")
    users = UserGroup("000000", tuple(MOVES))
    group = plan_for_model(users, profile=profile, settings=settings, files=files)
    engine = {"files": Files(store.uri, "staging"), "role": "decider", "max_cost": max_cost}
    return vars(DecideStage(profile, settings, files, engine)(group))


def test_a_cap_on_costs_stops_and_the_next_run_pays_for_the_rest_alone(store):
    with served.Endpoint(lambda messages: DELETE) as server:
        profile = profile_at(server.base_url, prompt_price=1.0, output_price=2.0)
        first = decided(store, profile, max_cost=0.0005)
        assert first["is_stopped"] and "max_cost" in first["cap"]
        assert 0 < sum(server.paid.values()) < 3
        assert not Files(store.uri, "staging/consolidate/now").exists("000000/decisions.parquet")
        second = decided(store, profile, max_cost=1.0)
        assert (second["is_stopped"], second["cap"], second["num_deleted"]) == (False, "", 3)
        assert sorted(server.paid.values()) == [1, 1, 1]


@pytest.mark.parametrize("refusal", [None, 401])
def test_an_endpoint_that_is_gone_or_refuses_the_key_fails_the_run_and_no_question(store, refusal):
    with served.Endpoint(lambda messages: DELETE, num_refused=9, refusal=refusal) as server:
        profile = profile_at(server.base_url)
        done = decided(store, profile) if refusal else None
    done = done or decided(store, profile)
    assert (done["num_failed"], done["is_stopped"]) == (0, False)
    assert profile.endpoint.base_url in done["failure"]
