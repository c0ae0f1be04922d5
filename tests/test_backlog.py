"""Lines between the pump and the shipper: in order, bounded, each run by itself; no database."""

import errno
import threading
import uuid

import pytest

from kirby.server.supervisor import backlog as backlogs
from kirby.server.supervisor import spill
from kirby.server.supervisor.backlog import Backlog
from kirby.server.supervisor.lines import LONGEST, Lines


def lines(run_id, text="x", at=1.0):
    return Lines(run_id, "stdout", "info", text.encode(), at, text.count("\n") + 1)


def numbered(run_id, first, count, width=100):
    """Lines that say their own number, in blocks of a thousand."""
    for start in range(first, first + count, 1000):
        some = range(start, min(start + 1000, first + count))
        yield lines(run_id, "\n".join(f"{n:0{width}}" for n in some))


def drain(backlog, timeout=0.0):
    found = []
    while batch := backlog.take(timeout):
        found += batch.lines
        backlog.done()
    return found


def texts(found, run_id=None):
    """The lines of the process, each by itself."""
    mine = [each for each in found if each.stream != "kirby" and run_id in (None, each.run_id)]
    return [text for each in mine for text in each.text.decode().split("\n")]


def count(found):
    """How many lines a log stands for, with those that it says were dropped."""
    dropped = [int(each.text.split()[0]) for each in found if each.stream == "kirby"]
    return sum(each.number for each in found) - len(dropped) + sum(dropped)


@pytest.fixture
def backlog(tmp_path):
    """One that may use a disk."""
    made = Backlog(uuid.uuid4(), tmp_path / "spill", most=40_000_000)
    yield made
    made.close()


@pytest.fixture
def small(monkeypatch):
    """Bounds that are reached soon."""
    monkeypatch.setattr(backlogs, "CALM", 400_000)
    monkeypatch.setattr(backlogs, "FULL", 1_600_000)
    monkeypatch.setattr(spill, "SEGMENT", 300_000)


# In memory


def test_a_full_backlog_drops_lines_and_says_how_many_in_their_place():
    backlog = Backlog(uuid.uuid4())
    given = list(numbered(1, 0, 200_000))

    backlog.put(given)
    backlog.end(1)
    found = drain(backlog)

    assert len(texts(found)) < 200_000
    assert count(found) == 200_000
    assert found[-1].text.endswith(b"lines dropped: the database could not keep up")
    assert (found[-1].stream, found[-1].level) == ("kirby", "warning")
    assert backlog.is_empty()


def test_one_noisy_run_leaves_room_for_the_others():
    backlog = Backlog(uuid.uuid4())

    backlog.put(list(numbered(1, 0, 200_000)))
    backlog.put([lines(2, "quiet")])

    assert texts(drain(backlog), 2) == ["quiet"]


def test_a_quiet_run_does_not_wait_behind_a_noisy_one():
    backlog = Backlog(uuid.uuid4())
    backlog.put(list(numbered(1, 0, 50_000)))
    backlog.put([lines(2, "quiet")])

    first = backlog.take(0.0)

    assert texts(first.lines, 2) == ["quiet"]
    assert texts(first.lines, 1)[0] == f"{0:0100}"


def test_what_was_dropped_is_said_even_if_nothing_follows():
    backlog = Backlog(uuid.uuid4())
    backlog.put(list(numbered(1, 0, 200_000)))

    found = drain(backlog)

    assert count(found) == 200_000
    assert backlog.is_empty()


def test_it_is_said_of_a_run_of_which_nothing_was_kept(small):
    backlog = Backlog(uuid.uuid4())
    for run_id in (1, 2, 3):
        backlog.put(list(numbered(run_id, 0, 3000)))
    assert backlog.is_dropping(4)
    backlog.put([lines(4, "lost")])

    found = drain(backlog)

    assert [each.text for each in found if each.run_id == 4] == [
        b"1 line dropped: the database could not keep up"
    ]
    assert backlog.is_empty()


def test_the_end_of_a_run_comes_with_or_after_its_last_line():
    backlog = Backlog(uuid.uuid4())
    backlog.put(list(numbered(1, 0, 15_000)))
    backlog.end(1)

    first = backlog.take(0.0)
    backlog.done()
    second = backlog.take(0.0)

    assert first.ends == []
    assert second.ends == [1]
    assert texts(second.lines)[-1] == f"{14_999:0100}"


def test_an_end_that_comes_while_the_last_lines_are_written_is_told():
    backlog = Backlog(uuid.uuid4())
    backlog.put([lines(1)])
    assert backlog.take(0.0).ends == []
    backlog.end(1)
    backlog.done()

    assert backlog.take(0.0).ends == [1]
    backlog.done()
    assert backlog.is_empty()
    assert backlog.take(0.0) is None


def test_what_is_cleared_is_gone_and_the_rest_has_the_new_owner():
    old, new = uuid.uuid4(), uuid.uuid4()
    backlog = Backlog(old)
    backlog.put([lines(1)])
    taken = backlog.take(0.0)

    backlog.clear(new)
    backlog.done()
    backlog.put([lines(2)])
    batch = backlog.take(0.0)

    assert (taken.owner, batch.owner) == (old, new)
    assert [each.run_id for each in batch.lines] == [2]


# On disk


def spilled(tmp_path):
    return sorted(path.name for path in tmp_path.glob("spill/*/*"))


