"""kirby test: run scripts on folders, and compare what comes out with what is expected."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kirby.core.errors import Invalid
from kirby.server import cases
from kirby.server.cli import connection, output


@click.command(name="test")
@click.argument("folders", metavar="DIR… [-- SCRIPT]", nargs=-1, required=True, type=Path)
@click.option("--update", is_flag=True, help="Write what comes out to expected/.")
@connection.json_option
def test(folders: tuple[Path, ...], update: bool, as_json: bool) -> None:
    """Run cases, folders with input and expected output.

    A case is a folder with in/, state/, config.env and expected/.

    The scripts are those that case.toml names, or the one after the folders. Nothing needs a
    database. Exit code 1 if anything differs.
    """
    places, script = _parted(folders)
    found = cases.all_of(places, script)
    outcomes = [_updated(case) if update else cases.run(case) for case in found]
    failed = [each for each in outcomes if each.faults]
    if as_json:
        output.document(
            {
                "cases": [
                    {"case": str(each.case.folder), "ok": not each.faults, "faults": each.faults}
                    for each in outcomes
                ]
            }
        )
    else:
        for each in outcomes:
            _show(each)
        click.echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} cases are right")
    if failed:
        sys.exit(1)


def _parted(given: tuple[Path, ...]) -> tuple[list[Path], Path | None]:
    """The folders, and the script after them. Raises Invalid."""
    scripts = [each for each in given if each.suffix == ".py"]
    if len(scripts) > 1:
        raise Invalid("one script for all cases: several are named in case.toml, scripts = […]")
    return [each for each in given if each.suffix != ".py"], scripts[0] if scripts else None


def _updated(case: cases.Case) -> cases.Outcome:
    """Run it, and take what comes out for right, unless a script failed."""
    before = cases.run(case)
    if before.faults and not before.compared:
        return before
    for name in cases.update(case):
        click.echo(f"{case.folder}: expected/{name} is written", err=True)
    return cases.Outcome(case, [], before.beside)


def _show(outcome: cases.Outcome) -> None:
    word = click.style("FAIL", fg="red") if outcome.faults else click.style("ok", fg="green")
    click.echo(f"{word}  {outcome.case.folder}")
    for fault in outcome.faults:
        click.echo(f"  {fault}")
    if outcome.beside and not outcome.faults:
        click.echo(f"  not compared: {', '.join(outcome.beside)}")
