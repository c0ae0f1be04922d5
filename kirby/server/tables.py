"""The tables of Kirby, for SQLAlchemy Core; the revisions in migrations/ define them."""

from sqlalchemy import TableClause, column, table


def _table(name: str, columns: str) -> TableClause:
    return table(name, *(column(each) for each in columns.split()), schema="kirby")


environment = _table("environment", "id name created_at")
topic = _table("topic", "id environment_id name lanes created_at")
subscription = _table("subscription", "id topic_id name mode created_at")
cursor = _table("cursor", "subscription_id lane position")
claim = _table("claim", "id subscription_id lane first last run_id fence lease_until attempt")
message = _table("message", "position topic_id lane key payload headers run_id parents recorded_at")
state = _table("state", "id environment_id name created_at")
state_entry = _table("state_entry", "state_id key version op value position run_id updated_at")
state_mutation = _table(
    "state_mutation", "position state_id key version op value run_id parents recorded_at"
)
job = _table("job", "id name kind description created_at")
artifact = _table("artifact", "sha256 filename content created_at")
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
tick = _table("tick", "deployment_id at local note status reason run_id")
run = _table(
    "run",
    "id deployment_id environment_id version status cause actor tick_at replica attempt restarts"
    " retry_of not_before queued_at started_at ended_at cancel_at supervisor_id pid exit_code"
    " signal reason",
)
log_line = _table("log_line", "position run_id stream level text at")
job_event = _table("job_event", "position run_id deployment_id type data actor recorded_at")
audit_event = _table("audit_event", "position actor verb object before after reason recorded_at")
supervisor = _table("supervisor", "id host folder pid slots lease_until registered_at ended_at")
variable = _table("variable", "id environment_id job_id name value updated_by updated_at")
token = _table("token", "hash environment_id run_id name created_at revoked_at")
account = _table("account", "id login password_hash role disabled_at created_at")
session = _table("session", "hash account_id created_at expires_at")
login_failure = _table("login_failure", "login address at")
