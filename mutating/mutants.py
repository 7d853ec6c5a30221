"""mutants: the faults that a module can have, one a mutant.

    compare      < <= > >= == != in is, and their neighbours and opposites
    arithmetic   + - * // % << >> & | ^
    boolean      and for or, an operand left out, a condition or a `not` turned round
    number       one more, one less; True for False
    word         a string or bytes with something behind it; text for people stays
    error        another error id
    call         min for max, any for all
    return       None instead of a value
    statement    a call, a raise, or what changes an object left out
    loop         break for continue

Text for people stays as it is, for no test may depend on it: what has a space in it or stands in
an f-string, and functions and names that hold nothing else (WORDING). So do annotations,
docstrings, asserts and decorators.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, Final, TypeAlias

Step: TypeAlias = tuple[str, int | None]  # a field of a node, and where in it
Place: TypeAlias = tuple[Step, ...]
Change: TypeAlias = tuple[str, Place, ast.AST | None]  # kind, where, what; None: left out
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

SWAPPED: Final[dict[type[ast.AST], tuple[type[ast.AST], ...]]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.FloorDiv,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitAnd,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.Break: (ast.Continue,),
    ast.Continue: (ast.Break,),
}
CALLS: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
OTHER_ID: Final = {"E304": "E302"}  # of any other id, E304
WORDING: Final = {"kind()", "_kind()", "_hint()", "_name()", "fault", "hint", "allowed"}
PASSED_OVER: Final = {"annotation", "returns", "decorator_list", "type_params", "bases", "keywords"}


@dataclass(frozen=True)
class Mutant:
    """One fault: `where` is the function, `was` and `now` its statement before and after."""

    kind: str
    where: str
    was: str
    now: str
    lines: tuple[int, int]
    function: tuple[str, int] | None  # whose code changes; None: what runs on import
    place: Place
    change: ast.AST | None
    source: str = field(repr=False)  # of the module

    @property
    def key(self) -> tuple[str, str, str]:
        return self.where, self.was, self.now


def mutants_of(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its text; of two that are alike, the first."""
    tree = ast.parse(source)
    found: dict[tuple[Any, ...], Mutant] = {}
    for kind, place, change in _changes(tree, ()):
        mutant = _described(tree, source, (kind, place, change))
        found.setdefault((*mutant.key, mutant.lines[0]), mutant)
    return [each for each in found.values() if each.was != each.now]


def compiled(mutant: Mutant, filename: str) -> CodeType:
    """The module with the fault in it."""
    tree = _changed(ast.parse(mutant.source), mutant.place, mutant.change)
    return compile(ast.fix_missing_locations(tree), filename, "exec", dont_inherit=True)


def _changes(node: ast.AST, place: Place) -> Iterator[Change]:
    """What can be changed in and below a node."""
    for kind, change in _own(node):
        yield kind, place, change
    for name, value in ast.iter_fields(node):
        if name in PASSED_OVER and not isinstance(node, ast.Call):
            continue
        children = value if isinstance(value, list) else [value]
        for at, child in enumerate(children):
            if not isinstance(child, ast.AST) or _stays(child):
                continue
            yield from _changes(child, (*place, (name, at if value is children else None)))


def _stays(node: ast.AST) -> bool:
    """What is no part of what a module does: text, types, docstrings."""
    if isinstance(node, ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.FunctionDef):
        return f"{node.name}()" in WORDING
    if isinstance(node, ast.AnnAssign):
        return ast.unparse(node.annotation) == "TypeAlias"
    if isinstance(node, ast.Assign):
        called = node.value.func if isinstance(node.value, ast.Call) else None
        typed = called is not None and ast.unparse(called) in ("TypeVar", "ParamSpec")
        return typed or ast.unparse(node.targets[0]) in WORDING
    return False


