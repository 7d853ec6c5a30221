"""mutating: small faults put into kvq one at a time, to see whether the tests notice.

    python -m mutating                               every module in scope; writes results.json
    python -m mutating container/index digest        these; the others' results stay
    python -m mutating container/index --sample 50   fifty of its mutants, told and not written
    python -m mutating container/index --again       those that survived, after tests were added
    python -m mutating --survivors                   what was committed, and why it survives

    scope.py      which modules, in which area, with which tests
    mutants.py    the faults that a module can have
    running.py    a mutant, and the tests that reach its line
    results.py    what came of it, as JSON and as a table

Mutants live in forked processes alone; no file is ever written but the results.
"""
