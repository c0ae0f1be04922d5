"""kirby.config: environment variables with types, where an empty or zero value is a value."""

import decimal

import pytest

import kirby
from kirby.core.errors import Invalid, NotFound


@pytest.mark.parametrize(
    ("text", "type", "value"),
    [
        ("text", str, "text"),
        ("", str, ""),
        ("0", int, 0),
        (" 42 ", int, 42),
        ("-1", int, -1),
        ("0.0", float, 0.0),
        ("1e3", float, 1000.0),
        ("1.10", decimal.Decimal, decimal.Decimal("1.10")),
        ("true", bool, True),
        ("False", bool, False),
        (" YES ", bool, True),
        ("no", bool, False),
        ("on", bool, True),
        ("off", bool, False),
        ("1", bool, True),
        ("0", bool, False),
        ("[]", list, []),
        ('["a", 1]', list, ["a", 1]),
        ("{}", dict, {}),
        ('{"a": null}', dict, {"a": None}),
        ("a,b", lambda text: text.split(","), ["a", "b"]),
    ],
)
def test_a_variable_has_the_type_that_was_asked_for(monkeypatch, text, type, value):
    monkeypatch.setenv("LIMIT", text)

    found = kirby.config("LIMIT", type=type)

    assert found == value
    assert found.__class__ is value.__class__


@pytest.mark.parametrize("text", ["", "0", "false"])
def test_a_false_value_is_not_replaced_by_the_default(monkeypatch, text):
    monkeypatch.setenv("LIMIT", text)

    assert kirby.config("LIMIT", "default") == text


@pytest.mark.parametrize("default", [None, 0, "", [], "text"])
def test_what_is_not_set_has_the_default_as_it_is(monkeypatch, default):
    monkeypatch.delenv("LIMIT", raising=False)

    assert kirby.config("LIMIT", default, type=int) is default


def test_what_is_not_set_and_has_no_default_is_not_found(monkeypatch):
    monkeypatch.delenv("LIMIT", raising=False)

    with pytest.raises(NotFound, match="the variable LIMIT is not set: 'kirby config set LIMIT="):
        kirby.config("LIMIT")


@pytest.mark.parametrize(
    ("text", "type", "name"),
    [
        ("", int, "int"),
        ("1.5", int, "int"),
        ("many", float, "float"),
        ("", bool, "bool"),
        ("2", bool, "bool"),
        ("maybe", bool, "bool"),
        ("{", dict, "dict"),
        ("[]", dict, "dict"),
        ("{}", list, "list"),
        ("null", list, "list"),
        ("x" * 1000, int, "int"),
        ("one", decimal.Decimal, "Decimal"),
    ],
)
def test_a_value_of_another_type_is_refused_in_one_line(monkeypatch, text, type, name):
    monkeypatch.setenv("LIMIT", text)

    with pytest.raises(Invalid, match=f"the variable LIMIT is not of type {name}: ") as caught:
        kirby.config("LIMIT", type=type)

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
