"""Lines of a run on disk: written, read and removed in order, and what a crash leaves of them."""

import os
import stat

import pytest

from kirby.server.supervisor import spill as spills
from kirby.server.supervisor.lines import Lines
from kirby.server.supervisor.spill import UNREADABLE, Spill, runs_in


def lines(text, stream="stdout", level="info", at=1.5):
    return Lines(7, stream, level, text.encode(), at, text.count("\n") + 1)


@pytest.fixture
def spill(tmp_path):
    made = Spill(tmp_path / "owner", 7)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def short_files(monkeypatch):
    monkeypatch.setattr(spills, "SEGMENT", 10_000)


def found(tmp_path, committed=()):
    return Spill.found(tmp_path / "owner", 7, lambda sent: sent in committed)


def rest(spill, most=100_000):
    """All lines that are left, released."""
    read = []
    while part := spill.read(most):
        read += part.lines
        spill.release(part)
    return read


def files(tmp_path):
    return sorted(path.name for path in (tmp_path / "owner").iterdir())


def test_what_is_read_is_what_was_written(spill):
    given = [
        lines("one\ntwo"),
        lines("", "stderr", "critical"),
        lines("\u20ac" * 5000, "kirby", "warning"),
    ]

    assert spill.write(given) == spill.unread
    assert spill.read(1).lines == given[:1]
    assert spill.read(1).lines == given[1:2]
    assert spill.read(1).lines == given[2:]
    assert spill.read(1) is None
    assert spill.unread == 0


def test_a_part_has_about_as_many_bytes_as_asked_for(spill):
    spill.write([lines("x" * 60) for _ in range(50)])

    assert len(spill.read(1000).lines) == 10
    assert len(spill.read(100_000).lines) == 40


def test_files_go_as_they_are_shipped(spill, tmp_path):
    for n in range(100):
        spill.write([lines(f"{n:01000}")])
    before = files(tmp_path)
    first = spill.read(10_000_000)
    assert files(tmp_path) == before

    spill.release(first)

    assert files(tmp_path) == before[1:]
    assert len(before) == 10
    assert [int(each.text) for each in [*first.lines, *rest(spill)]] == list(range(100))
    assert files(tmp_path) == before[-1:]
    spill.close()
    assert files(tmp_path) == []


def test_a_spill_that_is_removed_is_not_in_the_way_of_the_next_one(spill, tmp_path):
    spill.write([lines("first")])
    following = Spill(tmp_path / "owner", 7)
    following.write([lines("second")])

    spill.close()

    assert [each.text for each in rest(following)] == [b"second"]
    following.close()


def test_nobody_else_may_read_it(spill, tmp_path):
    spill.write([lines("x")])

    [path] = (tmp_path / "owner").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_write_that_fails_leaves_nothing_behind(spill, tmp_path, monkeypatch):
    spill.write([lines("before")])
    [path] = (tmp_path / "owner").iterdir()
    size = path.stat().st_size
    write = os.pwrite

    def fill_up(fd, data, at):
        if len(data) > 100:
            return write(fd, data[:100], at)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fill_up)
        with pytest.raises(OSError, match="No space"):
            spill.write([lines("x" * 150)])
    assert path.stat().st_size == size
    spill.write([lines("after")])

    assert [each.text for each in rest(spill)] == [b"before", b"after"]


# After a crash


def test_what_was_not_shipped_is_found_again(spill, tmp_path):
    for n in range(30):
        spill.write([lines(f"{n:01000}")])
    spill.release(spill.read(12_000))
    spill.read(3_000)

    again = found(tmp_path)

    assert [int(each.text) for each in rest(again)] == list(range(10, 30))
    assert runs_in(tmp_path / "owner") == [7]
    again.leave()
    assert files(tmp_path)


@pytest.mark.parametrize("committed", [True, False])
def test_the_fate_of_the_last_transaction_decides_where_it_goes_on(spill, tmp_path, committed):
    spill.write([lines(str(n)) for n in range(4)])
    first = spill.read(1)
    first.mark("17")
    spill.release(first)
    second = spill.read(1)
    second.mark("18")

    again = found(tmp_path, ["17", "18"] if committed else ["17"])

    assert [each.text for each in rest(again)] == (
        [b"2", b"3"] if committed else [b"1", b"2", b"3"]
    )
    again.leave()


def test_a_file_that_was_not_written_to_its_end_gives_what_is_whole(spill, tmp_path):
    spill.write([lines("one"), lines("two"), lines("three")])
    [path] = (tmp_path / "owner").iterdir()
    os.truncate(path, path.stat().st_size - 3)

    again = found(tmp_path)

    assert [each.text.decode() for each in rest(again)] == ["one", "two", UNREADABLE]
    again.leave()


def test_a_damaged_file_costs_no_other(spill, tmp_path):
    for n in range(20):
        spill.write([lines(f"{n:01000}")])
    path = sorted((tmp_path / "owner").iterdir())[0]
    content = bytearray(path.read_bytes())
    content[3_500] ^= 1
    path.write_bytes(content)

    read = rest(spill)

    numbers = [int(each.text) for each in read if each.stream == "stdout"]
    assert numbers == [0, 1, 2, *range(10, 20)]
    assert [each.text.decode() for each in read if each.stream == "kirby"] == [f"7 {UNREADABLE}"]


@pytest.mark.parametrize("content", [b"", b"rubbish", bytes(100)])
def test_rubbish_is_no_lines(tmp_path, content):
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "7-000000001").write_bytes(content)
    (tmp_path / "owner" / "readme").write_bytes(content)

    again = found(tmp_path)

    assert runs_in(tmp_path / "owner") == [7]
    assert {each.text.decode() for each in rest(again)} <= {UNREADABLE}
    again.leave()
