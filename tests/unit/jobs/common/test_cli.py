"""What every job's command line does: where a setting comes from, how errors read, how a job ends."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.common import cli
from jobs.common.cli import HeldError, JobConfig, JobError, UsageError, main, parse_config

ROOT = Path(__file__).parents[4]


class Pool(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(1, ge=1)
    kind: str


class Config(JobConfig):
    """Settings of a job."""

    archive: str
    """Where it reads."""
    num_weeks: int = Field(4, ge=1, le=52)
    """How much,
    over two lines."""
    share: float = 0.5
    """Of 100%."""
    dry_run: bool = False
    verify: bool = True
    limit: int | None = None
    mode: Literal["fast", "slow"] = "fast"
    where: Path = Path("50%")
    users: tuple[str, ...] = ()
    address: str | None = Field(None, json_schema_extra={"short": "-a"})
    pool: Pool = Pool(kind="cpu")
    env: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self):
        if self.mode == "slow" and self.dry_run:
            raise ValueError("dry_run is always fast; leave mode out")
        return self


class Room(BaseModel):
    floor: int = 0
    colour: Literal["red", "blue"] = "red"


class Barn(BaseModel):
    """Where they stand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    room: Room = Room(floor=2)


class Wide(Config):
    """One with a table in a table, and an option of another name."""

    as_json: bool = Field(False, json_schema_extra={"short": "--json"})
    barn: Barn = Barn(kind="wood")


DOC = "Do something.\n\nMore about it: 100% of it."


def parse(*argv: str) -> Config:
    return parse_config(Config, DOC, list(argv))


def a_toml(tmp_path: Path, text: str) -> str:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def wide(*argv: str) -> Wide:
    return parse_config(Wide, DOC, list(argv))


def refused(capsys, *argv: str, of: type[Config] = Config) -> str:
    """What stderr says of a refused command line."""
    with pytest.raises(SystemExit) as caught:
        parse_config(of, DOC, list(argv))
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.partition("error: ")[2]


# --- where a setting comes from -------------------------------------------------------------------------


def test_an_option_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    path = a_toml(tmp_path, 'archive = "file"\nnum_weeks = 7\nshare = 0.1\n')
    config = parse("--config", path, "--num-weeks", "9")
    assert (config.archive, config.num_weeks, config.share, config.mode) == ("file", 9, 0.1, "fast")


def test_an_option_may_say_what_the_default_says(tmp_path):
    """An option is told from its default by being given, not by its value."""
    path = a_toml(tmp_path, 'archive = "x"\nnum_weeks = 7\nverify = false\ndry_run = true\n')
    config = parse("--config", path, "--num-weeks", "4", "--verify", "--no-dry-run")
    assert (config.num_weeks, config.verify, config.dry_run) == (4, True, False)


def test_options_of_every_kind():
    options = ["--archive", "x", "--limit", "3", "--mode", "slow", "--no-verify", "--where", "a/b"]
    options += ["--users", "ann", "bob", "-a", "here"]
    config = parse(*options)
    assert (config.limit, config.mode, config.verify, config.where) == (3, "slow", False, Path("a/b"))
    assert (config.users, config.address) == (("ann", "bob"), "here")


def test_tables_are_set_in_the_file(tmp_path):
    path = a_toml(tmp_path, 'archive = "é"\n[pool]\nsize = 3\nkind = "gpu"\n[env]\nA = "b"\n')
    config = parse("--config", path)
    assert (config.archive, config.pool, config.env) == ("é", Pool(size=3, kind="gpu"), {"A": "b"})


# --- options of tables ----------------------------------------------------------------------------------


def test_an_option_sets_one_setting_of_a_table_and_leaves_the_default_of_the_others():
    config = wide("--archive", "x", "--pool.size", "8", "--barn.room.colour", "blue")
    assert config.pool == Pool(size=8, kind="cpu")
    assert config.barn == Barn(kind="wood", room=Room(floor=2, colour="blue"))


def test_an_option_of_a_table_sets_nothing_that_was_not_set():
    """A training tells what was set from what is as always."""
    assert wide("--archive", "x", "--barn.room.colour", "red").barn.room.model_fields_set == {
        "colour",
        "floor",
    }
    assert wide("--archive", "x", "--barn.kind", "a").barn.model_fields_set == {"kind"}


