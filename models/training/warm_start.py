"""Chooses the weights that a training starts from: variables of another network, by the patterns of [training].

Rows of the token vectors are matched by token, because the same token has another number in another vocabulary.
Everything that is not taken stays fresh. The linear part is fitted to the training part before the training, and taken
only if a pattern names it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.errors import ArtifactError, WarmStartError

if TYPE_CHECKING:
    import keras

ALL = "all"
TOKEN_VECTORS = "embedding/words"  # noqa: S105 - a path, not a password
_LINEAR = "linear/"
_SETTING = "[training] start_variables"


@dataclass(frozen=True)
class SourceWeights:
    """Uncalibrated weights of a network.

    Attributes:
        name: how errors and records name the source.
        arrays: the variables, float arrays by path.
        tokens: the tokens of the rows of `embedding/words`, in order; None if unknown.
    """

    name: str
    arrays: Mapping[str, npt.NDArray[Any]]
    tokens: Sequence[str] | None


@dataclass(frozen=True)
class StartVariable:
    """The values that a variable starts with.

    Attributes:
        source: path of the variable in the source.
        values: float32, in the shape of the variable; with `rows`, one row for each of them.
        rows: rows of the variable that are set, int64 [rows]; None sets all.
    """

    source: str
    values: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class WarmStart:
    """What a training starts from.

    Attributes:
        name: the source, as it is set.
        variables: the variables that are taken, by path in the network.
        fresh: paths of the network's variables that are not taken, without those of `fitted`.
        fitted: paths of the linear part that are fitted to the training part.
        unused: paths of the source that are not taken.
        token_rows: rows of `embedding/words` that are taken, and all its rows; None if the variable is not taken.
        origin: hashes of the source, and what is known of its messages, for the record.
    """

    name: str
    variables: Mapping[str, StartVariable]
    fresh: Sequence[str]
    fitted: Sequence[str]
    unused: Sequence[str]
    token_rows: tuple[int, int] | None
    origin: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Returns the content for `model.json`."""
        matched, total = self.token_rows or (0, 0)
        return {
            "source": self.name,
            **self.origin,
            "taken": _list_taken(self),
            "fresh": list(self.fresh),
            "fitted": list(self.fitted),
            "unused": list(self.unused),
            "token_rows_taken": matched,
            "token_rows_fresh": total - matched,
        }

    def describe(self) -> tuple[str, str]:
        """Returns two lines for the log: what is taken, and what is not."""
        count = len(self.variables) + len(self.fresh) + len(self.fitted)
        taken = f"starting from {self.name}: {len(self.variables)} of {count} variables: {_join(_list_taken(self))}"
        if self.token_rows:
            matched, total = self.token_rows
            taken += f"; {matched:,} of {total:,} rows of {TOKEN_VECTORS}, the other {total - matched:,} start fresh"
        left = f"start fresh: {_join(self.fresh)}; fitted to the training part: {_join(self.fitted)}"
        return taken, f"{left}; not used of {self.name}: {_join(self.unused)}"


def _list_taken(start: WarmStart) -> list[str]:
    return [
        path if path == variable.source else f"{variable.source}={path}" for path, variable in start.variables.items()
    ]


def _join(paths: Sequence[str]) -> str:
    return ", ".join(paths) or "none"


def network_source(name: str, network: keras.Model, tokens: Sequence[str]) -> SourceWeights:
    """Returns the weights of a network that is not calibrated, as a source."""
    arrays = {variable.path: variable.numpy() for variable in network.weights}
    return SourceWeights(name, arrays, tokens)


def read_npz_source(path: Path) -> tuple[SourceWeights, bool]:
    """Reads a `.npz` file as a source.

    Returns:
        The source, and whether the file says that its weights are not calibrated.

    Raises:
        ArtifactError: the file is missing or damaged.
        WarmStartError: its weights are calibrated.
    """
    from models.network.weights import CALIBRATED_MARKER, VOCABULARY_MARKER, read_arrays

    arrays = read_arrays(path)
    calibrated, tokens = arrays.pop(CALIBRATED_MARKER, None), arrays.pop(VOCABULARY_MARKER, None)
    if calibrated is not None and (calibrated.dtype != np.bool_ or calibrated.ndim):
        raise ArtifactError(f"{path}: {CALIBRATED_MARKER}: expected a single bool, received {_describe(calibrated)}.")
    if calibrated:
        raise calibrated_error(str(path))
    if tokens is not None and (tokens.dtype.kind != "U" or tokens.ndim != 1):
        raise ArtifactError(
            f"{path}: {VOCABULARY_MARKER}: expected an array of text [tokens], received {_describe(tokens)}."
        )
    return SourceWeights(str(path), arrays, None if tokens is None else tokens.tolist()), calibrated is not None


def calibrated_error(source: str) -> WarmStartError:
    """Builds the error for a source whose weights are calibrated."""
    return WarmStartError(
        f"[training] start_from = {source}: its weights are calibrated, and a training needs uncalibrated ones: "
        "otherwise the calibration would be applied twice. Set start_from = version:N to start from the checkpoints of "
        "an exported version, or write its uncalibrated weights to a file: spamscore weights N --npz FILE"
    )


