"""The law of exactness: one content_root and one restored file in every environment."""

from __future__ import annotations

import sys

import pytest

from support.environments import answer, call, differences, environments, feature_sets, kernels


def assert_exact(folder, cases, *options):
    """One set of digests over all environments, and a canary that shows they are different."""
    prepared = call(["prepare", str(folder), *options], {})
    assert prepared.returncode == 0, prepared.stderr
    work = folder / "work"
    work.mkdir()
    found = []
    for case in cases:
        words = ["run", str(folder), str(work), str(case.threads), str(case.batch)]
        ran = answer(words, case.variables())
        assert not set(ran["features"]) & set(case.disabled), f"{case}: NumPy disabled nothing"
        found.append(ran)
    first = found[0]["digests"]
    assert first
    for case, ran in zip(cases, found, strict=True):
        assert not differences(first, ran["digests"]), f"{case} against {cases[0]}"
    assert len({ran["floats"] for ran in found}) >= 2, "the environments do not differ"
    assert len({ran["integers"] for ran in found}) == 1
    return found


def kernels_or_skip(most):
    chosen, left_out = kernels(most)
    if not chosen:
        pytest.skip("this NumPy has no OpenBLAS whose kernels could be varied")
    return chosen, left_out


def test_bytes_are_the_same_in_six_environments(tmp_path):
    """Every codec gives the same bytes whatever BLAS, CPU features, threads and hash seed."""
    chosen, _ = kernels_or_skip(most=3)
    assert_exact(tmp_path / "set", environments(chosen, feature_sets(3), 6), "--fast")


def test_the_matrix_can_fail():
    """A feature that NumPy cannot disable ends the process; it never passes for a difference."""
    done = call(["kernel"], {"NPY_DISABLE_CPU_FEATURES": "NO_SUCH_FEATURE"})
    assert done.returncode != 0
    assert "NO_SUCH_FEATURE" in done.stderr


@pytest.mark.long
def test_bytes_are_the_same_in_every_environment(tmp_path, capsys):
    """Likewise with every kernel under every set of features, on whole pages."""
    chosen, left_out = kernels_or_skip(most=99)
    disabled = feature_sets(4)
    cases = environments(chosen, disabled, max(24, len(chosen) * len(disabled)))
    assert len(set(cases)) >= 24
    found = assert_exact(tmp_path / "set", cases)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(cases)} environments: {len(chosen)} kernels "
            f"({', '.join(sorted({ran['kernel'] for ran in found}))}), {len(disabled)} sets of "
            f"CPU features, {len({ran['floats'] for ran in found})} results of a float product; "
            f"{len(found[0]['digests'])} round trips each; {len(left_out)} core types left out: "
            f"{', '.join(left_out) or 'none'}\n"
        )
