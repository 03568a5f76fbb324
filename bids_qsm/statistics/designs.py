"""Designs of linear models: a formula made into columns that can be trusted, and contrasts."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd
from formulaic import Formula
from formulaic.errors import FormulaicError
from numpy.typing import NDArray

from bids_qsm.statistics.expressions import (
    counted,
    formula_columns,
    listed,
    row_names,
    split,
    typed_column,
    unknown_column,
)

Float64 = NDArray[np.float64]

_COLLINEAR = 1e-8


@dataclass(frozen=True, eq=False)
class Design:
    """The columns of a linear model.

    Attributes
    ----------
    formula : str
        Right-hand side it was made from.
    matrix : ndarray of float64, shape (n, p)
        Of full column rank, and with more rows than columns.
    names : tuple of str
        Names of the columns: ``Intercept``, ``group[T.patient]``, ``age``.
    rows : ndarray of int, shape (n,)
        Positions in the table of the rows that are used.
    left_out : tuple of str
        Sentences on the rows that are not.
    terms : mapping of str to tuple of int
        The columns of each term of the formula, by the term as written.
    levels : mapping of str to tuple of str
        The levels of each term that is a group, the reference first.
    """

    formula: str
    matrix: Float64
    names: tuple[str, ...]
    rows: NDArray[np.intp]
    left_out: tuple[str, ...]
    terms: Mapping[str, tuple[int, ...]]
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Contrast:
    """A hypothesis on the coefficients of a design: that ``weights @ coefficients`` is zero.

    Attributes
    ----------
    name : str
        As the user wrote it.
    weights : ndarray of float64, shape (q, p)
    kind : {'t', 'F'}
        ``t`` for one row, ``F`` for more.
    """

    name: str
    weights: Float64
    kind: Literal["t", "F"]


def build_design(table: pd.DataFrame, formula: str, *, complete: Sequence[str] = ()) -> Design:
    """Make the columns of a linear model from a table and the right-hand side of a formula.

    Parameters
    ----------
    table : DataFrame
        One row for each observation; ``participant_id`` and ``session_id``, where there, name
        the rows in sentences.
    formula : str
        As in statsmodels and formulaic: ``group + age + sex``, ``group * log(age)``,
        ``C(site, Treatment('B')) + poly(age, 2)``.  Text columns are groups, their first level in
        the alphabet the reference (of ordered categories, the first).  See
        :data:`bids_qsm.statistics.expressions.FUNCTIONS` for what else can be written.
    complete : sequence of str
        More columns, such as the outcome, that must be known in the rows that are used.

    Returns
    -------
    Design
        Rows with a missing value are left out, with a sentence that counts and names them.

    Raises
    ------
    ValueError
        With one sentence: for an unknown column, text among numbers, a covariate that is the same
        for all, a group with one row, fewer rows than columns, a term that is not finite, or
        columns that depend on each other.
    """
    columns = [str(column) for column in table.columns]
    used, in_c = formula_columns(formula, columns)
    for name in complete:
        if name not in columns:
            raise unknown_column("the model", name, columns)
    typed = {name: typed_column(table, name, as_levels=name in in_c) for name in used}
    typed |= {name: typed_column(table, name) for name in complete if name not in typed}
    bare = {name: column.reset_index(drop=True) for name, column in typed.items()}
    data = pd.DataFrame(bare, index=range(len(table)))
    known, left_out = _known_rows(table, data)
    data = data.loc[known]
    for name in data.select_dtypes("category").columns:
        data[name] = data[name].cat.remove_unused_categories()
    for name in used:
        _check_column(table.iloc[np.flatnonzero(known)], data[name], name, name in in_c)
    design = _evaluate(formula.strip(), data, np.flatnonzero(known), left_out)
    _check_matrix(design)
    return design


def restrict(design: Design, keep: NDArray[np.bool_], why: str = "") -> Design:
    """Return the design with some of its rows, checked anew.

    Parameters
    ----------
    design : Design
    keep : ndarray of bool, shape (n,)
        Which of the design's rows to keep.
    why : str
        Sentence for ``left_out``.
    """
    if keep.all():
        return design
    fewer = replace(
        design,
        matrix=design.matrix[keep],
        rows=design.rows[keep],
        left_out=(*design.left_out, why) if why else design.left_out,
    )
    _check_matrix(fewer)
    return fewer


def _known_rows(
    table: pd.DataFrame, data: pd.DataFrame
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Tell which rows have all values; say which have not."""
    missing = data.isna()
    sentences = []
    for name in data.columns:
        lost = missing[name].to_numpy(dtype=bool)
        if lost.all():
            raise ValueError(f"column {name!r} has no value in any of the {len(table)} rows.")
        if lost.any():
            names = listed(row_names(table.iloc[np.flatnonzero(lost)]), 5)
            what = counted(int(lost.sum()), "row")
            sentences.append(f"{what} left out for want of {name}: {names}.")
    known: NDArray[np.bool_] = np.logical_not(missing.to_numpy(dtype=bool)).all(axis=1)
    if not known.any():
        raise ValueError(f"no row has values for all of {listed(data.columns)}.")
    return known, tuple(sentences)


