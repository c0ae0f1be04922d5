"""The machinery of scripts/bench: what a row says, taking turns, pictures. No figure is judged."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from fix_kirby import commands

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.append(str(SCRIPTS))

from benchmarks import __main__ as entry  # noqa: E402
from benchmarks import chart, children, page, payloads, rows, table  # noqa: E402
from benchmarks.bench import QUICK, Bench  # noqa: E402
from benchmarks.house import Missing  # noqa: E402
from benchmarks.rows import Figure, Row  # noqa: E402
from benchmarks.watch import Tally, Watch  # noqa: E402

FACTS = {
    "mode": "quick", "rounds": 3, "seconds": 1, "load_before": 0.1, "versions": {"Redis": "7.0.15"},
    "settings": {"Redis": {"appendfsync": "everysec"}},
    "machine": {"processor": "a processor", "cores": 2, "memory_gb": 24, "system": "Linux 6"},
}  # fmt: skip


def row(kirby=(30.0,), against=(10.0,), **given):
    return Row("Group", "a row", Figure(kirby), Figure(against), **{"peer": "a peer"} | given)


class TestRows:
    def test_a_figure_is_the_median_of_its_rounds(self):
        figure = Figure((5.0, 1.0, 3.0))
        assert (figure.median, figure.spread) == (3.0, [1.0, 5.0])

    @pytest.mark.parametrize(
        ("target", "better", "ok"),
        [(3, "higher", True), (3.1, "higher", False), (3, "lower", True), (2.9, "lower", False)],
    )
    def test_the_target_bounds_the_ratio(self, target, better, ok):
        made = row(target=target, better=better)
        assert made.ratio == 3
        assert made.ok is ok

    def test_without_a_peer_the_target_bounds_the_figure_itself(self):
        assert row((9.9,), (), peer="", target=10, better="lower", unit="s").ok is True
        assert row((10.1,), (), peer="", target=10, better="lower", unit="s").ok is False

    def test_without_a_target_there_is_no_verdict(self):
        assert row().ok is None

    def test_a_missing_peer_is_no_verdict_but_a_missing_kirby_is_a_miss(self):
        assert row(against=(), target=1).ok is None
        assert row(kirby=(), target=1).ok is False

    def test_the_document(self):
        missing = Row(
            "Group", "b", Figure((1.0,)), Figure(missing="not installed"), peer="p", target=2
        )
        document = json.loads(json.dumps(rows.document([row(target=2), missing], mode="quick")))
        first, second = document["rows"]
        assert list(first)[:6] == ["name", "kirby", "against", "ratio", "target", "ok"]
        assert [first[key] for key in list(first)[:6]] == [
            "a row, beside a peer",
            30.0,
            10.0,
            3.0,
            2,
            True,
        ]
        assert (second["against"], second["ratio"], second["ok"]) == (None, None, None)
        assert second["missing"] == "not installed"
        assert document["mode"] == "quick"

    def test_figures_are_short(self):
        assert rows.shown(123_456.7, "/s") == "123.5 k/s"
        assert rows.shown(987.6, "/s") == "988/s"
        assert rows.shown(1.234, "ms") == "1.23 ms"
        assert rows.shown(None, "ms") == "-"


class FakeHouse:
    def path(self, name):
        return Path(name)


def bench(said=None):
    return Bench(FakeHouse(), QUICK, say=(said if said is not None else []).append)


class TestRounds:
    def test_everybody_has_a_turn_in_every_round(self):
        turns = []
        figures = bench().rounds(
            {name: lambda name=name: turns.append(name) or len(turns) for name in "AB"}
        )
        assert turns == ["A", "B"] * 3
        assert figures["A"].samples == (1, 3, 5)
        assert figures["B"].samples == (2, 4, 6)

    def test_one_may_return_several_figures(self):
        figures = bench().rounds({"A": lambda: {"p50": 1, "p99": 2}}, most=2)
        assert figures["A p99"].samples == (2, 2)

    @pytest.mark.parametrize(
        "error", [Missing("it is not installed"), children.Failed("exit 1: x")]
    )
    def test_who_is_missing_sits_out_and_says_why(self, error):
        turns = []

        def absent():
            turns.append("B")
            raise error

        figures = bench().rounds({"A": lambda: 1, "B": absent})
        assert figures["A"].samples == (1, 1, 1)
        assert turns == ["B"]
        assert figures["B"] == figures["B p50"] == Figure(missing=str(error))

    def test_counts_keep_their_step(self):
        assert bench().count(1000, 100) == 400
        assert bench().count(100, 1000) == 1000


class TestWatches:
    def test_what_came_first_is_not_counted(self, monkeypatch):
        clock = iter([10.0, 12.0])
        monkeypatch.setattr("time.monotonic", lambda: next(clock))
        ended = []
        watch = Watch(300, then=lambda: ended.append(True))
        for _ in range(3):
            watch.add(100)
        assert ended == [True]
        assert watch.rate == 100

    def test_processes_share_a_tally(self, tmp_path):
        tally = Tally.create(tmp_path / "tally")
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=add_five, args=(tally.path,)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert tally.count == 10
        assert sorted(slot[:2] for slot in tally.slots()) == [(5, 1), (5, 1)]
        assert tally.rate > 0


def add_five(path):
    tally = Tally(path)
    for _ in range(5):
        tally.add()


def test_every_payload_has_200_bytes_and_is_another():
    texts = [payloads.dumps(value) for value in payloads.values(1000)]
    assert {len(text.encode()) for text in texts} == {200}
    assert len(set(texts)) == 1000


class TestPictures:
    def board(self):
        return [
            row(target=2),
            row(target=4, note="so it is measured"),
            Row("Other", "a <b>", Figure((20.0,)), unit="s", target=10, better="lower"),
            Row("Other", "c", Figure((1.0,)), Figure(missing="not installed"), peer="p", target=2),
        ]  # fmt: skip

    def test_the_table(self, capsys):
        table.show(self.board(), FACTS)
        out = capsys.readouterr().out
        for words in ("a peer", "3.00x", "≥ 2x", "missed", "met", "c: not installed", "≤ 10 s",
                      "1 targets met, 2 missed", "so it is measured"):  # fmt: skip
            assert words in out

    def test_it_says_that_the_machine_was_busy(self):
        assert "busy" not in table.summary(self.board(), FACTS)
        assert "the machine was busy (load 3.2)" in table.summary(
            self.board(), FACTS | {"load_before": 3.21}
        )

    def test_bars_lie_right_of_the_line_where_the_target_is_met(self):
        met, missed, slow, _ = self.board()
        assert (
            chart.at(chart.times_target(met)) > chart.at(1) > chart.at(chart.times_target(missed))
        )
        assert chart.times_target(slow) == 0.5
        assert chart.at(10**6) == chart.RIGHT
        assert chart.at(10**-6) == chart.LEFT

    def test_the_chart_is_well_formed_and_has_a_bar_for_each_verdict(self):
        drawn = ElementTree.fromstring(chart.draw(self.board()))
        bars = [each.get("class") for each in drawn.iter("{http://www.w3.org/2000/svg}rect")]
        assert bars == ["page", "met", "missed", "missed"]
        assert "a <b>" in "".join(drawn.itertext())

    def test_a_row_without_a_figure_is_not_drawn(self):
        assert chart.draw([row(kirby=(), target=1)]).count("<rect") == 1

    def test_the_page(self, tmp_path):
        page.write(self.board(), FACTS, tmp_path)
        text = (tmp_path / "benchmarks.md").read_text()
        assert "| a row | 30/s | a peer | 10/s | 3.00x | ≥ 2x | met |" in text
        assert "* c: not installed" in text
        assert "Redis 7.0.15" in text
        assert "* Redis: `appendfsync = everysec`" in text
        assert "## What is compared" in text
        assert (tmp_path / "benchmarks.svg").read_text().startswith("<svg")


class TestCommand:
    def run(self, folder, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks", *arguments],
            env=children.environ(TMPDIR=str(folder)),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def test_a_subject_end_to_end(self, tmp_path):
        process = self.run(
            tmp_path, "--json", "--only", "publish", "--rounds", "1", "--scale", "0.001"
        )
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        document = json.loads(out)
        assert [each["what"] for each in document["rows"]] == [
            "publish, one a commit", "publish, 100 a commit", "publish, 1,000 a commit",
        ]  # fmt: skip
        assert all(each["ratio"] > 0 and each["ok"] in (True, False) for each in document["rows"])
        assert document["versions"]["PostgreSQL"]
        assert document["settings"]["PostgreSQL"]["fsync"] == "on"
        assert self.left(tmp_path) == []

    @pytest.mark.parametrize("wish", [signal.SIGINT, signal.SIGTERM])
    def test_broken_off_it_leaves_nothing(self, tmp_path, until, wish):
        process = self.run(tmp_path, "--only", "publish", "--scale", "50")
        until(lambda: any("benchmarks.child" in command for _, command in descendants(process.pid)))
        os.kill(process.pid, wish)
        process.communicate(timeout=60)
        assert process.returncode in (130, 143)
        assert self.left(tmp_path) == []

    def left(self, folder):
        """Files in its temporary folder, and processes on them."""
        return [*folder.iterdir(), *(c for _, c in commands() if str(folder) in c)]

    def test_subjects_are_known_by_name(self, capsys):
        with pytest.raises(SystemExit):
            entry.parse(["--only", "everything"])
        assert "redis_streams" in capsys.readouterr().err
        assert entry.parse(["--quick", "--rounds", "2"]).size.rounds == 2
        for name in entry.SUBJECTS:
            assert (SCRIPTS / "benchmarks" / "subjects" / f"{name}.py").is_file()


def descendants(pid):
    known = {pid}
    found = []
    for each, command in sorted(commands()):
        parent = parent_of(each)
        if parent in known:
            known.add(each)
            found.append((each, command))
    return found


def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None
