"""steps: what the stories of kvq_cli.pipeline are made of."""
