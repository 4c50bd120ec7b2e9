r"""Reads rows from CSV and TSV files, and from the layout of the SMS Spam Collection, `label TAB text`.

The delimiter is found with the header: the right one gives the header all requested columns.
`tasks.sources.formats.delimited_records` splits lines into fields.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from models.errors import InputError
from tasks.settings.dialects import DELIMITERS
from tasks.sources.file_source import FileSource
from tasks.sources.formats.delimited_records import (
    MALFORMED_QUOTING,
    SEEMS_QUOTED,
    Record,
    Syntax,
    split_plain,
    split_records,
)
from tasks.sources.formats.encodings import find_header_encoding
from tasks.sources.rows import SourceRow, check_columns, replace_surrogates
from tasks.sources.text_files import read_lines

_DELIMITER_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
_EXCEL_DELIMITER = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
# How MySQL and PostgreSQL write a missing value. As the text of a message it is improbable, as a mistake it is not.
_UNDECLARED_NULL = r"\N"


class _Opening(NamedTuple):
    """What the first line of a file that is not blank tells.

    Attributes:
        newline: as for `open`: empty if the line ends with CR, otherwise a line feed: then a CR belongs to its text.
        skipped: number of lines that Excel puts before the header: 1 if the file starts with ``sep=;``, or 0.
        delimiter: the delimiter in Excel's line, or None.
    """

    newline: str
    skipped: int
    delimiter: str | None


class _Header(NamedTuple):
    """The header as it is written, or its fault, and the syntax it was read with."""

    fields: Sequence[str | None]
    fault: str | None
    syntax: Syntax

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return _clean_names(self.fields)

    def count_columns(self, columns: Mapping[str, str]) -> int:
        """Returns how many of the requested columns the header has."""
        return len(set(columns.values()).intersection(self.names))


def _clean_names(fields: Sequence[str | None]) -> list[str]:
    """Removes spaces around names, and a byte order mark, which `cat` moves into the middle of a file."""
    return [(name or "").strip().removeprefix("\ufeff").strip() for name in fields]


def _read_with_header(source: FileSource, format_name: str) -> Iterator[SourceRow]:
    """Yields the rows of a CSV or TSV file."""
    opening = _read_opening(source)
    header = _find_header(source, opening, format_name)
    records = _read_records(source, opening, header.syntax)
    next(line for line, fields, fault in records if fields or fault)  # the header
    yield from _convert_records(source, header.fields, records, header.syntax)


def _read_opening(source: FileSource) -> _Opening:
    excel = None
    for number, line in enumerate(read_lines(source, newline="")):
        text = (line or "").rstrip("\r\n")
        excel = _EXCEL_DELIMITER.fullmatch(text) if number == 0 else excel
        if line is None or text:
            newline = "" if line and line.endswith("\r") else "\n"
            return _Opening(newline, 1 if excel else 0, excel[1] if excel else None)
    return _Opening("\n", 0, None)


def _read_records(source: FileSource, opening: _Opening, syntax: Syntax) -> Iterator[Record]:
    """Yields all records, blank ones and the header too."""
    lines = itertools.islice(read_lines(source, opening.newline), opening.skipped, None)
    return split_records(lines, syntax, opening.skipped + 1)


def _find_header(source: FileSource, opening: _Opening, format_name: str) -> _Header:
    """Finds the delimiter with which the header has all requested columns, and returns the header.

    Raises:
        InputError: the header is missing or malformed, or lacks a column with each delimiter, or more than one
            delimiter fits.
    """
    columns = source.columns
    requested = len(set(columns.values()))
    header = _read_header(source, opening, _create_syntax(source, opening, format_name))
    fitting: list[_Header] = []
    if header.count_columns(columns) < requested:
        others = [_read_header(source, opening, syntax) for syntax in _other_syntaxes(header.syntax)]
        fitting = [other for other in others if other.count_columns(columns) == requested]
        if source.dialect.delimiter == "auto":
            _check_one_fits(source, fitting)
            header = max(header, *others, key=lambda header: (header.count_columns(columns), len(header.fields)))
    if header.fault:
        raise InputError(
            f"{source}: expected a header, received {header.fault}. Give the file a first line with the names of its "
            f"columns, or correct [{source.section}] format, delimiter or quote."
        )
    has_all = header.count_columns(columns) == requested
    hint = "" if has_all else _describe_header(source, format_name, header, fitting)
    check_columns(str(source), source.section, columns, header.names, hint)
    return header


def _create_syntax(source: FileSource, opening: _Opening, format_name: str) -> Syntax:
    """Returns the characters that the settings name; for auto, those of Excel's line or of the format."""
    dialect = source.dialect
    own = {"csv": (opening.delimiter or ",", '"'), "tsv": (opening.delimiter or "\t", None)}[format_name]
    delimiter = own[0] if dialect.delimiter == "auto" else DELIMITERS.get(dialect.delimiter, dialect.delimiter)
    quote = {"auto": own[1], "none": None}.get(dialect.quote, dialect.quote)
    escape = None if dialect.escape == "none" else dialect.escape
    nulls = tuple(null.strip() for null in dialect.null.split(",") if null.strip())
    return Syntax(
        delimiter, quote, escape, nulls or (_UNDECLARED_NULL,),
        rejects_quotes=dialect.quote == "auto" and not quote and not escape,
    )  # fmt: skip


def _other_syntaxes(syntax: Syntax) -> list[Syntax]:
    """Returns the syntax with each of the usual delimiters, except those that are taken."""
    return [syntax._replace(delimiter=delimiter) for delimiter in _DELIMITER_NAMES if delimiter not in syntax[:3]]


