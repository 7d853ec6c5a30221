"""recover: what is intact of damaged containers, in new ones that say what they lack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvq_cli.cli import options, render
from kvq_cli.cli.loop import each_input
from kvq_cli.cli.missing import say_lost
from kvq_cli.cli.targets import output_for

EXAMPLES = """\b
Examples:
  kvq recover torn.kvq -o whole.kvq
  kvq recover torn.kvq -o part.kvq || kvq decompress part.kvq --partial nan -o part.safetensors"""


def recover(
    inputs: options.Inputs = None,
    output: options.Output = None,
    force: options.Force = False,
    threads: options.Threads = 0,
    json: options.Json = False,
    ndjson: options.NdJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    no_progress: options.NoProgress = False,
    color: options.ColorWhen = options.Color.AUTO,
    fail_fast: options.FailFast = False,
    files_from: options.FilesFrom = None,
    null: options.Nul = False,
) -> int:
    """Write all that is intact of torn or damaged containers into new ones.

    The exit code is 0 where nothing was lost, and 1 where the new container is partial."""
    from kvq_cli import pipeline
    from kvq_cli.steps.inputs import default_recovered

    common = options.Common(
        "recover", json, ndjson, quiet, verbose, not no_progress, color, fail_fast
    )
    names = options.input_names(inputs, files_from, null=null)
    to = output_for(names, output, default_recovered)

    def story(name: str) -> Any:
        return pipeline.recover(
            name, to(name), threads=threads, force=force, progress=render.progress(common, name)
        )

    piped = any(to(name) == Path("-") for name in names)
    return each_input(names, story, common, human=_human, data_on_stdout=piped)


recover.__doc__ = f"{recover.__doc__}\n\n{EXAMPLES}"


def _human(report: Mapping[str, Any]) -> None:
    lost, total = report["lost_row_bytes"], report["row_bytes"]
    kept = f", {100 * (total - lost) / total:.4g} % of keys and values" if total else ""
    render.say(f"{report['path']} -> {report['output']}: {report['pages']} pages{kept}", err=True)
    say_lost(report["lost"], err=True)
    if report["unknown_sources"]:
        render.say(f"  lost         source digests of {report['unknown_sources']} pages", err=True)
