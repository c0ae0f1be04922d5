"""Folders: scripts run unchanged from and to files, the same way every time."""

import datetime
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
import kirby

@kirby.stream("departures", to="delays")
def delay(flight):
    if flight["minutes"] > 0:
        return kirby.Out({"carrier": flight["carrier"], "minutes": flight["minutes"]})

totals = kirby.state("totals")

@kirby.stream("delays")
def tally(delay):
    row = totals.get(delay["carrier"], {"flights": 0, "minutes": 0})
    totals[delay["carrier"]] = {
        "flights": row["flights"] + 1, "minutes": row["minutes"] + delay["minutes"]
    }

if __name__ == "__main__":
    kirby.run()
"""
NEW_YEAR = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
FLIGHTS = [
    {"carrier": "AA", "minutes": 5},
    {"carrier": "B6", "minutes": 0},
    {"carrier": "AA", "minutes": 7},
]


def put(folder, **files):
    """Write files: `in__orders_jsonl` is in/orders.jsonl."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".json").replace("_env", ".env")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(line) + "\n" for line in content)
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def run(folder, source=SCRIPT, *, dsn=None, **environ):
    """Run a script on a folder: exit code, standard output and standard error."""
    environ = {**os.environ, "KIRBY_DSN": dsn or f"folder:{folder}", "KIRBY_JOB": "job", **environ}
    environ.pop("KIRBY_TOKEN", None)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def lines(folder, topic, kind="out"):
    return [
        json.loads(line) for line in (folder / kind / f"{topic}.jsonl").read_text().splitlines()
    ]


def values(folder, topic):
    return [line["value"] for line in lines(folder, topic)]


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# A run


def test_a_script_runs_from_and_to_files(tmp_path):
    put(
        tmp_path,
        in__departures_jsonl=FLIGHTS,
        state__totals_json={"AA": {"flights": 1, "minutes": 1}},
    )

    assert run(tmp_path) == (0, "", "")

    assert values(tmp_path, "delays") == [FLIGHTS[0], FLIGHTS[2]]
    [first, _] = lines(tmp_path, "delays")
    assert (first["position"], first["parents"]) == (4, [1])
    totals = json.loads((tmp_path / "out/state/totals.json").read_text())
    assert totals == {"AA": {"flights": 3, "minutes": 13}}
    assert [each["version"] for each in lines(tmp_path / "out", "totals", "history")] == [2]


def test_a_second_run_begins_from_the_same_and_gives_the_same(tmp_path):
    put(tmp_path, in__departures_jsonl=FLIGHTS)
    run(tmp_path)
    before = values(tmp_path, "delays"), tree(tmp_path)
    run(tmp_path)

    assert (values(tmp_path, "delays"), tree(tmp_path)) == before
    assert not (tmp_path / ".out").exists()


def test_a_message_may_be_a_file_an_envelope_or_a_payload(tmp_path):
    put(
        tmp_path,
        in__a__2_json={"value": 2, "key": "k", "headers": {"replay": 9}},
        in__a__10_json=[{"x": 1}],
        in__a__0001_json='{"value": 1, "other": 2}',
    )
    (tmp_path / "in/a/10.json").write_text("[10]")

    code, said, _ = run(
        tmp_path,
        """
        import kirby
        for message in kirby.topic("a").consume():
            print(message.position, message.key, message.value, message.replay)
            kirby.topic("b").publish(1)
        """,
    )

    assert code == 0
    assert said.splitlines() == [
        "1 None {'value': 1, 'other': 2} False", "2 k 2 True", "3 None [10] False",
    ]  # fmt: skip
    assert [line["headers"].get("replay") for line in lines(tmp_path, "b")] == [None, 9, None]


def test_positions_of_envelopes_are_kept_and_all_others_come_after(tmp_path):
    put(
        tmp_path,
        in__b_jsonl=[{"position": 10, "value": 1}, {"position": 70, "value": 2}],
        in__a_jsonl=["x", "y"],
        in__c_jsonl=[{"value": "é", "recorded_at": "2026-01-01T00:00:00Z"}] * 100,
    )

    source = """
    import kirby
    print([m.position for m in kirby.topic("b").read(after=10)])
    print([m.position for m in kirby.topic("a").read()])
    print([m.position for m in kirby.topic("c").read(after=160)])
    print(next(kirby.topic("c").read()).recorded_at)
    print(kirby.topic("d").publish(1))
    """
    assert run(tmp_path, source)[1].splitlines() == [
        "[70]", "[71, 72]", str([*range(161, 173)]),
        str(NEW_YEAR.astimezone()),
        "173",
    ]  # fmt: skip