def _own(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    """What can be changed in a node itself."""
    yield from _swaps(node)
    yield from _conditions(node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield ("boolean" if isinstance(node.op, ast.Not) else "arithmetic"), node.operand
    if isinstance(node, ast.Constant):
        yield from _constants(node.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
        yield "call", _with(node, func=ast.Name(CALLS[node.func.id], ast.Load()))
    if isinstance(node, ast.Return) and node.value is not None and _valued(node.value):
        yield "return", ast.Return(ast.Constant(None))
    if _droppable(node):
        yield "statement", None


def _conditions(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """An operand left out, a condition turned round."""
    if isinstance(node, ast.BoolOp):
        for at in range(len(node.values)):
            left = node.values[:at] + node.values[at + 1 :]
            yield "boolean", left[0] if len(left) == 1 else ast.BoolOp(node.op, left)
    elif isinstance(node, ast.If | ast.While | ast.IfExp) and _turns(node.test):
        yield "boolean", _with(node, test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.comprehension):
        for at, test in enumerate(node.ifs):
            turned: list[ast.expr] = [*node.ifs]
            turned[at] = ast.UnaryOp(ast.Not(), test)
            if _turns(test):
                yield "boolean", _with(node, ifs=turned)


def _swaps(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.Compare):
        for at, op in enumerate(node.ops):
            for other in SWAPPED[type(op)]:
                ops = [*node.ops]
                ops[at] = other()  # type: ignore[call-overload]
                yield "compare", _with(node, ops=ops)
    elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        kind = "boolean" if isinstance(node, ast.BoolOp) else "arithmetic"
        for other in SWAPPED.get(type(node.op), ()):
            yield kind, _with(node, op=other())
    elif isinstance(node, ast.Break | ast.Continue):
        yield "loop", SWAPPED[type(node)][0]()


def _constants(value: object) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(value, bool):
        yield "number", ast.Constant(not value)
    elif isinstance(value, int | float):
        yield "number", ast.Constant(value + 1)
        yield "number", ast.Constant(value - 1)
    elif isinstance(value, bytes):
        yield "word", ast.Constant(value + b"X")
    elif isinstance(value, str) and len(value) == 4 and value[0] == "E" and value[1:].isdigit():
        yield "error", ast.Constant(OTHER_ID.get(value, "E304"))
    elif isinstance(value, str) and " " not in value:
        yield "word", ast.Constant(value + "X")


def _turns(test: ast.expr) -> bool:
    """Whether turning a condition round is no change that another mutant makes."""
    negated = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    return not negated and not (isinstance(test, ast.Compare) and len(test.ops) == 1)


def _valued(value: ast.expr) -> bool:
    return not (isinstance(value, ast.Constant) and value.value is None)


def _droppable(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call | ast.Yield | ast.YieldFrom)
    if isinstance(node, ast.Assign):
        return not isinstance(node.targets[0], ast.Name | ast.Tuple)
    return isinstance(node, ast.AugAssign | ast.Raise | ast.Delete) or (
        isinstance(node, ast.Return) and node.value is None
    )


def _with(node: Any, **changed: Any) -> Any:
    """A node with other fields; the rest is shared, and copied when the tree is changed."""
    return type(node)(**{**dict(ast.iter_fields(node)), **changed})


def _changed(tree: ast.AST, place: Place, change: ast.AST | None) -> Any:
    """The tree, whose node at `place` is another; the tree itself is changed."""
    holder, (name, at) = _at(tree, place[:-1]), place[-1]
    old = getattr(holder, name) if at is None else getattr(holder, name)[at]
    new: ast.AST = ast.Pass() if change is None else copy.deepcopy(change)
    ast.copy_location(new, old)
    for below in ast.walk(new):
        if isinstance(below, ast.expr | ast.stmt) and not hasattr(below, "lineno"):
            ast.copy_location(below, old)
    if at is None:
        setattr(holder, name, new)
    else:
        getattr(holder, name)[at] = new
    return tree


def _at(tree: ast.AST, place: Place) -> ast.AST:
    for name, at in place:
        value = getattr(tree, name)
        tree = value if at is None else value[at]
    return tree


def _described(tree: ast.Module, source: str, made: Change) -> Mutant:
    kind, place, change = made
    names, function, statement = _way(tree, place)
    old: Any = _at(tree, place[:statement])
    rest = place[statement:]
    new: Any = _changed(copy.deepcopy(old), rest, change) if rest else change or ast.Pass()
    return Mutant(
        kind=kind,
        where=".".join(names) or "module",
        was=_header(old),
        now=_header(new),
        lines=(old.lineno, _end(old)),
        function=function,
        place=place,
        change=change,
        source=source,
    )


def _way(tree: ast.AST, place: Place) -> tuple[list[str], tuple[str, int] | None, int]:
    """Names of classes and functions down to a node, the first function, and the statement."""
    names: list[str] = []
    function: tuple[str, int] | None = None
    statement = 0
    node = tree
    for depth, (name, at) in enumerate(place, 1):
        if isinstance(node, Function | ast.ClassDef) and name == "body":
            names.append(node.name)
            if isinstance(node, Function) and function is None:
                first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                function = (".".join(names), first)
        value = getattr(node, name)
        node = value if at is None else value[at]
        if isinstance(node, ast.stmt | ast.ExceptHandler):
            statement = depth
    return names, function, statement


def _header(statement: Any) -> str:
    """A statement on one line; of a compound one, what stands before its colon."""
    shown = copy.deepcopy(statement)
    if isinstance(shown, ast.Try):
        return "try:"
    if hasattr(shown, "body"):
        shown.body = [ast.Expr(ast.Constant(...))]
        for name in ("orelse", "decorator_list"):
            if hasattr(shown, name):
                setattr(shown, name, [])
    text = ast.unparse(ast.fix_missing_locations(shown))
    return " ".join(text.split()).removesuffix(" ...")


def _end(statement: Any) -> int:
    """The last line of a statement, or of what stands before its colon."""
    body = getattr(statement, "body", None)
    last: int = statement.end_lineno
    return max(statement.lineno, body[0].lineno - 1) if body else last