def test_what_does_not_fit_waits_on_disk_in_its_order(backlog, small, tmp_path, until):
    for block in numbered(1, 0, 100_000):
        backlog.put([block])
        until(lambda: not backlog.is_dropping(1))
    until(lambda: spilled(tmp_path))
    assert backlog._memory < 4 * backlogs.CALM
    backlog.end(1)

    found = drain(backlog, 0.1)

    assert texts(found) == [f"{n:0100}" for n in range(100_000)]
    assert spilled(tmp_path) == []
    assert backlog.is_empty()


def test_many_quiet_runs_beside_a_noisy_one_need_no_file_each(backlog, small, tmp_path, until):
    for block in numbered(1, 0, 4_000):
        backlog.put([block])
    for run_id in range(2, 100):
        backlog.put([lines(run_id, "quiet" * 100)])
    until(lambda: not backlog._queues[1].tail)

    assert {name.partition("-")[0] for name in spilled(tmp_path)} == {"1"}
    assert len(texts(drain(backlog, 0.1))) == 4_098


def test_files_that_were_shipped_are_removed_though_more_is_coming(backlog, small, tmp_path, until):
    most = 0
    found = []
    for put, block in enumerate(numbered(1, 0, 200_000)):
        backlog.put([block])
        until(lambda: not backlog._queues[1].tail)
        if put > 20 and (batch := backlog.take(0)):
            found += batch.lines
            backlog.done()
            most = max(most, len(spilled(tmp_path)))

    found += drain(backlog, 0.1)

    assert texts(found) == [f"{n:0100}" for n in range(200_000)]
    assert most * spill.SEGMENT < 6_000_000


def test_beyond_the_bound_lines_are_dropped_and_counted(backlog, small, tmp_path, until):
    for block in numbered(1, 0, 400_000):
        backlog.put([block])
        until(lambda: not backlog._queues[1].tail)
    on_disk = sum(path.stat().st_size for path in tmp_path.glob("spill/*/*"))
    assert 18_000_000 < on_disk < 22_000_000  # half of it is one run's
    backlog.put([lines(2, "there is room for me")])
    backlog.end(1)

    found = drain(backlog, 0.1)

    assert count([each for each in found if each.run_id == 1]) == 400_000
    numbers = [int(text) for text in texts(found, 1)]
    assert numbers == list(range(len(numbers)))
    assert texts(found, 2) == ["there is room for me"]


def test_a_disk_that_is_full_costs_nothing_while_there_is_memory(
    backlog, small, tmp_path, until, monkeypatch, caplog
):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spill.Segment, "append", refuse)
        given = list(numbered(1, 0, 6_000))
        backlog.put(given)
        until(lambda: backlog._disk_error)
    assert texts(drain(backlog, 0.1)) == texts(given)
    assert "output of runs cannot be kept on disk: No space left on device" in caplog.text


def test_lines_that_neither_disk_nor_memory_take_are_said_to_be_dropped(
    backlog, small, tmp_path, until, monkeypatch
):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spill.Segment, "append", refuse)
    backlog.put([lines(1, "x" * 500_000)])
    until(lambda: backlog._disk_error)
    backlog.put(list(numbered(1, 0, 30_000)))
    backlog.end(1)

    found = drain(backlog, 0.1)

    assert count(found) == 30_001
    assert found[-1].text.endswith(b"and the disk said: No space left on device")


def test_a_disk_that_hangs_holds_nobody_up(backlog, small, until, monkeypatch):
    """The writer of lines is not the one who waits for the disk."""
    hangs, go_on = threading.Event(), threading.Event()
    append = spill.Segment.append

    def hang(segment, some):
        hangs.set()
        go_on.wait(20)
        return append(segment, some)

    monkeypatch.setattr(spill.Segment, "append", hang)
    backlog.put(list(numbered(1, 0, 3_000)))
    assert hangs.wait(5)

    backlog.put(list(numbered(1, 3_000, 2_000)))
    backlog.put([lines(2, "quick")])
    batch = backlog.take(1.0)
    assert texts(batch.lines, 2) == ["quick"]
    backlog.done()
    go_on.set()

    found = [*batch.lines, *drain(backlog, 0.2)]
    assert texts(found, 1) == [f"{n:0100}" for n in range(5_000)]


def test_what_waits_on_disk_goes_with_its_owner(backlog, small, tmp_path, until):
    backlog.put(list(numbered(1, 0, 20_000)))
    until(lambda: spilled(tmp_path))

    backlog.clear(uuid.uuid4())
    backlog.put([lines(2)])

    assert list(tmp_path.glob("spill/*")) == []
    assert [each.run_id for each in drain(backlog)] == [2]


def test_no_two_threads_lose_or_swap_a_line(backlog, small, until):
    """A writer, a slow reader and the thread that writes to disk, all at once."""
    total = 150_000
    found = {1: [], 2: []}
    over = set()

    def read():
        while len(over) < 2:
            if batch := backlog.take(1.0):
                for each in batch.lines:
                    found[each.run_id] += texts([each])
                over.update(batch.ends)
                backlog.done()

    reader = threading.Thread(target=read)
    reader.start()
    for first, second in zip(
        numbered(1, 0, total, width=40), numbered(2, 0, total, width=40), strict=True
    ):
        until(lambda: backlog._memory < backlogs.FULL / 4)
        backlog.put([first, second])
    backlog.end(1)
    backlog.end(2)
    reader.join(60)

    assert not reader.is_alive()
    for run_id in (1, 2):
        assert found[run_id] == [f"{n:040}" for n in range(total)]
    until(backlog.is_empty)


def test_a_line_of_the_longest_kind_fits_into_a_batch(backlog):
    backlog.put([lines(1, "\u20ac" * LONGEST) for _ in range(50)])

    assert len(drain(backlog, 0.2)) == 50
