"""`kirby state at, diff, blame, restore, load` in front of a terminal."""

import json

import pytest
from fix_states import past_fixture  # noqa: F401


@pytest.fixture
def two(past):
    """a and b, of which b was deleted; the position after the first of each."""
    past.mutate("a", {"x": 1}, 0)
    position = past.mutate("b", 2, 10)
    past.mutate("a", {"x": 1, "y": 3}, 20, parents=[7], headers={"via": [["tally", "tally 2"]]})
    past.mutate("b", at=30)
    return position


def test_what_a_state_was(kirby, two):
    assert json.loads(kirby("state", "at", "sums", two, "b").out) == 2
    assert json.loads(kirby("state", "at", "sums", "2027-03-01T12:00:25Z", "a").out) == {
        "x": 1,
        "y": 3,
    }
    lines = kirby("state", "at", "sums", "2027-03-01T12:00:15").out.splitlines()
    assert [line.split()[:2] for line in lines] == [["KEY", "VERSION"], ["a", "1"], ["b", "1"]]
    [row] = json.loads(kirby("state", "at", "sums", "now", "--json").out)
    assert (row["key"], row["version"]) == ("a", 2)
    assert (
        json.loads(kirby("state", "at", "sums", two, "--prefix", "b", "--json").out)[0]["value"]
        == 2
    )
    assert kirby("state", "at", "sums", 1).out == "sums was empty\n"


def test_what_changed(kirby, two):
    lines = kirby("state", "diff", "sums", two).out.splitlines()
    assert [line.split() for line in lines] == [
        ["KEY", "CHANGE", "VERSION", "IS", "WAS", "NOW"],
        ["a", "changed", "1", "2", '{"x":', "1}", '{"x":', "1,", '"y":', "3}"],
        ["b", "removed", "1", "2"],
    ]
    assert kirby("state", "diff", "sums", two, two).out == "sums is as it was\n"
    [only] = json.loads(
        kirby("state", "diff", "sums", "2027-03-01T12:00:05", "2027-03-01T12:00:15", "--json").out
    )
    assert (only["key"], only["before"], only["after"]) == ("b", None, 2)


def test_who_did_it(kirby, two):
    lines = kirby("state", "blame", "sums", "a").out.splitlines()
    assert [line.split()[0] for line in lines] == ["PART", "$.x", "$.y"]
    assert lines[2].split()[-4:] == ["tally", "tally", "2", "[7]"]


def test_back_to_what_it_was(kirby, two, past):
    assert kirby("state", "restore", "sums", "b", "--to", two, "--yes").out == (
        "b: nothing → 2\nsums: 1 key would change\nsums: 1 key is what it was then\n"
    )
    whole = ("state", "restore", "sums", "--all", "--to", two, "--reason", "a bug")
    assert "nobody is here to answer: say --yes" in kirby(*whole, stdin="").err
    assert kirby(*whole, stdin="n\n").code == 130
    assert past.at() == {"a": (2, {"x": 1, "y": 3}), "b": (3, 2)}
    assert "sums: 1 key is what it was then\n" in kirby(*whole, stdin="y\n").out
    assert past.at() == {"a": (3, {"x": 1}), "b": (3, 2)}
    assert kirby(*whole).out == "sums is as it was then\n"
    audited = "select reason from kirby.audit_event where verb = 'state_restored' order by 1"
    assert [reason for (reason,) in past.ask(audited)] == ["", "a bug"]


def test_what_would_be_deleted_is_told_before(kirby, two, past):
    past.mutate("new", 5, 40)
    plan = kirby("state", "restore", "sums", "new", "--to", two, "--plan").out
    assert plan == (
        "new: 5 → deleted\nsums: 1 key would change, 1 of them deleted: they had no value then\n"
    )
    assert past.at()["new"] == (1, 5)
    assert kirby("state", "restore", "sums", "new", "--to", two, stdin="y\n").code == 0
    assert "new" not in past.at()


def test_keys_of_a_file(kirby, past, tmp_path):
    (tmp_path / "one.json").write_text(json.dumps({str(n): {"n": n} for n in range(2500)}))
    assert kirby("state", "load", "sums", "one.json").out == "2500 keys of sums set\n"
    lines = '{"key": "a", "value": null}\n\n{"key": "é", "value": "x"}\n'
    assert kirby("state", "load", "sums", "-", stdin=lines).out == "2 keys of sums set\n"
    assert past.value("select count(*) from state_dev.sums") == 2502
    assert past.at(keys=["a", "é", "7"]) == {"7": (1, {"n": 7}), "a": (1, None), "é": (1, "x")}
    assert kirby("state", "load", "sums", "-", stdin='{"key": "z", "value": 1}').code == 0
    assert past.at(keys=["z", "key"]) == {"z": (1, 1)}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["at", "sums", "yesterday"], "'yesterday' is no time and no position"),
        (["at", "sum", "5"], "there is no state in dev called sum; did you mean sums?"),
        (["at", "sums", "1", "a"], "a had no value in sums then"),
        (["diff", "sums", "now"], "since now nothing can have changed: say since when"),
        (["blame", "sums", "b"], "key b has no value"),
        (["restore", "sums", "--all", "--to", "now"], "sums is what it is now: say to when"),
        (["restore", "sums", "zz", "--to", "5"], "state sums has no key zz"),
        (["restore", "other", "--all", "--to", "5"], "there is no state in dev called other"),
        (["load", "sums", "bad.txt"], 'line 1 is not {"key": "…", "value": …}: nothing'),
        (["load", "sums", "long.txt"], "a key has at most 1024 bytes"),
        (["load", "Sums", "good.txt"], "is not a name for a state"),
    ],
)
def test_a_mistake_is_one_line(kirby, two, tmp_path, arguments, complaint):
    (tmp_path / "bad.txt").write_text("nothing")
    (tmp_path / "good.txt").write_text('{"a": 1}')
    (tmp_path / "long.txt").write_text(json.dumps({"a" * 1025: 1}))
    done = kirby("state", *arguments)

    assert (done.code, done.out) == (1, "")
    assert complaint in done.err
    assert done.err.count("\n") == 1


def test_what_is_restored_has_to_be_said(kirby, two):
    done = kirby("state", "restore", "sums", "--to", two)
    assert done.code == 2
    assert "what is to be restored: KEY, --prefix PREFIX, or --all" in done.err
