"""Masks: what leaves of a message, by SQL, beside the same in Python; kirby topic mask."""

import json
import re
import uuid
from datetime import date, datetime

import psycopg
import pytest
from fix_web import connected, publish, scalar, set_keys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kirby.core.errors import Invalid
from kirby.server import masks

SALT = b"s" * 32
MASK = "select kirby.masked_document(%s, %s, %s, %s)"


def tree(**rules):
    """A tree of rules by their paths, as it is stored."""
    made = {}
    for text, rule in rules.items():
        made = masks._with(made, masks.path(text), rule)
    return made


def masked(db, document, rules, deny=False, salt=SALT):
    [(found,)] = db.execute(
        MASK, [json.dumps(document), json.dumps(tree(**rules)), deny, salt]
    ).fetchall()
    return found


def value(db, given, rules, deny=False):
    return masked(db, {"key": "K", "value": given, "headers": None}, rules, deny).get("value")


def test_a_field_is_dropped_hashed_faked_or_kept(db):
    document = {"a": 1, "b": "anna@example.org", "c": {"d": "Anna-7", "e": 2}}

    found = value(db, document, {"a": "drop", "b": "hash", "c.d": "fake"})

    assert "a" not in found
    assert re.fullmatch("[0-9a-f]{32}", found["b"])
    assert re.fullmatch("[A-Z][a-z]{3}-[0-9]", found["c"]["d"])
    assert found["c"]["d"] != "Anna-7"
    assert found["c"]["e"] == 2


def test_lists_headers_and_the_key(db):
    document = {
        "key": "anna",
        "value": {"items": [{"p": 1, "q": 2}, {"p": 3}], "tags": ["a", "b"]},
        "headers": {"user": "anna", "trace": "t"},
    }
    rules = {"items.*.p": "drop", "tags.0": "drop", "@key": "hash", "@headers.user": "drop"}

    found = masked(db, document, rules)

    assert found["value"] == {"items": [{"q": 2}, {}], "tags": ["b"]}
    assert found["headers"] == {"trace": "t"}
    assert re.fullmatch("[0-9a-f]{32}", found["key"])


def test_deny_drops_what_is_not_named_and_hashes_the_key(db):
    document = {"key": "anna", "value": {"a": 1, "b": {"c": 2, "d": 3}}, "headers": {"user": "x"}}

    found = masked(db, document, {"b.c": "keep"}, deny=True)

    assert found["value"] == {"b": {"c": 2}}
    assert "headers" not in found
    assert found["key"] != "anna"
    assert "value" not in masked(db, document, {}, deny=True)
    assert masked(db, document, {"@key": "keep"}, deny=True) == {"key": "anna"}


def test_a_wildcard_holds_beside_a_name(db):
    document = {"customer": {"email": "a@b.c", "name": "Anna"}, "x": {"email": "d@e.f"}}

    found = value(db, document, {"*.email": "drop", "customer.name": "hash"})

    assert "email" not in found["customer"]
    assert found["customer"]["name"] != "Anna"
    assert found["x"] == {}


def test_the_exact_rule_wins_over_the_wildcard_and_the_nearer_over_the_farther(db):
    document = {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}}

    assert value(db, document, {"*.x": "drop", "a.x": "keep"}) == {
        "a": {"x": 1, "y": 2},
        "b": {"y": 2},
    }
    assert value(db, document, {"a": "drop", "a.x": "keep"}) == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
    }


def test_a_hash_is_the_same_for_the_same_text_and_another_with_another_salt(db):
    rules = {"@key": "hash", "who": "hash"}
    document = {"key": "anna", "value": {"who": "anna"}}

    first, again = masked(db, document, rules), masked(db, document, rules)
    other = masked(db, document, rules, salt=b"t" * 32)

    assert first == again
    assert first["key"] == first["value"]["who"]  # so that fields can still be joined
    assert other["key"] != first["key"]


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ("anna.B@exämple.org", r"[a-z]{4}\.[A-Z]@[a-z]{7}\.[a-z]{3}"),
        ("+49 (30) 1234-567", r"\+\d\d \(\d\d\) \d{4}-\d{3}"),
        ("", ""),
        ("Ærø", "[A-Z][a-z]{2}"),
    ],
)
def test_a_fake_text_has_the_same_shape(db, given, shape):
    assert re.fullmatch(shape, value(db, {"a": given}, {"a": "fake"})["a"])


