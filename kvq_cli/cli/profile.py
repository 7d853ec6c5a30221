"""profile: profiles listed, shown, checked, digested, begun and bound."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from kvq_cli.cli import options, render
from kvq_cli.cli.bind import bind
from kvq_cli.cli.calibrate import calibrate
from kvq_cli.cli.codebook import codebook
from kvq_cli.cli.loop import each_input

EXAMPLES = """\b
Examples:
  kvq profile new mine --from int8 > mine.json
  kvq profile check mine.json
  kvq profile bind cache.safetensors --role key -o key.json"""

NAME: Final = "profile"

app = typer.Typer(
    name=NAME,
    help="List, show, check, digest, begin and bind profiles; train codebooks; calibrate.",
    epilog=EXAMPLES,
    rich_markup_mode=None,
)

Sources = Annotated[list[str], typer.Argument(help="Built-in names or JSON files.")]
SCHEMA_FILE = Path(__file__).parent.parent / "schemas" / "profile.schema.json"


@app.command("list")
def list_profiles(json: options.Json = False) -> int:
    """List the built-in profiles.

    \b
    Examples:
      kvq profile list
      kvq profile list --json
    """
    from kvq_cli.profile import builtin_names

    common = options.Common("profile list", json)
    return each_input(builtin_names(), _described, common, human=_line)


@app.command()
def show(sources: Sources) -> int:
    """Print profiles in their normal form, every default written out.

    \b
    Examples:
      kvq profile show int8
      kvq profile show mine.json
    """
    common = options.Common("profile show")
    return each_input(sources, _described, common, human=_normal_form)


@app.command()
def check(sources: Sources, json: options.Json = False, quiet: options.Quiet = False) -> int:
    """Check that profiles are valid; the first wrong member is named by a JSON pointer.

    \b
    Examples:
      kvq profile check mine.json
      kvq profile check profiles/*.json --json
    """
    common = options.Common("profile check", json, quiet=quiet)
    return each_input(sources, _described, common, human=lambda report: _said(report, "ok"))


@app.command()
def digest(sources: Sources, json: options.Json = False) -> int:
    """Print the digest that containers record: description and storage do not change it.

    Of a KV profile it prints all digests that it states; of a vector profile those of the
    rotation and the codebook too, which are made for it.

    \b
    Examples:
      kvq profile digest int8
      kvq profile digest mine.json
    """
    common = options.Common("profile digest", json)
    return each_input(sources, _digests, common, human=_sums)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The new profile's name.")],
    base: Annotated[str, typer.Option("--from", help="Profile to begin with.")] = "int8",
) -> int:
    """Print a profile to begin with: another one's normal form under a new name.

    \b
    Examples:
      kvq profile new mine > mine.json
      kvq profile new exact --from lossless
    """
    from kvq_cli.profile import parse_profile

    value = _described(base).found["profile"] | {"name": name, "description": ""}
    print(jsonlib.dumps(parse_profile(value).to_json(), indent=2))
    return 0


app.command()(bind)
app.command()(calibrate)
app.command()(codebook)


@app.command()
def schema() -> int:
    """Print the JSON Schema of kvq profiles.

    \b
    Examples:
      kvq profile schema
      kvq profile schema > profile.schema.json
    """
    print(SCHEMA_FILE.read_text(encoding="utf-8"), end="")
    return 0


def _described(source: str) -> Any:
    from kvq_cli.steps.describe import describe_profile

    return describe_profile(source)


def _digests(source: str) -> Any:
    from kvq_cli.steps.bind import profile_digests

    return profile_digests(source)


def _line(report: Any) -> None:
    render.say(f"{report['path']:12} {report['profile'].get('description', '')}")


def _normal_form(report: Any) -> None:
    print(jsonlib.dumps(report["profile"], indent=2))


def _said(report: Any, word: str) -> None:
    render.say(f"{report['path']}: {word} {report['digest']}")


def _sums(report: Any) -> None:
    render.say(f"{report['digest']}  {report['path']}")
    for name, digest in report["digests"].items():
        render.say(f"{digest}  {report['path']}: {name.replace('_', ' ')}")
