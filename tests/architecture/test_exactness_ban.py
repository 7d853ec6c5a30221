"""The law of exactness, read off the source of codecs, numerics and the compat half.

Bytes may come from element-wise IEEE operations, integer operations, max, min, any, all, and
`count_sum` and `total` over unsigned integers. Whatever adds in an order that a library may
choose, or comes from a mathematical library, is banned by name. ALLOWED lists the exceptions,
each with its reason; none of them may go stale.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "kvq_cli"
FOLDERS = [PACKAGE / name for name in ("codecs", "numerics", "contract/compat")]
# What budgets are decided by.
MEASURES = [
    PACKAGE / "quality" / f"{name}.py" for name in ("arithmetic", "attention", "softmax", "rope")
]
SOURCES = sorted([*MEASURES, *(path for folder in FOLDERS for path in folder.rglob("*.py"))])

# Reductions whose order is the library's, under any spelling: np.x(…), array.x(…), ufunc.x(…).
ORDERED = {
    "sum", "nansum", "mean", "nanmean", "average", "median", "std", "nanstd", "var", "nanvar",
    "cumsum", "nancumsum", "cumulative_sum", "prod", "nanprod", "cumprod", "trace", "dot", "vdot",
    "inner", "outer", "matmul", "matvec", "vecmat", "vecdot", "einsum", "tensordot", "kron",
    "cross", "convolve", "correlate", "cov", "corrcoef", "trapezoid", "interp", "gradient",
    "reduce", "reduceat", "accumulate", "bincount", "histogram", "quantile", "percentile",
    "fsum", "sumprod", "polyfit", "polyval",
}  # fmt: skip
# Functions that differ between SIMD dispatches and mathematical libraries.
LIBRARY = {
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "logaddexp", "logaddexp2", "power",
    "float_power", "pow", "sin", "cos", "tan", "arcsin", "arccos", "arctan", "arctan2", "asin",
    "acos", "atan", "atan2", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh", "asinh",
    "acosh", "atanh", "hypot", "cbrt", "sinc", "i0", "erf", "erfc", "gamma", "lgamma", "geomspace",
    "logspace", "longdouble", "float128", "clongdouble",
}  # fmt: skip
MODULES = {"linalg", "fft", "random", "polynomial", "emath", "scipy", "secrets", "time", "datetime"}

# (file below kvq_cli, enclosing function, what): why it cannot change a byte.
# kvq_cli/contract/compat computes what the reference computes, with its order of every sum and
# the machine's exp, log, sin, cos and pow, one number at a time as the reference calls them.
# It runs when a profile is made or a capture compressed; what a decoder needs is stored.
REFERENCE = "the reference calls the machine's library here, number by number"
ALLOWED = {
    ("contract/compat/beta_inverse.py", "ln_gamma", "log"): REFERENCE,
    ("contract/compat/beta_inverse.py", "regularised", "log"): REFERENCE,
    ("contract/compat/beta_inverse.py", "regularised", "exp"): REFERENCE,
    ("contract/compat/draws.py", "exponential", "log"): REFERENCE,
    ("contract/compat/draws.py", "exponential", "exp"): REFERENCE,
    ("contract/compat/draws.py", "gamma", "log"): REFERENCE,
    ("contract/compat/draws.py", "_at_the_edge", "exp"): REFERENCE,
    ("contract/compat/draws.py", "_normal_tail", "log"): REFERENCE,
    ("contract/compat/initial.py", "_radius", "pow"): REFERENCE,
    ("contract/compat/initial.py", "_circle", "cos"): REFERENCE,
    ("contract/compat/initial.py", "_circle", "sin"): REFERENCE,
    ("contract/compat/initial.py", "_sphere", "cos"): REFERENCE,
    ("contract/compat/initial.py", "_sphere", "sin"): REFERENCE,
    ("contract/compat/lloyd.py", "__init__", "bincount"): "counts, without weights",
    ("contract/compat/normal_inverse.py", "_positive", "log"): REFERENCE,
    ("contract/compat/coding.py", "decode_vectors", "@"): "narrows sums; those in order decide",
    ("contract/compat/coding.py", "_nearest", "@"): "narrows a search; exact distances decide",
    ("contract/compat/coding.py", "_longest", "@"): "a bound, with room for any order",
    ("contract/compat/search.py", "_least", "@"): "narrows a search; exact distances decide",
    ("contract/compat/training.py", "_sample", "gamma"): "Draws.gamma, which is scanned itself",
    ("contract/compat/ziggurat.py", "_exp", "exp"): "decimal, which rounds correctly",
    ("numerics/choosing.py", "_counts", "bincount"): "counts, without weights",
    ("numerics/exact.py", "count_sum", "reduce"): "unsigned integers that cannot overflow",
    ("numerics/exact.py", "total", "reduce"): "unsigned integers modulo 2**32",
    ("numerics/exact.py", "product", "matmul"): "integers; callers bound every partial sum",
    ("numerics/exact.py", "squared", "vecdot"): "integers; callers bound every partial sum",
    ("numerics/exact.py", "whole_sum", "reduce"): "integers; callers bound every partial sum",
    ("numerics/groups.py", "_over_tokens", "reduce"): "np.maximum or np.minimum over integers",
    ("numerics/groups.py", "_over_channels", "reduceat"): "np.maximum or np.minimum over integers",
    ("numerics/keys.py", "_search", "matmul"): "integers that the float type holds, sums included",
    ("quality/arithmetic.py", "_float_product", "matmul"): "for reports: EXACT is for budgets",
    ("quality/arithmetic.py", "_float_total", "reduce"): "for reports: EXACT is for budgets",
    ("quality/arithmetic.py", "", "exp"): "of FLOATS, for reports; EXACT has its own",
    ("quality/softmax.py", "see", "exp"): "that of the arithmetic",
    ("quality/softmax.py", "weights", "exp"): "that of the arithmetic",
    ("quality/attention.py", "drift", "sum"): "counts",
    ("quality/softmax.py", "largest", "sum"): "counts",
    ("quality/softmax.py", "largest", "cumsum"): "counts",
    ("quality/attention.py", "second", "sum"): "counts",
    ("quality/attention.py", "second", "log"): "attention_kl, which no budget bounds",
    ("quality/rope.py", "_frequencies", "exp"): "decimal, which rounds correctly",
    ("numerics/scratch.py", "_make", "prod"): "math.prod over the integers of a shape",
    ("codecs/basis.py", "take", "prod"): "math.prod over the integers of a shape",
}


def sources_of(text):
    """(enclosing function, what, line) of everything banned in a module."""
    found = []
    visit(ast.parse(text), "", found)
    return found


def visit(node, place, found):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        place = node.name
    for what in banned(node):
        found.append((place, what, node.lineno))
    for child in ast.iter_child_nodes(node):
        visit(child, place, found)


def banned(node):
    if isinstance(node, ast.BinOp | ast.AugAssign):
        if isinstance(node.op, ast.MatMult):
            yield "@"
        if isinstance(node.op, ast.Pow) and not is_constant_power(node):
            yield "**"
    if isinstance(node, ast.Attribute) and node.attr in ORDERED | LIBRARY | MODULES:
        yield node.attr
    if isinstance(node, ast.Name) and node.id in {"sum", "pow"}:
        yield node.id
    if isinstance(node, ast.Constant) and node.value in ORDERED | LIBRARY:
        # getattr(np, "sum") and the like; prose never is one of these words alone.
        yield str(node.value)
    if isinstance(node, ast.ImportFrom):
        for name in [*(node.module or "").split("."), *(alias.name for alias in node.names)]:
            if name in ORDERED | LIBRARY | MODULES | {"*"}:
                yield name
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from set(alias.name.split(".")) & MODULES


def is_constant_power(node):
    """2**-14 and 2.0**64: powers of two, exact in every float."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.left, ast.Constant):
        return False
    exponent = node.right.operand if isinstance(node.right, ast.UnaryOp) else node.right
    whole = isinstance(exponent, ast.Constant) and type(exponent.value) is int
    return whole and node.left.value == 2


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_source_keeps_the_law(path):
    """No codec and no numeric routine does what may differ between two machines."""
    name = path.relative_to(PACKAGE).as_posix()
    broken = [
        f"{name}:{line}: {what} in {place or 'the module'}"
        for place, what, line in sources_of(path.read_text())
        if (name, place, what) not in ALLOWED
    ]
    assert not broken, broken


