"""The command line: one group, one module a noun; a KirbyError is one line and exit code 1."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn

import click
import psycopg
from sqlalchemy.exc import DBAPIError

from kirby.core import db
from kirby.core.errors import Invalid, KirbyError
from kirby.server.cli import (
    calendars,
    cases,
    catalogue,
    channels,
    config,
    databases,
    deploy,
    dev,
    effects,
    environments,
    exceptions,
    flow,
    incidents,
    jobs,
    lineage,
    packages,
    parts,
    pull,
    rewinds,
    runs,
    schedules,
    shadows,
    states,
    subscriptions,
    supervisors,
    tokens,
    topics,
    trace,
    users,
    why,
    workers,
)
from kirby.server.settings import Settings

INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="kirby", prog_name="kirby", message="%(prog)s %(version)s")
def kirby() -> None:
    """Run Python scripts, and keep everything they did in one PostgreSQL event log.

    KIRBY_DSN names the database; below a folder where 'kirby dev' runs it is found by itself.
    """
    Settings.from_env(os.environ)  # a misspelt setting is not passed over in silence


for command in (
    dev.dev,
    databases.db,
    parts.web,
    supervisors.supervisor,
    workers.worker,
    deploy.deploy,
    jobs.job,
    runs.run,
    schedules.schedule,
    calendars.calendar,
    why.group,
    exceptions.exception,
    topics.topic,
    pull.pull,
    subscriptions.subscription,
    states.state,
    rewinds.rewind,
    rewinds.group,
    channels.channel,
    effects.effect,
    shadows.shadow,
    trace.trace,
    flow.flow,
    lineage.lineage,
    incidents.incident,
    catalogue.catalogue,
    config.config,
    environments.environment,
    users.user,
    tokens.token,
    packages.package,
    cases.test,
):
    kirby.add_command(command)


def refuse(message: str) -> NoReturn:
    """Say in one line what went wrong, and exit with 1."""
    click.echo(f"kirby: {' '.join(message.split())}", err=True)
    sys.exit(1)


def main() -> None:
    """Run a command; whatever goes wrong, a user sees one line and no stack trace.

    A part that `kirby dev` started, and `python -X dev -m kirby`, show the trace of a bug.
    """
    # Ctrl-C in the middle of a statement: that the rollback fails as well is of no use to anybody.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    try:
        _check_text(sys.argv[1:])
        kirby.main(prog_name="kirby", standalone_mode=False)
        sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)
    except KirbyError as error:
        refuse(str(error))
    except Exception as error:
        if sys.flags.dev_mode or "--parent" in sys.argv:
            raise
        if isinstance(error, OSError):
            _drop_output()
        refuse(explained(error))


def explained(error: Exception) -> str:
    """What an error that is none of Kirby's own says to a user."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, psycopg.Error):
        known = db.translated(cause)
        if isinstance(known, KirbyError):
            return str(known)
        return f"the database refused: {db.one_line(cause)}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the output'}: {error.strerror}"
    return f"a fault in Kirby itself: {type(error).__name__}: {error} (python -X dev shows where)"


def _drop_output() -> None:
    """Forget what is still to be written: it would fail again when the interpreter ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_text(arguments: list[str]) -> None:
    """Raise Invalid for an argument that is not text: no log could keep it."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise Invalid(f"the argument {argument!r} is not UTF-8 text") from None
