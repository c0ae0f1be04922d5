"""kirby worker: serve the streams and tasks of a module, without a deployment."""

from __future__ import annotations

import os
import sys

import click

from kirby.server.cli import connection

COUNT = click.IntRange(1, 1000)


@click.command()
@click.argument("module", metavar="MODULE[:NAME,…]")
@click.option("--processes", type=COUNT, default=1, show_default=True, help="How many processes.")
@click.option("--threads", type=COUNT, default=1, show_default=True, help="Threads of each.")
@connection.env_option
def worker(module: str, processes: int, threads: int, environment: str) -> None:
    """Serve the streams and tasks of a module.

    MODULE is importable, or a file.py; or only those named. Ends at SIGTERM or Ctrl-C, when what
    is at hand is finished; a second one breaks it off.
    """
    environ = {**os.environ, "KIRBY_DSN": connection.address(), "KIRBY_ENVIRONMENT": environment}
    counts = ["--processes", str(processes), "--threads", str(threads)]
    # The server and the SDK do not import each other: from here on this process is the SDK's.
    command = [sys.executable, "-m", "kirby.sdk.pool", *counts, "--", module]
    os.execve(sys.executable, command, environ)  # noqa: S606
