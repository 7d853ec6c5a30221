"""The public API, used once as a caller would: run by pytest, and type-checked by mypy."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kvq_cli

SAMPLE = Path(__file__).parents[2] / "sample_data" / "smollm2-sample-4x3x96x64-f16.safetensors"


def test_every_public_name_can_be_used(tmp_path: Path) -> None:
    """Each name of the API does what its annotation says."""
    capture = tmp_path / "cache.safetensors"
    shutil.copy(SAMPLE, capture)
    profile = kvq_cli.load_profile("int8")
    assert profile.digest().startswith("blake3:")

    written = kvq_cli.compress(capture, profiles=["int8"], level=3, threads=1)
    container = Path(written.output)
    ratio: float = written.ratio
    assert ratio > 1

    found = kvq_cli.inspect(container)
    assert found.kind == "container"

    expected = kvq_cli.Expected(profiles=["int8"], min_ratio=1.5, content_root=written.content_root)
    checked = kvq_cli.verify(container, expected=expected, against=capture)
    assert checked.broken == ()

    errors: list[dict[str, object]] = kvq_cli.stats(container, against=capture).errors
    assert errors

    selection = kvq_cli.Selection(roles=(kvq_cli.Role.KEY,), chosen_layers=[0])
    target = tmp_path / "keys.safetensors"
    restored = kvq_cli.decompress(
        container, target, selection=selection, dtype=kvq_cli.DType.F32, layout="canonical"
    )
    assert target.stat().st_size == restored.output_bytes

    with kvq_cli.open_container(container) as opened:
        cache: kvq_cli.Container = opened
        assert cache.content_root == written.content_root
        assert cache.rows(kvq_cli.Role.VALUE, 0, tokens=[5]).shape == (3, 1, 64)


def test_errors_have_one_class() -> None:
    """What kvq refuses is a KvqError with an id and an exit code."""
    with pytest.raises(kvq_cli.KvqError) as refusal:
        kvq_cli.compress("no such file", profiles=["int8"])
    code: int = refusal.value.exit_code
    assert (refusal.value.error_id, code) == ("E601", 6)


def test_stub_and_module_agree() -> None:
    """__init__.py and __init__.pyi name the same API, and all of it can be loaded."""
    stub: dict[str, object] = {}
    text = Path(kvq_cli.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    exec(text[text.index("__all__") :], stub)  # noqa: S102 - our own file, a list of names
    assert stub["__all__"] == kvq_cli.__all__ == dir(kvq_cli)
    for name in kvq_cli.__all__:
        assert getattr(kvq_cli, name) is not None


def test_a_name_that_is_not_public_is_refused() -> None:
    """Nothing but the table is looked up."""
    assert not hasattr(kvq_cli, "no_such_name")


def test_importing_loads_neither_numpy_nor_typer() -> None:
    """`import kvq_cli` and inspect of a container stay light."""
    code = (
        "import sys, kvq_cli; assert kvq_cli.__version__; "
        "heavy = {'numpy', 'typer', 'rich', 'click'} & set(sys.modules); assert not heavy, heavy; "
        "kvq_cli.inspect; assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