def _check_column(table: pd.DataFrame, column: pd.Series, name: str, as_levels: bool) -> None:
    """Refuse what is the same in all rows, and groups of one."""
    n = counted(len(column), "row")
    first = column.iloc[0]
    if column.nunique() < 2:
        if isinstance(first, str) or as_levels:
            what = f"column {name!r} has one group alone ({first!r})"
        else:
            what = f"covariate {name!r} is the same ({first:g})"
        raise ValueError(f"{what} in all {n} used: leave it out of the formula.")
    sizes = column.value_counts()
    if not (isinstance(first, str) or as_levels or len(sizes) == 2):
        return
    alone = sorted(str(level) for level in sizes.index[sizes == 1])
    if alone:
        who = row_names(table[(column.astype(str) == alone[0]).to_numpy()])[0]
        raise ValueError(
            f"group {alone[0]!r} of column {name!r} has one subject ({who}): at least two are "
            "needed; leave the subject out by a subset, or join groups."
        )


def _evaluate(
    formula: str, data: pd.DataFrame, rows: NDArray[np.intp], left_out: tuple[str, ...]
) -> Design:
    """Let formulaic make the columns of a formula that has been read."""
    try:
        with np.errstate(all="ignore"):
            made = Formula(formula).get_model_matrix(
                data, context={"sqrt": np.sqrt}, na_action="ignore"
            )
            matrix = np.asarray(made, dtype=np.float64)
    except (FormulaicError, TypeError, ValueError, KeyError, ArithmeticError) as error:
        raise ValueError(
            f"the formula {formula!r} cannot be worked out with these columns: functions and "
            f"arithmetic need numbers, and levels that are there ({error})."
        ) from error
    spec = made.model_spec
    terms = {
        str(term): tuple(range(place.start, place.stop))
        for term, place in spec.term_slices.items()
        if str(term) != "1"
    }
    for term, places in terms.items():
        bad = ~np.isfinite(matrix[:, places]).all(axis=1)
        if bad.any():
            raise ValueError(
                f"{term} is not finite in {counted(int(bad.sum()), 'row')}, as the logarithm of "
                "zero is not: shift the column, as in log(x + 1), or leave these rows out by a "
                "subset."
            )
        if not places:
            raise ValueError(f"{term} adds no column to {formula!r}: leave it out.")
    names = tuple(str(column) for column in spec.column_names)
    levels = {
        str(factor): _reference_first(str(factor), [str(v) for v in state.levels], names)
        for factor, state in spec.factor_contrasts.items()
    }
    return Design(formula, matrix, names, rows, left_out, terms, levels)


def _reference_first(factor: str, levels: list[str], names: tuple[str, ...]) -> tuple[str, ...]:
    reference = [level for level in levels if f"{factor}[T.{level}]" not in names]
    return tuple(reference + [level for level in levels if level not in reference])


def _check_matrix(design: Design) -> None:
    n, p = design.matrix.shape
    if not p:
        raise ValueError(f"the formula {design.formula!r} has no column: write at least '1'.")
    if n <= p:
        raise ValueError(
            f"the design has {counted(n, 'row')} for {counted(p, 'column')} "
            f"({listed(design.names)}): give more subjects or fewer predictors."
        )
    dependent = dependent_columns(design.matrix, design.names)
    if dependent:
        raise ValueError(
            f"columns {listed(dependent[:-1])} and {dependent[-1]} of the design depend on each "
            "other: leave one of them out of the formula."
            if len(dependent) > 1
            else f"column {dependent[0]} of the design is zero in all rows: leave it out."
        )


def dependent_columns(matrix: Float64, names: Sequence[str]) -> list[str]:
    """Return the first column that is a sum of earlier ones, after those it is made of."""
    lengths = np.linalg.norm(matrix, axis=0)
    unit = matrix / np.where(lengths > 0, lengths, 1)
    if lengths.all() and np.linalg.svd(unit, compute_uv=False)[-1] > _COLLINEAR:
        return []
    for column in range(matrix.shape[1]):
        if not lengths[column]:
            return [names[column]]
        made_of, _, _, _ = np.linalg.lstsq(unit[:, :column], unit[:, column], rcond=None)
        rest = unit[:, column] - unit[:, :column] @ made_of
        if np.linalg.norm(rest) < 10 * _COLLINEAR:
            parts = [n for n, w in zip(names, made_of, strict=False) if abs(w) > 1e-6]
            return [*parts, names[column]]
    return []


