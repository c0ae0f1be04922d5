"""Runs and what they read and wrote as OpenLineage events, for catalogues beside Kirby.

Events are made from what the log knows, when they are asked for, and are the same whenever they are
asked for again: a receiver that gets one twice sees one run.
"""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.error import URLError

from sqlalchemy import Connection

from kirby.core.errors import Invalid, Unavailable
from kirby.server import catalogue, query
from kirby.server.environments import Environment

PRODUCER = "https://pypi.org/project/kirby/"
SPEC = "https://openlineage.io/spec"
RUN_EVENT = f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, PRODUCER)
TYPES = {"succeeded": "COMPLETE", "failed": "FAIL", "timed_out": "FAIL", "lost": "FAIL"}
TIMEOUT = 30  # seconds that a receiver may take for one event

RUNS = """
    select r.id, j.name as job, r.status, r.cause, r.reason, r.started_at, r.ended_at,
           j.kind, l.name as package, coalesce(l.version, left(l.sha256, 12)) as version
      from kirby.run r
      join kirby.deployment d on d.id = r.deployment_id
      join kirby.job j on j.id = d.job_id
      join kirby.deployment_version v on v.deployment_id = d.id and v.version = r.version
      join kirby.release l on l.id = v.release_id
     where r.environment_id = %(environment_id)s and r.started_at < %(until)s
       and (r.ended_at is null or r.ended_at >= %(since)s)
     order by r.started_at, r.id
"""

FLOWS = """
    select f.job, f.hour, t.name as source, case f.kind when 'message' then 'topic' else 'state' end
             as kind, coalesce(o.name, s.name) as target, sum(f.made)::bigint as made,
           min(f.first_at) as first_at, max(f.last_at) as last_at
      from kirby.flow f
      left join kirby.topic t on t.id = f.source_id
      left join kirby.topic o on f.kind = 'message' and o.id = f.place_id
      left join kirby.state s on f.kind = 'mutation' and s.id = f.place_id
     where f.environment_id = %(environment_id)s and f.job is not null
       and f.hour >= date_trunc('hour', %(since)s::timestamptz, 'UTC') and f.hour < %(until)s
     group by 1, 2, 3, 4, 5
     order by 2, 1, 3, 4, 5
"""

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Run:
    id: int
    job: str
    status: str
    cause: str
    reason: str | None
    started_at: datetime
    ended_at: datetime | None
    kind: str
    package: str
    version: str


@dataclass(frozen=True, slots=True)
class _Flow:
    job: str
    hour: datetime
    source: str | None
    kind: str
    target: str | None
    made: int
    first_at: datetime
    last_at: datetime


def events(
    conn: Connection, environment: Environment, since: datetime, until: datetime
) -> Iterator[Event]:
    """START and COMPLETE, FAIL or ABORT of each run between two moments, with what it touched.

    Each names what its job read and wrote in the hours of the run. What was written by jobs without
    runs (a worker that nobody deployed) is one run for each hour.
    """
    where = {"environment_id": environment.id, "since": since, "until": until}
    flows = query.rows(conn, _Flow, FLOWS, **where)
    runs = query.rows(conn, _Run, RUNS, **where)
    facets = _Facets(conn, environment)
    for run in runs:
        yield from _of_run(run, [flow for flow in flows if _overlaps(flow, run)], facets)
    deployed = {run.job for run in runs}
    hours: dict[tuple[str, datetime], list[_Flow]] = {}
    for flow in flows:
        if flow.job not in deployed:
            hours.setdefault((flow.job, flow.hour), []).append(flow)
    for (job, hour), part in hours.items():
        yield from _of_hour(job, hour, part, facets)


def send(all_events: Iterable[Event], url: str, key: str | None = None) -> int:
    """Post events to a receiver's address (…/api/v1/lineage); how many. Raises Unavailable."""
    if not url.startswith(("http://", "https://")):
        raise Invalid(f"{url} is not an address of a receiver: http://… or https://…")
    headers = {"Content-Type": "application/json"} | (
        {"Authorization": f"Bearer {key}"} if key else {}
    )
    sent = 0
    for event in all_events:
        request = urllib.request.Request(url, json.dumps(event).encode(), headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT):  # noqa: S310 (checked above)
                sent += 1
        except (URLError, TimeoutError) as error:
            said = getattr(error, "reason", error)
            raise Unavailable(
                f"{url} did not take event {sent + 1}: {said}; those before it were sent,"
                " and may be sent again"
            ) from None
    return sent


def _overlaps(flow: _Flow, run: _Run) -> bool:
    """Whether what flowed may be the run's."""
    return (
        flow.job == run.job
        and flow.last_at >= run.started_at
        and (run.ended_at is None or flow.first_at <= run.ended_at + timedelta(seconds=1))
    )


