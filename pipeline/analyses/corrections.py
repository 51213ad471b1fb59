"""Event weights from correctionlib files, the field's format for scale factors and their variations.

A template stays one contraction of yields as long as a weight is affine in the transverse momentum of a jet,
w = a + b·pt: the sum of the weights in a bin is a times the events in it plus b times the sum of their pt, and both are
there at every step, with their gradients. So a correction is not evaluated event by event: it is read once, down to the
formula that the given inputs lead to, and that formula is brought into the form a + b·pt by exact rules. One that is
not of this form is an error.

correctionlib reads and checks the file (schema version 2).
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from correctionlib.schemav2 import Correction, Formula

__all__ = ["AffineWeight", "CorrectionError", "Inputs", "affine_weight"]

Inputs = Mapping[str, str | int | float]
"""Values of the inputs of a correction, by name."""

TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "int": (int,), "real": (int, float)}
"""Of the inputs of a correction."""

VARIABLES = "xyzt"
"""What a formula calls its variables, in the order in which it lists them."""


class CorrectionError(ValueError):
    """A correction cannot be used; the message says which, where and why."""


class AffineWeight(NamedTuple):
    """The weight `constant + slope · x`; x is the one input without a value."""

    constant: float
    slope: float


class _NotAffineError(Exception):
    """An expression is not of the form a + b·x."""


def affine_weight(file: Path, correction: str, inputs: Inputs) -> AffineWeight:
    """The weight that a correction gives as a function of its one input that is left open.

    Args:
        file: a correctionlib file, JSON, possibly compressed.
        correction: its name in the file.
        inputs: the values of all other inputs.

    Raises:
        CorrectionError: the file cannot be read, has no such correction, or the correction cannot be used.
    """
    found = _correction(file, correction)
    where = f"correction '{correction}' of {file}"
    is_open = [variable.name not in inputs for variable in found.inputs]
    fits = [isinstance(inputs.get(variable.name, 0.0), TYPES[variable.type]) for variable in found.inputs]
    if not all(fits) or sum(is_open) != 1 or len(inputs) != len(fits) - 1:
        names = ", ".join(f"'{variable.name}' ({variable.type})" for variable in found.inputs)
        raise CorrectionError(f"{where} has the inputs {names}; give values to all but one, the jet's pt")
    try:
        return _affine_content(found.data, inputs, where)
    except _NotAffineError as error:
        raise CorrectionError(
            f"{where} gives {error}, which is not of the form a + b·pt; only such weights can be used"
        ) from None


def _correction(file: Path, name: str) -> "Correction":
    # Imported here because it takes as long as everything else that a config needs.
    from correctionlib.highlevel import open_auto
    from correctionlib.schemav2 import CorrectionSet

    try:
        corrections = CorrectionSet.model_validate_json(open_auto(str(file))).corrections
    except OSError as error:
        raise CorrectionError(f"{file} cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        reason = " ".join(str(error).split())[:120]
        raise CorrectionError(f"{file} is not a correctionlib file of schema version 2 ({reason})") from None
    named = {one.name: one for one in corrections}
    if name not in named:
        raise CorrectionError(f"{file} has no correction '{name}'; there are: {', '.join(named)}")
    return named[name]


def _affine_content(node: Any, inputs: Inputs, where: str) -> AffineWeight:
    """Down the tree of a correction: categories are chosen by the inputs, a number or a formula is the end."""
    match getattr(node, "nodetype", None):
        case None:
            return AffineWeight(float(node), 0.0)
        case "category" if node.input in inputs:
            chosen = {item.key: item.value for item in node.content}
            key = inputs[node.input]
            if key not in chosen:
                # correctionlib takes the default, if there is one; but a variation that varies nothing is a mistake.
                keys = ", ".join(map(str, chosen))
                raise CorrectionError(f"{where} has no {node.input} '{key}'; there are: {keys}")
            return _affine_content(chosen[key], inputs, where)
        case "formula":
            return _affine_formula(node, inputs)
        case kind:
            raise _NotAffineError(f"a node of type '{kind}'")


def _affine_formula(formula: "Formula", inputs: Inputs) -> AffineWeight:
    """A TFormula of sums, differences, products and quotients reads the same in Python."""
    values = [inputs.get(name) for name in formula.variables]
    weights = [AffineWeight(0.0, 1.0) if value is None else AffineWeight(float(value), 0.0) for value in values]
    names = dict(zip(VARIABLES, weights, strict=False))
    try:
        return _affine(ast.parse(formula.expression.strip(), mode="eval").body, names, formula.parameters or [])
    except (_NotAffineError, SyntaxError, ZeroDivisionError):
        raise _NotAffineError(f"'{formula.expression}'") from None


def _affine(node: ast.expr, names: Mapping[str, AffineWeight], parameters: list[float]) -> AffineWeight:
    """The exact rules for a + b·x."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return AffineWeight(float(number), 0.0)
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.List(elts=[ast.Constant(value=int() as place)]) if place < len(parameters):
            return AffineWeight(parameters[place], 0.0)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _affine(operand, names, parameters)
            return AffineWeight(-inner.constant, -inner.slope)
        case ast.BinOp(left=left, op=operation, right=right):
            return _combined(operation, _affine(left, names, parameters), _affine(right, names, parameters))
    raise _NotAffineError


def _combined(operation: ast.operator, left: AffineWeight, right: AffineWeight) -> AffineWeight:
    match operation:
        case ast.Add():
            return AffineWeight(left.constant + right.constant, left.slope + right.slope)
        case ast.Sub():
            return AffineWeight(left.constant - right.constant, left.slope - right.slope)
        case ast.Mult() if right.slope == 0:
            return AffineWeight(left.constant * right.constant, left.slope * right.constant)
        case ast.Mult() if left.slope == 0:
            return _combined(operation, right, left)
        case ast.Div() if right.slope == 0:
            return AffineWeight(left.constant / right.constant, left.slope / right.constant)
    raise _NotAffineError
