"""kirby package: what is published here; publishing without an upload tool; taking back."""

from __future__ import annotations

import os
from pathlib import Path

import click

from kirby.server import archives, packages
from kirby.server.cli import connection, output
from kirby.server.settings import Settings


@click.group()
def package() -> None:
    """Packages that are published here."""


@package.command("list")
@connection.json_option
def list_(as_json: bool) -> None:
    """List the packages."""
    with connection.unit() as conn:
        found = packages.listing(conn)
    if as_json:
        output.document([_short(each) for each in found])
    elif not found:
        click.echo("no packages")
    else:
        rows = [
            [each.name, each.latest.version, len(each.releases), each.latest.uploaded_at,
             each.latest.first.summary]
            for each in found
        ]  # fmt: skip
        output.table(rows, ["PACKAGE", "LATEST", "VERSIONS", "UPLOADED", "SUMMARY"])


def _short(each: packages.Package) -> dict[str, object]:
    versions = [release.version for release in each.releases]
    return {"name": each.name, "latest": each.latest.version, "versions": versions}


@package.command()
@click.argument("name")
@connection.json_option
def show(name: str, as_json: bool) -> None:
    """Show the versions of a package, its files and jobs."""
    with connection.unit() as conn:
        found = packages.get(conn, name)
    if as_json:
        output.document(found)
        return
    latest = found.latest
    output.facts((
        ("package", found.name),
        ("summary", latest.first.summary),
        ("latest", latest.version),
        ("needs", [*_python(latest.first), *latest.first.requires_dist]),
        ("jobs", [f"{job} = {target}" for job, target in latest.jobs.items()]),
    ))  # fmt: skip
    click.echo()
    output.table(
        [_row(file) for release in found.releases for file in release.files],
        ["VERSION", "FILE", "BYTES", "UPLOADED", "BY", "YANKED"],
    )


def _python(file: packages.File) -> list[str]:
    return [f"python {file.requires_python}"] if file.requires_python else []


def _row(file: packages.File) -> list[object]:
    yanked = file.yanked_reason if file.yanked_at else ""
    return [file.version, file.filename, file.size, file.uploaded_at, file.uploaded_by, yanked]


@package.command()
@click.argument("paths", metavar="FILE...", nargs=-1, required=True)
@connection.json_option
def upload(paths: tuple[str, ...], as_json: bool) -> None:
    """Publish wheels and sdists, all of them or none."""
    limit = Settings.from_env(os.environ).max_upload
    answers = []
    with connection.unit() as conn:
        for path in map(Path, paths):
            with archives.opened(path) as content:
                archive = packages.check(content, path.name, limit=limit)
                new = packages.store(conn, content, archive, actor=connection.actor())
            answers.append({"filename": path.name, "sha256": archive.sha256, "new": new})
    if as_json:
        output.document(answers)
        return
    for answer in answers:
        said = "is published" if answer["new"] else "was here already, with this content"
        click.echo(f"{answer['filename']} {said}")


@package.command()
@click.argument("name")
@click.argument("version")
@click.option("--reason", required=True, help="Whoever pinned the version will read it.")
def yank(name: str, version: str, reason: str) -> None:
    """Take a version back; only who pins it still gets it."""
    with connection.unit() as conn:
        packages.yank(conn, name, version, reason=reason, actor=connection.actor())
    click.echo(f"{name} {version} is yanked")


@package.command()
@click.argument("name")
@click.argument("version")
def unyank(name: str, version: str) -> None:
    """Offer a version again that was taken back."""
    with connection.unit() as conn:
        packages.unyank(conn, name, version, actor=connection.actor())
    click.echo(f"{name} {version} is offered again")
