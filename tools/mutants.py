"""Every small change that could be made to a source file, as mutants: where, what was there, what stands there now.

Found in the syntax tree and applied to the bytes, so that the rest of the file stays as it is written. What only
readers and type checkers see is left alone: docstrings, annotations, imports, decorators, texts.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
TWINS = dict(
    pair
    for a, b in [
        ("min", "max"), ("any", "all"), ("floor", "ceil"), ("argmin", "argmax"), ("amin", "amax"), ("sum", "mean"),
        ("minimum", "maximum"), ("clamp_min", "clamp_max"), ("cumsum", "cumprod"), ("startswith", "endswith"),
        ("union", "intersection"), ("add", "discard"), ("append", "extend"), ("logical_and", "logical_or"),
    ]
    for pair in ((a, b), (b, a))
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change. ``start`` and ``end`` are bytes of the file; lines are as they stand there, without their indent."""

    file: str
    line: int
    operator: str
    before: str
    after: str
    start: int
    end: int
    code: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it is known by when lines move."""
        return self.file, self.operator, self.before, self.after

    def applied(self, source: bytes) -> bytes:
        """The file with the change."""
        return source[: self.start] + self.code.encode() + source[self.end :]

    def compiles(self, source: bytes) -> bool:
        """Whether anything would be left of the file: a ``return`` may stand where none can."""
        try:
            compile(self.applied(source), self.file, "exec")
        except (SyntaxError, ValueError):
            return False
        return True

    def record(self) -> dict[str, str | int]:
        """For a file of results."""
        return {
            "file": self.file,
            "line": self.line,
            "operator": self.operator,
            "before": self.before,
            "after": self.after,
        }

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.operator}: {self.before}  ->  {self.after}"


def mutants_of(file: str, source: bytes) -> list[Mutant]:
    """All of a file, in its order; a few may not compile."""
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: dict[tuple[int, int, str], Mutant] = {}
    for node, operator, code in _changes(tree):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        first = source.rfind(b"\n", 0, start) + 1
        last = source.find(b"\n", end)
        last = len(source) if last < 0 else last
        head, tail = source[first:start].decode(), source[end:last].decode()
        put = code if isinstance(node, ast.stmt) or code.isalnum() else f"({code})"
        before = _one_line(source[first:last].decode())
        mutant = Mutant(file, node.lineno, operator, before, _one_line(head + put + tail), start, end, put)
        if mutant.before != mutant.after:
            found.setdefault((start, end, put), mutant)
    return sorted(found.values(), key=lambda m: (m.start, m.end, m.operator, m.code))


def _one_line(text: str) -> str:
    return " ".join(text.split())


Change = tuple[ast.expr | ast.stmt, str, str]


def _changes(tree: ast.Module) -> Iterator[Change]:
    """The node that is replaced, by which operator, and with what."""
    for node in _seen(tree):
        if isinstance(node, ast.stmt):
            yield from _of_statement(node)
        elif isinstance(node, ast.expr):
            yield from _of_expression(node)


def _seen(node: ast.AST) -> Iterator[ast.AST]:
    """What runs and may be changed. Of an f-string the parts have no place of their own before Python 3.12."""
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.JoinedStr, ast.arg)):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.keyword) and node.arg == "strict":  # of zip: an assertion
        return
    yield node
    hidden = {"annotation", "returns", "decorator_list", "type_comment", "bases"}
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("__all__", "__slots__"):
        return
    for name, value in ast.iter_fields(node):
        if name in hidden or (isinstance(node, ast.Assign) and _is_type(node)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _seen(child)


def _is_type(node: ast.Assign) -> bool:
    """Whether a name is given to a type: ``Floats = npt.NDArray[np.float32]``."""
    value = node.value
    return isinstance(value, ast.Subscript) and ast.unparse(node.targets[0])[:1].isupper()


def _of_statement(node: ast.stmt) -> Iterator[Change]:
    if isinstance(node, (ast.If, ast.While)):
        yield node.test, "negate condition", f"not ({ast.unparse(node.test)})"
    elif isinstance(node, (ast.Expr, ast.AugAssign, ast.Raise, ast.Delete)) or (
        isinstance(node, ast.Assign) and not isinstance(node.targets[0], (ast.Name, ast.Tuple))
    ):
        yield node, "remove statement", "pass"
    elif isinstance(node, ast.Continue):
        yield node, "continue -> break", "break"
    elif isinstance(node, ast.Break):
        yield node, "break -> continue", "continue"
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        if len(body) > 1 and body[-1] is not body[0] and isinstance(body[0], (ast.Expr, ast.Assign, ast.If, ast.For)):
            yield body[0], "return early", "return None"
    if isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        twin = copy.deepcopy(node)
        twin.op = ARITHMETIC[type(node.op)]()
        yield node, "arithmetic", ast.unparse(twin)
    if isinstance(node, ast.Return) and node.value is not None and not _plain(node.value):
        yield node, "return nothing", "return None"


def _plain(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _of_expression(node: ast.expr) -> Iterator[Change]:
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for other in COMPARISONS[type(op)]:
                twin = copy.deepcopy(node)
                twin.ops[i] = other()
                yield node, "comparison", ast.unparse(twin)
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _is_text(node):
        twin_op = copy.deepcopy(node)
        twin_op.op = ARITHMETIC[type(node.op)]()
        yield node, "arithmetic", ast.unparse(twin_op)
    elif isinstance(node, ast.BoolOp):
        twin_bool = copy.deepcopy(node)
        twin_bool.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield node, "and <-> or", ast.unparse(twin_bool)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node, "drop not" if isinstance(node.op, ast.Not) else "drop minus", ast.unparse(node.operand)
    elif isinstance(node, ast.Constant):
        yield from ((node, "constant", code) for code in _constants(node.value))
    elif isinstance(node, ast.IfExp):
        yield node.test, "negate condition", f"not ({ast.unparse(node.test)})"
    elif isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
        for test in (test for generator in node.generators for test in generator.ifs):
            yield test, "negate condition", f"not ({ast.unparse(test)})"
    elif isinstance(node, ast.Call):
        yield from _of_call(node)
    elif isinstance(node, ast.Subscript):
        yield from _of_subscript(node)
    elif isinstance(node, ast.Dict) and len(node.keys) > 1:
        for i in range(len(node.keys)):
            less = copy.deepcopy(node)
            del less.keys[i], less.values[i]
            yield node, "drop entry", ast.unparse(less)


def _is_text(node: ast.BinOp) -> bool:
    texts = (ast.JoinedStr, ast.List, ast.Tuple, ast.Dict)
    sides = (node.left, node.right)
    return any(isinstance(s, texts) or (isinstance(s, ast.Constant) and isinstance(s.value, str)) for s in sides)


def _constants(value: object) -> Iterator[str]:
    if isinstance(value, bool):
        yield repr(not value)
    elif isinstance(value, (int, float)):
        yield repr(value + 1)
        yield repr(value - 1)


def _of_call(node: ast.Call) -> Iterator[Change]:
    args = node.args
    if len(args) > 1 and not any(isinstance(a, ast.Starred) for a in args[:2]):
        twin = copy.deepcopy(node)
        twin.args[0], twin.args[1] = twin.args[1], twin.args[0]
        yield node, "swap arguments", ast.unparse(twin)
    for i, keyword in enumerate(node.keywords):
        if keyword.arg not in (None, "strict"):
            less = copy.deepcopy(node)
            del less.keywords[i]
            yield node, "drop argument", ast.unparse(less)
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in TWINS:
        other = copy.deepcopy(node)
        if isinstance(other.func, ast.Attribute):
            other.func.attr = TWINS[name]
            yield node, f"{name} -> {TWINS[name]}", ast.unparse(other)
        elif name in ("min", "max", "any", "all"):
            other.func = ast.Name(TWINS[name], ast.Load())
            yield node, f"{name} -> {TWINS[name]}", ast.unparse(other)


def _of_subscript(node: ast.Subscript) -> Iterator[Change]:
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    for i, part in enumerate(parts):
        if not isinstance(part, ast.Slice):
            continue
        for side in ("lower", "upper"):
            if getattr(part, side) is None:
                continue
            twin = copy.deepcopy(node)
            slices = twin.slice.elts if isinstance(twin.slice, ast.Tuple) else [twin.slice]
            setattr(slices[i], side, ast.BinOp(getattr(slices[i], side), ast.Add(), ast.Constant(1)))
            yield node, "slice", ast.unparse(twin)