def test_what_the_threads_do_is_the_same(tmp_path):
    put(tmp_path, in__departures_jsonl=FLIGHTS * 200)
    assert run(tmp_path, SCRIPT.replace("run()", "run(threads=4)"))[0] == 0

    totals = json.loads((tmp_path / "out/state/totals.json").read_text())
    assert totals == {"AA": {"flights": 400, "minutes": 2400}}


def test_a_large_state_is_lines(tmp_path):
    put(tmp_path, state__s_jsonl=[{"key": "b", "value": 1}, {"key": "a", "value": None}])
    run(tmp_path, "import kirby; kirby.state('s')['c'] = [1]")

    assert lines(tmp_path, "state/s") == [
        {"key": "a", "value": None}, {"key": "b", "value": 1}, {"key": "c", "value": [1]},
    ]  # fmt: skip


def test_configuration_comes_from_the_folder_unless_it_is_given(tmp_path):
    put(tmp_path, config_env="# ours\nLIMIT=5\nexport NAME='a b'\n\nEMPTY=\n")
    source = """
    import kirby
    print(kirby.config("LIMIT", type=int), kirby.config("NAME"), repr(kirby.config("EMPTY")))
    print(kirby.config("MISSING", "none"))
    """

    assert run(tmp_path, source)[1] == "5 a b ''\nnone\n"
    assert run(tmp_path, source, LIMIT="7")[1].startswith("7 ")


def test_a_run_goes_on_from_the_one_before_if_it_is_told_so(tmp_path):
    put(tmp_path, in__departures_jsonl=FLIGHTS)
    run(tmp_path)
    source = """
    import kirby
    print([m.value["minutes"] for m in kirby.topic("delays").read()])
    totals = kirby.state("totals")
    print(totals["AA"], totals.version("AA"))
    totals["AA"] = 0
    print(kirby.topic("delays").publish(1) > 5)
    """

    _, said, _ = run(tmp_path, source, dsn=f"folder:{tmp_path}?continue")

    assert said == "[5, 7]\n{'flights': 2, 'minutes': 12} 1\nTrue\n"
    assert len(lines(tmp_path, "delays")) == 3
    assert json.loads((tmp_path / "out/state/totals.json").read_text()) == {"AA": 0}


# Failures


def test_what_fails_is_said_at_the_end_and_the_rest_is_there(tmp_path):
    put(tmp_path, in__orders_jsonl=[{"key": "a", "value": n} for n in (1, 0, 2)] + [4])

    code, _, errors = run(
        tmp_path,
        """
        import kirby
        @kirby.stream("orders", to="shares")
        def share(value):
            kirby.topic("seen").publish(value)
            return 8 / value
        kirby.run()
        """,
    )

    assert code == 1
    assert values(tmp_path, "shares") == [8.0, 2.0]
    assert values(tmp_path, "seen") == [1, 4]
    assert errors.splitlines()[-1] == (
        "kirby: message 2 of topic orders (key 'a'), subscription job, is parked after 3 attempts:"
        " ZeroDivisionError: division by zero; 1 of its key wait behind it"
    )


def test_a_handler_that_ends_the_process_leaves_what_was_done(tmp_path):
    put(tmp_path, in__orders_jsonl=[1, 2, 3])
    code, _, _ = run(
        tmp_path,
        """
        import kirby, sys
        for message in kirby.topic("orders").consume():
            kirby.topic("done").publish(message.value)
            if message.value == 3:
                sys.exit(3)
        """,
    )

    assert code == 3
    assert values(tmp_path, "done") == [1, 2]


