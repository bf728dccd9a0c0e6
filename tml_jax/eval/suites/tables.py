"""Readers of the tables that benchmarks come in: JSON lines, CSV and Parquet, checked for the columns that are used."""

import csv
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tml_jax.eval.suites.transcripts import SuiteError


def read_jsonl(path: pathlib.Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a file with one JSON object a line.

    Raises:
      SuiteError: the file is missing, no JSON, or lacks a column.
    """
    try:
        # Not `splitlines`: JSON may hold other signs that end lines.
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise SuiteError(f"{path} is missing") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise SuiteError(f"{path}, line {number}: no JSON ({error})") from error
    return _checked(rows, columns, path)


def read_csv(path: pathlib.Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header.

    Raises:
      SuiteError: the file is missing or lacks a column.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return _checked(list(csv.DictReader(file)), columns, path)
    except FileNotFoundError as error:
        raise SuiteError(f"{path} is missing") from error


def read_parquet(path: pathlib.Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a Parquet file, or of all in a folder, in the order of their names.

    Raises:
      ImportError: pyarrow is missing.
      SuiteError: there is no such file, or it lacks a column.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Parquet files need pyarrow") from error
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise SuiteError(f"{path} is missing" if path.suffix == ".parquet" else f"{path} has no *.parquet")
    # One file after the other, and not by pyarrow's own reader of folders, which takes parts of names for columns.
    rows = [row for file in files for row in pyarrow.parquet.ParquetFile(file).read().to_pylist()]
    return _checked(rows, columns, path)


def embedded_sound(cell: Mapping[str, Any], folder: pathlib.Path) -> pathlib.Path | bytes:
    """The sound of a cell `{bytes, path}`, in which either may be missing.

    Raises:
      SuiteError: both are.
    """
    if cell and cell.get("bytes"):
        return cell["bytes"]
    if cell and cell.get("path"):
        return folder / cell["path"]
    raise SuiteError(f"{folder}: a row has neither the bytes nor the path of its sound")


def _checked(rows: list[dict[str, Any]], columns: Sequence[str], path: pathlib.Path) -> list[dict[str, Any]]:
    if not rows:
        raise SuiteError(f"{path} has no rows")
    missing = [column for column in columns if column not in rows[0]]
    if missing:
        raise SuiteError(f"{path} has no {', '.join(missing)}; it has {', '.join(map(str, rows[0]))}")
    return rows
