"""Processes of runs, and lines made of what they write; without a database."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from fix_runs import gone
from hypothesis import given
from hypothesis import strategies as st

from kirby.core.errors import Busy, KirbyError
from kirby.server.supervisor import backlog as backlogs
from kirby.server.supervisor import process
from kirby.server.supervisor.backlog import Backlog
from kirby.server.supervisor.folder import Folder
from kirby.server.supervisor.lines import LONGEST, Line, Splitter
from kirby.server.supervisor.process import CHILD, Exit, Process
from kirby.server.supervisor.pump import Pump

# Processes


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
        for end in child.output:
            os.close(end)


def read(fd):
    found = b""
    while data := os.read(fd, 65536):
        found += data
    return found


@pytest.mark.parametrize(
    ("source", "exit"),
    [
        ("pass", Exit(0)),
        ("raise SystemExit(255)", Exit(255)),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", Exit(None, 15)),
    ],
)
def test_a_process_tells_how_it_ended(start, until, source, exit):
    assert until(start(source).ended) == exit


def test_reasons_are_words():
    assert Exit(3).reason == "exit code 3"
    assert Exit(None, 11).reason == "killed by SIGSEGV"
    assert Exit(None, 63).reason == "killed by signal 63"


def test_a_process_has_exactly_the_given_variables(start):
    child = start("import os; print(sorted(os.environ))", ONE="1", TWO="2")

    assert read(child.output[0]).decode() in ("['ONE', 'TWO']\n", "['LC_CTYPE', 'ONE', 'TWO']\n")


def test_its_descriptor_is_ready_when_it_has_ended(start):
    child = start("pass")

    assert read(child.output[0]) == b""
    assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert child.fileno() >= 0


def test_a_process_that_cannot_be_started_leaves_no_descriptors(tmp_path):
    before = os.listdir("/proc/self/fd")

    with pytest.raises(KirbyError, match="cannot be started: embedded null byte"):
        Process(["x"], {"A": "a\0b"}, tmp_path)
    with pytest.raises(KirbyError, match="cannot be started: No such file"):
        Process(["x"], {}, tmp_path / "none")

    assert os.listdir("/proc/self/fd") == before


def test_a_process_whose_parent_is_another_one_does_not_start():
    """As when the supervisor died before the kernel was asked to watch it."""
    arguments = [sys.executable, "-I", "-S", CHILD, "1", sys.executable, "-c", "print('alive')"]

    done = subprocess.run(arguments, capture_output=True, check=False)

    assert (done.returncode, done.stdout) == (126, b"")


def test_a_process_dies_with_the_one_that_started_it(until):
    source = """
import sys, os, pathlib
from kirby.server.supervisor.process import Process
child = Process([sys.executable, "-c", "import time; time.sleep(600)"], dict(os.environ),
                pathlib.Path("/"))
