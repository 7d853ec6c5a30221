"""targets: what is fuzzed; each module has `run`, `seeds`, WORDS where JSON is read."""
