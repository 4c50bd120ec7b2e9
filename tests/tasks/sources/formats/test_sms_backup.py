"""Tests that the XML of SMS Backup & Restore is read with its emoji, its MMS and its faults, safely."""

from __future__ import annotations

import logging
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import InputError
from tasks.sources import text_files
from tasks.sources.file_source import FileSource
from tasks.sources.files import estimate_row_count, read_file
from tasks.sources.formats import sms_backup
from tasks.sources.rows import SourceRow

HEAD = (
    "<?xml version='1.0' encoding='UTF-8' standalone='yes' ?>\n"
    "<!--File Created By SMS Backup & Restore v10.20.002-->\n"
    '<?xml-stylesheet type="text/xsl" href="sms.xsl"?>\n'
)
BACKUP = (
    HEAD
    + """<smses count="4" backup_set="f3" type="full">
  <sms address="+44 7700 900123" date="1769817600000" body="WIN &#163;1000 &amp; more&#10;now &#55357;&#56832;" />
  <sms address='Anna' date='1769817660000' type='2' body='He said "hi"'/>
  <mms date="1769817720000" address="+49" sub="null" m_size="100">
    <parts>
      <part seq="-1" ct="application/smil" text='&lt;smil&gt;' />
      <part seq="0" ct="text/plain" chset="106" text="first part &#x1F600;" />
      <part seq="1" ct="image/jpeg" text="null" data="/9j/4AAQ" />
      <part seq="2" ct="text/plain; charset=utf-8" text="second part" />
    </parts>
    <addrs><addr address="+49" type="137" charset="106" /></addrs>
  </mms>
  <mms date="1769817780000" address="+50"><parts><part ct="image/png" text="null" data="iVBO"/></parts></mms>
</smses>
"""
)
COLUMNS = {"text_column": "body", "id_column": "address", "date_column": "date"}
BODY = {"text_column": "body"}


def source(path: Path, content: str | bytes, columns: dict[str, str] = BODY) -> FileSource:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return FileSource("messages", path, columns)


def read_bodies(path: Path, content: str | bytes) -> list[str | None]:
    rows = list(read_file(source(path, content)))
    assert [(row.row_number, row.fault) for row in rows] == [(number, None) for number in range(1, len(rows) + 1)]
    return [row.values["body"] for row in rows]


