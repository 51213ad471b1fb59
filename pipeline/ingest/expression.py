"""Short formulas over branches: an event weight, a requirement on events.

    genWeight * L1PreFiringWeight_Nom
    genWeight * LHEScaleWeight[4]
    HLT_IsoMu24 or HLT_IsoTkMu24
    MET_pt > 100 and Flag_goodVertices
    kind == 'signal'

Numbers, names of branches with one value per event, `+ - * /`, comparisons (with text `==` and `!=` only), `and`, `or`,
`not`, `abs(…)`, and one value of a list by its number. This is Python's grammar and nothing of Python's power: what is
not in this list is refused when the formula is read. Neither NumPy nor awkward is imported here.
"""

import ast
import itertools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from pipeline.errors import InputError

__all__ = ["Expression"]

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


@dataclass(frozen=True)
class Expression:
    """A formula, checked when it is made.

    Attributes:
        text: As the user wrote it.

    Raises:
        InputError: The text is not a formula of this kind.
    """

    text: str

    def __post_init__(self) -> None:
        _check(self.text, self._tree)

    @property
    def _tree(self) -> ast.expr:
        try:
            return ast.parse(self.text.strip(), mode="eval").body
        except SyntaxError as error:
            raise InputError(f"'{self.text}' is not a formula ({error.msg}); {_ALLOWED}.") from None

    @property
    def branches(self) -> tuple[str, ...]:
        """Branches with one value per event, in the order in which they are named."""
        return tuple(dict.fromkeys(name for name in _names(self._tree) if "[" not in name))

    @property
    def elements(self) -> tuple[tuple[str, int], ...]:
        """Values of lists: (branch, number)."""
        pairs = (name.removesuffix("]").split("[") for name in _names(self._tree) if "[" in name)
        return tuple(dict.fromkeys((branch, int(number)) for branch, number in pairs))

    @property
    def texts(self) -> tuple[str, ...]:
        """Branches that are compared with text."""
        pairs = (
            (left, right)
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Compare)
            for left, right in itertools.pairwise((node.left, *node.comparators))
        )
        named = (
            name.id
            for pair in pairs
            for name, text in (pair, pair[::-1])
            if isinstance(name, ast.Name) and _is_text(text)
        )
        return tuple(dict.fromkeys(named))

    def value(self, columns: Mapping[str, Any]) -> Any:
        """The formula's value.

        Args:
            columns: One array for each of `branches`, and for each of `elements` under `branch[number]`.
        """
        return _value(self._tree, columns)


_ALLOWED = (
    "use names of branches, numbers, + - * /, comparisons, 'and', 'or', 'not', abs(…) and list[number]; text only as "
    "branch == 'text'"
)


def _check(text: str, node: ast.expr) -> None:
    match node:
        case ast.Constant(value=bool() | int() | float()) | ast.Name():
            return
        case ast.Subscript(value=ast.Name(), slice=ast.Constant(value=int())):
            return
        case ast.BinOp(op=op) if type(op) in _BINARY:
            parts = [node.left, node.right]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not()):
            parts = [node.operand]
        case ast.BoolOp():
            parts = node.values
        case ast.Compare() if all(type(op) in _COMPARISONS for op in node.ops):
            parts = [node.left, *node.comparators]
            if len(parts) == 2 and isinstance(node.ops[0], ast.Eq | ast.NotEq) and isinstance(parts[0], ast.Name):
                parts = [part for part in parts if not _is_text(part)]
        case ast.Call(func=ast.Name(id="abs"), args=[argument], keywords=[]):
            parts = [argument]
        case _:
            place = f" (in '{text}')" if text != ast.unparse(node) else ""
            raise InputError(f"'{ast.unparse(node)}' is not allowed in a formula{place}; {_ALLOWED}.")
    for part in parts:
        _check(text, part)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _names(node: ast.expr) -> list[str]:
    match node:
        case ast.Name(id=name):
            return [name]
        case ast.Subscript():
            return [ast.unparse(node)]
        case ast.Call(args=[argument]):
            return _names(argument)
    return [name for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr) for name in _names(child)]


def _value(node: ast.expr, columns: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name() | ast.Subscript():
            return columns[ast.unparse(node)]
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, columns), _value(right, columns))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _value(operand, columns) == 0
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, columns)
        case ast.UnaryOp(operand=operand):
            return _value(operand, columns)
        case ast.BoolOp(op=op, values=values):
            join = operator.and_ if isinstance(op, ast.And) else operator.or_
            return reduce(join, (_value(value, columns) != 0 for value in values))
        case ast.Call(args=[argument]):
            return abs(_value(argument, columns))
        case ast.Compare(left=left, ops=ops, comparators=rights):
            sides = [_value(side, columns) for side in (left, *rights)]
            pairs = zip(ops, sides, sides[1:], strict=False)
            return reduce(operator.and_, (_COMPARISONS[type(op)](a, b) for op, a, b in pairs))
    raise AssertionError(ast.dump(node))
