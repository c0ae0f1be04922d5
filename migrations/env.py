"""Bring a database to the newest schema: roles, revisions, functions, views, rights; or nothing."""

import os
from pathlib import Path

from alembic import context
from sqlalchemy import Connection, create_engine

HERE = Path(__file__).parent
LOCK_TIMEOUT = "4s"


def run_file(connection: Connection, path: Path) -> None:
    """Run a file of any SQL as it is: no parameters, so % and : mean themselves."""
    connection.connection.driver_connection.execute(path.read_text())


def migrate(connection: Connection) -> None:
    connection.exec_driver_sql("set local client_min_messages = warning")
    # Migrators wait for each other as long as it takes; on other locks they give up.
    connection.exec_driver_sql("select pg_advisory_xact_lock(hashtext('kirby.migrate'))")
    connection.exec_driver_sql(f"set local lock_timeout = '{LOCK_TIMEOUT}'")

    run_file(connection, HERE / "roles.sql")
    connection.exec_driver_sql("set local role kirby_owner")
    connection.exec_driver_sql("create schema if not exists kirby")
    # Functions may call each other in any order of their files.
    connection.exec_driver_sql("set local check_function_bodies = off")

    context.configure(connection=connection, version_table_schema="kirby")
    context.run_migrations()

    for folder in ("functions", "views"):
        for path in sorted((HERE / folder).glob("*.sql")):
            run_file(connection, path)
    run_file(connection, HERE / "seed.sql")
    run_file(connection, HERE / "rights.sql")


if connection := context.config.attributes.get("connection"):
    migrate(connection)
else:
    engine = create_engine(
        os.environ["KIRBY_DSN"].replace("postgresql://", "postgresql+psycopg://")
    )
    with engine.begin() as connection:
        migrate(connection)
