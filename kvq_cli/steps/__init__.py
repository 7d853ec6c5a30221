"""steps: what the five stories of kvq_cli.pipeline are made of."""
