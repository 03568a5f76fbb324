"""What a user's formula or condition may say: names of columns, numbers, and a few functions.

Formulas and conditions stand in files that people share, and the libraries that evaluate them would
run any Python in them.  So each is read here first, and only what is listed here goes on.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from formulaic.errors import FormulaSyntaxError
from formulaic.parser.algos.tokenize import tokenize
from formulaic.parser.types import Token

FUNCTIONS: dict[str, frozenset[str]] = {
    "C": frozenset(),
    "I": frozenset(),
    "Q": frozenset(),
    "Sum": frozenset(),
    "Treatment": frozenset({"reference"}),
    "bs": frozenset({"df", "degree"}),
    "center": frozenset(),
    "exp": frozenset(),
    "log": frozenset(),
    "log10": frozenset(),
    "log2": frozenset(),
    "poly": frozenset({"degree"}),
    "scale": frozenset(),
    "sqrt": frozenset(),
}
"""Functions of a formula, and the arguments that may be given by name."""

_TEXT_ARGUMENTS = {"C", "Q", "Treatment"}
_OPERATORS = {"+", "-", "*", ":", "/", "**", "^", "(", ")"}
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div)
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_LONGEST = 1000
_MOST_NAMES = 40
_MOST_CROSSINGS = 5
_LARGEST_POWER = 3
_LARGEST_DEGREE = 20
_MISSING = {"", "n/a", "nan", "na", "none"}


def listed(items: Iterable[object], most: int = 20) -> str:
    """Return ``a, b and 3 more`` for a sentence."""
    words = [str(item) for item in items]
    if len(words) <= most:
        return ", ".join(words)
    return f"{', '.join(words[:most])} and {len(words) - most} more"


def counted(number: int, noun: str) -> str:
    """Return ``1 row`` or ``3 rows`` for a sentence."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def split(text: str, separator: str) -> list[str]:
    """Return the parts of a text between separators that stand outside brackets."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if sign == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part for part in parts if part.strip()]


def unknown_column(where: str, name: str, columns: Iterable[object]) -> ValueError:
    """Return the error that names a column that is not there, and those that are."""
    there = listed(columns, 40)
    return ValueError(f"{where} names {name!r}, which is no column; there are: {there}.")


def formula_columns(formula: str, columns: Sequence[str]) -> tuple[list[str], set[str]]:
    """Check a right-hand side and return the columns it uses, and those that it puts in ``C()``.

    Raises
    ------
    ValueError
        If it is empty or too long, has a left-hand side, or says anything but columns' names,
        ``+ - * : / ** ( )``, numbers within functions, and the functions of :data:`FUNCTIONS`.
    """
    text = formula.strip() if isinstance(formula, str) else ""
    if not text:
        raise ValueError("the formula is empty: write the predictors, as in 'group + age'.")
    if len(text) > _LONGEST:
        raise ValueError(f"the formula has more than {_LONGEST} characters: shorten it.")
    try:
        tokens = list(tokenize(text))
    except (FormulaSyntaxError, SyntaxError) as error:
        raise ValueError(f"the formula {text!r} cannot be read: look for a stray sign.") from error
    used: list[str] = []
    in_c: set[str] = set()
    for previous, token in zip([None, *tokens], tokens, strict=False):
        _check_token(text, previous, token, columns, used, in_c)
    if len(used) > _MOST_NAMES or sum(t.token in "*/**^" for t in tokens) > _MOST_CROSSINGS:
        raise ValueError(
            f"the formula {text!r} is too large: at most {_MOST_NAMES} names and "
            f"{_MOST_CROSSINGS} of * / ** are taken."
        )
    return list(dict.fromkeys(used)), in_c


def _check_token(
    text: str,
    previous: Token | None,
    token: Token,
    columns: Sequence[str],
    used: list[str],
    in_c: set[str],
) -> None:
    kind, word = token.kind.value if token.kind else "", token.token
    if kind == "name":
        if word not in columns:
            raise unknown_column("the formula", word, columns)
        used.append(word)
    elif kind == "python":
        reader = _Reader(f"the formula {text!r}", columns, FUNCTIONS, used, in_c)
        reader.read(word)
    elif kind == "value":
        power = previous is not None and previous.token in ("**", "^")
        allowed = {str(i) for i in range(2, _LARGEST_POWER + 1)} if power else {"0", "1"}
        if word not in allowed:
            raise ValueError(
                f"the formula {text!r} says {word!r} where only {' or '.join(sorted(allowed))} "
                "can stand; arithmetic goes into I( )."
            )
    elif word in ("~", "|"):
        raise ValueError(
            f"the formula {text!r} holds {word!r}: write the predictors alone, as in 'group + age'."
        )
    elif word not in _OPERATORS:
        raise _refused(f"the formula {text!r}", word, FUNCTIONS)


def _refused(where: str, word: str, functions: Iterable[str]) -> ValueError:
    names = listed(sorted(functions))
    with_functions = f" and the functions {names}" if names else ""
    return ValueError(
        f"{where} says {word!r}, which is not taken: columns' names, numbers, "
        f"operators{with_functions} are."
    )


class _Reader:
    """Walks one expression and refuses whatever is not listed."""

    def __init__(
        self,
        where: str,
        columns: Sequence[str],
        functions: Iterable[str],
        used: list[str],
        in_c: set[str] | None = None,
        logical: bool = False,
    ) -> None:
        self.where, self.columns, self.functions = where, columns, set(functions)
        self.used, self.in_c, self.logical = used, in_c, logical

    def read(self, text: str) -> ast.expr:
        try:
            tree = ast.parse(text.strip(), mode="eval").body
            self.visit(tree)
        except SyntaxError as error:
            hint = "; write Q('a name') within functions" if "`" in text else ""
            raise ValueError(f"{self.where} cannot be read near {text.strip()!r}{hint}.") from error
        except RecursionError as error:
            raise ValueError(f"{self.where} is nested too deeply.") from error
        return tree

    def refuse(self, node: ast.AST) -> ValueError:
        return _refused(self.where, ast.unparse(node), self.functions)

    def visit(self, node: ast.expr) -> None:
        if isinstance(node, ast.Name):
            self.column(node.id)
        elif isinstance(node, ast.Call):
            self.call(node)
        elif isinstance(node, ast.Constant):
            self.constant(node)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
            self.visit(node.operand)
        elif isinstance(node, ast.BinOp):
            self.binary(node)
        elif isinstance(node, ast.Compare):
            self.compare(node)
        elif self.logical and isinstance(node, ast.UnaryOp):
            self.visit(node.operand)
        elif self.logical and isinstance(node, ast.BoolOp):
            for value in node.values:
                self.visit(value)
        else:
            raise self.refuse(node)

    def column(self, name: str) -> None:
        if name not in self.columns:
            raise unknown_column(self.where, name, self.columns)
        self.used.append(name)

    def constant(self, node: ast.Constant) -> None:
        number = isinstance(node.value, (bool, int, float))
        if not number or not math.isfinite(float(node.value)):  # type: ignore[arg-type]
            raise self.refuse(node)

    def binary(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.Pow):
            # a power of numbers alone could take for ever
            exponent = node.right.operand if isinstance(node.right, ast.UnaryOp) else node.right
            names = any(isinstance(part, ast.Name) for part in ast.walk(node.left))
            if not (names and isinstance(exponent, ast.Constant)):
                raise self.refuse(node)
        elif not isinstance(node.op, _ARITHMETIC) and not (
            self.logical and isinstance(node.op, (ast.BitAnd, ast.BitOr))
        ):
            raise self.refuse(node)
        self.visit(node.left)
        self.visit(node.right)

    def compare(self, node: ast.Compare) -> None:
        operators: tuple[type[ast.cmpop], ...] = _COMPARISONS
        if self.logical:
            operators = (*operators, ast.In, ast.NotIn)
        if not all(isinstance(op, operators) for op in node.ops):
            raise self.refuse(node)
        self.visit(node.left)
        for part in node.comparators:
            many = self.logical and isinstance(part, (ast.List, ast.Tuple))
            for item in part.elts if many else [part]:  # type: ignore[attr-defined]
                if not (isinstance(item, ast.Constant) and isinstance(item.value, str)):
                    self.visit(item)

    def call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name is None or name not in self.functions:
            written = ast.unparse(node.func)
            hint = written.rpartition(".")[2]
            if hint in self.functions:
                raise ValueError(f"{self.where} says {written}(): write {hint}().")
            raise self.refuse(node)
        if any(keyword.arg not in FUNCTIONS[name] for keyword in node.keywords):
            raise self.refuse(node)
        if name == "Q":
            self.quoted(node)
            return
        before = len(self.used)
        for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
            self.argument(name, argument)
        if name == "C" and self.in_c is not None:
            self.in_c.update(self.used[before:])

    def argument(self, function: str, node: ast.expr) -> None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if function not in _TEXT_ARGUMENTS:
                raise self.refuse(node)
        elif function == "C" and isinstance(node, ast.Name) and node.id in ("Sum", "Treatment"):
            return
        elif function in ("poly", "bs") and isinstance(node, ast.Constant):
            if not (isinstance(node.value, int) and 0 < node.value <= _LARGEST_DEGREE):
                raise self.refuse(node)
        else:
            self.visit(node)

    def quoted(self, node: ast.Call) -> None:
        name = node.args[0] if len(node.args) == 1 else None
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
            raise self.refuse(node)
        self.column(name.value)


def typed_column(table: pd.DataFrame, name: str, *, as_levels: bool = False) -> pd.Series:
    """Return a column as numbers or as text, with missing values as NaN.

    Text of which more than half reads as numbers is taken for a column of numbers; ``n/a`` and
    infinite values are missing.

    Raises
    ------
    ValueError
        If a column of numbers holds something else, unless ``as_levels``.
    """
    column = table[name]
    if isinstance(column, pd.DataFrame):
        raise ValueError(f"the table has more than one column {name!r}.")
    if pd.api.types.is_bool_dtype(column) and not column.isna().any():
        return column.astype(bool)
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        numbers = column.astype("float64")
        return column if as_levels else numbers.where(np.isfinite(numbers))
    if pd.api.types.is_datetime64_any_dtype(column):
        raise ValueError(f"column {name!r} holds dates: give years or days as a number.")
    if isinstance(column.dtype, pd.CategoricalDtype) and column.cat.ordered:
        return column  # the order says which level is the reference
    text = column.astype("object").map(lambda value: "" if pd.isna(value) else str(value).strip())
    missing = text.str.lower().isin(_MISSING)
    text = text.astype("object").where(~missing)
    if as_levels or isinstance(column.dtype, pd.CategoricalDtype):
        return text
    numbers = pd.to_numeric(text, errors="coerce").astype("float64")
    readable = numbers.notna().sum()
    known = int((~missing).sum())
    if known and readable == known:
        return numbers.where(np.isfinite(numbers))
    if readable * 2 > known:
        wrong = text[~missing & numbers.isna()]
        raise ValueError(
            f"column {name!r} should hold numbers, but holds {listed(map(repr, wrong), 3)} "
            f"({listed(row_names(table.loc[wrong.index]), 3)}): correct it, or write C({name}) "
            "if these are names of groups."
        )
    return text


def row_names(table: pd.DataFrame) -> list[str]:
    """Return what to call the rows in a sentence, each name once."""
    return list(dict.fromkeys(name_of_each_row(table)))


def name_of_each_row(table: pd.DataFrame) -> list[str]:
    """Return the participant of each row, with the session where there is one."""
    if "participant_id" not in table.columns:
        return [f"row {label}" for label in table.index]
    names = table["participant_id"].astype(str)
    if "session_id" in table.columns:
        session = table["session_id"].astype("object").where(table["session_id"].notna(), "n/a")
        names = names + session.map(lambda s: "" if str(s) in ("", "n/a") else f" {s}")
    return list(names)


def subset(table: pd.DataFrame, condition: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the rows for which a condition holds, and sentences on those left out.

    Parameters
    ----------
    table : DataFrame
    condition : str
        Such as ``age < 50``, ``group == 'patient' and sex in ['F']``; names with other signs stand
        in backticks.  No function is called and no attribute read.

    Raises
    ------
    ValueError
        If the condition says anything else, names no column, or holds for no row.
    """
    where = f"the subset {condition!r}"
    text = condition.strip() if isinstance(condition, str) else ""
    if not text or len(text) > _LONGEST:
        raise ValueError(f"{where} is empty or too long: write, for example, 'age < 50'.")
    quoted: dict[str, str] = {}

    def plain(match: re.Match[str]) -> str:
        return quoted.setdefault(match.group(1), f"quoted_column_{len(quoted)}_")

    text = re.sub(r"`([^`]*)`", plain, text)
    for name in quoted:
        if name not in table.columns:
            raise unknown_column(where, name, table.columns)
    columns = [str(c) for c in table.columns] + list(quoted.values())
    used: list[str] = []
    _Reader(where, columns, (), used, logical=True).read(text)
    plain_name = {v: k for k, v in quoted.items()}
    names = list(dict.fromkeys(used))
    values = pd.DataFrame(
        {name: typed_column(table, plain_name.get(name, name)).to_numpy() for name in names}
    )
    if not names:
        raise ValueError(f"{where} names no column: write, for example, 'age < 50'.")
    try:
        chosen = np.asarray(values.eval(text, engine="python")).astype(bool)
    except Exception as error:  # whatever pandas makes of text beside numbers
        raise ValueError(f"{where} does not fit its columns: compare like with like.") from error
    missing = values.isna().any(axis=1).to_numpy()
    kept = table[chosen & ~missing]
    if not len(kept):
        raise ValueError(f"{where} holds for none of the {len(table)} rows.")
    sentences = [f"{_size(kept)} of {_size(table)} {_unit(table)} are in the subset {condition!r}."]
    if missing.any():
        lost = table[missing]
        sentences.append(
            f"{counted(_size(lost), _unit(table)[:-1])} without a value for it: "
            f"{listed(row_names(lost), 5)}."
        )
    return kept, tuple(sentences)


def _unit(table: pd.DataFrame) -> str:
    return "subjects" if "participant_id" in table.columns else "rows"


def _size(table: pd.DataFrame) -> int:
    return table["participant_id"].nunique() if "participant_id" in table.columns else len(table)
