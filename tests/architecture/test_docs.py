"""Documents tell the truth: links, paths, generated parts, commands and options."""

import re
from pathlib import Path

import pytest

import make_docs
from kvq_cli.cli.run import parser
from kvq_cli.errors import BROKEN_PIPE, INTERRUPTED, MEANINGS

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT / name for name in ("docs", "formats", "sample_data")]
PAGES = sorted([*ROOT.glob("*.md"), *(page for each in FOLDERS for page in each.rglob("*.md"))])
LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)]*)?\)")
PATH = re.compile(r"`((?:kvq_cli|tests|tools|docs|formats|sample_data)/[\w./-]+\.\w+)`")


def page_name(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_and_paths_lead_somewhere(page):
    """Every relative link, and every path in backticks, is there."""
    text = page.read_text(encoding="utf-8")
    targets = [page.parent / match[1] for match in LINK.finditer(text)]
    targets += [ROOT / match[1] for match in PATH.finditer(text) if "NAME" not in match[1]]
    missing = [str(target) for target in targets if not target.exists()]
    assert not missing


@pytest.mark.parametrize("name", ["docs/errors.md", "sample_data/README.md"])
def test_generated_parts_are_up_to_date(name):
    """`make docs` would change nothing; make docs-check compares the slower pages too."""
    assert make_docs.rendered(name) == (ROOT / name).read_text(encoding="utf-8")


def test_every_command_and_option_is_in_the_manual():
    """docs/cli.md names each command, option and its help, whatever Typer prints them like."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    sections = {
        match[1]: match[2]
        for match in re.finditer(
            r"^## ([^\n]+)\n+```text\n(.*?)```", page, re.MULTILINE | re.DOTALL
        )
    }
    command = parser()
    for words in make_docs.commands():
        found = command
        for word in words:
            found = found.commands[word]
        section = sections.pop(" ".join(["kvq", *words]))
        options = [option for each in found.params for option in each.opts if option[0] == "-"]
        assert [option for option in options if option not in section] == []
    assert not sections


def test_every_command_has_help_for_everything():
    """No command, option or argument is without a word of help."""
    command = parser()
    for words in make_docs.commands():
        found = command
        for word in words:
            found = found.commands[word]
        assert found.help
        silent = [each.name for each in found.params if not getattr(each, "help", None)]
        assert silent == []


def test_exit_codes_are_all_explained():
    """The table in the README has every code that the program can end with."""
    codes = {code for code, _ in MEANINGS.values()} | {0, INTERRUPTED, BROKEN_PIPE}
    assert set(make_docs.EXITS) == codes


def test_no_page_names_a_machine():
    """Paths of someone's computer do not belong here."""
    for page in [*PAGES, ROOT / "sample_data" / "MANIFEST.json"]:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"/(home|root|Users|tmp|opt)/", text), page_name(page)
