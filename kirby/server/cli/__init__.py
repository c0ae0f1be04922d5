"""The command line: one group, one module a noun; a KirbyError is one line and exit code 1."""

from __future__ import annotations

import sys
from typing import NoReturn

import click
import psycopg
from sqlalchemy.exc import DBAPIError

from kirby.core import db
from kirby.core.errors import KirbyError
from kirby.server.cli import (
    config,
    databases,
    deploy,
    dev,
    environments,
    jobs,
    parts,
    runs,
    schedules,
    states,
    subscriptions,
    topics,
    users,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="kirby")
def kirby() -> None:
    """Run Python scripts, and keep everything they did in one PostgreSQL event log."""


for command in (
    dev.dev,
    databases.db,
    parts.web,
    parts.supervisor,
    deploy.deploy,
    jobs.job,
    runs.run,
    schedules.schedule,
    topics.topic,
    subscriptions.subscription,
    states.state,
    config.config,
    environments.environment,
    users.user,
):
    kirby.add_command(command)


def refuse(message: str) -> NoReturn:
    """Say in one line what went wrong, and exit with 1."""
    click.echo(f"kirby: {message}", err=True)
    sys.exit(1)


def main() -> None:
    """Run a command; a user sees one line for an error that Kirby raised on purpose."""
    try:
        kirby.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KirbyError as error:
        refuse(str(error))
    except (psycopg.Error, DBAPIError) as error:
        refuse(f"the database refused: {db.one_line(getattr(error, 'orig', None) or error)}")
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