def test_an_option_sets_one_setting_of_a_table_and_leaves_those_of_the_file(tmp_path):
    path = a_toml(tmp_path, 'archive = "x"\n[pool]\nsize = 3\nkind = "gpu"\n[barn]\nkind = "stone"\n')
    config = wide("--config", path, "--pool.size=8", "--barn.room.colour", "blue")
    assert config.pool == Pool(size=8, kind="gpu")
    assert config.barn == Barn(kind="stone", room=Room(floor=2, colour="blue"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--pool.size", "0"], "pool.size='0': Input should be greater than or equal to 1"),
        (["--barn.room.colour", "green"], "barn.room.colour='green': Input should be 'red' or 'blue'"),
    ],
    ids=["number", "choice"],
)
def test_a_bad_value_of_a_table_is_named_with_its_field(argv, message, capsys):
    assert refused(capsys, "--archive", "x", *argv, of=Wide) == f"{message}\n"


def test_what_stands_in_the_file_where_a_table_belongs_is_refused_as_it_stands(tmp_path, capsys):
    path = a_toml(tmp_path, 'archive = "x"\npool = 3\n')
    assert "pool=3: Input should be a valid dictionary" in refused(
        capsys, "--config", path, "--pool.size", "8"
    )


def test_a_table_that_says_too_little_names_the_option_too(tmp_path, capsys):
    path = a_toml(tmp_path, 'archive = "x"\n[pool]\n')
    message = refused(capsys, "--config", path, "--pool.size", "8")
    assert "pool.kind: not given; set it in the config file or pass --pool.kind\n" in message


def test_a_list_is_taken_word_by_word_whatever_its_words_hold():
    """A comma or a bracket is part of a file's name, or of a requirement such as `ray[data]>=2,<3`."""
    assert parse("--archive", "x", "--users", "a,b[c]>=2,<3", "[d]", "").users == ("a,b[c]>=2,<3", "[d]", "")


def test_the_environment_sets_nothing(monkeypatch):
    monkeypatch.setenv("NUM_WEEKS", "9")
    monkeypatch.setenv("POOL", '{"size": 9}')
    assert parse("--archive", "x") == Config(archive="x")


# --- what is refused ------------------------------------------------------------------------------------


def test_an_unknown_key_is_named_with_the_known_ones(tmp_path, capsys):
    path = a_toml(tmp_path, 'archive = "x"\nnum_week = 7\n')
    message = refused(capsys, "--config", path)
    assert "num_week=7: no such setting; known settings: storage, archive, num_weeks, share," in message


