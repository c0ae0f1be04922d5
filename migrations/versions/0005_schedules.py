"""Schedules that people trust: exceptions, calendars, deadlines, incidents, channels.

Revision ID: 0005
"""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"

TABLES = Path(__file__).with_name("0005")


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    for path in sorted(TABLES.glob("*.sql")):
        driver.execute(path.read_text())
