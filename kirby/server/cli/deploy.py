"""kirby deploy: put a script, a project or a package to work in an environment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kirby.server import diffs, plans, proposals, releases, sdk_wheel, targets
from kirby.server.cli import connection, output
from kirby.server.deployments import Deployed
from kirby.server.diffs import Diff
from kirby.server.plans import Order
from kirby.server.plans import assignment as assignment
from kirby.server.proposals import Proposal
from kirby.server.settings import Settings
from kirby.server.sources import Sources

DURATION = "TIME"  # 90, 90s, 5m, 2h
KEYS = {
    "schedules": "schedule",
    "label": "labels",
    "need": "needs",
    "tag": "tags",
    "expect": "expects",
}


@click.command()
@click.argument("target")
@connection.env_option
@click.option("--job", help="The only one of several jobs; of a script, another name.")
@click.option("--as", "name", metavar="NAME", help="What the job is called there.")
@click.option(
    "--schedule", "schedules", metavar="LINE", multiple=True, help="When; may be repeated."
)
@click.option("--tz", help="The time zone of the schedule.  [default: UTC]")
@click.option("--exclude", metavar="CALENDAR", multiple=True, help="Not on its days.")
@click.option("--jitter", metavar=DURATION, help="Start up to so much later, always the same.")
@click.option("--catch-up", metavar="HOW", help="After an outage: none, last, all or all(N).")
@click.option("--start-by", metavar=DURATION, help="Missed if it has not begun so long after.")
@click.option("--finish-by", metavar=DURATION, help="Missed if not done so long after; or none.")
@click.option("--daemon/--no-daemon", default=None, help="Whether to keep it running.")
@click.option("--replicas", type=int, help="How many at a time (daemons).  [default: 1]")
@click.option("--max-attempts", type=int, help="How often to try a failing run.  [default: 1]")
@click.option("--retry-pause", metavar=DURATION, help="Before a try, growing.  [default: 10s]")
@click.option("--timeout", metavar=DURATION, help="How long a run may take; or none.")
@click.option("--no-progress-timeout", metavar=DURATION, help="How long it may say nothing.")
@click.option("--grace", metavar=DURATION, help="From SIGTERM to SIGKILL.  [default: 10s]")
@click.option("--concurrency", help="allow, queue, skip or replace: a run beside another.")
@click.option("--rerun", help="original or current: the version that a re-run takes.")
@click.option("--priority", type=int, help="-100 to 100; higher ones start first.  [default: 0]")
@click.option("--label", multiple=True, help="A label that its host must have; may be repeated.")
@click.option("--tag", multiple=True, help="A group that it belongs to; may be repeated.")
@click.option("--heartbeat", metavar=DURATION, help="A daemon silent for longer is missed.")
@click.option("--expect", metavar="TOPIC=TIME", multiple=True, help="A message at least so often.")
@click.option("--alert-after", type=int, help="Failures in a row that people hear of.")
@click.option("--recover-after", type=int, help="Successes in a row that end an incident.")
@click.option("--pause-after", metavar="N", help="Failures in a row that pause it; or none.")
@click.option(
    "--var", "variables", multiple=True, metavar="NAME=VALUE", help="A variable; may be repeated."
)
@click.option("--need", multiple=True, metavar="NAME", help="A variable that must be set.")
@click.option("--python", metavar="VERSION", help="Another Python of this host, such as 3.12.")
@click.option("--diff", "only_diff", is_flag=True, help="Show what would change; deploy nothing.")
@click.option("--canary", metavar="SHARE", help="Serve 10% of the keys, beside the deployed one.")
@click.option("--replace", is_flag=True, help="Stop the runs of older versions, gently, now.")
@click.option("--drain", is_flag=True, help="Replace the replicas one after the other.")
@click.option("--reason", default="", help="Why; kept in the log.")
@connection.json_option
def deploy(target: str, only_diff: bool, python: str | None, as_json: bool, **asked: Any) -> None:
    """Put a script, project or package to work.

    TARGET is a .py file, another program with a `#!` line, a project folder, a wheel, an sdist, or
    NAME==VERSION. What it says of itself in [tool.kirby] holds where no option says otherwise.
    """
    order = order_of(**asked)
    with connection.unit() as conn:
        proposals.check(conn, order)  # before the slow part
    with tempfile.TemporaryDirectory(prefix="kirby-deploy-") as folder:
        proposal, sources = _propose(target, Path(folder), order, python)
        with connection.unit() as conn:
            found = proposals.compare(conn, proposal)
        if only_diff:
            show(found, as_json)
            return
        with _working("fetching the packages of", proposal.target.name):
            proposal = proposals.fetch(proposal, Path(folder), sources)
        with connection.unit() as conn:
            done = proposals.deploy(conn, proposal, sources, actor=connection.actor())
    report(done, found, proposal, as_json)


def order_of(
    *,
    environment: str,
    job: str | None,
    name: str | None,
    reason: str,
    canary: str | None,
    replace: bool,
    drain: bool,
    **options: Any,
) -> Order:
    """What the options ask for; raises Invalid."""
    plans.check_old_runs(replace=replace, drain=drain, canary=canary)
    named = {KEYS.get(key, key): value for key, value in options.items()}
    return Order(
        environment=environment,
        job=job,
        name=name,
        options=plans.options(named),
        reason=reason,
        canary=plans.share(canary) if canary is not None else None,
        replace=replace,
        drain=drain,
    )


def _propose(
    target: str, folder: Path, order: Order, python: str | None
) -> tuple[Proposal, Sources]:
    index = Settings.from_env(os.environ).index_url
    sources = Sources(sdk_wheel.build(), hosted=releases.Stored(connection.unit), index_url=index)
    with _working("reading", target):
        read = targets.read(target, folder, sources, python=python)
    with _working("resolving the dependencies of", read.name):
        return proposals.propose(connection.unit, read, order, sources, python), sources


def _working(what: str, name: str) -> Any:
    from rich.console import Console  # slow to import, and no other command needs it
    from rich.markup import escape

    return Console(stderr=True).status(f"{what} {escape(name)} …")


# What is said


def show(found: Sequence[Diff], as_json: bool) -> None:
    """The differences, whole."""
    if as_json:
        output.document({"jobs": list(found)})
        return
    for diff in found:
        click.echo(click.style(title(diff), bold=True))
        for section in diffs.SECTIONS:
            if changes := getattr(diff, section):
                click.echo(f"{section}:")
                for change in changes:
                    click.echo(f"  {diffs.sentence(change)}")
        for kind, line in diffs.marked(diff.source):
            click.secho(printable(line), fg=COLOURS.get(kind))
        if diff.more:
            click.echo(f"… and {diff.more:,} lines more")
        if diff.is_empty:
            click.echo("no change")
        _warn(diff)


def _warn(diff: Diff) -> None:
    for warning in diff.warnings:
        click.echo(f"note: {warning}", err=True)


COLOURS = {"added": "green", "removed": "red", "place": "cyan"}


def printable(line: str) -> str:
    """A line of source for a terminal: what is no text in it is spelt out."""
    return "".join(
        each if each.isprintable() or each == "\t" else each.encode("unicode_escape").decode()
        for each in line
    )


def title(diff: Diff) -> str:
    """What a difference is about."""
    if diff.after is not None:
        return f"{diff.job} in {diff.environment}: version {diff.before} → {diff.after}"
    if diff.before is None:
        return f"{diff.job} in {diff.environment}: new"
    return f"{diff.job} in {diff.environment}: what would change of version {diff.before}"


def report(
    done: Sequence[Deployed], found: Sequence[Diff], proposal: Proposal, as_json: bool
) -> None:
    """What a deploy did; of a change, what it was."""
    if as_json:
        output.document(document(done, found))
        return
    for deployed, diff in zip(done, found, strict=True):
        click.echo(sentence(deployed, proposal.order))
        _warn(diff)
        if deployed.changed and diff.before is not None:
            for line in diffs.sentences(diff):
                click.echo(f"  {line}")


def document(done: Sequence[Deployed], found: Sequence[Diff] = ()) -> dict[str, Any]:
    """One JSON document: the jobs with their differences; of a single one also by itself."""
    jobs = [output.plain(each) for each in done]
    for job, diff in zip(jobs, found, strict=False):
        job["diff"] = list(diffs.sentences(diff))
        job["warnings"] = diff.warnings
    alone = jobs[0] if len(jobs) == 1 else {}
    return {**alone, "jobs": jobs, "stopped": sum(each.stopped for each in done)}


def sentence(done: Deployed, order: Order) -> str:
    """What a deploy did, in a line."""
    if not done.changed:
        said = f"{done.job} in {done.environment} is at version {done.version} already: no change"
    else:
        said = f"deployed {done.job} version {done.version} in {done.environment}: "
        said += work(done)
    if done.stopped:
        runs = "run is" if done.stopped == 1 else "runs are"
        return f"{said}; {done.stopped} older {runs} being stopped"
    if done.kind != "daemon" or done.version == 1 or not (done.changed or order.drain):
        return said
    if order.drain:
        return f"{said}; its replicas are replaced one after the other"
    if done.canary is None:
        said += "; what runs goes on at its version until it ends (--replace or --drain: now)"
    return said


def work(done: Deployed) -> str:
    """What it is going to do."""
    if done.canary is not None:
        return f"a canary that serves {100 * done.canary:.4g}% of the keys"
    if done.kind == "daemon":
        return f"a daemon, {done.replicas} {'replica' if done.replicas == 1 else 'replicas'}"
    if done.next_tick is not None:
        return f"next tick {done.next_tick.astimezone():%Y-%m-%d %H:%M %Z}"
    if done.kind == "scheduled":
        return "it runs after the jobs that its schedule names"
    return f"run it with 'kirby job trigger {done.job} --env {done.environment}'"