def test_an_unknown_key_of_a_table_is_named_with_the_table_s_own(tmp_path, capsys):
    path = a_toml(tmp_path, 'archive = "x"\n[pool]\nkind = "cpu"\nmax_size = 3\n')
    assert "pool.max_size=3: no such setting; known settings: size, kind\n" in refused(
        capsys, "--config", path
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--num-weeks", "0"], "num_weeks='0': Input should be greater than or equal to 1"),
        (["--num-weeks", "many"], "num_weeks='many': Input should be a valid integer"),
        (["--share", "nan"], "share='nan': Input should be a finite number"),
        (["--mode", "medium"], "mode='medium': Input should be 'fast' or 'slow'"),
        (["--limit", ""], "limit='': Input should be a valid integer"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_bad_value_is_named_with_its_field(argv, message, capsys):
    assert message in refused(capsys, "--archive", "x", *argv)


def test_every_bad_value_has_a_line(tmp_path, capsys):
    path = a_toml(tmp_path, "num_weeks = 0\nshare = 'x'\n[pool]\nsize = 0\n")
    lines = refused(capsys, "--config", path).strip().split("\n")
    assert lines[0] == "wrong settings:"
    assert [re.split(r"[=:]", line.strip())[0] for line in lines[1:]] == [
        "archive",
        "num_weeks",
        "share",
        "pool.size",
        "pool.kind",
    ]


def test_what_is_missing_says_how_to_give_it(tmp_path, capsys):
    assert "archive: not given; pass --archive or set it in the config file" in refused(capsys)
    path = a_toml(tmp_path, 'archive = "x"\n[pool]\nsize = 1\n')
    assert "pool.kind: not given; set it in the config file" in refused(capsys, "--config", path)


def test_settings_that_do_not_go_together_are_explained_without_a_dump(capsys):
    message = refused(capsys, "--archive", "x", "--dry-run", "--mode", "slow")
    assert message == "dry_run is always fast; leave mode out\n"


@pytest.mark.parametrize(
    "content", [None, b"archive = ", b'archive = "\xff"'], ids=["none", "broken", "latin-1"]
)
def test_a_config_file_that_cannot_be_read_is_named(tmp_path, capsys, content):
    path = tmp_path / "run.toml"
    if content:
        path.write_bytes(content)
    message = refused(capsys, "--config", str(path))
    assert message.startswith(f"--config {path}: ")
    assert message.endswith("it must be a readable TOML file\n")


@pytest.mark.parametrize("argv", [["--nosuch", "1"], ["--num", "3"], ["stray"]])
def test_an_unknown_option_is_refused(argv, capsys):
    """`--num` is not taken for `--num-weeks`: an option added later would change its meaning."""
    assert "unrecognized arguments" in refused(capsys, "--archive", "x", *argv)


@pytest.mark.parametrize(
    ("argv", "nearest"),
    [
        (["--num", "3"], "--num-weeks"),
        (["--num_weeks=3"], "--num-weeks"),
        (["--shar", "3"], "--share"),
        (["--verfy"], "--verify"),
        (["--size", "3"], "--pool.size"),
        (["--pool.siz", "3"], "--pool.size"),
        (["--barn.room", "3"], "--barn.room.floor or --barn.room.colour"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_unknown_option_is_named_with_the_nearest_ones(argv, nearest, capsys):
    message = refused(capsys, "--archive", "x", *argv, of=Wide)
    assert message.startswith(f"unrecognized arguments: {' '.join(argv)}; did you mean {nearest}")


def test_an_unknown_option_that_resembles_none_is_sent_to_the_help(capsys):
    assert refused(capsys, "--archive", "x", "--zzz") == "unrecognized arguments: --zzz; see --help\n"


def test_an_unknown_key_is_named_with_the_nearest_one(tmp_path, capsys):
    path = a_toml(tmp_path, 'archive = "x"\nnum_week = 7\n[pool]\nkind = "a"\nsise = 3\n')
    lines = refused(capsys, "--config", path).splitlines()
    assert lines[1].endswith("known settings: size, kind; did you mean size?")
    assert lines[2].endswith("; did you mean num_weeks?")


@pytest.mark.parametrize("argv", [["--nosuch"], ["--num-weeks"], ["--num-weeks", "0"], ["--users"]])
def test_what_is_refused_is_said_without_the_usage(argv, capsys):
    with pytest.raises(SystemExit):
        parse("--archive", "x", *argv)
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "usage:" not in err
    assert len(err.splitlines()) == 1


# --- help -----------------------------------------------------------------------------------------------


def test_help_shows_every_option_with_its_meaning_and_default(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    out = capsys.readouterr().out
    shown = " ".join(out.split())
    for name in Config.model_fields.keys() - {"pool", "env"}:
        assert f"--{name.replace('_', '-')}" in shown
    assert "--no-verify" in shown and "--config FILE.toml" in shown and "-a" in shown
    assert "{fast,slow}" in shown
    assert "Where it reads. (required)" in shown
    assert "How much, over two lines. (default: 4)" in shown
    assert "Of 100%. (default: 0.5)" in shown
    assert "(default: 50%)" in shown
    assert "More about it: 100% of it." in shown
    assert "--pool " not in shown and "--env" not in shown


def helped(capsys) -> str:
    with pytest.raises(SystemExit):
        wide("--help")
    return capsys.readouterr().out


def test_help_names_the_tables_the_exit_codes_and_the_summary(capsys):
    out = helped(capsys)
    assert "\ntable [barn]:\n  Where they stand.\n" in out and "\ntable [barn.room]:\n" in out
    assert "--barn.kind TEXT" in out and "--barn.room.colour {red,blue}" in out
    assert "\ntable [env], in the file alone:\n" in out
    assert "Exit codes: 0 done; 1 failed, interrupted, nothing found or unhealthy; 2 wrong usage." in out
    assert 'the summary as JSON, {"status": "done", ...}' in out


def test_help_shows_of_a_switch_what_changes_its_default(capsys):
    out = helped(capsys)
    assert "\n  --dry-run\n" in out and "--no-dry-run" not in out
    assert "  --verify, --no-verify\n" in out and "(default: True)" in out
    assert "\n  --json\n" in out
    assert not [name for name in ("--no-json", "--as-json", "--no-as-json") if name in out]
    assert "False" not in out and "None" not in out


# --- how a job ends -------------------------------------------------------------------------------------


@pytest.fixture
def end(capsys, monkeypatch):
    """Run a job in this process, which must keep its stdout."""
    monkeypatch.setattr(cli, "reserve_stdout", lambda: None)

    def call(run) -> tuple[int, list[str], str]:
        with pytest.raises(SystemExit) as caught:
            main(Config, run, DOC, ["--archive", "x"])
        out, err = capsys.readouterr()
        return caught.value.code, out.splitlines(), err

    return call


NOISY = """
import atexit, os
from jobs.common.cli import JobConfig, main, show

class Config(JobConfig): pass

def run(config):
    print("a library")
    os.write(1, b"native code\\n")
    atexit.register(os.write, 1, b"a farewell\\n")
    for _ in range({num_lines}):
        show("an answer")
    return {{"status": "done"}}

main(Config, run, "Do something.", [])
"""


def test_stdout_has_answers_and_last_the_summary_whatever_else_prints_there():
    command = [sys.executable, "-c", NOISY.format(num_lines=1)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == 'an answer\n{"status": "done"}\n'
    assert sorted(done.stderr.splitlines()) == ["a farewell", "a library", "native code"]


def test_a_reader_that_has_seen_enough_is_no_failure_to_talk_about():
    script = f"{shlex.quote(sys.executable)} -c {shlex.quote(NOISY.format(num_lines=100_000))} | head -1"
    done = subprocess.run(script, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "an answer\n"
    assert sorted(done.stderr.splitlines()) == ["a farewell", "a library", "native code"]


def test_a_summary_is_one_line_of_json(end):
    code, lines, err = end(lambda config: {"status": "done", "where": config.where, "text": "two\nlines"})
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in lines] == [{"status": "done", "where": "50%", "text": "two\nlines"}]


def test_a_summary_that_says_failed_is_exit_code_1(end):
    code, lines, _ = end(lambda config: {"status": "failed"})
    assert (code, json.loads(lines[-1])) == (1, {"status": "failed"})


def test_a_job_error_is_one_line_and_a_summary(end):
    def run(config: Config) -> dict:
        raise JobError("store=x: is locked; wait")

    code, lines, err = end(run)
    assert (code, err) == (1, "error: store=x: is locked; wait\n")
    assert json.loads(lines[-1]) == {"status": "failed", "error": "store=x: is locked; wait"}


def test_a_job_that_meets_another_one_is_exit_code_3_and_a_summary(end):
    def run(config: Config) -> dict:
        raise HeldError("store x is being written by jobs.other; wait")

    code, lines, err = end(run)
    said = "store x is being written by jobs.other; wait"
    assert (code, err) == (3, f"error: {said}\n")
    assert json.loads(lines[-1]) == {"status": "failed", "error": said, "is_held": True}
    # As of a night, which has the summaries of its jobs.
    code, _, _ = end(lambda config: {"status": "failed", "failed": "backfill", "is_held": True})
    assert code == 3


def test_wrong_usage_found_by_the_job_is_exit_code_2(end):
    def run(config: Config) -> dict:
        raise UsageError("archive=x: no such folder")

    assert end(run) == (2, [], "error: archive=x: no such folder\n")


def test_an_unexpected_failure_shows_where_it_happened(end):
    def run(config: Config) -> dict:
        return {}["surprise"]

    code, lines, err = end(run)
    assert code == 1
    assert json.loads(lines[-1])["status"] == "failed"
    assert "Traceback" in err and "unexpected failure in: Do something.\n" in err


def test_an_interrupted_job_says_how_to_go_on(end):
    def run(config: Config) -> dict:
        raise KeyboardInterrupt

    code, lines, err = end(run)
    message = "interrupted; run the same command again to go on"
    assert (code, err) == (1, f"error: {message}\n")
    assert json.loads(lines[-1]) == {"status": "failed", "error": message}