def test_a_fake_keeps_its_type(db):
    document = {
        "int": 12_345, "negative": -12.25, "zero": 0, "flag": True, "none": None,
        "day": "2027-02-28", "at": "2027-02-28T23:59:59.123Z", "id": str(uuid.uuid4()),
        "list": ["ab", 7], "long": "x" * 5000,
    }  # fmt: skip

    found = value(db, document, {"@value": "fake"})

    assert isinstance(found["int"], int)
    assert 10_000 <= found["int"] <= 99_999
    assert -99.99 <= found["negative"] <= -10
    assert found["zero"] == 0
    assert isinstance(found["flag"], bool)
    assert found["none"] is None
    assert date.fromisoformat(found["day"])
    assert datetime.fromisoformat(found["at"]).microsecond % 1000 == 0
    assert uuid.UUID(found["id"])
    assert re.fullmatch("[a-z]{2}", found["list"][0])
    assert len(found["long"]) == 5000
    assert found == value(db, document, {"@value": "fake"})
    assert all(found[name] != document[name] for name in ("int", "day", "at", "id", "long"))


# Beside the same in Python


def expected(document, trees, rule):
    """What kirby.mask_part says, naively: None for nothing."""
    rule = next((each["rule"] for each in trees if "rule" in each), rule)

    def below(name):
        found = [each.get("in", {}) for each in trees]
        return [known[n] for known in found for n in (name, "*") if n in known]

    if isinstance(document, dict | list):
        pairs = document.items() if isinstance(document, dict) else enumerate(document)
        kept = [(n, expected(part, below(str(n)), rule)) for n, part in pairs]
        kept = [(n, part) for n, part in kept if part is not NOTHING]
        if rule == "drop" and not kept:
            return NOTHING
        return dict(kept) if isinstance(document, dict) else [part for _, part in kept]
    if rule == "drop":
        return NOTHING
    return "#" if rule == "hash" and document is not None else document


NOTHING = object()
NAMES = st.sampled_from(["a", "b", "c"])
DOCUMENTS = st.recursive(
    st.sampled_from([1, "x", None, True]),
    lambda below: st.dictionaries(NAMES, below, max_size=3) | st.lists(below, max_size=3),
    max_leaves=12,
)
TREES = st.recursive(
    st.fixed_dictionaries({"rule": st.sampled_from(["keep", "drop", "hash"])}),
    lambda below: st.fixed_dictionaries(
        {"in": st.dictionaries(st.sampled_from(["a", "b", "0", "*"]), below, min_size=1)},
        optional={"rule": st.sampled_from(["keep", "drop", "hash"])},
    ),
    max_leaves=8,
)


def unhashed(document):
    if isinstance(document, dict):
        return {name: unhashed(part) for name, part in document.items()}
    if isinstance(document, list):
        return [unhashed(part) for part in document]
    hashed = isinstance(document, str) and re.fullmatch("[0-9a-f]{32}", document)
    return "#" if hashed else document


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(DOCUMENTS, TREES, st.sampled_from(["keep", "drop"]))
def test_any_mask_of_any_document_is_as_it_is_defined(db, document, rules, otherwise):
    [(found,)] = db.execute(
        "select kirby.mask_part(%s, array[%s]::jsonb[], %s, %s)",
        [json.dumps(document), json.dumps(rules), otherwise, SALT],
    ).fetchall()
    [(is_null,)] = db.execute(
        "select kirby.mask_part(%s, array[%s]::jsonb[], %s, %s) is null",
        [json.dumps(document), json.dumps(rules), otherwise, SALT],
    ).fetchall()

    wanted = expected(document, [rules], otherwise)

    assert (NOTHING if is_null else unhashed(found)) is wanted or unhashed(found) == wanted
    assert is_null == (wanted is NOTHING)