def test_a_process_that_is_killed_leaves_no_half_of_a_run(tmp_path):
    put(tmp_path, in__orders_jsonl=[1, 2, 3])
    source = """
    import kirby, os, signal
    for message in kirby.topic("orders").consume():
        kirby.topic("done").publish(message.value)
        if message.value == int(os.environ["LAST"]):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(tmp_path, source, LAST="9")[0] == 0
    assert run(tmp_path, source, LAST="3")[0] == -signal.SIGKILL
    assert not (tmp_path / "out").exists()

    assert run(tmp_path, source, LAST="9")[0] == 0
    assert values(tmp_path, "done") == [1, 2, 3]
    assert tree(tmp_path) == ["in/orders.jsonl", "out/done.jsonl"]


def test_a_disk_that_is_full_takes_back_the_whole_unit(tmp_path):
    source = """
    import kirby, os
    from kirby.core.folder import run
    kirby.topic("a").publish("first")
    real, count = os.write, [0]
    def write(file, content):
        count[0] += 1
        if count[0] == 2:
            raise OSError(28, "No space left on device")
        return real(file, content)
    os.write = write
    try:
        with kirby.transaction():
            kirby.topic("a").publish(1)
            kirby.topic("b").publish(2)
    except kirby.Invalid as error:
        print(error)
    os.write = real
    print([m.value for m in kirby.topic("a").read()], kirby.topic("a").publish("last"))
    """
    _, said, _ = run(tmp_path, source)

    assert said.splitlines() == [
        f"{tmp_path} cannot be written to: No space left on device", "['first'] 2",
    ]  # fmt: skip
    assert values(tmp_path, "a") == ["first", "last"]
    assert not any(tmp_path.glob("out/b.jsonl")) or values(tmp_path, "b") == []


# Time


def test_waiting_takes_no_time(tmp_path):
    code, said, _ = run(
        tmp_path,
        """
        import datetime, time, kirby
        begun = time.monotonic()
        in_a_week = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=7)
        kirby.topic("a").publish("week", key="k", deliver_at=in_a_week)
        kirby.topic("a").publish("now", key="k")

        @kirby.stream("a", to="b")
        def copy(value, message: kirby.Message):
            if message.attempt == 1:
                raise kirby.Retry(countdown=3600)
            return value

        kirby.run()
        print([(m.value, m.recorded_at >= in_a_week) for m in kirby.topic("b").read()])
        print(time.monotonic() - begun < 5)
        """,
    )
    assert code == 0
    assert said == "[('now', False), ('week', True)]\nTrue\n"


# Effects


def test_effects_are_left_out_and_noted(tmp_path):
    put(tmp_path, in__orders_jsonl=[{"key": "a", "value": n} for n in (1, 2)])
    code, said, _ = run(
        tmp_path,
        """
        import kirby
        @kirby.stream("orders")
        def pay(value):
            for effect in kirby.effect("charge"):
                print("charged")
        kirby.run()
        """,
    )
    assert (code, said) == (0, "")
    assert [(each["effect"], each["position"]) for each in lines(tmp_path, "effects")] == [
        ("charge", 1), ("charge", 2),
    ]  # fmt: skip


# Bad folders: one line, no trace


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"in__a_jsonl": '1\n{"x": \n'}, "in/a.jsonl, line 2 is not JSON: Expecting value"),
        ({"in__a__1_json": "{"}, "in/a/1.json is not JSON"),
        ({"in__a_jsonl": "NaN"}, "in/a.jsonl, line 1 is not JSON: it has no NaN"),
        ({"manifest_json": {"complete": False}}, "is a part of a slice: repeat the kirby pull"),
        ({"in__a__1_txt": "1"}, "in/a/1_txt is no message: each is a .json file, like 0001.json"),
        ({"in__a_txt": "1"}, "in/a_txt is no input: a topic is a folder of .json files"),
        ({"in__a_jsonl": "1", "in__a__1_json": "1"}, "topic a is there twice"),
        ({"in__a_b!_jsonl": "1"}, "in/a_b!.jsonl: 'a_b!' is not a name for a topic"),
        ({"state__A_json": {}}, "state/A.json: 'A' is not a name for a state"),
        ({"state__a_json": [1]}, "state/a.json is not an object of keys and their values"),
        ({"state__a_jsonl": [{"k": 1}]}, "state/a.jsonl, line 1 is no entry of a state"),
        ({"in__a_jsonl": [{"value": 1, "key": 5}]}, "a.jsonl, line 1: key is 5, not a string"),
        (
            {"in__a_jsonl": [{"value": 1, "position": 5}, {"value": 1, "position": 5}]},
            "in/a.jsonl, line 2 has position 5 after position 5",
        ),
        (
            {"in__a_jsonl": [{"value": 1, "position": 5}, 7]},
            "2 has no position after position 5",
        ),
        (
            {"in__a_jsonl": [7, {"value": 1, "position": 5}]},
            "all messages of a topic have a position, or none",
        ),
        ({"in__a_jsonl": [{"value": 1, "recorded_at": "x"}]}, "recorded_at is 'x', not a time"),
        ({"config_env": "A=1\nB\n"}, "config.env, line 2 is no variable: NAME=value"),
        ({"out__mine_txt": "precious"}, "out/mine_txt is no output of a run"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, files, said):
    put(tmp_path, **files)
    code, _, errors = run(
        tmp_path,
        """
        import kirby
        kirby.config("B", "")
        list(kirby.topic("a").read()) if kirby.state("a").get("x") is None else 0
        """,
    )
    assert code == 1
    assert said in errors
    assert "Traceback" not in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "out" / "mine_txt").exists() or "no output" in said


def test_messages_before_a_bad_line_are_done(tmp_path):
    put(tmp_path, in__departures_jsonl=json.dumps(FLIGHTS[0]) + "\nnonsense\n")
    code, _, errors = run(tmp_path)

    assert code == 1
    assert errors.splitlines()[-1].endswith(
        "in/departures.jsonl, line 2 is not JSON: Expecting value"
    )
    assert values(tmp_path, "delays") == [FLIGHTS[0]]


def test_there_is_no_such_folder(tmp_path):
    code, _, errors = run(tmp_path / "none")
    assert (code, errors.count("\n")) == (1, 1)
    assert "there is no folder" in errors


def test_a_folder_is_for_one_process_at_a_time(tmp_path):
    source = """
    import kirby, os, subprocess, sys
    kirby.topic("a").publish(1)
    other = subprocess.run([sys.executable, "-c", "import kirby; kirby.topic('a').publish(2)"],
                           capture_output=True, text=True)
    print(other.returncode, other.stderr)
    pid = os.fork()
    if pid == 0:
        try:
            kirby.topic("a").publish(3)
        except kirby.Invalid as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    """
    _, said, _ = run(tmp_path, source)

    assert "1 kirby: " in said
    assert "is in use by another process: a folder is for one at a time" in said
    assert "is in use by the process that this one was forked from" in said
    assert values(tmp_path, "a") == [1]


# Memory


def test_memory_does_not_grow_with_the_topic(tmp_path):
    source = """
    import kirby
    @kirby.stream("orders", to="copies", batch=500)
    def copy(values):
        return len(values)
    kirby.run()
    print(next(line.split()[1] for line in open("/proc/self/status") if "VmHWM" in line))
    """
    peaks = []
    for count in (1000, 40_000):
        folder = tmp_path / str(count)
        put(
            folder,
            in__orders_jsonl=[{"position": n, "value": "x" * 500} for n in range(1, count + 1)],
        )
        code, said, _ = run(folder, source)
        assert code == 0
        assert sum(values(folder, "copies")) == count
        peaks.append(int(said))

    assert peaks[1] - peaks[0] < 10_000  # kilobytes; the messages alone are 20,000


def test_a_script_that_waits_for_its_tasks_serves_them_itself(tmp_path):
    code, said, errors = run(
        tmp_path,
        """
        import kirby

        @kirby.task(max_attempts=2)
        def divide(one, two):
            return one / two

        @kirby.task
        def twice(one):
            found = divide.delay(2 * one, 1)
            return found.id

        print(divide.delay(6, 3).get(), divide.apply_async([8, 4], countdown=3600).get(timeout=5))
        print(kirby.result(divide, twice.delay(5).get()).get())
        try:
            divide.delay(1, 0).get()
        except kirby.TaskFailed as error:
            print(error.type, error.message)
        try:
            kirby.result("other", "x").get()
        except kirby.NotFound as error:
            print("not found")
        """,
    )
    assert said.splitlines() == [
        "2.0 2.0", "10.0", "ZeroDivisionError division by zero", "not found",
    ]  # fmt: skip
    assert code == 0, errors
