"""What a run may take: time, silence; and that whatever it started ends with it."""

import signal
import time

import pytest
from fix_runs import ENDED, drive, gone, runs_fixture, supervise_fixture  # noqa: F401

STUBBORN = """
    import os, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    mine = subprocess.Popen([sys.executable, "-c", child])
    other = subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
    print(mine.pid, other.pid)
    time.sleep(600)
    """


def ended(runs, run_id):
    return lambda: runs.get(run_id)["status"] in ENDED


def took(run):
    return (run["ended_at"] - run["started_at"]).total_seconds()


def test_a_run_is_asked_to_end_when_its_time_is_over(runs, supervise):
    run_id = runs.start(
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("tidied up"), sys.exit(0)))
        time.sleep(600)
        """,
        timeout=0.5,
        grace=30,
    )

    drive(supervise(), ended(runs, run_id))

    run = runs.get(run_id)
    assert (run["status"], run["exit_code"]) == ("timed_out", 0)
    assert run["reason"] == "it ran longer than its timeout of 0.5 s"
    assert 0.4 < took(run) < 5
    assert runs.texts(run_id, "stdout") == ["tidied up"]
    assert runs.texts(run_id, "kirby") == [
        "it ran longer than its timeout of 0.5 s: it is asked to end"
    ]


def test_a_run_that_does_not_end_is_killed_after_its_grace_with_all_it_started(runs, supervise):
    run_id = runs.start(STUBBORN, timeout=0.7, grace=0.5)
    supervisor = supervise()

    drive(supervisor, ended(runs, run_id))

    run = runs.get(run_id)
    assert (run["status"], run["signal"]) == ("timed_out", signal.SIGKILL)
    assert 1.1 < took(run) < 6
    pids = [int(pid) for pid in runs.texts(run_id, "stdout")[0].split()]
    drive(supervisor, lambda: all(gone(pid) for pid in pids))


def test_a_run_within_its_time_is_left_alone(runs, supervise):
    run_id = runs.start("print('quick')", timeout=30, no_progress_timeout=30)

    drive(supervise(), ended(runs, run_id))

    assert runs.get(run_id)["status"] == "succeeded"


def test_a_timed_out_run_is_tried_again(runs, supervise):
    deployment = runs.deploy(
        "import time; time.sleep(600)", timeout=0.3, max_attempts=2, retry_pause=0
    )
    runs.trigger(deployment)

    drive(supervise(), lambda: [r["status"] for r in runs.of(deployment)] == ["timed_out"] * 2)

    assert [run["attempt"] for run in runs.of(deployment)] == [1, 2]


def test_a_run_that_says_nothing_for_too_long_is_ended(runs, supervise):
    run_id = runs.start(
        """
        import time
        for n in range(8):
            print(n)
            time.sleep(0.15)
        time.sleep(600)
        """,
        no_progress_timeout=0.8,
    )

    drive(supervise(), ended(runs, run_id))

    run = runs.get(run_id)
    assert (run["status"], run["reason"]) == ("timed_out", "no line and no progress for 0.8 s")
    assert runs.texts(run_id, "stdout") == [str(n) for n in range(8)]
    assert took(run) > 1.2


def test_progress_is_a_sign_of_life_too(runs, supervise):
    run_id = runs.start(
        """
        import kirby, time
        for n in range(20):
            kirby.progress(n / 20)
            time.sleep(0.25)
        """,
        no_progress_timeout=3,
    )

    drive(supervise(), ended(runs, run_id))

    assert runs.get(run_id)["status"] == "succeeded", runs.texts(run_id)


def test_a_stopped_run_is_killed_too(runs, supervise):
    """A process that is stopped does not even hear SIGTERM."""
    run_id = runs.start(
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", timeout=0.5, grace=0.3
    )

    drive(supervise(), ended(runs, run_id))

    assert runs.get(run_id)["signal"] == signal.SIGKILL


def test_a_cancelled_run_has_its_own_grace(runs, supervise):
    run_id = runs.start(STUBBORN, grace=0.3)
    supervisor = supervise()
    drive(supervisor, lambda: runs.texts(run_id, "stdout"))

    before = time.monotonic()
    runs.ask("select kirby.cancel_run(%s, 'enough', 'test')", run_id)
    drive(supervisor, ended(runs, run_id))

    assert time.monotonic() - before < 5
    assert runs.get(run_id)["status"] == "cancelled"


@pytest.mark.parametrize("how", ["env -i", "cd / &&"])
def test_what_left_the_group_the_folder_or_the_variables_is_found(runs, supervise, how):
    """Its parent is gone, its session is its own: either the variables or the folder tell."""
    run_id = runs.start(
        f"""
        import subprocess
        command = "{how} setsid sleep 600 > /dev/null 2>&1 & echo started"
        print(subprocess.run(command, shell=True, capture_output=True, text=True).stdout)
        subprocess.run("pgrep -n -x sleep", shell=True)
        """
    )
    supervisor = supervise()
    drive(supervisor, ended(runs, run_id))
    [pid] = [int(text) for text in runs.texts(run_id, "stdout") if text.isdigit()]

    drive(supervisor, lambda: gone(pid))


# What it used


def test_a_run_tells_what_it_used(runs, supervise):
    run_id = runs.start(
        """
        import time
        block = bytearray(200_000_000)
        end = time.process_time() + 0.5
        while time.process_time() < end: pass
        """
    )

    drive(supervise(), ended(runs, run_id))

    run = runs.get(run_id)
    assert 200_000_000 < run["peak_memory"] < 300_000_000
    assert 0.5 <= run["cpu_seconds"] < 1.5
    assert not run["out_of_memory"]


def test_a_small_program_is_not_charged_with_the_supervisors_own_memory(runs, supervise):
    """The kernel's figure of a process begins with what it was forked from."""
    ballast = bytearray(150_000_000)
    run_id = runs.start("sleep 0.5", filename="small.sh")

    drive(supervise(), ended(runs, run_id))

    assert 100_000 < runs.get(run_id)["peak_memory"] < 20_000_000
    assert len(ballast)


