"""Typed columns of a state's views, and indexes that cost other states nothing."""

import json

import psycopg
import pytest
from fix_sdk import house_fixture, sdk_fixture  # noqa: F401

import kirby
from kirby.core.errors import Invalid
from kirby.sdk import session

sums = kirby.State("sums")
ALL = [
    {"name": "n", "type": "integer", "index": True},
    {"name": "x", "type": "number"},
    {"name": "city", "type": "text", "path": ["address", "city"], "index": True},
    {"name": "ok", "type": "boolean"},
    {"name": "at", "type": "time", "index": True},
    {"name": "day", "type": "date", "path": ["at"]},
    {"name": "tags", "type": "json"},
]


@pytest.fixture
def set_columns(sdk):
    def set_columns(*columns, state="sums"):
        sdk.conn.execute(
            "select kirby.set_columns(id, %s, 'ann') from kirby.state where name = %s",
            [json.dumps(columns), state],
        )

    return set_columns


GOOD = {
    "n": 5, "x": 1.5, "address": {"city": "Gent"}, "ok": True, "at": "2027-03-28T14:00:00+02:00",
    "tags": ["a"],
}  # fmt: skip
BAD = {"n": 1.5, "x": "1", "address": "Gent", "ok": 1, "at": "2027-02-30", "tags": None}


def test_columns_of_values_that_fit_and_null_for_those_that_do_not(sdk, set_columns):
    sums["good"] = GOOD
    set_columns(*ALL)
    sums["bad"] = BAD
    sums["huge"] = {"n": 10**30, "at": "2027-03-28", "address": {"city": 7}}
    for key, value in {"null": None, "list": [1], "text": "n", "number": 5}.items():
        sums[key] = value

    names = "key, n, x, city, ok, extract(epoch from at)::bigint, day::text, tags"
    rows = sdk.ask(f"select {names} from state_dev.sums order by key")
    at = 1806235200
    none = (None,) * 6
    assert rows == [
        ("bad", *none, None),
        ("good", 5, rows[1][2], "Gent", True, at, "2027-03-28", ["a"]),
        ("huge", None, None, "7", None, at - 12 * 3600, "2027-03-28", None),
        *((key, *none, None) for key in ("list", "null", "number", "text")),
    ]
    assert float(rows[1][2]) == 1.5
    history = sdk.ask("select key, n, city from state_dev.sums_history order by position")
    assert history[0] == ("good", 5, "Gent")
    assert [d.name for d in sdk.conn.execute("select * from state_dev.sums").description] == [
        "key", "value", "version", "position", "run_id", "updated_at",
        "n", "x", "city", "ok", "at", "day", "tags",
    ]  # fmt: skip


def test_indexed_columns_follow_every_change(sdk, set_columns):
    sums.load({str(n): {"n": n} for n in range(100)})
    set_columns({"name": "n", "type": "integer", "index": True})
    sums["1"] = {"n": -1}
    sums["new"] = {"n": 1000}
    del sums["2"]
    sums.increment("3", {"n": 500})
    with kirby.transaction():
        sums["4"] = {"n": 2000}
        del sums["5"]
    sdk.conn.execute(
        "select kirby.restore_state(id, 0, null, array['6'], '', 'me', '') from kirby.state"
    )

    assert sdk.ask("select key from state_dev.sums where n > 400 order by n") == [
        ("3",), ("new",), ("4",),
    ]  # fmt: skip
    assert sdk.value("select count(*) from state_dev.sums") == len(sums) == 98
    assert sdk.ask("select * from kirby.verify_state_indexes()") == []
    sdk.conn.execute("update kirby.state_index_1 set n = 5 where key = '7'")
    assert sdk.ask("select * from kirby.verify_state_indexes()") == [
        ("dev/sums/7", {"n": 7}, {"n": 5})
    ]


def test_an_index_is_used(sdk, set_columns):
    sums.load({str(n): {"n": n} for n in range(5000)})
    set_columns({"name": "n", "type": "integer", "index": True})
    sdk.conn.execute("analyze kirby.state_index_1, kirby.state_entry")
    plan = sdk.ask("explain select * from state_dev.sums where n between 100 and 105")
    assert "state_index_1_n_idx" in str(plan)
    assert "Seq Scan" not in str(plan)


def test_entries_are_updated_in_place_whatever_is_indexed(sdk, set_columns, until):
    """An index of one state, on state_entry, would end that for all of them."""
    other = kirby.state("other")
    sums["a"] = other["a"] = {"n": -1}
    set_columns({"name": "n", "type": "integer", "index": True})
    for number in range(200):
        sums["a"] = {"n": number}
        other["a"] = {"n": number}
    sums["a"] = {"n": 199, "more": 1}  # a column that stays costs nothing
    session.close()  # it tells what it did

    updates = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = %s"
    until(lambda: sdk.ask(updates, "state_entry") == [(401, 401)])
    until(lambda: sdk.ask(updates, "state_index_1")[0][0] == 200)


