"""What people deploy, as tables of SQLAlchemy Core; the revisions in migrations/ define them."""

from sqlalchemy import TableClause, column, table


def _table(name: str, columns: str) -> TableClause:
    return table(name, *(column(each) for each in columns.split()), schema="kirby")


job = _table("job", "id name kind description created_at")
release = _table(
    "release",
    "id name filename source sha256 requirements lock_hash python sdk_sha256 created_by created_at",
)
deployment = _table("deployment", "id job_id environment_id version created_at")
deployment_version = _table(
    "deployment_version",
    "deployment_id version release_id schedules tz replicas max_attempts rerun_lost variables"
    " reason actor created_at",
)
