"""kirby test: cases say what is right, and what is not in words."""

import json

import pytest
from click.testing import CliRunner

from kirby.core.errors import Invalid
from kirby.server import cases
from kirby.server.cli import kirby
from kirby.server.expectations import Rules, differences

SCRIPT = """
import datetime, uuid, kirby

@kirby.stream("orders", to="invoices")
def invoice(order):
    totals.increment(order["who"], order["n"])
    return {"n": order["n"] * FACTOR, "id": str(uuid.uuid4()), "at": str(datetime.datetime.now())}

FACTOR = kirby.config("FACTOR", 2, type=int)
totals = kirby.state("totals")
kirby.run()
"""
MADE = {"id": "<uuid>", "at": "<time>"}


@pytest.fixture(name="case")
def case_fixture(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    case = tmp_path / "cases" / "monday"
    (case / "in").mkdir(parents=True)
    orders = [{"who": "a", "n": 1}, {"who": "b", "n": 2}]
    (case / "in" / "orders.jsonl").write_text("\n".join(map(json.dumps, orders)))
    (tmp_path / "cases" / "case.toml").write_text('script = "../script.py"\n')
    expect(case, {"n": 2, **MADE}, {"n": 4, **MADE})
    return case


def expect(case, *values, topic="invoices"):
    (case / "expected").mkdir(exist_ok=True)
    text = "".join(json.dumps(value) + "\n" for value in values)
    (case / "expected" / f"{topic}.jsonl").write_text(text)


def run(*arguments):
    """What the command says, and its exit code."""
    found = CliRunner().invoke(kirby, ["test", *map(str, arguments)])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code, found.output


def test_a_case_that_is_right(case):
    assert run(case.parent) == (
        0, f"ok  {case}\n  not compared: state/totals\n1 of 1 cases are right\n",
    )  # fmt: skip


def test_a_case_that_is_not_says_where(case):
    expect(case, {"n": 3, "at": "<time>", "id": "<number>"}, {"n": 4, **MADE}, {"n": 9})
    (case / "expected" / "state").mkdir()
    (case / "expected" / "state" / "totals.json").write_text('{"a": 1, "b": 3, "c": 4}')

    code, said = run(case.parent)

    assert code == 1
    lines = said.splitlines()
    assert lines[0] == f"FAIL  {case}"
    assert "  invoices: message 1, value.n: expected 3, got 2" in lines
    assert any(
        line.startswith('  invoices: message 1, value.id: expected "<number>"') for line in lines
    )
    assert '  invoices: message 3 is missing: {"value": {"n": 9}}' in lines
    assert "  state/totals: key 'b': expected 3, got 2" in lines
    assert "  state/totals: key 'c': expected 4, it is missing" in lines
    assert lines[-1] == "0 of 1 cases are right"


def test_update_writes_what_came_out_and_keeps_matchers(case):
    expect(case, {"n": 3, "at": "<time>", "id": "<any>"})
    assert run(case.parent, "--update")[0] == 0

    first, second = (case / "expected" / "invoices.jsonl").read_text().splitlines()
    assert json.loads(first) == {"key": None, "value": {"n": 2, "at": "<time>", "id": "<any>"}}
    assert json.loads(second)["value"]["n"] == 4
    assert json.loads((case / "expected/state/totals.json").read_text()) == {"a": 1, "b": 2}
    code, said = run(case.parent)
    assert code == 1
    assert "message 2, value.id" in said
    assert "message 1" not in said


def test_variables_of_the_case_count_before_those_of_the_shell(case, monkeypatch):
    monkeypatch.setenv("FACTOR", "7")
    (case / "config.env").write_text("FACTOR=2\n")
    assert run(case.parent)[0] == 0


def test_a_script_that_fails(case):
    script = case / "bad.py"
    script.write_text("import sys\nprint('oh dear')\nsys.exit(3)\n")

    code, said = run(case, "--", script)
    assert code == 1
    assert "  bad.py ended with exit code 3, not 0\n  | oh dear\n" in said
    before = (case / "expected" / "invoices.jsonl").read_text()
    assert run(case, "--update", "--", script)[0] == 1
    assert (case / "expected" / "invoices.jsonl").read_text() == before


def test_several_scripts_go_on_from_each_other(case):
    (case / "second.py").write_text(
        "import kirby\nfor each in kirby.topic('invoices').consume():\n"
        "    kirby.topic('mails').publish(each.value['n'])\n"
    )
    (case / "case.toml").write_text(
        'scripts = ["../../script.py", "second.py"]\nignore = ["value.id", "value.*"]\n'
    )
    expect(case, 2, 4, topic="mails")
    assert run(case)[0] == 0


def test_json(case):
    code, said = run(case.parent, "--json")
    assert (code, json.loads(said)) == (
        0,
        {"cases": [{"case": str(case), "ok": True, "faults": []}]},
    )


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("script = 5 5", "case.toml is not TOML"),
        ('script = "none.py"', "there is no script"),
        ("color = 1", "color is not known"),
        ("", "names no script"),
    ],
)
def test_a_bad_case(case, told, said):
    (case / "case.toml").write_text(told)
    with pytest.raises(Invalid, match=said):
        run(case)


def test_nothing_to_test(tmp_path):
    with pytest.raises(Invalid, match="has no case"):
        run(tmp_path)
    with pytest.raises(Invalid, match="there is no folder"):
        run(tmp_path / "none")


# Comparing


@pytest.mark.parametrize(
    ("expected", "made", "path"),
    [
        (1, True, "value"),
        (None, 0, "value"),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, "value.a.b.1"),
        ({"a": 1}, {"a": 1, "b": None}, "value.b"),
        ({"a": None}, {}, "value.a"),
        ("<number>", True, "value"),
        ("<regex:a+>", "aab", "value"),
        ("<about:3.0>", 3.01, "value"),
        ({"value": 1, "key": "a"}, {"value": 1, "key": "b"}, "key"),
        ({"value": 1, "headers": {"x": 1}}, {"value": 1, "headers": {"x": 2}}, "headers.x"),
    ],
)
def test_what_differs(expected, made, path):
    [said] = differences("t", [expected], [made], Rules())
    assert said.startswith(f"t: message 1, {path}: ")


@pytest.mark.parametrize(
    ("expected", "made"),
    [
        (1, 1.0),
        ("<any>", None),
        ("<time>", "2026-01-01T00:00:00+00:00"),
        ("<regex:a+>", "aaa"),
        ("<about:0.3>", 0.1 + 0.2),
        ("<b>", "<b>"),
        (5, {"value": 5, "key": "k", "headers": {"x": 1}, "position": 7}),
        ({"value": 5, "headers": {}}, {"value": 5, "headers": {"via": [], "replay": 1}}),
    ],
)
def test_what_does_not_differ(expected, made):
    assert [*differences("t", [expected], [made], Rules())] == []


def test_messages_in_any_order():
    rules = Rules(unordered=frozenset({"t"}))
    assert [*differences("t", [1, 2, 3], [3, 1, 2], rules)] == []
    assert [*differences("t", [1, 2, 3], [3, 1, 4], rules)] == [
        "t: message 3, value: expected 2, got 4",
    ]  # fmt: skip


def test_hidden_folders_are_no_cases(case):
    (case.parent / ".old" / "in").mkdir(parents=True)
    assert [each.folder for each in cases.find(case.parent)] == [case]
