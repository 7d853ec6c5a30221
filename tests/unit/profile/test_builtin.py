"""load_profile: built-in names and files of either kind."""

from __future__ import annotations

import json

import pytest

from kvq_cli.errors import FileError, ProfileError, UsageError
from kvq_cli.profile import Profile, builtin_names, load_profile, read_profile

DOCUMENT = {"schema": "kvq_profile_v1", "name": "mine", "rules": [{"codec": "raw"}]}


def test_builtins_are_there_under_their_own_names():
    """Each built-in file holds a profile of the file's name, with a description."""
    assert set(builtin_names()) >= {"lossless", "raw", "int8"}
    for name in builtin_names():
        profile = load_profile(name)
        assert isinstance(profile, Profile)
        assert profile.name == name
        assert profile.description


def test_an_unknown_name_lists_what_exists():
    """The refusal names every built-in profile and the nearest one."""
    with pytest.raises(UsageError) as refusal:
        load_profile("lossles")
    assert refusal.value.error_id == "E102"
    assert all(name in str(refusal.value) for name in builtin_names())
    assert 'did you mean "lossless"' in str(refusal.value)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("none", "raw"),
        ("fp8", "fp8-e4m3"),
        ("FP8", "fp8-e4m3"),
        ("fp8_e5m2", "fp8-e5m2"),
        ("INT8", "int8"),
        ("int4_g64", "int4-g64"),
    ],
)
def test_aliases_and_spellings_name_the_same_profile(asked, name):
    """An alias is another word for a name; case and the choice of - or _ do not matter."""
    assert load_profile(asked) == load_profile(name)


@pytest.mark.parametrize(("asked", "near"), [("kivi", "kivi-4bit"), ("fp9", "fp8")])
def test_an_unknown_name_suggests_the_nearest(asked, near):
    """The nearest name or alias is suggested, also where only a beginning was typed."""
    with pytest.raises(UsageError, match=f'did you mean "{near}"'):
        load_profile(asked)


@pytest.mark.parametrize("name", ["", "int 8", "..", "*", "int8\n"])
def test_a_name_is_never_a_pattern_or_a_file(name):
    """What is no path is looked up in the list of names and nowhere else."""
    with pytest.raises(UsageError):
        load_profile(name)


def test_files_are_read(tmp_path, monkeypatch):
    """A separator or .json makes a path of a string; a Path is one anyway."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine.json", "mine"):
        (tmp_path / name).write_text(json.dumps(DOCUMENT))
    assert load_profile("mine.json").name == "mine"
    assert load_profile("./mine").name == "mine"
    assert load_profile(tmp_path / "mine").name == "mine"
    with pytest.raises(UsageError):
        load_profile("mine")


@pytest.mark.parametrize("name", ["no.json", "./no", "a\0b.json"])
def test_a_missing_file_is_an_input_error(name, tmp_path, monkeypatch):
    """A path that does not exist or cannot is not a missing built-in profile."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError) as refusal:
        load_profile(name)
    assert refusal.value.error_id == "E601"


def test_a_folder_is_an_input_error(tmp_path):
    """A folder cannot be read as a profile."""
    with pytest.raises(FileError):
        load_profile(tmp_path)


def test_a_large_file_is_refused(tmp_path):
    """More than 1 MiB is refused before it is parsed."""
    path = tmp_path / "large.json"
    path.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(ProfileError) as refusal:
        load_profile(path)
    assert refusal.value.error_id == "E404"


def test_a_kv_profile_is_told_by_its_marker():
    """schema_version leads to the other parser, which refuses by its own rules."""
    with pytest.raises(ProfileError) as refusal:
        read_profile(b'{"schema_version": "fib_quant_kv_compression_profile_v9"}')
    assert refusal.value.pointer == "/schema_version"


@pytest.mark.parametrize("text", [b"{}", b"[]", b"3", b'{"schema": null}'])
def test_what_has_no_marker_is_no_profile(text):
    """JSON of another kind is refused at its root or marker."""
    with pytest.raises(ProfileError) as refusal:
        read_profile(text)
    assert refusal.value.error_id == "E401"
