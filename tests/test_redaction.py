"""No secret value gets through, however it is spelt, cut or broken; and nothing else is touched."""

import base64
import html
import json
import os
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kirby.server.supervisor import redaction
from kirby.server.supervisor.redaction import HIDDEN, Redactor, Secrets

SECRET = 'hunter2-Passw\u00f6rd/+&"x" y'
KEY = "-----BEGIN KEY-----\n" + "\n".join(c * 64 for c in "ABCDEFGH") + "\n-----END KEY-----\n"


def shown(data, *values, size=None):
    """What of the data is shown, fed in pieces of a size."""
    redactor = Redactor(Secrets(values))
    size = size or max(1, len(data))
    parts = [redactor.feed(data[at : at + size]) for at in range(0, len(data), size)]
    return b"".join([*parts, redactor.end()])


@pytest.mark.parametrize("size", [1, 2, 3, 7, None])
@pytest.mark.parametrize(
    "spelt",
    [
        SECRET,
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps({"key": SECRET})),
        repr(SECRET)[1:-1],
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        quote(SECRET, safe="").lower().replace("passw", "Passw"),
        html.escape(SECRET),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        base64.b64encode(SECRET.encode()).decode(),
        "\n".join(SECRET),
        SECRET[:9] + "\r\n" + SECRET[9:],
    ],
)
def test_a_value_is_hidden_however_it_is_spelt(spelt, size):
    data = f"before {spelt} after\n".encode()

    found = shown(data, SECRET, size=size).decode()

    assert found.startswith("before ")
    assert found.endswith(" after\n")
    assert HIDDEN in found
    assert "hunter2" not in found
    middle = len(spelt) // 2
    assert spelt[middle - 4 : middle + 5] not in found


@pytest.mark.parametrize("user", ["a", "bo", "eve", "joan"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes])
def test_a_value_is_hidden_in_base64_of_something_longer(user, encode):
    for secret in (SECRET, "tr0ub4dor", "\u00ff\u00fe\u00fb??>>~~secret"):
        text = encode(f"{user}:{secret}@{'host' * 20}".encode())

        found = shown(b"Authorization: Basic " + text, secret)

        left = found.replace(HIDDEN.encode(), b"!").partition(b"Basic ")[2]
        assert b"!" in left
        core = secret.encode()
        for part in left.replace(b"\n", b"").split(b"!"):
            for shift in range(4):
                piece = part[shift:]
                piece = piece[: len(piece) // 4 * 4].replace(b"-", b"+").replace(b"_", b"/")
                decoded = base64.b64decode(piece + b"", validate=False) if piece else b""
                assert core[2:7] not in decoded


def test_a_value_of_several_lines_is_hidden_whole_and_line_by_line():
    assert shown(f"key: {KEY}.".encode(), KEY).decode() == f"key: {HIDDEN}\n."
    prefixed = "".join(f"  | {line}\n" for line in KEY.splitlines())

    found = shown(prefixed.encode(), KEY).decode()

    assert "AAAA" not in found
    assert "HHHH" not in found
    assert found.count(HIDDEN) == 8


@pytest.mark.parametrize("size", [1, 100, 4096, None])
def test_a_long_value_is_hidden_piece_by_piece(size):
    secret = "".join(f"{n:x}g" for n in range(20_000))
    data = f"<{secret}>".encode()

    assert shown(data, secret, size=size).replace(HIDDEN.encode(), b"") == b"<>"
    assert Redactor(Secrets([secret]))._secrets.longest <= redaction.LONGEST


def test_any_number_of_values_is_hidden():
    values = [f"{n}-{os.urandom(8).hex()}" for n in range(2000)]
    data = " ".join(values).encode()

    assert shown(data, *values, size=1000) == b" ".join([HIDDEN.encode()] * 2000)


def test_values_that_overlap_are_hidden_to_the_last_byte():
    assert shown(b"xabcdefghx", "abcdef", "defgh") == f"x{HIDDEN}x".encode()
    assert shown(b"abcdefgh", "abcd", "abcdefgh") == HIDDEN.encode()


def test_what_is_too_short_to_be_secret_hides_nothing():
    assert shown(b"a 1 abc\n\n", "a", "1", "abc", "", "\n", "      ") == b"a 1 abc\n\n"


def test_a_short_value_is_not_found_across_lines():
    assert shown(b"so\nme some", "some") == b"so\nme " + HIDDEN.encode()


def test_without_values_nothing_is_touched():
    data = os.urandom(1000)

    assert shown(data, size=7) == data


def test_a_beginning_that_is_long_in_coming_is_shown_but_not_the_rest():
    redactor = Redactor(Secrets(["correct-horse-battery"]))

    assert redactor.feed(b"say: corr") == b"say: "
    assert redactor.holds
    assert redactor.flush() == b"corr"
    assert not redactor.holds
    assert redactor.feed(b"ect-horse-battery!") == HIDDEN.encode() + b"!"


def test_most_of_a_value_is_as_good_as_all_of_it():
    redactor = Redactor(Secrets(["correct-horse-battery"]))

    assert redactor.feed(b"correct-horse-b") == b""
    assert redactor.end() == HIDDEN.encode()


def test_a_line_does_not_wait_because_its_last_letter_could_begin_a_value():
    redactor = Redactor(Secrets(["correct-horse-battery"]))

    assert redactor.feed(b"done, magic\n") == b"done, magic\n"
    assert redactor.feed(b"orrect-horse-battery\n") == HIDDEN.encode() + b"\n"


SECRETS = st.lists(st.text(alphabet='abc\n"%\u00e9', min_size=1, max_size=30), max_size=4)


@given(SECRETS, st.data(), st.integers(1, 20))
@settings(max_examples=300)
@example(["aaaaaaaa"], None, 1)
def test_what_is_hidden_does_not_depend_on_how_it_was_read(values, data, size):
    secrets = [v for v in values if len(v.encode().translate(None, b"\r\n").strip()) >= 8]
    filler = st.text(alphabet="abc \n", max_size=20)
    text = "x".join(
        part for value in secrets for part in (data.draw(filler), value)
    ) if data else "aaaaaaaaaaaa"  # fmt: skip

    found = shown(text.encode(), *values, size=size)

    for value in secrets:
        stripped = value.encode().translate(None, b"\r\n")
        assert stripped not in found.translate(None, b"\r\n")
    if not secrets and not any(len(v.encode()) >= 4 for v in values):
        assert found == text.encode()


@given(st.binary(max_size=300), st.integers(1, 50))
def test_nothing_else_is_changed(data, size):
    assert shown(data, "not-in-there-at-all", "nor-is-this-one", size=size) == data


def test_it_takes_time_in_proportion_to_what_is_written():
    """Not to the number of values, and a value that nearly fits everywhere costs no more."""

    def seconds(data, *values):
        redactor = Redactor(Secrets(values))
        began = time.process_time()
        for at in range(0, len(data), 65536):
            redactor.feed(data[at : at + 65536])
        return time.process_time() - began

    text = b"the quick brown fox jumps over the lazy dog, again and again\n" * 70_000
    values = [os.urandom(16).hex() for _ in range(500)]

    assert seconds(text, *values) < 2.0
    assert seconds(b"a" * 4_000_000, "a" * 1000 + "b") < 2.0
    assert seconds(b"secret-value\n" * 100_000, "secret-value") < 2.0
