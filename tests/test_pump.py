"""What children write is read at once, whatever it is and whoever takes it; no database."""

import os
import signal
import sys
import time
import uuid
from pathlib import Path

import pytest
from test_backlog import count, texts

from kirby.server.supervisor import pump as pumps
from kirby.server.supervisor.backlog import Backlog
from kirby.server.supervisor.process import Process
from kirby.server.supervisor.pump import LEFT, Pump
from kirby.server.supervisor.redaction import HIDDEN


@pytest.fixture
def start(tmp_path):
    """Start `python -c source`; what is left of it is killed."""
    started = []

    def start(source, **variables):
        child = Process([sys.executable, "-u", "-c", source], variables, tmp_path)
        started.append(child)
        return child

    yield start
    for child in started:
        child.signal(signal.SIGKILL)
        while child.ended() is None:
            time.sleep(0.001)


@pytest.fixture
def pump(tmp_path):
    backlog = Backlog(uuid.uuid4(), tmp_path / "spill")
    pump = Pump(backlog)
    pump.start()
    yield pump
    pump.stop()
    backlog.close()


@pytest.fixture
def run(pump, start, until):
    """`run(source)`: all lines of a process that was run to its end."""

    def run(source, *, hidden="", timeout=20, **variables):
        child = start(source, **variables)
        pump.attach(1, *child.output, hidden=hidden)
        until(child.ended, timeout=timeout)
        pump.finish(1)
        return collect(pump, 1, until)

    return run


@pytest.fixture
def pipes(pump):
    """The ends that a child would write to, of an attached run 1."""
    (out, write_out), (err, write_err) = os.pipe(), os.pipe()
    pump.attach(1, out, err, hidden="correct-horse-battery")
    yield write_out, write_err
    for end in (write_out, write_err):
        os.close(end)


def collect(pump, run_id, until):
    found, ends = [], []

    def over():
        while batch := pump._backlog.take(0.01):
            found.extend(batch.lines)
            ends.extend(batch.ends)
            pump._backlog.done()
        return run_id in ends

    until(over, timeout=60)
    return found


def test_it_reads_both_streams_to_their_end(run):
    found = run("import sys; print('out'); print('ERROR err', file=sys.stderr)")

    assert sorted(each[1:4] for each in found) == [
        ("stderr", "error", b"ERROR err"),
        ("stdout", "info", b"out"),
    ]


def test_a_line_without_end_is_shown_after_a_second(pump, pipes):
    os.write(pipes[0], b"what is your name? ")
    begin = time.monotonic()
    batch = pump._backlog.take(5)

    assert texts(batch.lines) == ["what is your name? "]
    assert 0.9 < time.monotonic() - begin < 2


def test_what_could_begin_a_secret_is_shown_after_a_second_too(pump, pipes, until):
    os.write(pipes[0], b"we are correct\n")
    begin = time.monotonic()
    batch = pump._backlog.take(5)
    assert texts(batch.lines) == ["we are correct"]
    assert 0.9 < time.monotonic() - begin < 2
    pump._backlog.done()

    os.write(pipes[0], b"-horse-battery: that was it\n")

    assert texts(pump._backlog.take(5).lines) == [f"{HIDDEN}: that was it"]


def test_secrets_are_hidden_in_both_streams_wherever_reads_cut_them(pump, pipes, until):
    for end in pipes:
        os.write(end, b"a correct-ho")
    os.write(pipes[0], b"rse-battery b\ncorrect-horse-\nbattery\n")
    os.write(pipes[1], b"rse-battery b\n")
    pump.finish(1)

    found = collect(pump, 1, until)

    assert texts([each for each in found if each.stream == "stdout"]) == [f"a {HIDDEN} b", HIDDEN]
    assert texts([each for each in found if each.stream == "stderr"]) == [f"a {HIDDEN} b"]


def test_a_secret_is_hidden_though_lines_between_were_dropped(tmp_path, until, monkeypatch):
    backlog = Backlog(uuid.uuid4())
    pump = Pump(backlog)
    out, write_out = os.pipe()
    err, write_err = os.pipe()
    pump.attach(1, out, err, hidden=["other-secret-value", "correct-horse-battery"])
    pump.tick(0)
    monkeypatch.setattr(backlog, "is_dropping", lambda run_id: True)
    os.write(write_out, b"dropped\nand this correct-horse")
    pump.tick(0)
    monkeypatch.setattr(backlog, "is_dropping", lambda run_id: False)
    os.write(write_out, b"-battery kept\n")
    pump.tick(0)

    assert texts(backlog.take(0).lines) == [f"and this {HIDDEN} kept"]
    for end in (out, write_out, err, write_err):
        os.close(end)