# Paths


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a.b", ["value", "a", "b"]),
        ("items.*.price", ["value", "items", "*", "price"]),
        ("@key", ["key"]),
        ("@headers.user", ["headers", "user"]),
        ("@value", ["value"]),
        ('"a.b".c', ["value", "a.b", "c"]),
        (r'"say \"x\""', ["value", 'say "x"']),
    ],
)
def test_a_path_is_read(text, parts):
    assert masks.path(text) == parts
    assert masks.path(masks._written(tuple(parts))) == parts


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", '"a', "@other", "@key.x", "a\0"])
def test_what_is_no_path_is_refused(text):
    with pytest.raises(Invalid, match="is not a path"):
        masks.path(text)


# The commands


@pytest.fixture
def orders(dsn):
    with connected(dsn) as conn:
        publish(conn, "orders", {"email": "a@b.c"}, "A")
        set_keys(conn, "totals", A=1)


def test_the_mask_of_a_topic_is_set_shown_and_audited(orders, kirby, dsn):
    assert kirby("topic", "mask", "orders").out == "everything of orders leaves as it is\n"

    done = kirby(
        "topic", "mask", "orders", "email=hash", "@key=fake", "--deny", "--reason", "personal"
    )

    assert done.code == 0, done.err
    assert done.out == ("@key  fake\nemail  hash\neverything else is dropped (the key is hashed)\n")
    assert kirby("topic", "mask", "orders").out == done.out
    assert json.loads(kirby("topic", "mask", "orders", "--json").out) == {
        "place": "topic/dev/orders",
        "rules": [{"path": "@key", "rule": "fake"}, {"path": "email", "rule": "hash"}],
        "deny": True,
    }
    with connected(dsn) as conn:
        [(verb, subject, before, after, reason)] = conn.execute(
            "select verb, object, before, after, reason from kirby.audit_event"
            " where verb = 'mask_changed'"
        ).fetchall()
    assert (verb, subject, reason) == ("mask_changed", "topic/dev/orders", "personal")
    assert before == {"rules": {}, "deny": False}
    assert after == {"rules": {"@key": "fake", "email": "hash"}, "deny": True}


def test_rules_are_taken_away_one_by_one(orders, kirby):
    kirby("topic", "mask", "orders", "a.b=drop", "a.c=hash", "a=keep", "--deny")

    assert kirby("topic", "mask", "orders", "--remove", "a.b", "--no-deny").out == (
        "a  keep\na.c  hash\neverything else leaves as it is\n"
    )
    assert kirby("topic", "mask", "orders", "--remove", "a.b").err == (
        "kirby: there is no rule for a.b\n"
    )


def test_the_mask_of_a_state(orders, kirby):
    assert kirby("state", "mask", "totals", "@key=hash", "name=drop").out == (
        "@key  hash\nname  drop\neverything else leaves as it is\n"
    )
    assert "keeps a key" in kirby("state", "mask", "totals", "@key=drop").err
    assert "keeps a key" in kirby("state", "mask", "totals", "@headers.x=drop").err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["order", "a=drop"], 1, "did you mean orders?"),
        (["orders", "a=remove"], 1, "'remove' is no mask for a: keep, drop, hash, fake"),
        (["orders", "a..b=drop"], 1, "is not a path"),
        (["orders", "email"], 2, "is no rule: write it like customer.email=hash"),
    ],
)
def test_what_is_wrong_is_one_line_and_changes_nothing(orders, kirby, dsn, arguments, code, said):
    done = kirby("topic", "mask", *arguments)

    assert done.code == code
    assert said in done.err
    with connected(dsn) as conn:
        assert scalar(conn, "select count(*) from kirby.mask") == 0


def test_a_worker_sees_no_salt_and_changes_no_mask(dsn, as_role):
    with psycopg.connect(as_role(dsn, "kirby_worker"), autocommit=True) as conn:
        for statement in (
            "select salt from kirby.export",
            "delete from kirby.mask",
            "select kirby.mask_part('1', '{}', 'keep', '')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement)