def _of_run(run: _Run, flows: list[_Flow], facets: _Facets) -> Iterator[Event]:
    about: dict[str, Any] = {
        "nominalTime": facets.facet("NominalTimeRunFacet", "1-0-1", {
            "nominalStartTime": run.started_at.isoformat(),
        }),
        "kirby_run": facets.own({"id": run.id, "cause": run.cause, "status": run.status}),
    }  # fmt: skip
    identity = uuid.uuid5(NAMESPACE, f"{facets.environment.name}/run/{run.id}")
    job = facets.job(run.job, run.kind == "daemon", f"{run.package} {run.version}")
    yield facets.event("START", run.started_at, identity, about, job, [])
    if run.ended_at is None:
        if flows:
            at = max(flow.last_at for flow in flows)
            yield facets.event("RUNNING", at, identity, about, job, flows)
        return
    if run.reason and run.status != "succeeded":
        about["errorMessage"] = facets.facet("ErrorMessageRunFacet", "1-0-1", {
            "message": run.reason, "programmingLanguage": "python",
        })  # fmt: skip
    yield facets.event(TYPES.get(run.status, "ABORT"), run.ended_at, identity, about, job, flows)


def _of_hour(job: str, hour: datetime, flows: list[_Flow], facets: _Facets) -> Iterator[Event]:
    identity = uuid.uuid5(NAMESPACE, f"{facets.environment.name}/{job}/{hour.isoformat()}")
    described = facets.job(job, True, None)
    began = min(flow.first_at for flow in flows)
    yield facets.event("START", began, identity, {}, described, [])
    ended = max(flow.last_at for flow in flows)
    yield facets.event("COMPLETE", ended, identity, {}, described, flows)


class _Facets:
    """Makes events of one environment; what the catalogue says of each dataset is read once."""

    def __init__(self, conn: Connection, environment: Environment) -> None:
        self.environment = environment
        self._conn = conn
        self._known: dict[tuple[str, str], dict[str, Any]] = {}
        self._entries = {
            (each.kind, each.name): each for each in catalogue.listing(conn, environment)
        }

    def facet(self, name: str, version: str, members: dict[str, Any]) -> dict[str, Any]:
        """A facet of the specification."""
        url = f"{SPEC}/facets/{version}/{name}.json#/$defs/{name}"
        return {"_producer": PRODUCER, "_schemaURL": url, **members}

    def own(self, members: dict[str, Any]) -> dict[str, Any]:
        """A facet of Kirby's own."""
        url = f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunFacet"
        return {"_producer": PRODUCER, "_schemaURL": url, **members}

    def event(
        self,
        kind: str,
        at: datetime,
        run: uuid.UUID,
        about: dict[str, Any],
        job: dict[str, Any],
        flows: list[_Flow],
    ) -> Event:
        inputs = dict.fromkeys(flow.source for flow in flows if flow.source)
        outputs: dict[tuple[str, str], int] = {}
        for flow in flows:
            if flow.target:
                target = (flow.kind, flow.target)
                outputs[target] = outputs.get(target, 0) + flow.made
        return {
            "eventType": kind,
            "eventTime": at.isoformat(),
            "run": {"runId": str(run), "facets": about},
            "job": job,
            "inputs": [self._dataset("topic", name) for name in inputs],
            "outputs": [
                self._dataset(*target) | {"outputFacets": self._rows(made)}
                for target, made in outputs.items()
            ],
            "producer": PRODUCER,
            "schemaURL": RUN_EVENT,
        }

    def job(self, name: str, streaming: bool, release: str | None) -> dict[str, Any]:
        facets = {
            "jobType": self.facet("JobTypeJobFacet", "2-0-4", {
                "processingType": "STREAMING" if streaming else "BATCH",
                "integration": "KIRBY",
                "jobType": "JOB",
            })
        }  # fmt: skip
        if release:
            facets["sourceCodeLocation"] = self.facet("SourceCodeLocationJobFacet", "1-1-0", {
                "type": "kirby", "url": f"kirby:release/{release.replace(' ', '/')}",
                "version": release,
            })  # fmt: skip
        facets |= self._words("job", name, "Job")
        return {"namespace": self._namespace, "name": name, "facets": facets}

    @property
    def _namespace(self) -> str:
        return f"kirby://{self.environment.name}"

    def _rows(self, made: int) -> dict[str, Any]:
        return {
            "outputStatistics": self.facet(
                "OutputStatisticsOutputDatasetFacet", "1-0-2", {"rowCount": made}
            )
        }

    def _dataset(self, kind: str, name: str) -> dict[str, Any]:
        if (kind, name) not in self._known:
            self._known[kind, name] = {
                "namespace": self._namespace,
                "name": f"{kind}/{name}",
                "facets": self._members(kind, name) | self._words(kind, name, "Dataset"),
            }
        return dict(self._known[kind, name])

    def _members(self, kind: str, name: str) -> dict[str, Any]:
        found = catalogue.contents(self._conn, self.environment, kind, name)
        if found is None:
            return {}
        fields = [
            {"name": each.path, "type": " | ".join(each.types)}
            for each in found.fields
            if each.path
        ]
        return {"schema": self.facet("SchemaDatasetFacet", "1-2-0", {"fields": fields})}

    def _words(self, kind: str, name: str, of: str) -> dict[str, Any]:
        """The description and the owner of the catalogue."""
        entry = self._entries.get((kind, name))
        facets: dict[str, Any] = {}
        if entry is not None and entry.description:
            facets["documentation"] = self.facet(
                f"Documentation{of}Facet", "1-1-0", {"description": entry.description}
            )
        if entry is not None and entry.owner:
            facets["ownership"] = self.facet(
                f"Ownership{of}Facet", "1-0-1", {"owners": [{"name": entry.owner}]}
            )
        return facets
