"""fuzzing: coverage-guided fuzzing of what kvq reads and somebody else may have written.

    targets/    one file each: bytes in, how they ended out; importable without atheris
    corpus/     what runs found beyond the seeds, as text, one input a line
    runs.json   what was run, and what it found

    python -m fuzzing [TARGET...] --seconds N | --runs N     fuzz, and record the run
    python -m fuzzing --merge [TARGET...]                    what was found, into corpus/

A target's `run` tells how an input ended: "parsed", or the id of an error that its layer
declares. Whatever else is raised is a crash; so is an input that takes longer than a second, or
more memory than the limit of fuzzing.worker. `seeds` makes a target's first inputs, out of
formats/vectors.
"""
