"""Jobs with several commands: which one is run, and that each takes its own options alone."""

import json
import re

import pytest

from jobs.common import cli
from jobs.distill.__main__ import COMMANDS as DISTILL
from jobs.evaluate.__main__ import COMMANDS as EVALUATE
from jobs.train.__main__ import COMMANDS as TRAIN

ALL = {one.job: one for one in (DISTILL, EVALUATE, TRAIN)}
NAMED = [(job, name) for job, commands in ALL.items() for name in commands.commands]


@pytest.fixture
def file(tmp_path):
    (path := tmp_path / "c.toml").write_text('task = "fact_qa"\n')
    return str(path)


@pytest.mark.parametrize(("job", "name"), NAMED)
def test_the_first_word_names_the_command(job, name):
    assert ALL[job].choose([name, "--config", "x"]) == (name, ["--config", "x"])


@pytest.mark.parametrize("job", ["jobs.distill", "jobs.train"])
@pytest.mark.parametrize("written", [["--task", "decider"], ["--task=decider"]])
def test_the_option_of_earlier_releases_names_it_too(job, written):
    assert ALL[job].choose(["--output", "o", *written]) == ("decider", ["--output", "o", *written])


def test_so_does_the_config_file_and_an_option_wins_over_it(file):
    assert DISTILL.choose(["--config", file])[0] == "fact_qa"
    assert TRAIN.choose(["--data", "d", f"--config={file}"])[0] == "fact_qa"
    assert DISTILL.choose(["--config", file, "--task", "encoder"])[0] == "encoder"


@pytest.mark.parametrize("config", ["no such file", "broken"])
def test_a_file_that_cannot_be_read_is_left_to_whoever_reads_all_of_it(config, tmp_path):
    (broken := tmp_path / "broken").write_text("task = ")
    argv = ["--config", str(broken) if config == "broken" else config]
    assert DISTILL.choose(argv) == ("encoder", argv)


def test_a_distillation_that_names_no_task_is_of_the_encoder_and_a_training_has_to_name_one(capsys):
    assert DISTILL.choose(["--archive", "a"])[0] == "encoder"
    with pytest.raises(SystemExit) as refused:
        TRAIN.choose(["--data", "d"])
    assert refused.value.code == 2
    assert "required: COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("job", ALL)
def test_a_name_that_is_none_is_refused_with_those_that_are(job, capsys):
    with pytest.raises(SystemExit) as refused:
        ALL[job].choose(["encodr", "--x"])
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert "'encodr'" in said and all(name in said for name in ALL[job].commands)


@pytest.mark.parametrize("job", ALL)
def test_help_alone_lists_the_commands(job, capsys):
    with pytest.raises(SystemExit) as ended:
        ALL[job].main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(re.search(rf"^    {name}\b", said, re.MULTILINE) for name in ALL[job].commands)
    assert "--output" not in said.partition("options:")[2]


def test_the_help_of_a_command_shows_its_own_options(capsys):
    for argv in (["decider", "--help"], ["--task", "decider", "--help"]):
        with pytest.raises(SystemExit):
            DISTILL.main(argv)
        said = capsys.readouterr().out
        assert "usage: python -m jobs.distill decider" in said
        assert "--max-ignore-fraction" in said and "--decisions" in said
        assert not re.search(r"--(archive|num-questions|max-turns|teacher|judge-pool)", said)


@pytest.mark.parametrize(
    ("commands", "argv", "said"),
    [
        (DISTILL, ["decider", "--num-questions", "3"], "num_questions is for jobs.distill fact_qa"),
        (
            DISTILL,
            ["--task", "evolvable", "--store", "s"],
            "store is for jobs.distill decider and jobs.distill fact",
        ),
        (DISTILL, ["encoder", "--max-turns=4"], "max_turns is for jobs.distill evolvable"),
        (DISTILL, ["fact_qa", "--judge-endpoint.model", "m"], "judge_endpoint is for jobs.distill encoder"),
        (TRAIN, ["decider", "--evolvable.num-latents", "4"], "evolvable is for jobs.train evolvable"),
        (EVALUATE, ["memories", "--reranker", "m"], "reranker is for jobs.evaluate retrieval"),
        (EVALUATE, ["qa", "--no-only-evidence-sessions"], "only_evidence_sessions is for jobs.evaluate enc"),
    ],
)
def test_an_option_of_another_command_is_refused_with_the_name_of_that(commands, argv, said, capsys):
    with pytest.raises(SystemExit) as refused:
        commands.main(argv)
    assert refused.value.code == 2
    assert said in (line := capsys.readouterr().err)
    assert line.count("\n") == 1


def test_so_is_a_key_of_a_config_file(tmp_path, capsys):
    (path := tmp_path / "c.toml").write_text('task = "decider"\nstore = "s"\nnum_questions = 4\n')
    with pytest.raises(SystemExit) as refused:
        DISTILL.main(["--output", "o", "--config", str(path)])
    assert refused.value.code == 2
    assert "num_questions=4: no setting of this command; num_questions is for jobs.distill fact_qa" in (
        capsys.readouterr().err
    )


def test_a_key_that_no_command_has_is_refused_as_in_every_job(tmp_path, capsys):
    (path := tmp_path / "c.toml").write_text("num_quests = 4\n")
    with pytest.raises(SystemExit):
        DISTILL.main(["fact_qa", "--output", "o", "--store", "s", "--config", str(path)])
    assert "num_quests=4: no such setting" in (said := capsys.readouterr().err)
    assert "did you mean num_questions" in said


def test_a_file_of_one_task_is_not_taken_for_another(file, capsys):
    with pytest.raises(SystemExit) as refused:
        DISTILL.main(["decider", "--store", "s", "--output", "o", "--config", file])
    assert refused.value.code == 2
    assert "task='fact_qa': Input should be 'decider'" in capsys.readouterr().err


def test_a_command_is_run_with_its_own_settings(monkeypatch, capsys):
    """However it is named."""
    seen = []

    def main(config_class, run, doc, argv, command, others):
        seen.append((cli.parse_config(config_class, doc, argv, command, others), command, run))

    monkeypatch.setattr(cli, "main", main)
    rest = ["--store", "s", "--output", "o", "--num-questions", "2"]
    for argv in (["fact_qa", *rest], ["--task", "fact_qa", *rest], [*rest, "--task=fact_qa"]):
        DISTILL.main(argv)
    (one, command, run), *others = seen
    assert all(other == (one, command, run) for other in others)
    assert (one.task, one.num_questions, command) == ("fact_qa", 2, "jobs.distill fact_qa")
    assert "judge" not in json.loads(one.model_dump_json())