@pytest.fixture(params=[1, 2, 5, 2**16])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads this many characters at a time."""
    monkeypatch.setattr(sms_backup, "BLOCK", request.param)


@pytest.mark.usefixtures("block")
def test_a_message_is_a_row_of_its_attributes(tmp_path: Path) -> None:
    assert list(read_file(source(tmp_path / "m.xml", BACKUP, COLUMNS))) == [
        SourceRow(1, {"body": "WIN £1000 & more\nnow 😀", "address": "+44 7700 900123", "date": "1769817600000"}, None),
        SourceRow(2, {"body": 'He said "hi"', "address": "Anna", "date": "1769817660000"}, None),
        SourceRow(3, {"body": "first part 😀\nsecond part", "address": "+49", "date": "1769817720000"}, None),
        SourceRow(4, {"body": None, "address": "+50", "date": "1769817780000"}, None),
    ]


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("&#55357;&#56832;", "😀"),
        ("&#xD83D;&#xDE00;", "😀"),
        ("&#55357;&#xde00;", "😀"),
        ("&#0055357;&#x00dE00;", "😀"),
        ("a&#55357;&#56832;&#55357;&#56832;b", "a😀😀b"),
        ("&#55357;", "\ufffd"),
        ("&#56832;", "\ufffd"),
        ("&#55357;a&#56832;", "\ufffda\ufffd"),
        ("&#56832;&#55357;", "\ufffd\ufffd"),
        ("&#55357;&#55357;&#56832;", "\ufffd😀"),
        ("&#55357;&#56832;&#56832;", "😀\ufffd"),
        ("&#55357;&amp;", "\ufffd&"),
        ("&#55296;&#56320;&#56319;&#57343;", "\U00010000\U0010ffff"),
        ("&#0;&#8;&#x1F;&#11;", "\ufffd" * 4),
        ("&#65534;&#xFFFF;&#1114112;&#xFFFFFFFFFF;", "\ufffd" * 4),
        ("&#" + "9" * 60 + ";", "\ufffd"),
        ("&#" + "0" * 20 + "65;", "A"),
        ("&#9;&#10;&#13;&#65;&#x41;&#X41;&#128512;", "\t\n\rAAA😀"),
        ("&#38;#55357;", "&#55357;"),
        ("&amp;#55357;&lt;", "&#55357;<"),
        ("\x00\x08\x0b\x1f\ufffe\uffff", "\ufffd" * 6),
        ("\x7f\x85\u2028\U0001f600", "\x7f\x85\u2028😀"),
    ],
)
def test_a_reference_that_xml_does_not_allow_is_repaired(tmp_path: Path, written: str, expected: str) -> None:
    assert read_bodies(tmp_path / "m.xml", f'<smses><sms body="{written}"/></smses>') == [expected]


def write_references(text: str, every: bool) -> str:
    """Writes text as the app does, each UTF-16 code unit of an emoji as a reference; or every code unit."""
    units = text.encode("utf-16-be", "surrogatepass")
    numbers = [int.from_bytes(units[index : index + 2], "big") for index in range(0, len(units), 2)]
    return "".join(
        f"&#{unit};" if every or unit > 0xD7FF or chr(unit) in '&<"\t\n\r' else chr(unit) for unit in numbers
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    texts=st.lists(st.text(st.characters(), max_size=30)),
    every=st.booleans(),
    size=st.integers(1, 40),
)
def test_the_text_of_any_message_is_read_back(tmp_path: Path, texts: list[str], every: bool, size: int) -> None:
    def repaired(text: str) -> str:
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return "".join(
            "\ufffd" if (character < " " and character not in "\t\n\r") or character in "\ufffe\uffff" else character
            for character in whole
        )

    path = tmp_path / "m.xml"
    body = "".join(f'<sms body="{write_references(text, every)}"/>' for text in texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sms_backup, "BLOCK", size)
        assert read_bodies(path, f"<smses>{body}</smses>") == [repaired(text) for text in texts]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<calls count='1'><call number='1'/></calls>", "expected the root element <smses>, received <calls>."),
        ("no markup", "line 1: syntax error."),
        ('<smses><sms body="a & b"/></smses>', "line 1: not well-formed (invalid token)."),
        ("<smses>\n<sms body='a'/>\n</smses>\n<smses/>", "line 4: junk after document element."),
        ('<smses>\n<sms body="&name;"/></smses>', "line 2: undefined entity."),
        ('<smses count="3"></smses>', "expected 3 messages, as its count says, received none."),
    ],
)
def test_xml_that_is_no_backup_is_refused_with_its_line(tmp_path: Path, content: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        list(read_file(source(tmp_path / "m.xml", content)))
    assert f"m.xml: cannot be read as the XML of SMS Backup & Restore: {expected}" in str(caught.value)
    assert "[messages] format" in str(caught.value)


@pytest.mark.parametrize(
    "entities",
    [
        '<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">',
        '<!ENTITY b SYSTEM "file:///etc/passwd">',
        '<!ENTITY % b SYSTEM "http://127.0.0.1:9/x.dtd"> %b;',
    ],
)
def test_entities_are_refused(tmp_path: Path, entities: str) -> None:
    content = f'<!DOCTYPE smses [{entities}]><smses><sms body="&b;"/></smses>'
    with pytest.raises(InputError, match="it has a DOCTYPE, which the app does not write"):
        list(read_file(source(tmp_path / "m.xml", content)))


def test_a_backup_cut_at_any_character_is_refused(tmp_path: Path) -> None:
    text = BACKUP.strip()
    for length in range(1, len(text), 7):
        with pytest.raises(InputError, match=r"cannot be read as the XML of .*: line \d+: |expected "):
            list(read_file(source(tmp_path / "m.xml", text[:length])))


def test_an_unknown_element_is_a_row_with_a_fault(tmp_path: Path) -> None:
    rows = list(read_file(source(tmp_path / "m.xml", '<smses><sms body="a"/><rcs body="b"/><sms body="c"/></smses>')))
    assert [row.values["body"] for row in rows] == ["a", "b", "c"]
    assert [row.fault for row in rows] == [None, "unknown element: expected sms or mms, received rcs", None]


def test_a_count_that_differs_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "spamscore"):
        assert read_bodies(tmp_path / "m.xml", '<smses count="3"><sms body="a"/><sms body="b"/></smses>') == ["a", "b"]
    assert "m.xml: the count of the file says 3 messages, it has 2." in caplog.text


@pytest.mark.parametrize("count", ["2", "", "x", "9" * 5000])
def test_a_count_that_fits_or_is_no_number_is_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, count: str
) -> None:
    content = f'<smses count="{count}"><sms body="a"/><sms body="b"/></smses>'
    with caplog.at_level(logging.WARNING, "spamscore"):
        assert read_bodies(tmp_path / "m.xml", content) == ["a", "b"]
    assert caplog.text == ""


def test_a_column_that_no_message_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"id_column = adress: no such column; did you mean address\? .* No row has it"
    ):
        list(read_file(source(tmp_path / "m.xml", BACKUP, {**BODY, "id_column": "adress"})))


def test_a_backup_is_read_from_a_file_of_any_name_with_its_format(tmp_path: Path) -> None:
    file = source(tmp_path / "backup.txt", BACKUP)
    assert len(list(read_file(FileSource("messages", file.path, BODY, "sms_backup")))) == 4


def test_memory_does_not_grow_with_the_number_of_messages(tmp_path: Path) -> None:
    message = '<mms date="1"><parts><part ct="text/plain" text="some text"/></parts></mms>\n'
    file = source(tmp_path / "m.xml", f"<smses>{message * 20_000}</smses>")
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_file(file)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 1_500_000
    finally:
        tracemalloc.stop()


def test_a_large_picture_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = f'<mms><parts><part ct="image/jpeg" data="{"A" * 5_000_000}"/></parts></mms>'
    content = f'<smses><sms body="a"/>{picture}<sms body="b"/></smses>'
    assert read_bodies(tmp_path / "m.xml", content) == ["a", None, "b"]
    monkeypatch.setattr(text_files, "MAX_LINE_LENGTH", 1_000_000)
    with pytest.raises(InputError, match="row 2 has more than 1000000 bytes in one tag"):
        read_bodies(tmp_path / "m.xml", content)


def test_the_rows_of_a_backup_are_not_estimated_by_its_lines(tmp_path: Path) -> None:
    assert estimate_row_count(source(tmp_path / "m.xml", BACKUP).path) is None
