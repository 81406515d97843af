"""Prompts out of wheels, and profiles with what they need for a fingerprint."""

import hashlib
import tomllib
import zipfile
from pathlib import Path

import pytest

from cluster.models.resolve import constant_in_source, read_prompt, resolve_encoder
from cluster.models.sources import (
    ModelError,
    adapter_folder,
    base_folder,
    source_hash,
)
from schemas.profiles.encoder import EncoderProfile, PromptInWheel
from tests.unit.cluster.models.adapters import an_adapter

ROOT = Path(__file__).parents[4]


# --- prompts in wheels ----------------------------------------------------------------------------------

PROMPT = 'Extract memories.\n\nAlways: {"records": []}.\n'


def put_wheel(cache: Path, source: str, name: str = "someones_prompts-1.0-py3-none-any.whl") -> Path:
    (cache / "wheels").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(cache / "wheels" / name, "w") as wheel:
        wheel.writestr("src/prompts.py", source)
    return cache / "wheels" / name


def in_wheel(**changes) -> PromptInWheel:
    values = {
        "package": "someones-prompts",
        "version": "1.0",
        "path": "src/prompts.py",
        "constant": "SYSTEM",
        "sha256": hashlib.sha256(PROMPT.encode()).hexdigest(),
    }
    return PromptInWheel(**values | changes)


def test_the_prompt_is_read_to_the_byte_and_its_module_is_not_run(cache):
    put_wheel(cache, f"raise SystemExit\nimport not_installed\nSYSTEM = {PROMPT!r}\n")
    assert read_prompt(in_wheel()) == PROMPT


def test_a_wheel_with_another_prompt_is_refused(cache):
    wheel = put_wheel(cache, f"SYSTEM = {PROMPT + ' '!r}\n")
    expected = in_wheel().sha256
    with pytest.raises(ModelError, match=f"SYSTEM in {wheel.name} has sha256 .*, expected {expected}"):
        read_prompt(in_wheel())


@pytest.mark.parametrize(
    "source",
    ["OTHER = 'x'", "SYSTEM = ''.join(['a'])", "SYSTEM = f'{1}'", "SYSTEM = 3", "def broken(", ""],
)
def test_a_wheel_without_the_constant_says_what_to_do(cache, source):
    wheel = put_wheel(cache, source)
    with pytest.raises(ModelError, match=rf"{wheel.name}: .*; remove the file and run again"):
        read_prompt(in_wheel())


def test_a_wheel_without_the_file_says_what_to_do(cache):
    put_wheel(cache, "SYSTEM = ''")
    with pytest.raises(ModelError, match=r"no item named 'src/gone\.py'.*; remove the file and run again"):
        read_prompt(in_wheel(path="src/gone.py"))


def test_half_a_wheel_says_what_to_do(cache):
    wheel = put_wheel(cache, f"SYSTEM = {PROMPT!r}")
    wheel.write_bytes(wheel.read_bytes()[:40])
    with pytest.raises(ModelError, match="remove the file and run again"):
        read_prompt(in_wheel())


def test_a_wheel_that_cannot_be_downloaded_names_where_to_put_it(cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ModelError) as caught:
        read_prompt(in_wheel())
    message = str(caught.value)
    assert "system_prompt_in_wheel=someones-prompts==1.0: cannot be downloaded" in message
    assert f"put the wheel into {cache / 'wheels'}" in message


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("A = 'x'", "x"),
        ("A: str = 'x'", "x"),
        ("B = A = '''x\n'''", "x\n"),
        ("def f():\n    A = 'inner'\nA = 'x' 'y'", "xy"),
        ("B = 'b'\nA = 'x'", "x"),
    ],
)
def test_constant_in_source(source, value):
    assert constant_in_source(source, "A") == value


@pytest.mark.parametrize(
    "source", ["", "B = 'A'", "A = 1", "A = B = C", "def f():\n    A = 'x'", "A, B = 'x', 'y'"]
)
def test_constant_in_source_finds_nothing(source):
    with pytest.raises(KeyError, match="no string constant A"):
        constant_in_source(source, "A")


# --- resolving ------------------------------------------------------------------------------------------


def test_encoder_v0_resolves_to_its_trained_prompt(tmp_path, base, cache):
    """The shipped profile, with a wheel, a base and an adapter of our own in place of the real ones."""
    values = tomllib.loads((ROOT / "cluster/profiles/encoders/encoder_v0.toml").read_text())
    values["system_prompt_in_wheel"] = in_wheel().model_dump()
    values |= {"base": str(base), "adapter": str(an_adapter(tmp_path))}
    put_wheel(cache, f"SYSTEM = {PROMPT!r}")
    resolved = resolve_encoder(EncoderProfile.model_validate(values))
    assert resolved.system_prompt == PROMPT
    assert resolved.user_template == (
        "<PREVIOUS_TURNS>\n{previous}\n</PREVIOUS_TURNS>\n\n<CURRENT_TURNS>\n{current}\n</CURRENT_TURNS>"
    )
    assert resolved.base_hash == source_hash(str(base), None)
    assert resolved.adapter_hash == source_hash(values["adapter"], None)
    assert len(resolved.fingerprint) == 16
    assert adapter_folder(resolved) == tmp_path / "adapter"


def test_the_shipped_encoder_v0_names_the_published_prompt():
    values = tomllib.loads((ROOT / "cluster/profiles/encoders/encoder_v0.toml").read_text())
    assert values["system_prompt_in_wheel"] == {
        "package": "lycheemem",
        "version": "0.1.4",
        "path": "src/memory/semantic/prompts.py",
        "constant": "COMPACT_ENCODING_SYSTEM",
        "sha256": "7164e45f7c428e2fa96fd1b523ccd26769b21d0ab8b0e809b03a0be077f50df2",
    }


def a_profile(base: Path, **values) -> EncoderProfile:
    template = "\n{previous}{current}\n"
    return EncoderProfile(
        name="test", base=str(base), user_template=template, **{"system_prompt": "\nS.\n"} | values
    )


def test_blank_lines_around_the_texts_of_a_profile_are_layout(base):
    resolved = resolve_encoder(a_profile(base))
    assert (resolved.system_prompt, resolved.user_template) == ("S.", "{previous}{current}")
    assert resolved.adapter_hash == ""
    assert base_folder(resolved) == base


def test_resolving_refuses_an_adapter_that_does_not_fit(tmp_path, base):
    adapter = an_adapter(tmp_path, q_proj=((2, 16), (8, 2)))
    with pytest.raises(ModelError, match="does not fit base"):
        resolve_encoder(a_profile(base, adapter=str(adapter)))


def test_an_adapter_served_per_request_leaves_the_base_as_it_is(tmp_path, base):
    profile = a_profile(base, adapter=str(an_adapter(tmp_path)), adapter_mode="per_request")
    assert base_folder(resolve_encoder(profile)) == base
