"""jobs.evaluate of models behind an endpoint: encoders, deciders and answerers, each answer paid once."""

import json

import pytest

from cluster.models.resolve import resolve_answerer
from jobs.common.cli import JobError, UsageError
from jobs.common.endpoints import all_at_endpoint
from jobs.common.run import connect
from jobs.evaluate import decider, encoder
from jobs.evaluate.answers import ModelsConfig, ask_model, cost_of
from jobs.evaluate.judging import judge_rows
from jobs.evaluate.variants import load_variants
from jobs.sample.__main__ import SampleConfig
from jobs.sample.__main__ import run as make_sample
from schemas.endpoint import EndpointConfig
from schemas.profiles.answerer import AnswererProfile
from tests import endpoint as served

PRICES = {"prompt_price": 1000.0, "output_price": 2000.0}
COST = (100 * 1000.0 + 10 * 2000.0) / 1e6
"""What the endpoint charges for a request."""


def there(server: served.Endpoint) -> EndpointConfig:
    return EndpointConfig(**served.table(server.base_url, **PRICES))


def answerer(config: ModelsConfig) -> AnswererProfile:
    variants = load_variants("answerers", ["openai"], AnswererProfile)
    return resolve_answerer(all_at_endpoint(variants, config.endpoint, config.max_cost)["openai"])


def conversations(*texts: str) -> list:
    return [[[{"role": "user", "content": text}]] for text in texts]


def test_an_encoder_behind_an_endpoint_stands_in_the_leaderboard_with_what_it_cost(tmp_path):
    make_sample(SampleConfig(archive=tmp_path / "archive", num_users=1, num_weeks=1))
    with served.Endpoint(lambda messages: served.by_rules(messages, "<CURRENT>")) as server:
        settings = {"archive": str(tmp_path / "archive"), "report": str(tmp_path / "report"), "local": True}
        settings |= {"profiles": ["openai"], "endpoint": there(server), "max_sessions": 3, "num_alone": 1}
        done = encoder.run(encoder.Config(**settings))
        paid = sum(server.paid.values())
    (board,) = done["leaderboard"]
    assert board["profile"] == "openai" and board["records"] > 0 and paid > 0
    assert board["cost"] == pytest.approx(paid * COST)
    assert "| cost |" in (tmp_path / "report" / "report.md").read_text()


def test_the_judge_of_encoders_is_asked_in_one_batch(tmp_path):
    scores = dict.fromkeys(("atomicity", "self_containedness", "entity_coverage", "evidence_alignment"), 4)

    def reply(messages):
        if "<RECORDS>" in messages[-1]["content"]:
            return json.dumps({"remark": "", **scores})
        return served.by_rules(messages, "<CURRENT>")

    make_sample(SampleConfig(archive=tmp_path / "archive", num_users=1, num_weeks=1))
    with served.Endpoint(reply) as server:
        settings = {"archive": str(tmp_path / "archive"), "report": str(tmp_path / "report"), "local": True}
        settings |= {"profiles": ["openai"], "endpoint": there(server), "max_sessions": 3, "num_alone": 1}
        settings |= {"judge": "openai", "pool": {"batch_size": 1}}
        in_batches = served.table(server.base_url, batch=True, batch_poll_s=0.01)
        done = encoder.run(encoder.Config(**settings, judge_endpoint=in_batches))
        assert server.batches.num_created == 1 and not server.batches.files
        (batch,) = server.batches.batches.values()
    (board,) = done["leaderboard"]
    assert (board["atomicity"], done["scores_by"]) == (4.0, "openai")
    assert batch["request_counts"]["total"] > 1


def test_what_works_while_it_is_asked_takes_no_batches():
    variants = load_variants("answerers", ["openai"], AnswererProfile)
    with pytest.raises(UsageError, match=r"batch=true: profile 'openai' works while it is asked"):
        all_at_endpoint(variants, EndpointConfig(base_url="http://a/v1", model="m", batch=True), None)


