"""kirby deploy: put a script to work in an environment."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from kirby.core.errors import Invalid
from kirby.server import deployments, locks, scripts, sdk_wheel
from kirby.server.cli import connection, output
from kirby.server.deployments import Deployed, Plan
from kirby.server.scripts import Script
from kirby.server.settings import Settings


@click.command()
@click.argument("target", metavar="SCRIPT.PY", type=click.Path(path_type=Path))
@connection.env_option
@click.option("--job", help="The job's name; the script's own otherwise.")
@click.option(
    "--schedule", "schedules", metavar="CRON", multiple=True, help="When; may be repeated."
)
@click.option("--tz", help="The time zone of the schedule.  [default: UTC]")
@click.option("--daemon/--no-daemon", default=None, help="Whether to keep it running.")
@click.option("--replicas", type=int, help="How many at a time (daemons).  [default: 1]")
@click.option("--max-attempts", type=int, help="How often to try a failing run.  [default: 1]")
@click.option(
    "--var", "variables", multiple=True, metavar="NAME=VALUE", help="A variable; may be repeated."
)
@click.option("--replace", is_flag=True, help="Stop the runs of older versions, gently, now.")
@click.option("--reason", default="", help="Why; kept in the log.")
@connection.json_option
def deploy(target: Path, environment: str, replace: bool, as_json: bool, **options: Any) -> None:
    """Put a script to work in an environment.

    What it says of itself in its [tool.kirby] table holds where no option says otherwise.
    """
    script = scripts.read(target)
    wanted = plan(script, environment, **options)
    index = Settings.from_env(os.environ).index_url
    with connection.unit() as conn:
        deployments.check(conn, wanted)  # before the slow part
    sdk = sdk_wheel.build()
    from rich.console import Console  # slow to import, and no other command needs it

    with Console(stderr=True).status(f"resolving the dependencies of {script.name} …"):
        lock = locks.resolve(script.dependencies, sdk=sdk, index_url=index)
    with connection.unit() as conn:
        done = deployments.deploy(conn, wanted, script, lock, sdk, actor=connection.actor())
        stopped = 0
        if replace:
            stopped = deployments.replace_running(
                conn, wanted.name, environment, actor=connection.actor()
            )
    if as_json:
        output.document({**output.plain(done), "stopped": stopped})
    else:
        click.echo(sentence(done, wanted, stopped))


def plan(
    script: Script,
    environment: str,
    *,
    job: str | None,
    schedules: tuple[str, ...],
    tz: str | None,
    daemon: bool | None,
    replicas: int | None,
    max_attempts: int | None,
    variables: tuple[str, ...],
    reason: str,
) -> Plan:
    """The options, and the script's own [tool.kirby] table where they say nothing."""
    own = script.kirby
    of_itself = own.get("schedule", ())
    given = {
        "schedules": schedules
        or ((of_itself,) if isinstance(of_itself, str) else tuple(of_itself)),
        "tz": tz or own.get("tz", "UTC"),
        "daemon": own.get("daemon", False) if daemon is None else daemon,
        "replicas": own.get("replicas", 1) if replicas is None else replicas,
        "max_attempts": own.get("max_attempts", 1) if max_attempts is None else max_attempts,
        "variables": {**own.get("variables", {}), **dict(map(assignment, variables))},
        "description": own.get("description", ""),
    }
    name = scripts.job_name(job) if job else script.name
    made = Plan(name=name, environment=environment, reason=reason, **given)
    # An option of another kind wins over the table: --daemon over its schedule, and the reverse.
    if daemon and not schedules:
        made = replace(made, schedules=())
    if schedules and daemon is None:
        made = replace(made, daemon=False)
    if not made.daemon and replicas is None:
        made = replace(made, replicas=1)
    return made


def assignment(text: str) -> tuple[str, str]:
    """NAME=VALUE as a pair; raises Invalid."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Invalid(f"{text!r} is not NAME=VALUE")
    return name, value


def sentence(done: Deployed, plan: Plan, stopped: int) -> str:
    """What a deploy did, in a line."""
    if not done.changed:
        said = f"{done.job} in {done.environment} is at version {done.version} already: no change"
    else:
        said = (
            f"deployed {done.job} version {done.version} in {done.environment}: {work(done, plan)}"
        )
    if stopped:
        said += f"; {stopped} older {'run is' if stopped == 1 else 'runs are'} being stopped"
    elif done.changed and done.kind == "daemon" and done.version > 1:
        said += "; what runs goes on at its version until it ends (--replace does it now)"
    return said


def work(done: Deployed, plan: Plan) -> str:
    """What it is going to do."""
    if done.kind == "daemon":
        return f"a daemon, {plan.replicas} {'replica' if plan.replicas == 1 else 'replicas'}"
    if done.next_tick is not None:
        return f"next tick {done.next_tick.astimezone():%Y-%m-%d %H:%M %Z}"
    return f"run it with 'kirby job trigger {done.job} --env {done.environment}'"
