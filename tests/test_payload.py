"""What may be published: refused with one clear line, or given back unchanged."""

import datetime
import json

import pytest
from fix_sdk import house_fixture, sdk_fixture  # noqa: F401
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kirby
from kirby.core import payload
from kirby.core.errors import Invalid

NAN, INFINITY = float("nan"), float("inf")
CIRCLE = {"name": "circle"}
CIRCLE["parts"] = [CIRCLE]


def nested(levels, value=1):
    for _ in range(levels):
        value = [value]
    return value


class Unknown:
    pass


REFUSED = {
    "nan": (NAN, "value is nan, which JSON does not have"),
    "infinity": ([1, INFINITY], "value[1] is inf, which JSON does not have"),
    "minus infinity": ({"a": -INFINITY}, "value['a'] is -inf, which JSON does not have"),
    "nul": ("a\0b", "value contains the NUL character"),
    "nested nul": ({"a": ["", {"b": "\0"}]}, "value['a'][1]['b'] contains the NUL character"),
    "nul in a key": ({"a": {"\0": 1}}, "a key of value['a'] contains the NUL character"),
    "high surrogate": ({"a": "\ud83d"}, "value['a'] contains a lone surrogate"),
    "low surrogate": (["\udc00"], "value[0] contains a lone surrogate"),
    "surrogate in a key": ({"\udfff": 1}, "a key of value contains a lone surrogate"),
    "swapped surrogates": ("\ude00\ud83d", "value contains a lone surrogate"),
    "set": ({"a": {1}}, "value['a'] is of type set"),
    "bytes": (b"a", "value is of type bytes"),
    "datetime": ([datetime.datetime(2013, 1, 1)], "value[0] is of type datetime"),
    "object": (Unknown(), "value is of type Unknown"),
    "circle": (CIRCLE, "or contains itself"),
    "too deep": (nested(payload.MAX_DEPTH + 1), "is nested more than 500 deep"),
    "far too deep": (nested(100_000), "is nested more than 500 deep"),
    "deep and empty": (nested(payload.MAX_DEPTH, []), "is nested more than 500 deep"),
    "digits": ({"n": 10**5000}, "value['n'] has more than 4300 digits"),
    "minus digits": (-(10**4300), "value has more than 4300 digits"),
    "number as key": ({"a": [{1: 2}]}, "a key of value['a'][0] is of type int, not a string: 1"),
    "none as key": ({None: 2}, "a key of value is of type NoneType, not a string: None"),
    "true as key": ({True: 2}, "a key of value is of type bool, not a string: True"),
    "float as key": ({0.5: 2}, "a key of value is of type float, not a string: 0.5"),
    "tuple as key": ({(1, 2): 3}, "a key of value is of type tuple, not a string: (1, 2)"),
    "long key": ({"k" * 10_000: {1}}, "…] is of type set"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_stored_is_refused_in_one_line_that_says_where(case):
    value, where = REFUSED[case]

    with pytest.raises(Invalid) as caught:
        payload.dumps(value)

    line = str(caught.value)
    assert line.startswith("the payload cannot be stored: ")
    assert where in line
    assert "\n" not in line
    assert len(line) < 300


def test_the_cap_is_16_megabytes_to_the_byte():
    at_the_edge = "a" * (16 * 1024 * 1024 - 2)  # and two quotes

    assert len(payload.dumps(at_the_edge)) == 16 * 1024 * 1024
    with pytest.raises(Invalid, match=r"^the payload is 16,777,217 bytes of JSON, the most is 16,"):
        payload.dumps(at_the_edge + "a")


def test_the_cap_holds_for_numbers_that_are_written_out():
    value = [1e308] * 60_000  # 0.4 MB with exponents, 18 MB without

    with pytest.raises(Invalid, match=r"the most is 16,777,216 \(16 MB\)"):
        payload.dumps(value)


def test_a_payload_at_the_cap_is_published_and_read(sdk):
    topic = kirby.topic("large")

    topic.publish("a" * (payload.MAX_BYTES - 2))

    [message] = topic.read()
    assert len(message.value) == payload.MAX_BYTES - 2


def test_the_deepest_payload_is_published_and_read(sdk):
    topic = kirby.topic("deep")

    topic.publish(nested(payload.MAX_DEPTH))

    assert [message.value for message in topic.read()] == [nested(payload.MAX_DEPTH)]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**4299), 10**4299)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | st.sampled_from(["\U0001f600", "e+5", '"1e+23', "\\", "\\ud800", "\\u0000"])
    | st.sampled_from([1e23, -0.0, 1e308, 5e-324])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)


def typed(value):
    """A value with the types of all its parts: 1, 1.0 and True are not the same."""
    if isinstance(value, dict):
        return {key: typed(part) for key, part in value.items()}
    if isinstance(value, list):
        return [typed(part) for part in value]
    return type(value), value


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=st.lists(JSON, min_size=1, max_size=30))
def test_whatever_is_accepted_comes_back_equal(sdk, values):
    topic = kirby.topic("any")
    before = topic.publish("before")

    topic.publish_many(values)

    read = [message.value for message in topic.read(after=before)]
    assert typed(read) == typed(values)


@pytest.mark.parametrize("is_fast", [True, False])
@given(value=JSON)
def test_it_is_written_as_the_library_writes_it(is_fast, value):
    encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"), check_circular=False)
    with pytest.MonkeyPatch.context() as patched:
        if not is_fast:  # PyPy, or a Python without its accelerator
            patched.setattr(json.encoder, "c_make_encoder", None)
        assert "".join(payload._writer(encoder)(value, 0)) == encoder.encode(value)


@pytest.mark.parametrize("value", [(1, (2, 3)), {"a": ()}])
def test_a_tuple_is_a_list(value):
    assert json.loads(payload.dumps(value)) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e400", 10**400),
        ("1e5000", 10**5000),
        ("-1.5e-400", -0.0),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ('{"a": [1e4300, "x", null]}', {"a": [10**4300, "x", None]}),
    ],
    ids=["exponent", "thousands of digits", "nearly nothing", "a key twice", "nested digits"],
)
def test_what_psql_can_publish_a_script_can_read(sdk, text, value):
    sdk.conn.execute("select kirby.publish('odd', %s::jsonb)", [text])

    assert [message.value for message in kirby.topic("odd").read()] == [value]


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        ("null::jsonb", "the payload is NULL: pass JSON null"),
        ("to_jsonb(repeat('a', 16777215))", "the payload is 16777217 bytes of JSON, the most is"),
        ("(repeat('[', 502) || repeat(']', 502))::jsonb", "nested more than 500 deep"),
    ],
)
def test_what_a_script_could_not_read_is_refused_to_psql(db, payload, complaint):
    with pytest.raises(Exception, match=complaint) as caught, db.transaction():
        db.execute(f"select kirby.publish('odd', {payload})")

    assert caught.value.sqlstate == "KB001"