def test_what_it_started_counts_too(runs, supervise):
    source = """
        import subprocess, sys
        child = "import time; b = bytearray(100_000_000); time.sleep(4)"
        children = [subprocess.Popen([sys.executable, "-c", child]) for _ in range(2)]
        for each in children: each.wait()
        """
    run_id = runs.start(source)

    drive(supervise(), ended(runs, run_id))

    assert runs.get(run_id)["peak_memory"] > 200_000_000


def test_a_run_that_the_kernel_killed_for_want_of_memory_is_known(runs, supervise, monkeypatch):
    from kirby.server.supervisor import meter

    kills = iter([3, 4, 4, 4])
    monkeypatch.setattr(meter, "memory_kills", lambda: next(kills))
    run_id = runs.start("import os; os.kill(os.getpid(), 9)", rerun_lost=False)

    drive(supervise(), ended(runs, run_id))

    run = runs.get(run_id)
    assert (run["status"], run["out_of_memory"]) == ("failed", True)
    assert run["reason"] == "out of memory: killed by SIGKILL"


def test_killed_by_somebody_is_not_out_of_memory(runs, supervise):
    run_id = runs.start("import os; os.kill(os.getpid(), 9)")

    drive(supervise(), ended(runs, run_id))

    assert not runs.get(run_id)["out_of_memory"]
    assert runs.get(run_id)["reason"] == "killed by SIGKILL"


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"proc/vmstat": "pgfault 7\noom_kill 5\n"}, 5),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "cgroup/a/b/memory.events": "oom 1\noom_kill 2\noom_group_kill 0\n",
                "proc/vmstat": "oom_kill 5\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n0::/\n",
                "cgroup/memory/x/memory.oom_control": "under_oom 0\noom_kill 3\n",
            },
            3,
        ),
        ({"proc/self/cgroup": "0::/\n"}, 0),
    ],
)
def test_the_kernels_count_is_read_where_it_is(tmp_path, files, count):
    from kirby.server.supervisor import meter

    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    assert meter.memory_kills(tmp_path / "cgroup", tmp_path / "proc") == count


def test_the_meter_of_a_process_that_is_gone_says_nothing():
    from kirby.server.supervisor.meter import Meter

    meter = Meter(2**22 + 1)
    meter.sample()

    assert (meter.peak_memory, meter.cpu_seconds) == (0, 0.0)
