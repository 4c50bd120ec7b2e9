"""Reads rows from the XML of SMS Backup & Restore, an app for Android.

Its format: https://synctech.com.au/sms-backup-restore/fields-in-xml-backup-files/
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any, TextIO
from xml.parsers import expat

from models.errors import InputError
from tasks.sources import text_files
from tasks.sources.file_source import FileSource
from tasks.sources.formats.objects import KeyTracker, convert_object
from tasks.sources.rows import SourceRow

log = logging.getLogger("spamscore")

BLOCK = 2**16  # characters that are read at a time
ROOT = "smses"
TEXT = "body"  # the attribute of a message's text

# The app writes an emoji as the references of a surrogate pair, &#55357;&#56832;, which XML does not allow.
_HIGH = r"&#(?:0*(55(?:29[6-9]|[3-9]\d\d)|56(?:[0-2]\d\d|3[01]\d))|[xX]0*([dD][89abAB][\da-fA-F]{2}));"
_LOW = r"&#(?:0*(56(?:3[2-9]\d|[4-9]\d\d)|57(?:[0-2]\d\d|3(?:[0-3]\d|4[0-3])))|[xX]0*([dD][c-fC-F][\da-fA-F]{2}));"
_REFERENCE = re.compile(rf"{_HIGH}{_LOW}|&#(?:0*(\d+)|[xX]0*([\da-fA-F]+));")
# What may be the start of a reference or of a pair that the next block completes.
_CUT_REFERENCE = re.compile(rf"(?:{_HIGH})?(?:&(?:#[xX]?[\da-fA-F]{{0,100}})?)?\Z")
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def read_sms_backup(source: FileSource) -> Iterator[SourceRow]:
    """Yields the row of each message. The columns are its attributes; the text of an MMS is in the column body.

    Raises:
        InputError: the file is not the whole XML of a backup, or, after the last row, a column is in no message of it.
    """
    keys = KeyTracker(source)
    with text_files.open_text(source, newline="\n") as file:
        for row_number, (content, fault) in enumerate(_read_messages(source, file), 1):
            keys.add(content)
            yield convert_object(row_number, content, fault, keys.required, source.columns["text_column"])
    keys.check()


def _read_messages(source: FileSource, file: TextIO) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Yields the attributes of each message, and its fault or None."""
    backup = _Backup(source)
    fed = count = 0
    kept = ""
    is_last = False
    while not is_last:
        # A picture is one attribute. Reading as much as is unparsed keeps the parser from scanning it for each block.
        unparsed = fed - max(backup.parser.CurrentByteIndex, 0)
        if unparsed > text_files.MAX_LINE_LENGTH:
            raise InputError(f"{source}: row {count + 1} has more than {text_files.MAX_LINE_LENGTH} bytes in one tag.")
        block = file.read(max(BLOCK, unparsed))
        is_last = not block
        text, kept = _repair(kept + block, is_last)
        content = text.encode()
        fed += len(content)
        messages = backup.parse(content, is_last)
        count += len(messages)
        yield from messages
    backup.check_count(count)


def _repair(text: str, is_last: bool) -> tuple[str, str]:
    """Returns the text as well-formed XML as far as its characters go, and its end if that may be half a reference."""
    cut = len(text) if is_last else _find_cut_reference(text)
    return _ILLEGAL.sub("\ufffd", _REFERENCE.sub(_repair_reference, text[:cut])), text[cut:]


def _find_cut_reference(text: str) -> int:
    # No reference that matters is longer than this; a search from the start would be slow.
    match = _CUT_REFERENCE.search(text, max(len(text) - 256, 0))
    return match.start() if match else len(text)


def _repair_reference(match: re.Match[str]) -> str:
    high, hex_high, low, hex_low, decimal, hexadecimal = match.groups()
    if low or hex_low:
        first = int(high) if high else int(hex_high, 16)
        second = int(low) if low else int(hex_low, 16)
        return chr(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00))
    digits, base = (decimal, 10) if decimal else (hexadecimal, 16)
    code = int(digits, base) if len(digits) < 8 else -1
    is_legal = code in (9, 10, 13) or 0x20 <= code < 0xD800 or 0xE000 <= code < 0xFFFE or 0x10000 <= code < 0x110000
    # A legal reference stays one: &#10; is a line break of the message, and a bare line break would become a space.
    return match[0].replace("X", "x") if is_legal else "\ufffd"


class _Backup:
    """Collects the messages of the XML that is fed to its parser."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._depth = 0
        self._count = ""
        self._message: dict[str, Any] = {}
        self._fault: str | None = None
        self._texts: list[str] = []
        self._messages: list[tuple[dict[str, Any], str | None]] = []
        self.parser = expat.ParserCreate("utf-8")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.StartDoctypeDeclHandler = self._refuse_doctype

    def parse(self, content: bytes, is_last: bool) -> list[tuple[dict[str, Any], str | None]]:
        """Parses more of the file and returns the messages that end in it."""
        self._messages = []
        try:
            self.parser.Parse(content, is_last)
        except expat.ExpatError as error:
            raise self._error(f"line {error.lineno}: {expat.ErrorString(error.code)}") from None
        return self._messages

    def check_count(self, count: int) -> None:
        """Compares the number of messages with the one that the app wrote at the beginning of the file."""
        if self._count.isdecimal() and len(self._count) < 20 and int(self._count) != count:
            if not count:
                raise self._error(f"expected {self._count} messages, as its count says, received none")
            log.warning(
                "%s: the count of the file says %s messages, it has %d. All of them are read. If none was removed "
                "by hand, make the backup again.", self._source, self._count, count,
            )  # fmt: skip

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._depth == 0:
            if name != ROOT:
                raise self._error(f"expected the root element <{ROOT}>, received <{name[:40]}>")
            self._count = attributes.get("count", "")
        elif self._depth == 1:
            self._message, self._texts = dict(attributes), []
            self._fault = (
                None if name in ("sms", "mms") else f"unknown element: expected sms or mms, received {name[:40]}"
            )
        elif name == "part" and attributes.get("ct", "").partition(";")[0].strip().lower() == "text/plain":
            self._texts.append(attributes.get("text", ""))
        self._depth += 1

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._depth == 1:
            if name == "mms":
                self._message[TEXT] = "\n".join(self._texts) if self._texts else self._message.get(TEXT)
            self._messages.append((self._message, self._fault))

    def _refuse_doctype(self, *_: Any) -> None:
        # Its entities can be expanded to any size, or name other files.
        raise self._error("it has a DOCTYPE, which the app does not write")

    def _error(self, fault: str) -> InputError:
        return InputError(
            f"{self._source}: cannot be read as the XML of SMS Backup & Restore: {fault}. Provide the file again, or "
            f"correct [{self._source.section}] format."
        )
