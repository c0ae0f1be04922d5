"""kirby job: what is deployed; run it, compare, promote, roll back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from kirby.core.errors import Invalid
from kirby.server import deployments, diffs, jobs, plans, rollouts
from kirby.server.cli import connection, output
from kirby.server.cli import deploy as deploying
from kirby.server.deployments import Deployed
from kirby.server.jobs import Job
from kirby.server.plans import Order

COLUMNS = {
    "name": "JOB",
    "kind": "KIND",
    "version": "VERSION",
    "live": "LIVE",
    "last_status": "LAST RUN",
    "last_at": "AT",
    "next_tick": "NEXT TICK",
    "description": "DESCRIPTION",
}
VERSIONS = {
    "version": "VERSION",
    "title": "RELEASE",
    "created_at": "AT",
    "actor": "BY",
    "history": "HOW",
    "reason": "REASON",
}
NONE = diffs.beside(deployments.content(plans.Plan("", ""), 0))  # as it is if nobody says it
VERSION = click.IntRange(1, 2**31 - 1)

reason_option = click.option("--reason", default="", help="Why; kept in the log.")
replace_option = click.option("--replace", is_flag=True, help="Stop older runs, gently, now.")
drain_option = click.option("--drain", is_flag=True, help="Replace replicas one after the other.")


@click.group()
def job() -> None:
    """What is deployed; run it, promote it, roll back."""


@job.command("list")
@connection.env_option
@connection.json_option
def list_(environment: str, as_json: bool) -> None:
    """List the jobs of an environment."""
    with connection.unit_in(environment) as (conn, where):
        found = jobs.listing(conn, where)
    empty = f"no jobs in {environment}: 'kirby deploy script.py --env {environment}' adds one"
    output.listing(found, COLUMNS, as_json=as_json, empty=empty)


@job.command()
@click.argument("name")
@connection.env_option
@connection.json_option
def show(name: str, environment: str, as_json: bool) -> None:
    """Show one job: its settings, versions and canary."""
    with connection.unit_in(environment) as (conn, where):
        found = jobs.get(conn, where, name)
        versions = jobs.versions(conn, found)
        ticks = jobs.next_ticks(conn, found)
        places = jobs.places(conn, name)
    if as_json:
        document = {"versions": versions, "next_ticks": ticks, "places": places}
        output.document({**output.plain(found), **document})
        return
    output.facts([("job", found.name), ("environment", environment), *_facts(found)])
    click.echo()
    output.listing(versions, VERSIONS, as_json=False, empty="no versions")


def _facts(found: Job) -> list[tuple[str, Any]]:
    is_daemon = found.kind == "daemon"
    usual = deployments.content(plans.Plan("", ""), 0)
    return [
        ("kind", found.kind),
        ("description", found.description),
        ("version", found.version),
        ("deployed", f"{found.deployed_at:%Y-%m-%d %H:%M} UTC by {found.deployed_by}"),
        ("release", _release(found)),
        ("origin", found.origin),
        ("canary", _canary(found)),
        ("schedule", found.schedules),
        ("time zone", found.tz if found.schedules else None),
        *((name, said) for name, said in diffs.beside(asdict(found)).items() if said != NONE[name]),
        ("next tick", found.next_tick),
        ("replicas", found.replicas if is_daemon else None),
        ("live runs", _live(found)),
        *(
            (name.replace("_", " "), diffs.policy(name, value))
            for name in diffs.POLICIES
            if name != "replicas" and (value := getattr(found, name)) != usual[name]
        ),
        ("variables", found.variables),
        *((what, names) for what, names in found.needs.items() if what != "secrets"),
    ]


def _release(found: Job) -> str:
    if found.release_kind == "script":
        return f"{found.filename} ({found.sha256[:10]}), Python {found.python}"
    return f"{found.package} {found.package_version}, Python {found.python}"


def _canary(found: Job) -> str | None:
    if found.canary_version is None or found.canary_share is None:
        return None
    share = f"{100 * found.canary_share:.4g}% of the keys"
    live = f"{found.canary_live} {'replica' if found.canary_live == 1 else 'replicas'} live"
    return f"version {found.canary_version} serves {share}, {live}"


def _live(found: Job) -> str:
    old = f", {found.old_live} of older versions" if found.old_live else ""
    roll = ", being replaced one after the other" if found.old_live and found.rolling else ""
    return f"{found.live}{old}{roll}"


@job.command()
@click.argument("name")
@connection.env_option
@connection.json_option
def trigger(name: str, environment: str, as_json: bool) -> None:
    """Run a job now."""
    with connection.unit_in(environment) as (conn, where):
        run_id = jobs.trigger(conn, jobs.get(conn, where, name), actor=connection.actor())
        deployments.wake_supervisors(conn)
    if as_json:
        output.document({"run": run_id})
    else:
        click.echo(f"run {run_id} is queued: 'kirby run logs {run_id} -f' follows it")


@job.command()
@click.argument("name")
@click.option("--from", "before", type=VERSION, help="A version.  [default: the one before]")
@click.option("--to", "after", type=VERSION, help="Another one.  [default: the deployed one]")
@connection.env_option
@connection.json_option
def diff(name: str, before: int | None, after: int | None, environment: str, as_json: bool) -> None:
    """Show what is different between two versions."""
    with connection.unit_in(environment) as (conn, where):
        found = jobs.get(conn, where, name)
        second = after or found.version
        first = before or max(1, second - 1)
        made = diffs.between(conn, name, environment, found.deployment_id, first, second)
    deploying.show([made], as_json)


@job.command()
@click.argument("name")
@click.option("--to", "version", type=VERSION, help="The version.  [default: the one before]")
@connection.env_option
@replace_option
@drain_option
@reason_option
@connection.json_option
def rollback(name: str, version: int | None, as_json: bool, **asked: Any) -> None:
    """Deploy an older version again.

    Nothing is resolved or built for it. Without --to it is the version before the deployed one;
    again, the one before that.
    """
    order = _order(**asked)
    with connection.unit() as conn:
        done = rollouts.rollback(conn, name, order, actor=connection.actor(), to=version)
    _report(done, order, as_json)


@job.command()
@click.argument("name")
@click.option("--from", "source", required=True, metavar="ENV", help="The environment that has it.")
@click.option("--to", "environment", required=True, metavar="ENV", help="The one that gets it.")
@click.option("--version", type=VERSION, help="Another version than the deployed one.")
@replace_option
@drain_option
@reason_option
@connection.json_option
def promote(name: str, source: str, version: int | None, as_json: bool, **asked: Any) -> None:
    """Deploy in an environment what another one has.

    The same release and settings; variables stay each environment's own.
    """
    order = _order(**asked)
    with connection.unit() as conn:
        done = rollouts.promote(
            conn, name, source, order, actor=connection.actor(), version=version
        )
    _report(done, order, as_json)


@job.command()
@click.argument("name")
@click.option("--share", metavar="SHARE", help="How many of the keys, such as 25%.")
@click.option("--promote", "promoted", is_flag=True, help="Make it the deployed version.")
@click.option("--abort", "aborted", is_flag=True, help="Take it back.")
@connection.env_option
@reason_option
@connection.json_option
def canary(
    name: str,
    share: str | None,
    promoted: bool,
    aborted: bool,
    environment: str,
    reason: str,
    as_json: bool,
) -> None:
    """Change the share of a canary, or end it."""
    if (share is not None) + promoted + aborted != 1:
        raise Invalid("say one of --share, --promote and --abort")
    plans.check_reason(reason)
    by: dict[str, Any] = {"actor": connection.actor(), "reason": reason}
    with connection.unit() as conn:
        if share is not None:
            part = plans.share(share)
            version = rollouts.resize_canary(conn, name, environment, part, **by)
            said = (
                f"version {version} of {name} in {environment} serves {100 * part:.4g}% of the keys"
            )
        else:
            version = rollouts.end_canary(conn, name, environment, promote=promoted, **by)
            said = (
                f"version {version} of {name} is deployed in {environment};"
                " its replicas are replaced one after the other"
                if promoted
                else f"the canary of {name} in {environment} is gone: version {version} serves all"
            )
    if as_json:
        output.document({"job": name, "environment": environment, "version": version})
    else:
        click.echo(said)


def _order(*, environment: str, replace: bool, drain: bool, reason: str) -> Order:
    plans.check_reason(reason)
    plans.check_old_runs(replace=replace, drain=drain)
    return Order(environment, reason=reason, replace=replace, drain=drain)


def _report(done: Deployed, order: Order, as_json: bool) -> None:
    if as_json:
        output.document(done)
    else:
        click.echo(deploying.sentence(done, order))