def test_pipes_that_stay_open_are_closed_after_a_while_and_that_is_said(pump, pipes, until):
    os.write(pipes[0], b"one\ntwo")

    begin = time.monotonic()
    pump.finish(1)
    found = collect(pump, 1, until)

    assert texts(found) == ["one", "two"]
    assert [each.text.decode() for each in found if each.stream == "kirby"] == [LEFT]
    assert 1 < time.monotonic() - begin < 4
    with pytest.raises(BrokenPipeError):
        os.write(pipes[0], b"nobody reads this")


def test_what_the_run_wrote_before_its_end_is_read_however_late_we_are(monkeypatch):
    monkeypatch.setattr(pumps, "READ", 10)
    monkeypatch.setattr(pumps, "LEFT_OPEN", 0.0)
    backlog = Backlog(uuid.uuid4())
    pump = Pump(backlog)
    (out, write_out), (err, write_err) = os.pipe(), os.pipe()
    pump.attach(1, out, err, hidden="")
    pump.tick(0)
    os.write(write_out, b"".join(b"%09d\n" % n for n in range(1000)))

    pump.finish(1)
    pump.tick(0)

    assert texts(backlog.take(0).lines) == [f"{n:09}" for n in range(1000)]
    for end in (write_out, write_err):
        os.close(end)


def test_the_beginning_of_a_secret_at_the_very_end_is_shown(run):
    found = run("print('all is corr', end='')", hidden="correct-horse-battery")

    assert texts(found) == ["all is corr"]


def test_a_child_that_closes_its_output_goes_on_and_is_read_to_the_end(run):
    found = run(
        "import os, sys, time\n"
        "print('first')\n"
        "os.close(1)\n"
        "print('still here', file=sys.stderr)\n"
        "os.close(2)\n"
        "time.sleep(0.2)\n"
    )

    assert texts(found) == ["first", "still here"]


def test_a_grandchild_in_another_session_keeps_nobody_waiting(run):
    begin = time.monotonic()
    found = run(
        "import subprocess\n"
        "print('parent')\n"
        "subprocess.Popen(['sleep', '20'], start_new_session=True)\n"
    )

    assert texts(found) == ["parent"]
    assert found[-1].text.decode() == LEFT
    assert time.monotonic() - begin < 10


def test_a_grandchild_that_never_stops_writing_keeps_nobody_waiting(run):
    found = run(
        "import subprocess\n"
        "print('parent')\n"
        "subprocess.Popen(['timeout', '20', 'yes'], start_new_session=True)\n"
    )

    assert texts(found)[0] == "parent"
    assert found[-1].text.decode() == LEFT


def test_many_writers_are_all_read_and_nothing_is_lost(pump, start, until):
    source = "import sys\nfor n in range(300): print(n); print(n, file=sys.stderr)"
    children = [start(source) for _ in range(8)]
    for run_id, child in enumerate(children):
        pump.attach(run_id, *child.output, hidden="")

    for run_id, child in enumerate(children):
        until(child.ended)
        pump.finish(run_id)
    found = []
    ends = set()
    while len(ends) < 8:
        if batch := pump._backlog.take(5):
            found += batch.lines
            ends |= set(batch.ends)
            pump._backlog.done()

    for run_id in range(8):
        for stream in ("stdout", "stderr"):
            mine = [each for each in found if each[:2] == (run_id, stream)]
            assert texts(mine) == [str(n) for n in range(300)]


# A child that writes as fast as it can, and how long its slowest write took.
WRITER = """
import os, sys, time
block = b"".join(b"%099d\\n" % n for n in range(1000))
slowest = 0.0
began = time.monotonic()
for _ in range({count}):
    at = time.monotonic()
    view = memoryview(block)
    while view:
        view = view[os.write(1, view):]
    slowest = max(slowest, time.monotonic() - at)
with open(os.environ["DONE"], "w") as file:
    file.write(f"{{slowest}} {{time.monotonic() - began}}")
"""


def test_a_hundred_megabytes_that_nobody_takes_wait_on_disk_and_block_nobody(
    run, tmp_path, until, pump
):
    before = memory()

    found = run(WRITER.format(count=1000), DONE=str(tmp_path / "done"), timeout=60)

    slowest, total = map(float, (tmp_path / "done").read_text().split())
    assert count(found) == sum(each.number for each in found) == 1_000_000
    assert slowest < 1.0
    assert total < 20.0
    assert memory() - before < 350_000_000  # the test itself holds the hundred
    until(lambda: not list(tmp_path.glob("spill/*/*")))


def test_a_line_of_a_hundred_megabytes_is_read_in_pieces(run):
    found = run("import sys\nfor _ in range(100): sys.stdout.write('x' * 1_000_000)", timeout=60)

    assert sum(len(each.text) - each.number + 1 for each in found) == 100_000_000


def memory():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
