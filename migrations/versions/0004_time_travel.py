"""Time travel: rewinds, effects, state history, lineage, masks.

Revision ID: 0004
"""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = Path(__file__).with_name("0004")


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    for path in sorted(TABLES.glob("*.sql")):
        driver.execute(path.read_text())