def plan_warm_start(
    source: SourceWeights,
    shapes: Mapping[str, tuple[int, ...]],
    tokens: Sequence[str],
    patterns: Sequence[str],
) -> WarmStart:
    """Chooses and checks the values that a network starts with.

    Args:
        source: the weights to take from.
        shapes: shapes of the network's variables by path.
        tokens: the network's vocabulary.
        patterns: [training] start_variables, separated: `all`, patterns of paths, and renames ``old=new``.

    Raises:
        WarmStartError: a pattern matches nothing, or a rename names a variable that does not exist.
        ArtifactError: a variable does not fit: its shape, type, values or vocabulary.
    """
    sources = _choose_variables(patterns, source, list(shapes))
    variables = {
        path: _take(path, sources[path], shape, source, tokens) for path, shape in shapes.items() if path in sources
    }
    others = [path for path in shapes if path not in variables]
    rows = variables[TOKEN_VECTORS].rows if TOKEN_VECTORS in variables else None
    total = len(tokens)
    taken = total if rows is None else len(rows)
    return WarmStart(
        name=source.name,
        variables=variables,
        fresh=[path for path in others if not path.startswith(_LINEAR)],
        fitted=[path for path in others if path.startswith(_LINEAR)],
        unused=[path for path in source.arrays if path not in sources.values()],
        token_rows=(taken, total) if TOKEN_VECTORS in variables else None,
    )


def set_start(network: keras.Model, start: WarmStart) -> None:
    """Sets the variables of a fresh network to the values that they start with."""
    for variable in network.weights:
        if taken := start.variables.get(variable.path):
            values = np.array(variable.numpy())
            values[... if taken.rows is None else taken.rows] = taken.values
            variable.assign(values)


def _choose_variables(patterns: Sequence[str], source: SourceWeights, paths: Sequence[str]) -> dict[str, str]:
    """Returns the paths in the source by the paths in the network. A rename takes precedence over a pattern."""
    chosen: dict[str, str] = {}
    renamed: dict[str, str] = {}
    for pattern in patterns:
        old, is_rename, new = (part.strip() for part in pattern.partition("="))
        if is_rename:
            _require_variable(pattern, old, source.name, source.arrays)
            _require_variable(pattern, new, "the network", paths)
            if new in renamed:
                raise WarmStartError(
                    f"{_SETTING}: {new} is given to two variables: {renamed[new]} and {old}. Keep one."
                )
            renamed[new] = old
            continue
        matches = [path for path in paths if path in source.arrays and _matches(path, pattern)]
        if not matches:
            raise WarmStartError(
                f"{_SETTING}: {pattern}: expected a pattern of variables that both {source.name} and the network have, "
                f"received one that matches none. {source.name} has {_join(list(source.arrays))}; the network has "
                f"{_join(paths)}. A variable with another name is renamed with old=new."
            )
        chosen.update({path: path for path in matches})
    return {**chosen, **renamed}


def _matches(path: str, pattern: str) -> bool:
    if pattern == ALL:
        return not path.startswith(_LINEAR)
    return fnmatch.fnmatchcase(path, pattern)


def _require_variable(rename: str, path: str, owner: str, paths: Mapping[str, Any] | Sequence[str]) -> None:
    if path not in paths:
        raise WarmStartError(
            f"{_SETTING}: {rename}: {path}: {owner} has no such variable. It has {_join(list(paths))}. "
            "A rename is old=new: the path in the source, then the path in the network."
        )


def _take(
    path: str, source_path: str, shape: tuple[int, ...], source: SourceWeights, tokens: Sequence[str]
) -> StartVariable:
    array = source.arrays[source_path]
    name = f"{source.name}: {source_path}"
    if array.dtype.kind != "f":
        raise ArtifactError(f"{name}: expected an array of floats, received {_describe(array)}.")
    if not np.isfinite(array).all():
        raise ArtifactError(f"{name}: expected finite numbers, received NaN or infinity: the weights are damaged.")
    values = array.astype(np.float32)
    if path != TOKEN_VECTORS or array.ndim != 2:
        _require_shape(path, shape, source_path, array.shape, source.name)
        return StartVariable(source_path, values)
    _require_shape(path, shape, source_path, (shape[0], *array.shape[1:]), source.name, array.shape)
    if source.tokens is None:
        if array.shape != shape:
            raise ArtifactError(
                f"{name}: the vocabulary is needed, because the shape {array.shape} has other rows than {path} of the "
                f"network, {shape}: rows are matched by token. Add the tokens in the order of the rows to the .npz "
                "file, as the text array spamscore:vocabulary; or leave the variable out with start_variables."
            )
        return StartVariable(source_path, values)
    if len(source.tokens) != len(array) or len(set(source.tokens)) != len(source.tokens):
        raise ArtifactError(
            f"{name}: expected one row for each of the {len(set(source.tokens))} distinct tokens of its vocabulary, "
            f"received {len(array)} rows and {len(source.tokens)} tokens."
        )
    numbers = {token: number for number, token in enumerate(source.tokens)}
    rows = np.array([row for row, token in enumerate(tokens) if token in numbers], np.int64)
    return StartVariable(source_path, values[[numbers[tokens[row]] for row in rows]], rows)


def _require_shape(
    path: str,
    shape: tuple[int, ...],
    source_path: str,
    received: tuple[int, ...],
    source: str,
    shown: tuple[int, ...] | None = None,
) -> None:
    if received != shape:
        raise ArtifactError(
            f"{source}: {source_path} has the shape {shown or received}, and {path} of the network has {shape}. Set "
            "[network] as in the source; or leave the variable out: [training] start_variables names those to take."
        )


def _describe(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
