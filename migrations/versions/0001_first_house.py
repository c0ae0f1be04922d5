"""The first house: logs, streams, jobs, people.

Revision ID: 0001
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None

TABLES = Path(__file__).with_name("0001")


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    for name in ("logs", "streams", "jobs", "people"):
        driver.execute((TABLES / f"{name}.sql").read_text())
