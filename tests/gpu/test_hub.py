"""The check of published models: what falls short, what is not compared, stand-ins on the same way."""

import json

import pytest

from jobs.sample.__main__ import SampleConfig
from jobs.sample.__main__ import run as write_sample
from tests.gpu import hub
from tests.gpu.hub import FIGURES, MODELS, Data, Measured, line_of, main


def figure(*key: str):
    (found,) = [one for one in FIGURES if (one.model, one.measure, one.benchmark) == (*key, "")[:3]]
    return found


def line(of, value: float, *, error: float = 0.0, archive: str = "longmemeval", on_gpu: bool = True, **given):
    data = Data([(archive, {})], [])
    return line_of(of, Measured(value, error), data, stands_in=False, **{"on_gpu": on_gpu} | given)


def test_every_figure_says_where_it_was_published():
    assert all(one.source and one.published > 0 and one.tolerance >= 0 for one in FIGURES)
    assert MODELS == ("encoder_v0", "EvoEmbedding-0.8B", "EvoEmbedding-4B")


@pytest.mark.parametrize(
    ("value", "holds"), [(1.0, True), (0.985, True), (0.95, False), (float("nan"), False)]
)
def test_a_share_may_fall_short_by_its_tolerance(value, holds):
    assert line(figure("encoder_v0", "schema_ok"), value)["holds"] is holds


@pytest.mark.parametrize(("value", "holds"), [(0.4, True), (5.0, True), (5.2, False)])
def test_a_time_may_be_longer_by_its_tolerance(value, holds):
    assert line(figure("encoder_v0", "p50_s"), value)["holds"] is holds


def test_a_recall_may_fall_short_by_two_standard_errors_more():
    of = figure("EvoEmbedding-4B", "recall_at_10", "longmemeval")
    assert line(of, 0.88)["holds"] is False
    assert line(of, 0.88, error=0.01)["holds"] is True


@pytest.mark.parametrize(
    ("of", "given", "why"),
    [
        (figure("encoder_v0", "p50_s"), {"on_gpu": False}, "there is no GPU"),
        (figure("EvoEmbedding-0.8B", "recall_at_10", "locomo"), {}, "published of locomo"),
        (figure("encoder_v0", "schema_ok"), {"stands_in": True}, "stands in"),
    ],
)
def test_what_cannot_be_compared_says_why(of, given, why):
    data = Data([("longmemeval", {})], [])
    told = line_of(of, Measured(0.0), data, **{"stands_in": False, "on_gpu": True} | given)
    assert told["holds"] is None
    assert why in told["why"]


# --- the run --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> list[str]:
    archive = tmp_path_factory.mktemp("sample")
    write_sample(SampleConfig(archive=archive, people="tune", persons=["nerys-swansea"]))
    return ["--archive", str(archive), "--questions", str(archive / "_gold" / "questions.jsonl")]


@pytest.mark.parametrize("model", MODELS)
def test_a_stand_in_goes_the_whole_way_and_the_last_line_says_so(arguments, capsys, monkeypatch, model):
    monkeypatch.setattr("cluster.models.resolve.read_prompt", lambda _: "Write memory records in JSON.")
    few = ["--models", model, "--num-segments", "1", "--num-questions", "2"]
    assert main([*arguments, *few, "--stand-ins"]) == 0
    *lines, summary = [json.loads(one) for one in capsys.readouterr().out.splitlines() if one[:1] == "{"]
    assert [one["measure"] for one in lines] == [one.measure for one in FIGURES if one.model == model]
    assert all(one["holds"] is None and one["why"] == "a random model stands in" for one in lines)
    assert summary["stand_ins"] is True
    assert (summary["status"], summary["num_compared"]) == ("done", 0)


def test_a_loaded_model_that_falls_short_fails_the_check(arguments, capsys, monkeypatch):
    found = {"schema_ok": Measured(0.7), "p50_s": Measured(1.0), "num_parameters": Measured(2_162_688)}
    monkeypatch.setattr(hub, "measurement", lambda *_: (False, lambda: found))
    assert main([*arguments, "--models", "encoder_v0"]) == 1
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["stand_ins"], summary["missed"]) == (False, ["encoder_v0 schema_ok"])


def test_a_model_that_cannot_be_run_fails_the_check(arguments, capsys, monkeypatch):
    def cannot():
        raise RuntimeError("no room")

    monkeypatch.setattr(hub, "measurement", lambda *_: (False, cannot))
    assert main([*arguments, "--models", "EvoEmbedding-4B"]) == 1
    *lines, summary = [json.loads(one) for one in capsys.readouterr().out.splitlines()]
    assert "RuntimeError: no room" in lines[0]["why"]
    assert summary["missed"] == ["EvoEmbedding-4B was not measured"]
