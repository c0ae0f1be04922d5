"""kirby pull: a slice of another environment or installation, onto this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kirby.core.errors import Invalid
from kirby.server import pulls, remotes
from kirby.server.cli import connection, exports
from kirby.server.exports import Asked


@click.command()
@click.option("--from", "source", metavar="DSN|URL", required=True,
              help="The database or the web of the other installation.")  # fmt: skip
@click.option("--token", help="A developer's token there; @FILE reads it from a file.")
@click.option("--topic", "topics", multiple=True, metavar="NAME", help="May be repeated.")
@exports.slice_options
@click.option("--states", "all_states", is_flag=True, help="All states, as they were before.")
@click.option("--state", "states", multiple=True, metavar="NAME", help="One; may be repeated.")
@click.option("--env", "environment", help="The environment there.  [default: the token's, or dev]")
@click.option("--to", "target", metavar="folder:PATH|ENVIRONMENT", required=True,
              help="A folder, or an environment here.")  # fmt: skip
def pull(
    source: str, token: str | None, environment: str | None, target: str, **asked: Any
) -> None:
    """Pull messages and states from elsewhere.

    Masked there as their topics say, before they leave, and kept in the audit log there. States are
    as they were just before the first of these messages. What broke off goes on with the same
    command; what was pulled is never published back to where it came from.
    """
    wanted = Asked(**asked)
    if not (wanted.topics or wanted.states or wanted.all_states):
        raise click.UsageError("name a --topic, a --state, or --states")
    remote = remotes.open(
        source, token=_token(token), environment=environment, actor=connection.actor()
    )
    if source.startswith("http://") and token and not _is_here(source):
        click.echo("kirby: http:// carries the token in the clear: prefer https://", err=True)
    try:
        if target.startswith(exports.FOLDER):
            folder = exports.check_path(target)
            with exports.resumable(), exports.meter() as told:
                pulled = pulls.to_folder(remote, wanted, folder, told)
            exports.report(pulled, remote, str(folder))
        else:
            _to_environment(remote, wanted, target)
    finally:
        remote.close()


def _to_environment(remote: remotes.Remote, wanted: Asked, target: str) -> None:
    with exports.writer(target) as conn:
        actor = connection.actor()
        with exports.resumable(), exports.meter() as told:
            pulled = pulls.to_environment(remote, wanted, conn, target, actor=actor, told=told)
    exports.report(pulled, remote, f"environment {target}")
    for name, lines in {**pulled.topics, **pulled.states}.items():
        if known := lines - pulled.new[name]:
            click.echo(f"{known:,} of {name} were here already")


def _token(given: str | None) -> str | None:
    if given is None or not given.startswith("@"):
        return given
    path = Path(given[1:]).expanduser()
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Invalid(f"--token: {path} cannot be read: {why}") from None


def _is_here(source: str) -> bool:
    return source.startswith(("http://127.", "http://localhost", "http://[::1]"))