def test_no_exception_is_stale():
    """Each exception is still there."""
    there = {
        (path.relative_to(PACKAGE).as_posix(), place, what)
        for path in SOURCES
        for place, what, _ in sources_of(path.read_text())
    }
    assert set(ALLOWED) <= there


def extremes_of(text):
    """The first argument of every call of an `extreme`, as it is written."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".extreme"):
            yield ast.unparse(node.args[0])


def test_groups_are_reduced_by_maxima_and_minima_alone():
    """What numerics/groups.py reduces by comes from its callers: never an addition."""
    found = [ufunc for path in SOURCES for ufunc in extremes_of(path.read_text())]
    assert found
    assert set(found) <= {"np.maximum", "np.minimum"}


@pytest.mark.parametrize(
    "snippet",
    [
        "a @ b",
        "a @= b",
        "np.dot(a, b)",
        "a.dot(b)",
        "np.matmul(a, b, out=c)",
        "np.einsum('ij->i', a)",
        "np.tensordot(a, b)",
        "np.sum(a)",
        "a.sum(axis=1)",
        "a.mean()",
        "np.add.reduce(a)",
        "np.add.reduceat(a, i)",
        "np.multiply.accumulate(a)",
        "np.cumsum(a)",
        "a.std()",
        "a.var()",
        "np.prod(a)",
        "np.linalg.norm(a)",
        "np.fft.fft(a)",
        "np.random.default_rng(0)",
        "rng = random.random()",
        "import random",
        "import scipy.special",
        "from numpy import exp",
        "from numpy.linalg import qr",
        "from numpy import *",
        "from math import fsum",
        "import numpy.random as r",
        "np.exp(a)",
        "math.log(a)",
        "np.log2(a)",
        "np.power(a, 2)",
        "np.sin(a)",
        "a ** 2",
        "a **= 2",
        "2 ** a",
        "10.0 ** 3",
        "pow(a, 2)",
        "math.fsum(a)",
        "sum(a)",
        "list(map(sum, a))",
        "getattr(np, 'sum')(a)",
        "def f():\n    def g():\n        return np.hypot(a, b)",
        "np.bincount(a, weights=b)",
        "np.longdouble(1)",
    ],
)
def test_the_ban_can_fail(snippet):
    """What is banned is found, under every spelling."""
    assert sources_of(snippet)


@pytest.mark.parametrize(
    "snippet",
    [
        "a.max(axis=1)",
        "np.maximum(a, b, out=c)",
        "a.min()",
        "a.any()",
        "np.sqrt(a)",
        "2**-14",
        "np.float32(2.0**112)",
        "a * b + c",
        "count_sum(a, axis=1, largest=1, dtype=np.uint16)",
        "np.rint(a)",
        "'the sum of all'",
    ],
)
def test_the_ban_lets_exact_things_pass(snippet):
    """Element-wise operations, order-free reductions and powers of two are allowed."""
    assert not sources_of(snippet)


def test_exceptions_hold_for_their_place_only():
    """The same operation elsewhere in the file is still found."""
    found = sources_of("def count_sum():\n    np.add.reduce(a)\ndef other():\n    np.add.reduce(a)")
    assert [place for place, _, _ in found] == ["count_sum", "other"]
