"""What it costs to be a run: to start, in number, to print, and the supervisor that sees to it."""

import statistics
import subprocess
import sys
import time

from benchmarks import children
from benchmarks.rows import Figure, Row
from benchmarks.subjects.memory import MEGABYTE, own

GROUP = "Runs"
NAME = "runs"
SLOTS = 20
PATIENCE = 300  # seconds for what was queued to end
LOOKS = 40  # at the memory of the supervisor
LINES = 1_000_000  # of a hundred bytes

SCRIPTS = {
    "noop": "pass\n",
    "talker": """
import os, time
count = int(os.environ["LINES"])
block = b"".join(b"%099d\\n" % n for n in range(1000))
slowest, began = 0.0, time.monotonic()
for _ in range(count // 1000):
    view, at = memoryview(block), time.monotonic()
    while view:
        view = view[os.write(1, view):]
    slowest = max(slowest, time.monotonic() - at)
with open(os.environ["DONE"], "w") as file:
    print(time.monotonic() - began, slowest, file=file)
""",
}
QUEUE = "select kirby.queue_run(%s, 'manual', 'bench') from generate_series(1, %s)"
LEFT = "select count(*) from kirby.run where id = any(%s) and ended_at is null"
BAD = "select status || ': ' || coalesce(reason, '') from kirby.run where id = any(%s) and status <> 'succeeded' limit 1"  # noqa: E501
DEPLOYMENT = """
select d.id from kirby.deployment d join kirby.job j on j.id = d.job_id where j.name = %s
"""
SECONDS = "select extract(epoch from ended_at - started_at)::float8 from kirby.run where id = %s"


def measure(bench):
    with Host(bench) as host:
        yield from starting(bench, host)
        yield from printing(bench, host)
        yield from lasting(bench, host)


def starting(bench, host):
    count = bench.count(25)
    figures = bench.rounds({"kirby": lambda: host.each(count), "bare": lambda: host.bare(count)})
    kirby, bare = figures["kirby"], figures["bare"]
    yield Row(
        GROUP, "a run in a warm virtualenv, trigger to recorded end", kirby, bare,
        peer="bare python -m", unit="ms", better="lower",
    )  # fmt: skip
    pairs = zip(kirby.samples, bare.samples, strict=True)
    yield Row(
        GROUP, "the same, over bare python -m", Figure(tuple(k - b for k, b in pairs)), unit="ms",
        target=150, better="lower", note=f"medians of {count} runs, one after the other",
    )  # fmt: skip
    count = bench.count(200)
    figures = bench.rounds({"kirby": lambda: host.many(count)})
    yield Row(
        GROUP, "short runs of one host", figures["kirby"],
        note=f"{count} runs queued at once, {SLOTS} slots; each is a process of its own",
    )  # fmt: skip


def printing(bench, host):
    count = bench.count(LINES, 1000)
    dsn = bench.house.database("lines_limit")
    figures = bench.rounds(
        {
            "kirby": lambda: host.talk(count),
            "copy": lambda: bench.call("limits", "copy_lines", dsn=dsn, count=count),
            "cat": lambda: host.talk_to_cat(count),
        },
        most=3,
    )
    yield Row(
        GROUP, "lines from a script into the log", figures["kirby lines"], figures["copy"],
        peer="psycopg COPY of the same rows",
        note=f"{count:,} lines of a hundred bytes, as fast as the script can print them",
    )  # fmt: skip
    yield Row(
        GROUP, f"a script prints {count // 10_000} MB", figures["kirby total"],
        figures["cat total"], peer="to cat > /dev/null", unit="s", better="lower",
    )  # fmt: skip
    yield Row(
        GROUP, "its slowest write of a hundred kB", figures["kirby slowest"], unit="ms", target=500,
        better="lower", note="a script never waits for the database: what is too much is on disk",
    )  # fmt: skip


def lasting(bench, host):
    count = bench.size.runs
    figures = bench.rounds({"kirby": lambda: host.memory(count)}, most=1)
    yield Row(
        GROUP, f"the supervisor, last quarter of {count:,} runs", figures["kirby last"],
        figures["kirby first"], peer="itself, first quarter", unit="MB", target=1.1, better="lower",
    )  # fmt: skip