print(child.pid, flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    pid = int(parent.stdout.readline())
    # the launcher has become the program once it is tied to its parent
    until(lambda: b"child.py" not in Path(f"/proc/{pid}/cmdline").read_bytes())

    parent.kill()

    until(lambda: gone(pid), timeout=2)
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()


def test_variables_of_kirby_win_and_cannot_be_forged():
    made = process.variables(
        {"A": "1", "KIRBY_RUN": "9", "KIRBY_X": "y", "PATH": "/mine"},
        {"KIRBY_RUN": "1"},
        virtualenv=Path("/v"),
        server={"PATH": "/usr/bin", "HOME": "/root", "KIRBY_DSN": "secret", "OTHER": "x"},
    )

    assert made == {
        "A": "1", "KIRBY_RUN": "1", "PATH": "/mine", "HOME": "/root", "LANG": "C.UTF-8",
        "VIRTUAL_ENV": "/v", "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1",
    }  # fmt: skip


# Lines


def split(*chunks, stream="stdout", hidden=""):
    splitter = Splitter(1, stream, hidden)
    found = [line for chunk in chunks for line in splitter.feed(chunk, 1.0)]
    return [line.text for line in [*found, *splitter.end(1.0)]]


@pytest.mark.parametrize(
    ("chunks", "texts"),
    [
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a\n\nb"], ["a", "", "b"]),
        ([b"a", b"b\nc"], ["ab", "c"]),
        ([b"windows\r\nlines\r\n"], ["windows", "lines"]),
        ([b"10%\r20%\r100%\ndone\n"], ["100%", "done"]),
        ([b"10%\r20%\r"], ["20%"]),
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
def test_bytes_become_lines(chunks, texts):
    assert split(*chunks) == texts


def test_a_long_line_is_cut_into_pieces():
    texts = split(b"x" * (3 * LONGEST + 5) + b"\nnext\n")

    assert [len(text) for text in texts] == [LONGEST, LONGEST, LONGEST, 5, 4]


def test_a_line_that_never_ends_is_not_kept():
    splitter = Splitter(1, "stdout")

    pieces = [line for _ in range(100) for line in splitter.feed(b"x" * 50_000, 1.0)]

    assert sum(len(piece.text) for piece in pieces) > 4_900_000
    assert len(splitter._partial) <= LONGEST


def test_the_end_of_a_flushed_line_is_no_line_of_its_own():
    splitter = Splitter(1, "stdout")

    splitter.feed(b"Password: ", 1.0)
    flushed = splitter.flush(1.0)
    rest = splitter.feed(b"\n\nnext\n", 2.0)

    assert [line.text for line in flushed] == ["Password: "]
    assert [line.text for line in rest] == ["", "next"]


def test_the_hidden_text_is_found_across_reads():
    assert split(b"a SEC", b"RET b\n", hidden="SECRET") == ["a \u2022\u2022\u2022 b"]


@given(st.lists(st.binary(max_size=50)))
def test_any_bytes_become_text_that_postgresql_takes(chunks):
    for text in split(*chunks):
        assert "\0" not in text
        assert "\n" not in text
        text.encode("utf-8")


@given(st.text(alphabet="ab\n", max_size=200), st.integers(1, 9))
def test_lines_do_not_depend_on_how_they_were_read(text, size):
    data = text.encode()
    chunks = [data[start : start + size] for start in range(0, len(data), size)]

    assert split(*chunks) == split(data)


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
    [line] = Splitter(1, "stderr").feed(text.encode() + b"\n", 1.0)

    assert line.level == level


def test_stdout_is_information_whatever_it_says():
    [line] = Splitter(1, "stdout").feed(b"ERROR\n", 1.0)

    assert line.level == "info"


def test_a_traceback_is_an_error_to_its_last_line():
    text = b'Traceback (most recent call last):\n  File "x"\n    1 / 0\nZeroDivisionError: x\nok\n'

    lines = Splitter(1, "stderr").feed(text, 1.0)

    assert [line.level for line in lines] == ["error"] * 4 + ["info"]


# The backlog


def line(run_id, text="x", at=1.0):
    return Line(run_id, "stdout", "info", text, at)


def drain(backlog):
    found = []
    while batch := backlog.take(0.0):
        found += batch.lines
        backlog.done()
    return found


def count(lines):
    """How many lines a log stands for, with those that it says were dropped."""
    dropped = [int(each.text.split()[0]) for each in lines if each.stream == "kirby"]
    return len(lines) - len(dropped) + sum(dropped)


def test_a_full_backlog_drops_lines_and_says_how_many_in_their_place():
    backlog = Backlog(uuid.uuid4())
    total = 2 * backlogs.MAX_LINES

    backlog.put([line(1, str(n)) for n in range(total)])
    backlog.end(1)
    lines = drain(backlog)

    assert len(lines) < total
    assert count(lines) == total
    assert lines[-1].text.endswith("lines dropped: the database could not keep up")
    assert (lines[-1].stream, lines[-1].level) == ("kirby", "warning")


def test_one_noisy_run_leaves_room_for_the_others():
    backlog = Backlog(uuid.uuid4())

    backlog.put([line(1) for _ in range(3 * backlogs.MAX_LINES)])
    backlog.put([line(2, "quiet")])

    assert [each.text for each in drain(backlog) if each.run_id == 2] == ["quiet"]


def test_what_was_dropped_is_said_even_if_nothing_follows():
    backlog = Backlog(uuid.uuid4())
    backlog.put([line(1) for _ in range(2 * backlogs.MAX_LINES)])

    lines = drain(backlog)

    assert count(lines) == 2 * backlogs.MAX_LINES
    assert backlog.is_empty()


def test_the_backlog_is_bounded_in_characters_too():
    backlog = Backlog(uuid.uuid4())

    for _ in range(2000):
        backlog.put([line(1, "x" * LONGEST)])

    assert sum(len(each.text) for each in drain(backlog)) <= backlogs.MAX_CHARS


def test_the_end_of_a_run_comes_with_or_after_its_last_line():
    backlog = Backlog(uuid.uuid4())
    backlog.put([line(1, str(n)) for n in range(backlogs.BATCH_LINES + 10)])
    backlog.end(1)

    first = backlog.take(0.0)
    second = backlog.take(0.0)

    assert first.ends == []
    assert second.ends == [1]
    assert second.lines[-1].text == str(backlogs.BATCH_LINES + 9)


def test_what_is_cleared_is_gone_and_the_rest_has_the_new_owner():
    old, new = uuid.uuid4(), uuid.uuid4()
    backlog = Backlog(old)
    backlog.put([line(1)])
    taken = backlog.take(0.0)

    backlog.clear(new)
    backlog.done()
    backlog.put([line(2)])
    batch = backlog.take(0.0)

    assert (taken.owner, batch.owner) == (old, new)
    assert [each.run_id for each in batch.lines] == [2]


# The pump


@pytest.fixture
def pump():
    pump = Pump(Backlog(uuid.uuid4()))
    pump.start()
    yield pump
    pump.stop()


def collect(pump, run_id, until):
    lines, ends = [], []

    def over():
        while batch := pump._backlog.take(0.01):
            lines.extend(batch.lines)
            ends.extend(batch.ends)
            pump._backlog.done()
        return run_id in ends

    until(over)
    return lines


def test_the_pump_reads_both_streams_to_their_end(pump, start, until):
    child = start("import sys; print('out'); print('ERROR err', file=sys.stderr)")
    pump.attach(1, *map(os.dup, child.output), hidden="")
    until(child.ended)

    pump.finish(1)
    lines = collect(pump, 1, until)

    assert sorted(each[1:4] for each in lines) == [
        ("stderr", "error", "ERROR err"),
        ("stdout", "info", "out"),
    ]


def test_a_line_without_end_is_shown_after_a_second(pump, until):
    out, write_out = os.pipe()
    err, write_err = os.pipe()
    pump.attach(1, out, err, hidden="")

    os.write(write_out, b"what is your name? ")
    begin = time.monotonic()
    batch = pump._backlog.take(5)

    assert [each.text for each in batch.lines] == ["what is your name? "]
    assert 0.9 < time.monotonic() - begin < 2
    os.close(write_out)
    os.close(write_err)


def test_pipes_that_stay_open_are_closed_after_a_while(pump, until):
    out, write_out = os.pipe()
    err, write_err = os.pipe()
    pump.attach(1, out, err, hidden="")
    os.write(write_out, b"one\ntwo")

    begin = time.monotonic()
    pump.finish(1)
    lines = collect(pump, 1, until)

    assert [each.text for each in lines] == ["one", "two"]
    assert 1 < time.monotonic() - begin < 4
    with pytest.raises(BrokenPipeError):
        os.write(write_out, b"nobody reads this")
    os.close(write_out)
    os.close(write_err)


def test_many_writers_are_all_read_and_nothing_is_lost(pump, start, until):
    source = "import sys\nfor n in range(300): print(n); print(n, file=sys.stderr)"
    children = [start(source) for _ in range(8)]
    for run_id, child in enumerate(children):
        pump.attach(run_id, *map(os.dup, child.output), hidden="")

    for run_id, child in enumerate(children):
        until(child.ended)
        pump.finish(run_id)
    lines = []
    ends = set()
    while len(ends) < 8:
        if batch := pump._backlog.take(5):
            lines += batch.lines
            ends |= set(batch.ends)
            pump._backlog.done()

    for run_id in range(8):
        for stream in ("stdout", "stderr"):
            texts = [each.text for each in lines if each[:2] == (run_id, stream)]
            assert texts == [str(n) for n in range(300)]


def test_a_hundred_megabytes_nobody_takes_neither_block_nor_stay_in_memory(pump, start, until):
    child = start("import sys\nfor n in range(1000): sys.stdout.write(('x' * 99 + '\\n') * 1000)")
    pump.attach(1, *map(os.dup, child.output), hidden="")

    until(child.ended, timeout=60)
    pump.finish(1)
    lines = collect(pump, 1, until)

    assert count(lines) == 1_000_000
    assert len(lines) <= backlogs.MAX_LINES


# The folder


def test_a_folder_has_one_supervisor(tmp_path):
    first, second = Folder(tmp_path), Folder(tmp_path)
    first.lock()

    with pytest.raises(Busy, match=rf"another supervisor \(process {os.getpid()}\) runs on"):
        second.lock()

    first.unlock()
    second.lock()
    second.unlock()


def test_a_script_is_written_once_and_repaired_when_it_was_changed(tmp_path):
    folder = Folder(tmp_path)
    path = folder.script("abc", "../../report.py", "print('é')\n")
    before = path.stat().st_ino

    assert path == tmp_path / "scripts" / "abc" / "report.py"
    assert folder.script("abc", "report.py", "print('é')\n").stat().st_ino == before

    path.write_text("")
    assert folder.script("abc", "report.py", "print('é')\n").read_text() == "print('é')\n"
    assert os.listdir(path.parent) == ["report.py"]


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(KirbyError, match=r"cannot write to .*/data: Not a directory") as caught:
        Folder(tmp_path / "file" / "data").lock()

    assert "\n" not in str(caught.value)
