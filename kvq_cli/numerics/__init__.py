"""numerics: bit-exact operations that any codec may use. Law: docs/architecture.md."""
