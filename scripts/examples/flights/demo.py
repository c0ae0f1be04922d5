"""What scripts/demo runs: start Kirby, deploy the flight scripts, show or check the figures."""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
from rewind import BUG, STATE, Rewinding
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
DAYS_OF_2013 = 365
PATIENCE = 300  # seconds without any progress before the check gives up
KEPT = ("KIRBY_PG_BINDIR", "KIRBY_INDEX_URL")  # of whoever started us; the rest is our own
KILLS = ("carriers", "delays", "departures", "supervisor", "postgres")

PROGRESS = """
    select coalesce((select sum((value)::int) from state_dev.departures_published), 0),
           coalesce((select sum((value ->> 'flights')::int) from state_dev.carrier_delay), 0),
           (select count(*) from kirby.message m join kirby.topic t on t.id = m.topic_id
             where t.name = 'cancellations')
"""
PIDS = """
    select r.pid from kirby.run r
      join kirby.deployment d on d.id = r.deployment_id
      join kirby.job j on j.id = d.job_id
     where j.name = %s and r.status = 'running' order by r.id
"""
STARTED = """
    select from kirby.run r
      join kirby.deployment d on d.id = r.deployment_id
      join kirby.job j on j.id = d.job_id
     where j.name = 'departures' and r.status not in ('queued', 'starting')
"""
TOTALS = """
    select t.name, count(*) from kirby.message m join kirby.topic t on t.id = m.topic_id group by 1
"""
TOPICS = ("departures", "cancellations", "delays")
COUNTED = ("flights", "minutes", "worst")
VIRTUALENV = (
    "select lock_hash from kirby.release where name = 'departures' order by id desc limit 1"
)

console = Console()