def contrast(design: Design, text: str | Sequence[str]) -> Contrast:
    """Read a hypothesis on the coefficients.

    Parameters
    ----------
    design : Design
    text : str or sequence of str
        A term (``group``: F over its columns, t if it has one), a column (``group[T.patient]``),
        a sum of columns (``2*age - dose``, ``group[T.a] = group[T.b]``), levels of a group whose
        weights add up to zero (``patient - control``, ``group[patient] - group[control]``), or
        several of these, separated by commas, for an F test.

    Raises
    ------
    ValueError
        If it names nothing of the design, is no such sum, or is zero or redundant.
    """
    parts = split(text, ",") if isinstance(text, str) else [str(part) for part in text]
    name = text if isinstance(text, str) else ", ".join(parts)
    weights = np.concatenate([_rows_of(design, part.strip()) for part in parts] or [np.zeros((0,))])
    if not weights.size or not weights.any(axis=1).all():
        raise ValueError(f"the contrast {name!r} is empty: write a term, as 'group'.")
    if np.linalg.matrix_rank(weights) < len(weights):
        raise ValueError(f"the parts of the contrast {name!r} depend on each other: leave one out.")
    return Contrast(name, weights, "t" if len(weights) == 1 else "F")


def _rows_of(design: Design, part: str) -> Float64:
    term = part.strip("`")  # as the formula quotes a name
    if term in design.terms:
        return np.eye(len(design.names))[list(design.terms[term])]
    left, _, right = part.partition("=")
    row = _linear(design, part, left)
    if right.strip():
        row = row - _linear(design, part, right)
    if abs(row[-1]) > 0:
        raise ValueError(f"the contrast {part!r} adds a number: compare with zero alone.")
    vector, levels = row[: len(design.names)], row[len(design.names) : -1]
    return (vector + _of_levels(design, part, levels))[None]


def _vocabulary(design: Design) -> list[tuple[str, int]]:
    """Return every name that may stand in a contrast with its place, the longest first."""
    words = {name: place for place, name in enumerate(design.names)}
    words |= {t: places[0] for t, places in design.terms.items() if len(places) == 1}
    place = len(design.names)
    bare: dict[str, list[int]] = {}
    for factor, levels in design.levels.items():
        for level in levels:
            words.setdefault(f"{factor}[{level}]", place)
            bare.setdefault(level, []).append(place)
            place += 1
    words |= {k: v[0] for k, v in bare.items() if len(v) == 1 and k not in words}
    return sorted(words.items(), key=lambda item: -len(item[0]))


def _linear(design: Design, part: str, side: str) -> Float64:
    """Return the weights of columns, then of levels, then of one, in a sum."""
    words = _vocabulary(design)
    size = len(design.names) + sum(len(v) for v in design.levels.values()) + 1
    places = dict(words)
    pattern = "|".join(rf"(?<![\w.]){re.escape(word)}(?![\w.\[(])" for word, _ in words)
    found: list[str] = []

    def stand_in(match: re.Match[str]) -> str:
        found.append(match.group(0))
        return f" v{len(found) - 1}_ "

    text = re.sub(pattern, stand_in, side)

    def value(node: ast.expr) -> Float64:
        if isinstance(node, ast.Name) and re.fullmatch(r"v\d+_", node.id):
            return np.eye(size)[places[found[int(node.id[1:-1])]]]
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return np.eye(size)[-1] * float(node.value)  # type: ignore[arg-type]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
            return value(node.operand) * (-1 if isinstance(node.op, ast.USub) else 1)
        if isinstance(node, ast.BinOp):
            a, b = value(node.left), value(node.right)
            if isinstance(node.op, (ast.Add, ast.Sub)):
                return a + b if isinstance(node.op, ast.Add) else a - b
            if isinstance(node.op, ast.Mult) and not (a[:-1].any() and b[:-1].any()):
                return a * b[-1] if a[:-1].any() else b * a[-1]
            if isinstance(node.op, ast.Div) and not b[:-1].any() and b[-1]:
                return a / b[-1]
        raise SyntaxError

    try:
        return value(ast.parse(text.replace("`", "").strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        there = listed([*dict.fromkeys([*design.terms, *design.names])])
        levels = [f"{f}[{level}]" for f, every in design.levels.items() for level in every]
        also = f", or levels: {listed(levels)}" if levels else ""
        raise ValueError(
            f"the contrast {part!r} is no sum of the design's terms and columns; there are: "
            f"{there}{also}."
        ) from error


def _of_levels(design: Design, part: str, weights: Float64) -> Float64:
    """Turn weights of the levels of a group into weights of columns."""
    row, start = np.zeros(len(design.names)), 0
    for factor, levels in design.levels.items():
        share = weights[start : start + len(levels)]
        start += len(levels)
        if not share.any():
            continue
        if abs(share.sum()) > 1e-12:
            raise ValueError(
                f"the weights of {factor} in the contrast {part!r} do not add up to zero: write a "
                f"difference, as '{levels[-1]} - {levels[0]}'."
            )
        columns = [_level_column(design, factor, level) for level in levels]
        crossed = any(factor in term.split(":") for term in design.terms if term != factor)
        if crossed or columns.count(None) > 1:
            raise ValueError(
                f"the contrast {part!r} compares levels of {factor}, which stands in an "
                f"interaction or is coded otherwise: name columns; there are: "
                f"{listed(design.names)}."
            )
        for column, weight in zip(columns, share, strict=True):
            if column is not None:
                row[column] += weight
    return row


def _level_column(design: Design, factor: str, level: str) -> int | None:
    for name in (f"{factor}[T.{level}]", f"{factor}[{level}]"):
        if name in design.names:
            return design.names.index(name)
    return None
