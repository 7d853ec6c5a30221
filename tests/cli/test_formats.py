"""verify --format: what a CI reads, whatever files are called."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from support.captures import canonical_capture
from support.shell import done, kvq, refused


@pytest.fixture
def files(tmp_path):
    """A good container, one whose ratio is too small, a damaged one, and hostile names."""
    good, odd, damaged = (
        tmp_path / name for name in ("good.kvq", 'a "b" <c>&%,:\n\x1b[31m.kvq', "bad.kvq")
    )
    (tmp_path / "cache").write_bytes(canonical_capture(tokens=300, channels=64))
    done("compress", tmp_path / "cache", "-p", "int8", "-o", good)
    done("compress", tmp_path / "cache", "-o", odd)
    damaged.write_bytes(good.read_bytes()[:-200])
    return good, odd, damaged


def test_junit(files):
    """One document: a case a file, failures and errors with their ids and messages."""
    ran = kvq("verify", *files, "--min-ratio", 1.5, "--format", "junit")
    assert ran.code == 3
    suite = ET.fromstring(ran.out)  # noqa: S314 - our own
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    good, odd, damaged = suite
    assert good.get("name") == str(files[0])
    assert not list(good)
    (failure,) = odd
    assert (failure.tag, failure.get("type")) == ("failure", "KVQ-E804")
    assert "at least 1.5" in failure.get("message")
    assert '"b" <c>&%,:' in odd.get("name")
    (error,) = damaged
    assert (error.tag, error.get("type")) == ("error", "KVQ-E302")


def test_github(files):
    """A command a finding, on one line, with nothing that could be another command."""
    ran = kvq("verify", *files, "--min-ratio", 1.5, "--format", "github")
    odd, damaged = ran.out.splitlines()
    assert odd.startswith("::error file=")
    assert "%25%2C%3A" in odd
    assert ",title=KVQ-E804::ratio" in odd
    assert "\x1b" not in ran.out
    assert damaged.startswith(f"::error file={files[2]},title=KVQ-E302::")


def test_nothing_wrong(files):
    """No line for GitHub, an empty case for JUnit; quiet or not."""
    assert done("verify", files[0], "--format", "github").out == ""
    suite = ET.fromstring(done("verify", files[0], "--format", "junit").out)  # noqa: S314 - our own
    assert [len(case) for case in suite] == [0]


@pytest.mark.parametrize("other", ["--json", "--ndjson", "--status"])
def test_one_form_at_a_time(files, other):
    """Two outputs on one stream are refused."""
    refused(kvq("verify", files[0], "--format", "junit", other), 2, "E101", "--format")
