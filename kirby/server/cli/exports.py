"""kirby topic mask, export and import: what leaves a topic, and what comes in."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from kirby.core import db, protocol
from kirby.core.errors import Invalid, KirbyError
from kirby.server import masks, pulls, remotes, slices
from kirby.server.cli import connection, output, states, topics
from kirby.server.exports import Asked
from kirby.server.imports import Done
from kirby.server.masks import Mask
from kirby.server.pulls import Pulled, Step, Told
from kirby.server.remotes import Remote

FOLDER = "folder:"
Command = TypeVar("Command", bound=Callable[..., Any])


def slice_options(command: Command) -> Command:
    """The options that choose messages: --since, --until, --after, --key, --limit."""
    for option in (
        click.option("--limit", type=click.IntRange(1, 2**62), help="So many of each topic."),
        click.option("--keys", "--key", "keys", metavar="KEY", multiple=True,
                     help="Those with this key; may be repeated."),
        click.option("--after", type=connection.POSITION, help="After this position."),
        click.option("--until", metavar="TIME", help="Recorded before it; as --since."),
        click.option("--since", metavar="TIME", help="ISO 8601, or 2h: two hours ago."),
    ):  # fmt: skip
        command = option(command)
    return command


def mask_options(command: Command) -> Command:
    """What kirby topic mask and kirby state mask take."""
    for option in (
        connection.json_option,
        connection.env_option,
        click.option("--reason", default="", help="Why; kept in the audit log."),
        click.option("--deny/--no-deny", default=None, help="Drop what no rule names."),
        click.option("--remove", metavar="FIELD", multiple=True, help="Take a rule away."),
        click.argument("rules", metavar="[FIELD=RULE]...", nargs=-1),
        click.argument("name"),
    ):
        command = option(command)
    return command


@topics.topic.command("mask")
@mask_options
def mask_topic(name: str, environment: str, **change: Any) -> None:
    """Show, or set, what an export makes of fields.

    RULE is drop, hash, fake or keep; FIELD a path such as customer.email or items.*.price, or @key,
    @headers.NAME, @value.
    """
    _mask(name, environment, masks.of_topic, masks.change_topic, **change)


@states.state.command("mask")
@mask_options
def mask_state(name: str, environment: str, **change: Any) -> None:
    """Show, or set, what an export makes of fields.

    As 'kirby topic mask'.
    """
    _mask(name, environment, masks.of_state, masks.change_state, **change)


def _mask(
    name: str,
    environment: str,
    show: Callable[..., Mask],
    change: Callable[..., Mask],
    *,
    rules: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    given = dict(_rule(text) for text in rules)
    asks = given or options["remove"] or options["deny"] is not None
    with connection.unit_in(environment) as (conn, where):
        found = (
            change(conn, where, name, rules=given, actor=connection.actor(), **options)
            if asks
            else show(conn, where, name)
        )
    if as_json:
        output.document(found)
        return
    otherwise = "is dropped (the key is hashed)" if found.deny else "leaves as it is"
    for each in found.rules:
        click.echo(f"{each.path}  {each.rule}")
    click.echo(f"{'everything else' if found.rules else f'everything of {name}'} {otherwise}")


def _rule(text: str) -> tuple[str, str]:
    path, equals, rule = text.rpartition("=")
    if not equals or not path:
        raise click.UsageError(f"{text!r} is no rule: write it like customer.email=hash")
    return path, rule


@topics.topic.command("export")
@click.argument("name")
@click.option("--to", "target", metavar="PATH|-", required=True,
              help="A file, folder:PATH, or - for standard output.")  # fmt: skip
@slice_options
@connection.env_option
def export(name: str, target: str, environment: str, **asked: Any) -> None:
    """Write messages of a topic as lines of JSON.

    Masked as the topic says, and kept in the audit log. A folder has a manifest besides, and goes
    on where it was if it broke off.
    """
    wanted = Asked(topics=(name,), **asked)
    if target.startswith(FOLDER):
        folder = check_path(target)
        with resumable(), own(environment) as remote, meter() as told:
            report(pulls.to_folder(remote, wanted, folder, told), remote, str(folder))
        return
    with own(environment) as remote:
        if target == "-":
            _stream(remote, wanted, name)
            return
        _to_file(remote, wanted, name, Path(target))


def _stream(remote: Remote, wanted: Asked, name: str) -> None:
    begun = remote.begin(wanted.checked())
    after = begun.topics[name]["after"]
    for lines in remote.messages(begun.id, name, after=after, limit=wanted.limit):
        sys.stdout.buffer.write(lines)
    sys.stdout.buffer.flush()
    remote.end(begun.id)


def _to_file(remote: Remote, wanted: Asked, name: str, path: Path) -> None:
    """The file is whole, or not there."""
    begun = remote.begin(wanted.checked())
    part = slices.File(path.with_name(f"{path.name}.part"))
    after = begun.topics[name]["after"]
    with slices.writing(path):
        part.path.unlink(missing_ok=True)
    found = remote.messages(begun.id, name, after=after, limit=wanted.limit)
    with meter() as told:
        for _ in slices.fill(part, found):
            told(Step(name, part.lines, None))
    with slices.writing(path):
        part.path.replace(path)
    remote.end(begun.id)
    click.echo(f"exported {part.lines:,} messages of {name} to {path}")


@topics.topic.command("import")
@click.argument("path", metavar="PATH|-")
@click.option("--topic", "name", help="Of a file, where to.  [default: as the file is called]")
@click.option("--changed", is_flag=True, help="Even if its files are not as they were exported.")
@connection.env_option
def import_(path: str, name: str | None, changed: bool, environment: str) -> None:
    """Publish an exported folder, or a file of envelopes.

    Keys, values, headers and the order stay; a second time changes nothing. What was exported from
    this environment does not come back to it.
    """
    with resumable(), writer(environment) as conn, meter() as told:
        if path == "-":
            if not name:
                raise click.UsageError("'-' needs --topic")
            source, content = f"stdin:{uuid.uuid4()}", _standard_input()
            done = {name: pulls.from_blocks(conn, content, name, source=source, told=told)}
        elif Path(path).is_dir():
            if name:
                raise click.UsageError("--topic goes with a file")
            done = pulls.from_folder(
                conn, Path(path), environment=environment, actor=connection.actor(),
                changed=changed, told=told,
            )  # fmt: skip
        else:
            name = name or Path(path).name.removesuffix(".jsonl")
            done = {name: pulls.from_file(conn, Path(path), name, told=told)}
    for what, each in done.items():
        click.echo(said(what, each))


def said(what: str, done: Done) -> str:
    """What came of an import, in a line."""
    known = done.read - done.new
    told = f"imported {done.new:,} of {what}"
    return f"{told}; {known:,} were here already" if known else told


def _standard_input() -> Iterator[bytes]:
    rest = b""
    while block := sys.stdin.buffer.read(1 << 20):
        lines, newline, rest = (rest + block).rpartition(b"\n")
        yield lines + newline
    yield rest


@contextmanager
def own(environment: str) -> Iterator[Remote]:
    """The environment of our own installation as something to pull from."""
    with connection.unit_in(environment):
        pass  # names what is wrong with the database or the environment
    remote = remotes.open(
        connection.address(),
        token=os.environ.get("KIRBY_TOKEN"),
        environment=environment,
        actor=connection.actor(),
    )
    try:
        yield remote
    finally:
        remote.close()


@contextmanager
def writer(environment: str) -> Iterator[db.Connection]:
    """A connection in autocommit that writes to an environment of our own installation."""
    with connection.unit_in(environment):
        pass
    with db.connect(connection.address(), application="kirby import") as conn:
        protocol.greet(conn, token=os.environ.get("KIRBY_TOKEN"), environment=environment)
        yield conn


@contextmanager
def resumable() -> Iterator[None]:
    """What Ctrl-C or a full disk leaves can be gone on with, and it is said so."""
    try:
        yield
    except KeyboardInterrupt:
        raise KirbyError("interrupted: the same command goes on where it was") from None
    except slices.NotWritten as error:
        raise KirbyError(f"{error} (what is there is kept: the same command goes on)") from None


@contextmanager
def meter() -> Iterator[Told]:
    """Shows how far it is, where somebody looks."""
    from rich.console import Console  # slow to import, and no other command needs it
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[lines]:,}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def told(step: Step) -> None:
            if step.what not in tasks:
                tasks[step.what] = bars.add_task(step.what, total=None, lines=0)
            total = 1.0 if step.part is not None else None
            bars.update(tasks[step.what], total=total, completed=step.part or 0.0, lines=step.lines)

        yield told


def report(pulled: Pulled, remote: Remote, where: str) -> None:
    """Say what was pulled, a line for each topic and state."""
    origin = pulled.export.origin
    for name, lines in pulled.topics.items():
        click.echo(f"pulled {lines:,} messages of {name} from {origin['environment']}")
    for name, lines in pulled.states.items():
        click.echo(f"pulled {lines:,} keys of state {name} as of position {origin['at']}")
    went_on = f"; {pulled.there:,} were there from before" if pulled.there else ""
    masked = pulled.export.masks()
    bare = [name for name in pulled.topics if name not in masked]
    masks_said = f"masked: {', '.join(sorted(masked))}" if masked else "nothing is masked"
    if masked and bare:
        masks_said += f"; as they are: {', '.join(sorted(bare))}"
    click.echo(f"from {remote.place} to {where} ({masks_said}){went_on}")


def check_path(text: str) -> Path:
    """The folder of ``folder:PATH``; raises Invalid."""
    path = text.removeprefix(FOLDER)
    if not path:
        raise Invalid("folder: names no folder: write it like folder:cases/monday")
    return Path(path).expanduser()
