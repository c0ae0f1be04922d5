"""Pages about jobs: what is deployed, its versions, and what is done with them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from kirby.core.errors import Invalid
from kirby.server import channels, contents, diffs, jobs, plans, rollouts, runs, why
from kirby.server.jobs import Job
from kirby.server.plans import Order
from kirby.server.web import api, pages, timelines

MOST_VERSION = 2**31 - 1


def listing(request: Request) -> Response:
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        found = jobs.listing(conn, environment)
    template = "jobs/_table.html" if pages.partial(request) else "jobs/listing.html"
    return pages.render(
        request, template, jobs=found, deployed=pages.word(request, "deployed"), may=_may(request)
    )


def show(request: Request) -> Response:
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        job = _job(request, conn)
        context: dict[str, Any] = {
            "job": job,
            "runs": runs.listing(conn, environment, job=job.name, limit=15),
            "replicas": runs.listing(conn, environment, job=job.name, status="live", limit=100),
            "next_ticks": jobs.next_ticks(conn, job),
            "past_ticks": jobs.past_ticks(conn, job, limit=8),
            "versions": jobs.versions(conn, job),
            "places": jobs.places(conn, job.name),
            "policies": list(_policies(job)),
            "why": why.job(conn, environment, job.name),
            "told": channels.of_job(conn, environment, job.name),
            "own": contents.job_of(conn, job.release_id, job.name, job.entry),
            "done": pages.word(request, "done"),
            "may": _may(request),
            "timeline": _timeline(request, conn, job),
        }
    template = "jobs/_now.html" if pages.partial(request) else "jobs/show.html"
    return pages.render(request, template, **context)


def _timeline(request: Request, conn: Connection, job: Job) -> timelines.Timeline | None:
    if job.kind != "scheduled":
        return None
    return timelines.of(conn, job.deployment_id, job.tz, request.state.now)


def _may(request: Request) -> dict[str, bool]:
    who = api.caller(request)
    return {"operate": who.may("operator"), "deploy": who.may("developer")}


def _policies(job: Job) -> Any:
    if job.kind == "scheduled":
        yield from diffs.beside(asdict(job)).items()
    for name in diffs.POLICIES:
        if name != "replicas" or job.kind == "daemon":
            yield name.replace("_", " "), diffs.policy(name, getattr(job, name))


def _job(request: Request, conn: Connection) -> Job:
    return jobs.get(conn, pages.environment(request), request.path_params["job"])


def source(request: Request) -> Response:
    version = _version(request, "version")
    with pages.reading(request) as conn:
        job = _job(request, conn)
        release = contents.get(conn, jobs.release_of(conn, job, version))
    return pages.render(
        request, "jobs/source.html", job=job, version=version or job.version, release=release
    )


def diff(request: Request) -> Response:
    with pages.reading(request) as conn:
        job = _job(request, conn)
        after = _version(request, "to") or job.version
        before = _version(request, "from") or max(1, after - 1)
        made = diffs.between(
            conn, job.name, pages.environment(request).name, job.deployment_id, before, after
        )
        versions = jobs.versions(conn, job)
    return pages.render(
        request, "jobs/diff.html", job=job, diff=made, versions=versions, marked=diffs.marked
    )


def _version(request: Request, name: str) -> int | None:
    found = pages.number(request, name)
    if found is not None and found > MOST_VERSION:
        raise Invalid(f"{name} must be a version, not {found}")
    return found


def trigger(request: Request) -> Response:
    with pages.reading(request) as conn:
        job = _job(request, conn)
        actor = api.caller(request).name
        run_id = jobs.trigger(conn, job, actor=actor, reason="from the job's page")
    return RedirectResponse(request.app.url_path_for("run", run_id=run_id), status_code=303)


def rollback(request: Request) -> Response:
    """Back to the version of the form."""
    who = api.needs(request, "operator")
    form = pages.form(request)
    environment = pages.environment(request).name
    with pages.reading(request) as conn:
        name = _job(request, conn).name
        order = order_of(form, environment)
        done = rollouts.rollback(conn, name, order, actor=who.name, to=version_of(form.get("to")))
    said = "rolled back" if done.changed else "that is deployed already"
    return _to(request, name, environment, f"{said}: version {done.version}")


def promote(request: Request) -> Response:
    """To the environment of the form, from the one that the page is about."""
    who = api.needs(request, "developer")
    form = pages.form(request)
    target = api.environment(request, form.get("to")).name
    with pages.reading(request) as conn:
        name = _job(request, conn).name
        done = rollouts.promote(
            conn,
            name,
            pages.environment(request).name,
            order_of(form, target),
            actor=who.name,
            version=version_of(form.get("version")),
        )
    said = "deployed" if done.changed else "that is deployed already"
    return _to(request, name, target, f"{said}: version {done.version}")


def canary(request: Request) -> Response:
    """What the pressed button says: share, promote or abort."""
    who = api.needs(request, "operator")
    form, environment = pages.form(request), pages.environment(request).name
    name, reason = request.path_params["job"], form.get("reason", "")
    plans.check_reason(reason)
    act = form.get("do")
    with pages.reading(request) as conn:
        if act == "share":
            share = plans.share(form.get("share", ""))
            rollouts.resize_canary(conn, name, environment, share, actor=who.name, reason=reason)
            said = f"the canary serves {100 * share:.4g}% of the keys"
        elif act in ("promote", "abort"):
            version = rollouts.end_canary(
                conn, name, environment, promote=act == "promote", actor=who.name, reason=reason
            )
            said = f"the canary has ended: version {version}"
        else:
            raise Invalid("say share, promote or abort")
    return _to(request, name, environment, said)


def order_of(given: dict[str, Any], environment: str) -> Order:
    """What a form or a document asks for when a version moves; raises Invalid."""
    reason, runs_of_before = given.get("reason") or "", given.get("running", "")
    replace = runs_of_before == "replace" or given.get("replace") is True
    drain = runs_of_before == "drain" or given.get("drain") is True
    if not isinstance(reason, str):
        raise Invalid("reason must be a text")
    plans.check_reason(reason)
    plans.check_old_runs(replace=replace, drain=drain)
    return Order(environment, reason=reason, replace=replace, drain=drain)


def version_of(given: Any) -> int | None:
    """A version as a form or a document names it; None: not given. Raises Invalid."""
    if given in (None, ""):
        return None
    text = str(given)
    if isinstance(given, bool) or not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Invalid(f"{given!r} is no version: a whole number")
    return int(text)


def _to(request: Request, name: str, environment: str, said: str) -> Response:
    path = request.app.url_path_for("job", job=name)
    query = urlencode({"env": environment, "done": said})
    return RedirectResponse(f"{path}?{query}", status_code=303)


ROUTES = [
    Route("/jobs", listing, name="jobs"),
    Route("/jobs/{job}", show, name="job"),
    Route("/jobs/{job}/source", source, name="job_source"),
    Route("/jobs/{job}/diff", diff, name="job_diff"),
    Route("/jobs/{job}/trigger", trigger, name="job_trigger", methods=["POST"]),
    Route("/jobs/{job}/rollback", rollback, name="job_rollback", methods=["POST"]),
    Route("/jobs/{job}/promote", promote, name="job_promote", methods=["POST"]),
    Route("/jobs/{job}/canary", canary, name="job_canary", methods=["POST"]),
]
