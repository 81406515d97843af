"""Options of every job: what could be typed can be typed, and what a table holds can be set one by one."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from jobs.backfill import BackfillConfig
from jobs.common.cli import parse_config
from jobs.common.options import described, option_kind
from jobs.distill.config import EncoderSetConfig
from jobs.train.config import EncoderTraining
from tests.unit.project import all_jobs, job_of

KEPT = (Path(__file__).parent / "options.txt").read_text("utf-8")
"""Names that scripts rely on. A new option may be added here; one that stands here stays."""

VALUES = {"one value": ["1"], "values": ["1", "2"], "switches": []}


def kept() -> list[tuple[str, str, list[str]]]:
    """(job with its command, option, what it takes)."""
    found = []
    for job, options in re.findall(r"^(\S.*):\n((?: .*\n)+)", KEPT, re.MULTILINE):
        for kind, names in re.findall(r"^  (\w.*): ((?:.|\n    )*)", options, re.MULTILINE):
            found += [(job, name, VALUES[kind]) for name in names.split()]
    return found


@pytest.mark.parametrize("job", sorted({job for job, _, _ in kept()}))
def test_every_option_that_a_job_has_had_is_still_taken_and_sets_what_it_did(job):
    config, parser = job_of(*job.split())
    for option, takes in [(option, takes) for name, option, takes in kept() if name == job]:
        given = vars(parser.parse_args([option, *takes]))
        # What every job takes beside its settings is there also where it is not given.
        [name] = given.keys() - vars(parser.parse_args([])).keys() or {"config"}
        assert name == "config" or name in config.model_fields
        assert name.endswith(option.removeprefix("--no-").strip("-").replace("-", "_"))
        switch = not option.startswith("--no-")
        assert given[name] == (takes if len(takes) == 2 else takes[0] if takes else switch), option


def test_the_kept_options_are_read_from_their_list():
    assert len(kept()) == KEPT.count(" -") == 281


def settings_of(kind: type[BaseModel], path: str = "") -> Iterator[tuple[type[BaseModel], str, str]]:
    """(class, setting, where it is) of the tables of a config, and of those in them."""
    for name, field in kind.model_fields.items():
        table = option_kind(field.annotation)
        if isinstance(table, type):
            yield from ((table, one, f"{path}{name}.{one}") for one in table.model_fields)
            yield from settings_of(table, f"{path}{name}.")


@pytest.mark.parametrize(("name", "command"), all_jobs())
def test_every_setting_of_a_table_says_what_it_means(name, command):
    silent = [
        where
        for table, one, where in settings_of(job_of(name, command).config)
        # Of a class in the file that is run here the text cannot be read.
        if not described(table, one)
        and table.__module__ != "__main__"
        and not isinstance(option_kind(table.model_fields[one].annotation), type)
    ]
    assert not silent


NEEDED = ["--archive", "a", "--store", "s"]


def test_the_tables_of_a_backfill_are_set_by_options():
    argv = ["--encoder-pool.max-size", "8", "--cluster.num-cpus", "4", "--consolidation.decider", "model"]
    argv += ["--consolidation.embedder-pool.max-size", "2", "--cluster.pip", "ray[data]>=2,<3", "x"]
    config = parse_config(BackfillConfig, "A job.", [*NEEDED, *argv])
    assert (config.encoder_pool.max_size, config.cluster.num_cpus) == (8, 4)
    assert config.cluster.pip == ["ray[data]>=2,<3", "x"]
    assert config.consolidation.decider == "model"
    assert config.consolidation.embedder_pool.max_size == 2
    assert config.consolidation.embedder_pool.num_cpus == 0.5


def test_an_endpoint_is_set_by_options():
    argv = ["--output", "o", "--archive", "a", "--judge", "openai", "--judge-endpoint.model", "m"]
    config = parse_config(EncoderSetConfig, "A job.", [*argv, "--judge-endpoint.base-url", "http://host/v1"])
    assert (config.judge_endpoint.model, config.judge_endpoint.base_url) == ("m", "http://host/v1")


def test_an_option_of_a_table_wins_over_the_shipped_file():
    argv = ["--task", "encoder", "--data", "d", "--output", "o"]
    shipped = parse_config(EncoderTraining, "A job.", argv)
    config = parse_config(EncoderTraining, "A job.", [*argv, "--recipe.seed", "7"])
    assert config.recipe == shipped.recipe.model_copy(update={"seed": 7})
    assert config.lora == shipped.lora


def test_no_variable_of_the_workers_can_be_given_on_the_command_line(capsys):
    """Everybody on the machine can read that."""
    with pytest.raises(SystemExit):
        parse_config(BackfillConfig, "A job.", [*NEEDED, "--cluster.env-vars", "HF_TOKEN=1"])
    assert "unrecognized arguments: --cluster.env-vars" in capsys.readouterr().err


def test_a_choice_of_a_job_is_checked_and_shown(capsys):
    with pytest.raises(SystemExit):
        parse_config(BackfillConfig, "A job.", [*NEEDED, "--on-encoder-change", "ask"])
    said = capsys.readouterr().err
    assert "on_encoder_change='ask': Input should be 'fail', 'keep' or 'reencode'" in said
    with pytest.raises(SystemExit):
        parse_config(BackfillConfig, "A job.", ["--help"])
    assert "--on-encoder-change {fail,keep,reencode}" in capsys.readouterr().out
