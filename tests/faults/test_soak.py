"""A few captures of the soak, and that it notices what it is there for."""

from __future__ import annotations

import os

import pytest

import soak
from kvq_cli.steps import output


def test_twenty_captures(tmp_path):
    """Nothing is lost, left or leaked."""
    total = soak.soak(0, 20, tmp_path)
    assert total["captures"] == 20
    assert total["commands"] > 6


@pytest.mark.parametrize("name", ["write", "wrote"])
def test_a_careless_writer_is_found_out(name, tmp_path, monkeypatch):
    """One that leaves out bytes, and one that keeps files open."""
    original = getattr(output.Output, name)

    def careless(self, *given):
        if name == "wrote":
            os.dup(self.fd)
        return original(self, *(given[:-1] or given) if name == "write" else given)

    monkeypatch.setattr(output.Output, name, careless)
    monkeypatch.setattr(soak, "WARM", 10)
    with pytest.raises(soak.SoakError):
        soak.soak(0, 40, tmp_path)