class Host:
    """A database, a supervisor on it, and the scripts deployed."""

    def __init__(self, bench):
        self.bench = bench
        self.folder = bench.house.path("host")

    def __enter__(self):
        self.folder.mkdir()
        logins = self.bench.house.logins(NAME)
        self.env = children.environ(
            KIRBY_DSN=logins["kirby_server"],
            KIRBY_WORKER_DSN=logins["kirby_worker"],
            KIRBY_DATA=str(self.folder / "data"),
            KIRBY_SLOTS=str(SLOTS),
        )
        self.conn = self.bench.house.admin(NAME)
        self.conn.execute("listen kirby_job")
        command = [sys.executable, "-m", "kirby", "supervisor"]
        self.process = children.spawn(command, self.bench.log, self.env)
        self.deployments = {name: self._deploy(name) for name in SCRIPTS}
        for name in SCRIPTS:
            self.run(name, 1)  # the virtualenv is built
        return self

    def __exit__(self, *_):
        children.stop(self.process)
        self.conn.close()

    def _deploy(self, name):
        script = self.folder / f"{name}.py"
        script.write_text(SCRIPTS[name])
        variables = {"LINES": "1000", "DONE": str(self.folder / "done")} if name == "talker" else {}
        self._kirby("deploy", script, *_vars(variables))
        [[deployment]] = self.conn.execute(DEPLOYMENT, [name]).fetchall()
        return deployment

    def _kirby(self, *arguments):
        command = [sys.executable, "-m", "kirby", *map(str, arguments)]
        said = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        if said.returncode:
            raise children.Failed(said.stderr.strip())

    def run(self, name, count):
        """Queue so many runs at once, and wait until they have ended well; their ids."""
        with self.conn.transaction():
            rows = self.conn.execute(QUEUE, [self.deployments[name], count]).fetchall()
        self.conn.execute("notify kirby_run")
        ids = [number for [number] in rows]
        deadline = time.monotonic() + PATIENCE
        while self.conn.execute(LEFT, [ids]).fetchone()[0]:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise children.Failed(f"runs did not end: {children.last_words(self.process)}")
            for _ in self.conn.notifies(timeout=0.5, stop_after=1):
                pass
        if bad := self.conn.execute(BAD, [ids]).fetchone():
            raise children.Failed(f"a run of {name} {bad[0]}")
        return ids

    def each(self, count):
        """Milliseconds from asking for a run until its end is recorded; the median of some."""
        return statistics.median(_milliseconds(lambda: self.run("noop", 1)) for _ in range(count))

    def bare(self, count):
        [python, *_] = self.folder.glob("data/virtualenvs/*/bin/python")
        command = [str(python), "-m", "noop"]
        return statistics.median(
            _milliseconds(lambda: subprocess.run(command, cwd=self.folder, check=True))
            for _ in range(count)
        )

    def many(self, count):
        return count / (_milliseconds(lambda: self.run("noop", count)) / 1000)

    def talk(self, count):
        """Lines a second, from the start of the process until all are in the log."""
        self._kirby("deploy", self.folder / "talker.py", *_vars(self._told(count)))
        [run] = self.run("talker", 1)
        [[logged]] = self.conn.execute(
            "select count(*) from kirby.log_line where run_id = %s and stream = 'stdout'", [run]
        ).fetchall()
        if logged != count:
            raise children.Failed(f"{count - logged} lines are missing")
        [[seconds]] = self.conn.execute(SECONDS, [run]).fetchall()
        return {"lines": count / seconds, **self._said()}

    def talk_to_cat(self, count):
        with open("/dev/null", "wb") as nowhere:
            reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=nowhere)
            command = [sys.executable, self.folder / "talker.py"]
            env = children.environ(**self._told(count))
            subprocess.run(command, env=env, stdout=reader.stdin, check=True)
            reader.stdin.close()
            reader.wait()
        return self._said()

    def _told(self, count):
        return {"LINES": str(count), "DONE": str(self.folder / "done")}

    def _said(self):
        total, slowest = map(float, (self.folder / "done").read_text().split())
        return {"total": total, "slowest": 1000 * slowest}

    def memory(self, count):
        """Megabytes of the supervisor over so many runs, in the first and the last quarter."""
        seen = []
        for look in range(LOOKS):
            self.run("noop", max(1, count // LOOKS))
            seen.append(own(self.process.pid) / MEGABYTE)
            if look % 4 == 3:
                self.bench.say(f"    {(look + 1) * count // LOOKS:,} runs: {seen[-1]:.1f} MB")
        quarter = LOOKS // 4
        return {"first": statistics.mean(seen[:quarter]), "last": statistics.mean(seen[-quarter:])}


def _vars(variables):
    return [part for name, value in variables.items() for part in ("--var", f"{name}={value}")]


def _milliseconds(work):
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)
