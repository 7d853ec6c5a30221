"""cli: the shell around kvq_cli.pipeline: parse, call, render, exit.

Contract: docs/cli.md. Data goes to standard output, everything else to standard error.
"""
