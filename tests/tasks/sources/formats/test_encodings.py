"""The encoding that is suggested for lines that are invalid in the encoding of their file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.sources.file_source import FileSource
from tasks.sources.formats.encodings import find_header_encoding, find_invalid_lines, suggest_encoding

TEXTS = {
    "cp1252": [
        "Don’t be late, it’s “free” – €5 …", "Ça va ? Je suis déjà à l'hôtel, on se voit à la gare après le dîner",
        "Schöne Grüße, ich komme später, die Tür ist offen", "Mañana te llamo, ¿vienes a cenar?", "£5",
        "Não posso ir hoje, amanhã à noite está bem? Você também não vem", "Jag är på väg hem, köper mjölk",
    ],
    "cp1250": ["Twoja paczka czeka, dopłać 2 zł. Proszę kliknąć link, wieczorem będę w domu"],
    "cp1251": ["Привет, я буду завтра вечером. Ваш счет заблокирован"],
    "cp1253": ["Καλημέρα, θα έρθω αύριο το βράδυ"],
    "mac-roman": ["Don’t be late, café £5 “free”"],
    "cp850": ["Schöne Grüße, ich komme später, die Tür ist offen, £5"],
    "gb18030": ["您的账户已被冻结,请点击链接。明天晚上我会来"],
    "cp932": ["明日の夜に行きます。あなたのアカウントは停止されました"],
    "cp949": ["내일 저녁에 갈게요. 계정이 정지되었습니다"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("encoding", "text"), [(encoding, text) for encoding, texts in TEXTS.items() for text in texts], ids=lambda x: x[:9]
)
def test_the_suggested_encoding_reads_the_text(encoding: str, text: str) -> None:
    line = f"a1,{text}\n".encode(encoding)
    assert line.decode(suggest_encoding(line, line) or "ascii", "replace") == f"a1,{text}\n"


# Words as Western Europeans write them: accents on small letters, capitals at the start, symbols between words.
ascii_words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)
small_accented = st.sampled_from("àâäáãåæçéèêëíìîïñóòôöõøœúùûüßÿšž")
accented_words = st.builds(lambda start, accent, end: start + accent + end, ascii_words, small_accented, ascii_words)
quotes = st.sampled_from(["“”", "‘’", "«»", "„“", "¿?", "¡!"])
special_words = st.one_of(
    accented_words,
    st.builds(lambda capital, end: capital + end, st.sampled_from("ÀÂÄÁÅÆÇÉÈÊÍÑÓÔÖØŒÚÜ"), ascii_words),
    st.builds(lambda sign, price: f"{sign}{price}", st.sampled_from("£€¥"), st.integers(1, 9999)),
    st.builds(lambda marks, word: f"{marks[0]}{word}{marks[1]}", quotes, ascii_words),
    st.builds(lambda a, sign, b: f"{a}{sign}{b}", ascii_words, st.sampled_from(["’", "–", "…"]), ascii_words),
)  # fmt: skip
western_rows = st.builds(
    lambda before, special, after: " ".join([*before, special, *after]),
    st.lists(ascii_words, min_size=1, max_size=6), special_words, st.lists(special_words | ascii_words, max_size=3),
)  # fmt: skip


@given(rows=st.lists(western_rows, min_size=1, max_size=20))
def test_the_encoding_suggested_for_western_texts_in_cp1252_reads_all_of_them(
    rows: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "western.csv"
    content = "".join(f"{number},{row}\n" for number, row in enumerate(rows))
    path.write_bytes(f"id,text\n{content}".encode("cp1252"))
    lines = find_invalid_lines([FileSource("messages", path, {})])
    encoding = suggest_encoding(b"".join(lines.sample), lines.head)
    assert (lines.count, lines.first, lines.valid) == (len(rows), "line 2", 0)
    assert encoding is not None
    assert path.read_bytes().decode(encoding) == f"id,text\n{content}"


@pytest.mark.parametrize(
    ("header", "encoding", "read_as", "expected"),
    [
        ("größe,text", "cp1252", "utf-8", "cp1252"),
        ("größe,text", "utf-8", "utf-16", "utf-8"),
        ("größe,text", "utf-16-le", "utf-8", "utf-16-le"),
        ("größe,text", "utf-8", "utf-8", None),
        ("size,text", "utf-8", "utf-8", None),
    ],
)
def test_the_encoding_of_a_header_is_found(
    tmp_path: Path, header: str, encoding: str, read_as: str, expected: str | None
) -> None:
    content = f"{header}\n1,hello there\n".encode(encoding)
    (tmp_path / "m.csv").write_bytes(content)
    source = FileSource("messages", tmp_path / "m.csv", {}, encoding=read_as)
    assert find_header_encoding(source, content.decode(read_as, "replace").split("\n")[:1]) == expected


def test_the_file_of_the_first_invalid_line_is_named_if_there_are_several(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("id,text\n1,é\n".encode())
    (tmp_path / "b.csv").write_bytes(b"id,text\n1,caf\xe9\n2,caf\xe9\n")
    lines = find_invalid_lines([FileSource("messages", tmp_path / name, {}) for name in ("a.csv", "b.csv")])
    assert (lines.count, lines.valid, lines.first) == (2, 1, f"line 2 of {tmp_path / 'b.csv'}")