def _read_header(source: FileSource, opening: _Opening, syntax: Syntax) -> _Header:
    records = _read_records(source, opening, syntax._replace(nulls=(), rejects_quotes=False))
    filled = (_Header(fields, fault, syntax) for _, fields, fault in records if fields or fault)
    return next(filled, _Header((), "only blank lines", syntax))


def _check_one_fits(source: FileSource, fitting: Sequence[_Header]) -> None:
    if len(fitting) > 1:
        names = " and ".join(_name_delimiter(header.syntax.delimiter) for header in fitting)
        raise InputError(
            f"{source}: the header has all columns with each of the delimiters {names}. "
            f"Set [{source.section}] delimiter to the right one."
        )


def _name_delimiter(delimiter: str) -> str:
    return _DELIMITER_NAMES.get(delimiter, delimiter)


def _describe_header(source: FileSource, format_name: str, header: _Header, fitting: Sequence[_Header]) -> str:
    """Says how the header was read, and which setting reads it if it seems to be another one."""
    section, delimiter = source.section, _name_delimiter(header.syntax.delimiter)
    advice = ""
    if encoding := find_header_encoding(source, header.names):
        advice = f", but seems to be {encoding}: set [{section}] encoding = {encoding}"
    elif fitting:
        advice = f"; with [{section}] delimiter = {_name_delimiter(fitting[0].syntax.delimiter)} it has all columns"
    elif len(header.fields) == 1:
        advice = f"; set [{section}] delimiter to the character between its columns"
    elif not header.syntax.quote and any(name.startswith('"') for name in header.names):
        advice = f'; set [{section}] quote = " if its columns are in quotation marks'
    return f" The file was read as {format_name} in {source.encoding} with [{section}] delimiter = {delimiter}{advice}."


def _convert_records(
    source: FileSource, header: Sequence[str | None], records: Iterator[Record], syntax: Syntax | None = None
) -> Iterator[SourceRow]:
    """Yields the rows of records. A blank line is not a row.

    Args:
        source: the file.
        header: the names of its columns as they are written.
        records: its records without the header.
        syntax: the syntax that the settings can change; None for the layout of the SMS Spam Collection.
    """
    names = _clean_names(header)
    columns = [(name, names.index(name)) for name in dict.fromkeys(source.columns.values())]
    # The value of one column decides whether a row can be the header again; only then all columns are compared.
    last_name, last_index = max(columns, key=lambda column: column[1])
    header_value, width = header[last_index], len(names)
    row_number = 0
    for line, fields, fault in records:
        if not fields and not fault:
            continue
        row_number += 1
        values = {name: _read_value(fields, index) for name, index in columns}
        if fault is not None:
            fault += _advise_on_quotes(source, fault)
        elif len(fields) != width:
            fault = f"wrong number of fields: expected {width}, received {len(fields)}"
            fault += _advise_on_width(source, syntax, len(fields) > width) if syntax else ""
        elif values[last_name] == header_value and _clean_names(fields) == names:
            fault = "repeated header"
        elif syntax and not source.dialect.null and None in values.values():
            fault = _describe_undeclared_null(source, syntax, values)
        yield SourceRow(row_number, values, fault and f"{fault} (line {line})")


def _read_value(fields: Sequence[str | None], index: int) -> str | None:
    value = fields[index] if index < len(fields) else None
    return value if value is None or value.isascii() else replace_surrogates(value)


def _advise_on_quotes(source: FileSource, fault: str) -> str:
    """Names the setting that mends a fault, if its cause is the quoting."""
    if fault == SEEMS_QUOTED:
        return f': set [{source.section}] quote = " if fields are in quotes, or none if quotes belong to the texts'
    if fault.startswith(MALFORMED_QUOTING):
        return f"; set [{source.section}] quote = none if quotes belong to the texts"
    return ""


def _advise_on_width(source: FileSource, syntax: Syntax, has_too_many: bool) -> str:
    """Names the likely cause of a wrong number of fields, and the setting or the change of the file that mends it."""
    cause = f"a {_name_delimiter(syntax.delimiter)}" if has_too_many else "a line break"
    if syntax.quote:
        return f"; put texts with {cause} in quotes ({syntax.quote})"
    if syntax.escape:
        return f"; escape {cause} in texts with {syntax.escape}"
    return f"; for texts with {cause} set [{source.section}] quote or escape"


def _describe_undeclared_null(source: FileSource, syntax: Syntax, values: Mapping[str, str | None]) -> str:
    name = next(name for name, value in values.items() if value is None)
    escape = "" if syntax.quote or syntax.escape else r" (and escape = \ if \n is a line break)"
    return (
        rf"undeclared null: column {name} holds \N; set [{source.section}] null = \N{escape}, "
        r"or null = NULL if \N is a text"
    )


def read_csv(source: FileSource) -> Iterator[SourceRow]:
    """Yields each row of a CSV file with a header.

    Raises:
        InputError: the header is missing or malformed, or lacks a column.
    """
    yield from _read_with_header(source, "csv")


def read_tsv(source: FileSource) -> Iterator[SourceRow]:
    """Yields each row of a TSV file with a header. By default quotes have no special meaning.

    Raises:
        InputError: the header is missing or malformed, or lacks a column.
    """
    yield from _read_with_header(source, "tsv")


def read_sms(source: FileSource) -> Iterator[SourceRow]:
    """Yields each row of a file in the layout `label TAB text`, without a header. The text may contain tabs."""
    names = [source.columns["label_column"], source.columns["text_column"]]
    records = split_plain(read_lines(source, newline="\n"), Syntax("\t"), max_splits=1)
    yield from _convert_records(source, names, records)
