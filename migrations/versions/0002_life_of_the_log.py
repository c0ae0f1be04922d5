"""Streams complete, tasks, and the life of the log.

Revision ID: 0002
"""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"

TABLES = Path(__file__).with_name("0002")


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    for path in sorted(TABLES.glob("*.sql")):
        driver.execute(path.read_text())