def test_a_decider_behind_an_endpoint_is_measured_on_pairs(tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pair = {"older": "User lives in Oslo.", "newer": "User lives in Bergen.", "older_should": "delete"}
    pairs.write_text(json.dumps(pair) + "\n")
    decision = json.dumps({"action": "delete", "updated_text": "", "confidence": 0.9})
    with served.Endpoint(lambda messages: decision) as server:
        settings = {"pairs": str(pairs), "report": str(tmp_path / "report"), "local": True}
        settings |= {"deciders": ["openai"], "endpoint": there(server), "embedder": "minilm"}
        (board,) = decider.run(decider.Config(**settings))["deciders"]
        assert sum(server.paid.values()) == 1
    assert (board["decider"], board["delete"]) == ("openai", 1.0)


def test_an_answerer_behind_an_endpoint_is_paid_once_and_stops_at_its_cap(tmp_path):
    with served.Endpoint(lambda messages: messages[-1]["content"].upper()) as server:
        config = ModelsConfig(report=str(tmp_path), local=True, endpoint=there(server), max_cost=0.7)
        profile = answerer(config)
        with pytest.raises(JobError, match=r"qa: .*max_cost: .* are spent.*is kept in .*raise max_cost"):
            ask_model("qa", config, profile, None, conversations("a", "b", "c"))
        num_capped = sum(server.paid.values())
        assert 0 < num_capped < 3
        config = config.model_copy(update={"max_cost": 5.0})
        replies, per_s = ask_model("qa", config, profile, None, conversations("a", "b", "c"))
        assert [reply["text"] for reply in replies] == ["A", "B", "C"] and per_s
        assert set(server.paid.values()) == {1} and len(server.paid) == 3
    assert cost_of(profile, replies) == pytest.approx(3 * COST)


def judging(report, server: served.Endpoint, **settings) -> encoder.Config:
    given = {"archive": "archive", "profiles": ["default"], "report": str(report), "local": True}
    return encoder.Config(**given, judge="openai", judge_endpoint=there(server), **settings)


def test_a_judge_behind_an_endpoint_is_paid_once_and_stops_at_its_cap(tmp_path):
    names = ("atomicity", "self_containedness", "entity_coverage", "evidence_alignment")
    scores = dict.fromkeys(names, 5)
    segments = {
        f"s{i}": {"current": [{"turn_index": 0, "role": "user", "speaker": None, "text": f"I am {i}."}]}
        for i in range(20)
    }
    record = {name: "" for name in ("memory_type", "source_role")} | {"semantic_text": "User is here."}
    record |= {"entities": [], "tags": [], "evidence_turns": [0]}
    record["temporal"] = dict.fromkeys(("t_ref", "t_valid_from", "t_valid_to"), "")
    rows = [{"segment_id": name, "scores": scores, "records": [record]} for name in segments]
    with served.Endpoint(lambda messages: json.dumps(scores | {"remark": ""})) as server:
        config = judging(tmp_path, server, max_cost=2.0)
        connect(config.runs_on)
        with pytest.raises(JobError, match=r"judge openai: .*no further answer of the judge fits.*max_cost"):
            judge_rows(config, "default", rows, segments)
        assert 0 < len(server.paid) < len(rows)
        judged = judge_rows(judging(tmp_path, server, max_cost=100.0), "default", rows, segments)
        assert [row["scores"] for row in judged] == [dict.fromkeys(names, 5.0)] * len(rows)
        assert set(server.paid.values()) == {1} and len(server.paid) == len(rows)


def test_a_cap_on_a_judge_without_prices_is_refused(tmp_path):
    given = {"archive": "a", "profiles": ["default"], "report": str(tmp_path), "judge": "openai"}
    there = EndpointConfig(base_url="http://here/v1", model="m")
    with pytest.raises(ValueError, match=r"max_cost=1.0: it caps no judge without prices"):
        encoder.Config(**given, judge_endpoint=there, max_cost=1.0)


def test_of_a_question_that_is_too_long_the_first_candidate_that_fits_is_asked(tmp_path):
    with served.Endpoint(lambda messages: "yes") as server:
        config = ModelsConfig(report=str(tmp_path), local=True, endpoint=there(server))
        long, short = ([{"role": "user", "content": text}] for text in ("x" * 100_000, "short"))
        replies, _ = ask_model("qa", config, answerer(config), None, [[long, short], [long]])
        assert [body["messages"] for body in server.requests] == [short]
    assert [reply["complete"] for reply in replies] == [True, False]


def test_a_table_endpoint_without_a_profile_that_asks_one_is_wrong_usage():
    variants = load_variants("answerers", ["default"], AnswererProfile)
    with pytest.raises(UsageError, match=r"\[endpoint\], max_cost: profile 'default' asks a model on"):
        all_at_endpoint(variants, EndpointConfig(model="m"), None)
    both = variants | load_variants("answerers", ["openai"], AnswererProfile)
    found = all_at_endpoint(both, EndpointConfig(model="m"), None)
    assert found["default"] == variants["default"] and found["openai"].endpoint.model == "m"