def test_other_columns_in_place_of_these(sdk, set_columns):
    sums["a"] = GOOD
    set_columns(*ALL)
    set_columns({"name": "ok", "type": "boolean", "index": True}, {"name": "n", "type": "text"})
    assert sdk.ask("select ok, n from state_dev.sums") == [(True, "5")]
    sums["b"] = {"ok": False}
    assert sdk.ask("select key from state_dev.sums where ok") == [("a",)]
    set_columns()
    assert [d.name for d in sdk.conn.execute("select * from state_dev.sums").description] == [
        "key", "value", "version", "position", "run_id", "updated_at",
    ]  # fmt: skip
    assert sdk.ask("select 1 from pg_class where relname like 'state_index%%'") == []
    sums["c"] = 1
    assert sdk.value("select count(*) from state_dev.sums") == 3


def test_views_that_somebody_built_on_them_are_not_dropped(sdk, set_columns):
    sums["a"] = GOOD
    set_columns({"name": "n", "type": "integer"})
    sdk.conn.execute("create view mine as select n from state_dev.sums")
    set_columns({"name": "n", "type": "integer"}, {"name": "x", "type": "number"})  # only one more
    with pytest.raises(psycopg.Error, match=r"other views are built on state_dev\.sums") as caught:
        set_columns({"name": "x", "type": "number"})
    assert caught.value.sqlstate == "KB008"
    assert sdk.ask("select * from mine") == [(5,)]
    assert sdk.ask("select n from state_dev.sums") == [(5,)]


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ([{"name": "N", "type": "integer"}], "N is not a name for a column"),
        ([{"name": "key", "type": "integer"}], "key is not a name for a column"),
        ([{"name": "n", "type": "int"}], "int is not a type of a column: integer, number, text"),
        ([{"name": "n", "type": "text"}, {"name": "n", "type": "text"}], "column n is there twice"),
        ([{"name": "n", "type": "json", "index": True}], "column n is JSON: it cannot have an ind"),
    ],
)
def test_a_bad_column_is_refused_in_one_line(sdk, set_columns, columns, complaint):
    sums["a"] = GOOD
    with pytest.raises(psycopg.Error, match=complaint):
        set_columns(*columns)
    assert sdk.ask("select 1 from kirby.state_column") == []


# From a script


def test_a_script_says_which_columns_it_wants(sdk):
    stock = kirby.state("stock", columns={"n": "integer", "city": "text=address.city"}, index=["n"])
    stock["a"] = {"n": 5, "address": {"city": "Gent"}}
    assert stock["a"]["n"] == 5
    again = kirby.state("stock", columns={"n": "integer", "city": "text=address.city"}, index=["n"])
    assert again["a"]["n"] == 5

    assert sdk.ask("select n, city from state_dev.stock") == [(5, "Gent")]
    verbs = "select count(*) from kirby.audit_event where verb = 'state_columns_set'"
    assert sdk.value(verbs) == 1
    assert sdk.value("select indexed from kirby.state where name = 'stock'")


@pytest.mark.parametrize(
    ("columns", "index", "complaint"),
    [
        ({"n": "int"}, [], "column n is of type 'int': integer, number, text, boolean, time, date"),
        ({"n": "integer"}, ["m"], "there is no column m to have an index"),
        ({"N": "integer"}, [], "'N' is not a name for a column"),
        ("n", [], "columns are a dictionary"),
    ],
)
def test_bad_columns_are_refused_where_they_are_written(columns, index, complaint):
    with pytest.raises(Invalid, match=complaint):
        kirby.state("stock", columns=columns, index=index)


# By hand


def test_by_hand(sdk, monkeypatch, capsys, tmp_path):
    from fix_kirby import run_here

    monkeypatch.setenv("KIRBY_DSN", sdk.dsn)
    monkeypatch.delenv("KIRBY_TOKEN", raising=False)

    def run(*arguments):
        return run_here(monkeypatch, capsys, "state", "columns", *arguments)

    sums["a"] = GOOD
    assert run("sums").out == "sums has no columns of its own\n"
    assert run("sums", "n:integer", "city:text=address.city", "--index", "n").out == (
        "state_dev.sums has columns n, city\n"
    )
    assert sdk.ask("select n, city from state_dev.sums") == [(5, "Gent")]
    assert [row["name"] for row in json.loads(run("sums", "--json").out)] == ["n", "city"]
    assert run("sums").out.splitlines()[1].split() == ["n", "integer", "n", "yes"]
    assert run("sums", "--none").out == "state_dev.sums has no columns of its own\n"
    for bad in (["n"], ["n:int"], ["n:integer", "--index", "m"], ["n:integer", "--none"]):
        done = run("sums", *bad)
        assert done.code in (1, 2)
        assert done.out == ""
    assert run("other", "n:integer").code == 1