class Demo:
    """A `kirby dev` of its own, and what the demo asks of it."""

    def __init__(self, data, port):
        self.data, self.port = data, port
        self.environ = {
            k: v for k, v in os.environ.items() if k in KEPT or not k.startswith("KIRBY_")
        }
        self.process = None
        self.conn = None

    def __enter__(self):
        """Start it and wait for its line. What it prints (the admin password) is shown."""
        command = [sys.executable, "-u", "-m", "kirby", "dev"]
        command += ["--data", str(self.data), "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, env=self.environ, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        for line in self.process.stdout:
            console.print(line.rstrip(), highlight=False)
            if line.startswith("Kirby is ready"):
                self.environ["KIRBY_DSN"] = (self.data / "dsn").read_text().strip()
                threading.Thread(target=self.echo, daemon=True).start()
                return self
        sys.exit(self.process.wait() or 1)

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(KeyboardInterrupt):
            self.process.wait(60)

    def echo(self):
        """Show what it says later on: which part ended, and that it was started again."""
        for line in self.process.stdout:
            console.print(line.rstrip(), highlight=False)

    @property
    def alive(self):
        return self.process.poll() is None

    def kirby(self, *arguments):
        """Run a command of the command line; its failure ends the demo."""
        done = subprocess.run(
            [sys.executable, "-m", "kirby", *arguments],
            env=self.environ, cwd=ROOT, text=True, stdout=subprocess.PIPE,
        )  # fmt: skip
        if done.returncode:
            sys.exit(done.returncode)
        return done.stdout.strip()

    def query(self, statement, *params):
        """Rows from the database; None while it is away."""
        try:
            if self.conn is None or self.conn.closed:
                self.conn = psycopg.connect(self.environ["KIRBY_DSN"], autocommit=True)
            return self.conn.execute(statement, params).fetchall()
        except psycopg.errors.UndefinedTable:
            return []  # no state was written yet
        except psycopg.OperationalError:
            self.conn = None
            return None

    def ask(self, statement):
        """Rows from the database, as soon as it answers."""
        while (rows := self.query(statement)) is None:
            if not self.alive:
                sys.exit("kirby dev ended")
            time.sleep(0.1)
        return rows

    def deploy(self, days, carriers=HERE / "carriers.py"):
        report_dsn = (self.data / "auditor.dsn").read_text().strip()
        for script, *options in (
            (HERE / "delays.py",),
            (carriers,),
            (HERE / "report.py", "--var", f"REPORT_DSN={report_dsn}"),
        ):
            self.say("deploy", str(script), *options)
        self.deploy_departures(days)
        self.say("job", "trigger", "departures")

    def deploy_departures(self, days):
        self.say("deploy", str(HERE / "departures.py"), "--var", f"DAYS={days}")

    def say(self, *arguments):
        console.print(self.kirby(*arguments), highlight=False, soft_wrap=True)

    def expected(self, days):
        """The figures straight from the data set, computed in the virtualenv of departures."""
        with console.status("building the virtualenv of departures …"):
            while not self.ask(STARTED):
                time.sleep(0.1)
        [[lock_hash]] = self.ask(VIRTUALENV)
        python = self.data / "virtualenvs" / lock_hash / "bin" / "python"
        if not python.exists():
            sys.exit(
                "departures did not start: " + self.kirby("run", "list", "--job", "departures")
            )
        return json.loads(subprocess.check_output([python, HERE / "figures.py", str(days)]))

    def kill(self, what):
        """kill -9 a replica of a job, the supervisor, or PostgreSQL; False if it does not run."""
        pid = self.pid_of(what)
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        console.print(f"[bold red]kill -9[/] {what} (process {pid})")
        return True

    def pid_of(self, what):
        if what == "postgres":
            with contextlib.suppress(OSError, ValueError, IndexError):
                return int((self.data / "postgres/data/postmaster.pid").read_text().split()[0])
            return None
        if what == "supervisor":
            rows = self.query("select pid from kirby.supervisor where ended_at is null")
        else:
            rows = self.query(PIDS, what)
        return rows[0][0] if rows else None


def follow(demo, total, kills):
    """Show progress until every departure has had its effect; kill what is asked on the way."""
    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    due = [(what, total * (n + 1) // (len(kills) + 2)) for n, what in enumerate(kills)]
    with Progress(*columns, console=console) as progress:
        published = progress.add_task("departures", total=total)
        done = progress.add_task("carriers", total=total)
        last, since = None, time.monotonic()
        while demo.alive:
            if rows := demo.query(PROGRESS):
                [[out, tallied, cancelled]] = rows
                progress.update(published, completed=out)
                progress.update(done, completed=tallied + cancelled)
                reached = {"departures": out}
                due = [
                    (what, at)
                    for what, at in due
                    if not kill(demo, what, reached.get(what, tallied + cancelled), at, total)
                ]
                if tallied + cancelled >= total and not due:
                    return True
                if rows != last:
                    last, since = rows, time.monotonic()
            if time.monotonic() - since > PATIENCE:
                console.print(f"no progress for {PATIENCE} s: see {demo.data}/supervisor.log")
                return False
            time.sleep(0.05)
    console.print("kirby dev ended")
    return False


def kill(demo, what, reached, at, total):
    """Kill it if it is time; whether that is settled, for better or worse."""
    if reached >= total:
        console.print(f"too late to kill {what}: it has done its work")
        return True
    return reached >= at and demo.kill(what)


def compare(demo, expected):
    """Print state and data set side by side; whether every row is equal."""
    counts = dict(demo.ask(TOTALS))
    state = dict(demo.ask("select key, value from state_dev.carrier_delay"))
    wanted = expected["carriers"]
    totals = {name: (counts.get(name, 0), expected[name]) for name in TOPICS}
    totals["carriers"] = (len(state), len(wanted))
    rows = {each: (state.get(each), wanted.get(each)) for each in sorted({*state, *wanted})}

    table = Table("", *COUNTED, *COUNTED, "", box=None, pad_edge=False)
    for column in table.columns[1:-1]:
        column.justify = "right"
    for name, pair in rows.items():
        table.add_row(name, *figures(pair[0]), *figures(pair[1]), verdict(*pair))
    for name, pair in totals.items():
        console.print(f"{name:>13}  {pair[0]:>9,}  {pair[1]:>9,}  {verdict(*pair)}")
    console.print(f"\n{'Kirby':>20}{'the data set':>32}", highlight=False)
    console.print(table)
    return all(one == other for one, other in (*totals.values(), *rows.values()))


def check_rewind(arguments):
    """Run the days through with a bug, fix it, rewind, and compare; the exit code."""
    data = fresh(arguments)
    started = time.monotonic()
    with Demo(data, arguments.port or free_port()) as demo:
        demo.deploy(arguments.days, with_bug(data))
        follow(demo, demo.expected(arguments.days)["departures"], [])
        wrong = dict(demo.ask(STATE))
        fixed = [str(HERE / "carriers.py"), "--reason", "early flights count as well", "--replace"]
        demo.say("deploy", *fixed)
        rewinding = Rewinding(demo, arguments.days, not arguments.without_states)
        rewinding.plan()
        rewinding.begin()
        for what in arguments.kill or []:
            demo.kill(what)
        wait_for(rewinding.over)
        rewinding.compare(wrong)
    for name, found, wanted in rewinding.rows:
        console.print(f"{name:>40}  {found!s:>60}  {verdict(found, wanted)}", soft_wrap=True)
    equal = all(found == wanted for _, found, wanted in rewinding.rows)
    seconds = time.monotonic() - started
    console.print(f"{'every row is as it must be' if equal else 'NOT so'}, after {seconds:.0f} s")
    return 0 if equal else 1


def with_bug(data):
    """carriers.py with a bug that is easily made: flights that leave early count for nothing."""
    path = data / "with-a-bug" / "carriers.py"
    path.parent.mkdir(parents=True)
    path.write_text((HERE / "carriers.py").read_text().replace(*BUG))
    return path


def wait_for(over):
    deadline = time.monotonic() + PATIENCE
    while not over():
        if time.monotonic() > deadline:
            sys.exit(f"it did not end within {PATIENCE} s")
        time.sleep(0.1)


def verdict(one, other):
    return "equal" if one == other else "DIFFERENT"


def figures(row):
    """Flights, minutes and the worst flight of a carrier, as they are printed."""
    if row is None:
        return "-", "-", "-"
    worst = row["worst"]
    return f"{row['flights']:,}", f"{row['minutes']:,}", f"{worst['flight']} {worst['minutes']:,}"


def check(arguments):
    """Run the days through on a fresh folder, kill on the way, and compare; the exit code."""
    data = fresh(arguments)
    started = time.monotonic()
    with Demo(data, arguments.port or free_port()) as demo:
        demo.deploy(arguments.days)
        expected = demo.expected(arguments.days)
        equal = follow(demo, expected["departures"], arguments.kill or ["carriers"])
        equal = compare(demo, expected) and equal
    seconds = time.monotonic() - started
    console.print(f"{'every row is equal' if equal else 'NOT equal'}, after {seconds:.0f} s")
    return 0 if equal else 1


def fresh(arguments):
    """A folder for a check; what is left of the last one in the usual place is removed."""
    data = arguments.data or ROOT / ".kirby-check"
    if arguments.data is None:
        shutil.rmtree(data, ignore_errors=True)
    elif data.exists():
        sys.exit(f"{data} is there already: a check begins with a fresh folder")
    return data


def show(arguments):
    """Start, deploy, show progress, and stay until Ctrl-C."""
    with Demo(arguments.data or ROOT / ".kirby", arguments.port or 8700) as demo:
        demo.deploy(arguments.days)
        if follow(demo, demo.expected(arguments.days)["departures"], arguments.kill or []):
            console.print("All is tallied.")
        console.print(f"Look at http://127.0.0.1:{demo.port} ; Ctrl-C stops it.")
        demo.process.wait()
    return 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the data set, and exit")
    parser.add_argument("--days", type=int, default=31, help="how many days of 2013 (31)")
    parser.add_argument("--all", action="store_true", help="the whole year")
    parser.add_argument("--port", type=int, help="the port (8700; with --check a free one)")
    parser.add_argument("--data", type=Path, help="the folder (.kirby; with --check .kirby-check)")
    parser.add_argument("--kill", action="append", choices=KILLS,
                        help="kill -9 this on the way; may be given repeatedly")  # fmt: skip
    parser.add_argument(
        "--rewind",
        action="store_true",
        help="check a rewind of the source after a bug, beside live departures",
    )
    parser.add_argument("--without-states", action="store_true",
                        help="rewind without the states, so that they count twice")  # fmt: skip
    arguments = parser.parse_args()
    if arguments.all:
        arguments.days = DAYS_OF_2013
    if not 1 <= arguments.days <= DAYS_OF_2013:
        parser.error("--days is from 1 to 365")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kirby dev` is to end in any case
    try:
        if arguments.rewind:
            sys.exit(check_rewind(arguments))
        sys.exit(check(arguments) if arguments.check else show(arguments))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
