"""Packages and their files, releases of every kind, deployments and runs whole, API tokens.

Revision ID: 0003
"""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"

TABLES = Path(__file__).with_name("0003")


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    for path in sorted(TABLES.glob("*.sql")):
        driver.execute(path.read_text())
