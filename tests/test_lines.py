"""Lines made of what processes write; without a database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirby.server.supervisor.lines import LONGEST, Lines, Splitter, said


def split(*chunks, stream="stdout"):
    splitter = Splitter(1, stream)
    found = [lines for chunk in chunks for lines in splitter.feed(chunk, 1.0)]
    return texts([*found, *splitter.end(1.0)])


def texts(found):
    for lines in found:
        assert lines.text.count(b"\n") + 1 == lines.number
    return [text for lines in found for text in lines.text.decode().split("\n")]


def levels(found):
    return [lines.level for lines in found for _ in range(lines.number)]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a\n\nb"], ["a", "", "b"]),
        ([b"\n\n"], ["", ""]),
        ([b"a", b"b\nc"], ["ab", "c"]),
        ([b"windows\r\nlines\r\n"], ["windows", "lines"]),
        ([b"10%\r20%\r100%\ndone\n"], ["100%", "done"]),
        ([b"10%\r20%\r"], ["20%"]),
        ([b"10%\r20%\r\r\n"], ["20%"]),
        ([b"ab\r", b"\ncd"], ["ab", "cd"]),
        (["é".encode()[:1], "é".encode()[1:]], ["é"]),
        ([b"\xff\xfe\n"], ["\ufffd\ufffd"]),
        ([b"half \xc3"], ["half \ufffd"]),
        ([b"a\0b\n"], ["a\u2400b"]),
        (["\ud800".encode("utf-8", "surrogatepass")], ["\ufffd\ufffd\ufffd"]),
        (["one\u2028line\x0bstill\x1cone\n".encode()], ["one\u2028line\x0bstill\x1cone"]),
        ([b""], []),
    ],
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_bytes_become_lines(chunks, expected, stream):
    assert split(*chunks, stream=stream) == expected


def test_a_long_line_is_cut_into_pieces():
    found = split(b"x" * (3 * LONGEST + 5) + b"\nnext\n")

    assert [len(text) for text in found] == [LONGEST, LONGEST, LONGEST, 5, 4]


def test_a_line_that_never_ends_is_not_kept():
    splitter = Splitter(1, "stdout")

    pieces = [lines for _ in range(100) for lines in splitter.feed(b"x" * 50_000, 1.0)]

    assert sum(len(piece.text) for piece in pieces) > 4_900_000
    assert len(splitter._partial) <= LONGEST


def test_the_end_of_a_flushed_line_is_no_line_of_its_own():
    splitter = Splitter(1, "stdout")

    splitter.feed(b"Password: ", 1.0)
    flushed = splitter.flush(1.0)
    rest = splitter.feed(b"\n\nnext\n", 2.0)

    assert texts(flushed) == ["Password: "]
    assert texts(rest) == ["", "next"]


def test_what_follows_a_flushed_line_is_a_line():
    splitter = Splitter(1, "stdout")

    splitter.feed(b"Password: ", 1.0)
    splitter.flush(1.0)

    assert texts(splitter.feed(b"secret\n", 2.0)) == ["secret"]
    splitter.feed(b"again", 3.0)
    splitter.flush(3.0)
    assert splitter.feed(b"\n", 4.0) == []


@given(st.lists(st.binary(max_size=50)))
def test_any_bytes_become_text_that_postgresql_takes(chunks):
    for text in split(*chunks):
        assert "\0" not in text
        text.encode("utf-8")


@given(
    st.text(alphabet="ab\n\r", max_size=200),
    st.integers(1, 9),
    st.sampled_from(["stdout", "stderr"]),
)
def test_lines_do_not_depend_on_how_they_were_read(text, size, stream):
    data = text.encode()
    chunks = [data[start : start + size] for start in range(0, len(data), size)]

    assert split(*chunks, stream=stream) == split(data, stream=stream)


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("all is well", "info"),
        ("ERROR:root:it broke", "error"),
        ("2026-01-01 12:00:00 WARNING slow", "warning"),
        ("/x/y.py:3: DeprecationWarning: old", "warning"),
        ("CRITICAL: fire", "critical"),
        ("Fatal Python error: Segmentation fault", "critical"),
        ("[DEBUG] details", "debug"),
        ("TERRORS are no errors", "info"),
        ("an error in small letters", "info"),
        ("x" * 300 + " ERROR", "info"),
    ],
)
def test_the_level_is_read_from_what_stderr_says(text, level):
    [lines] = Splitter(1, "stderr").feed(text.encode() + b"\n", 1.0)

    assert lines.level == level


def test_stdout_is_information_whatever_it_says():
    [lines] = Splitter(1, "stdout").feed(b"ERROR\n", 1.0)

    assert lines.level == "info"


def test_a_traceback_is_an_error_to_its_last_line():
    text = b'Traceback (most recent call last):\n  File "x"\n    1 / 0\nZeroDivisionError: x\nok\n'

    found = Splitter(1, "stderr").feed(text, 1.0)

    assert levels(found) == ["error"] * 4 + ["info"]


def test_neighbours_of_one_level_are_kept_together():
    found = Splitter(1, "stderr").feed(b"a\nb\nERROR c\nERROR d\ne\n", 1.0)

    assert [(each.level, each.text) for each in found] == [
        ("info", b"a\nb"), ("error", b"ERROR c\nERROR d"), ("info", b"e"),
    ]  # fmt: skip


def test_what_kirby_says_is_text_that_postgresql_takes():
    lines = said(1, "error", "one\ntwo\0\ud800", 2.0)

    assert (lines.stream, lines.number) == ("kirby", 2)
    assert lines.text == "one\ntwo\u2400?".encode()


def test_lines_can_be_taken_apart():
    first, second = Lines(1, "stdout", "info", b"a\nb\nc", 1.0, 3).apart()

    assert (first.text, first.number, second.text, second.number) == (b"a", 1, b"b\nc", 2)
