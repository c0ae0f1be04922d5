"""The API about jobs, so that CI needs no browser: deploy, compare, run, promote, roll back."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kirby.core.errors import Invalid
from kirby.server import (
    deployments,
    diffs,
    documents,
    jobs,
    plans,
    proposals,
    rollouts,
    schedules,
    why,
)
from kirby.server.database import unit
from kirby.server.deployments import Deployed
from kirby.server.diffs import Diff
from kirby.server.environments import Environment
from kirby.server.plans import Order
from kirby.server.web import api, pages, uploads
from kirby.server.web.deploy import sources, target_of
from kirby.server.web.jobs import order_of, version_of

WORDS = ("env", "job", "as", "reason", "canary", "replace", "drain", "diff", "python",
         "requirement", "settings")  # fmt: skip
MANY = {"schedule": "schedule", "var": "variables", "label": "labels", "need": "needs",
        "tag": "tags", "exclude": "exclude", "expect": "expects"}  # fmt: skip
YES = (True, "1", "true", "yes", "on")
NO = (None, False, "", "0", "false", "no", "off")


# Deploying


def deploy(request: Request) -> Response:
    """Deploy a file (a form) or ``{"requirement": "NAME==VERSION"}``; ``diff=1`` only compares.

    201: there is a new version, 200: there is none.
    """
    who = api.needs(request, "developer")
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        with uploads.form(request) as form:
            return _deploy(request, _texts(request, form), form, who.name)
    given = {**request.query_params, **api.document(request)}
    return _deploy(request, given, None, who.name)


def _texts(request: Request, form: FormData) -> dict[str, Any]:
    """The fields of a form; those that may be repeated as lists."""
    given: dict[str, Any] = dict(request.query_params)
    for name, value in form.multi_items():
        if isinstance(value, str) and name in MANY:
            given.setdefault(name, []).append(value)
        elif isinstance(value, str):
            given[name] = value
    return given


def _deploy(
    request: Request, given: Mapping[str, Any], form: FormData | None, actor: str
) -> Response:
    environment = api.environment(request, _text(given, "env"))
    order = _order(given, environment.name)
    python, only_diff = _text(given, "python"), _is_yes(given, "diff")
    engine, found = request.app.state.engine, sources(request)
    with tempfile.TemporaryDirectory(prefix="kirby-deploy-") as folder:
        target = target_of(form, given, Path(folder), found, python)
        proposal = proposals.propose(lambda: unit(engine), target, order, found, python)
        with unit(engine) as conn:
            changes = proposals.compare(conn, proposal)
        if only_diff:
            return api.respond({"jobs": changes})
        proposal = proposals.fetch(proposal, Path(folder), found)
        with unit(engine) as conn:
            done = proposals.deploy(conn, proposal, found, actor=actor)
    return api.respond(document(done, changes), 201 if any(d.changed for d in done) else 200)


def document(done: list[Deployed], changes: list[Diff]) -> dict[str, Any]:
    """What was deployed, each with its differences in words."""
    return {
        "jobs": [
            {
                **documents.plain(each),
                "diff": list(diffs.sentences(diff)),
                "warnings": diff.warnings,
            }
            for each, diff in zip(done, changes, strict=True)
        ],
        "stopped": sum(each.stopped for each in done),
    }


def _order(given: Mapping[str, Any], environment: str) -> Order:
    """What a form or a document asks for (settings too, or in "settings"); raises Invalid."""
    beside = {MANY.get(key, key): value for key, value in given.items() if key not in WORDS}
    settings = given.get("settings") or {}
    if not isinstance(settings, dict):
        raise Invalid("settings must be an object")
    replace, drain = _is_yes(given, "replace"), _is_yes(given, "drain")
    canary = given.get("canary") or None
    plans.check_old_runs(replace=replace, drain=drain, canary=canary)
    return Order(
        environment=environment,
        job=_text(given, "job"),
        name=_text(given, "as"),
        options=plans.options({**settings, **beside}),
        reason=_reason(given),
        canary=plans.share(canary) if canary is not None else None,
        replace=replace,
        drain=drain,
    )


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name) or None
    if not isinstance(value, str | None):
        raise Invalid(f"{name} must be a text")
    return value


def _reason(given: Mapping[str, Any]) -> str:
    reason = _text(given, "reason") or ""
    plans.check_reason(reason)
    return reason


def _is_yes(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name)
    if isinstance(value, str):
        value = value.lower()
    if value in NO:
        return False
    if value in YES:
        return True
    raise Invalid(f"{name} must be true or false")


# Jobs


def listing(request: Request) -> Response:
    with pages.reading(request) as conn:
        return api.respond(jobs.listing(conn, pages.environment(request)))


def show(request: Request) -> Response:
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        job = jobs.get(conn, environment, request.path_params["job"])
        found = {
            **documents.plain(job),
            "environment": environment.name,
            "versions": jobs.versions(conn, job),
            "next_ticks": jobs.next_ticks(conn, job),
            "places": jobs.places(conn, job.name),
        }
    return api.respond(found)


def diff(request: Request) -> Response:
    """``?from=1&to=2``; by default the deployed version and the one before it."""
    environment = pages.environment(request)
    with pages.reading(request) as conn:
        job = jobs.get(conn, environment, request.path_params["job"])
        after = version_of(request.query_params.get("to")) or job.version
        before = version_of(request.query_params.get("from")) or max(1, after - 1)
        made = diffs.between(conn, job.name, environment.name, job.deployment_id, before, after)
    return api.respond(made)


def explain(request: Request) -> Response:
    """Why it ran, does not run, will run next; ``?at=`` a moment, past or to come."""
    environment, at = pages.environment(request), request.query_params.get("at")
    with pages.reading(request) as conn:
        moment = schedules.moment(at, "UTC") if at else None
        found = why.job(conn, environment, request.path_params["job"], moment)
    return api.respond(found)


def trigger(request: Request) -> Response:
    """Run it now: ``{"reason": "why"}``; the run's id."""
    who = api.needs(request, "operator")
    given, environment = _given(request)
    reason = _reason(given)
    with pages.reading(request) as conn:
        job = jobs.get(conn, environment, request.path_params["job"])
        run_id = jobs.trigger(conn, job, actor=who.name, reason=reason)
        deployments.wake_supervisors(conn)
    return api.respond({"run": run_id}, 201)


def rollback(request: Request) -> Response:
    """``{"to": 3, "reason": "why"}``; without ``to`` it is the version before the deployed one."""
    who = api.needs(request, "operator")
    given, environment = _given(request)
    order, to = order_of(given, environment.name), version_of(given.get("to"))
    with pages.reading(request) as conn:
        done = rollouts.rollback(conn, request.path_params["job"], order, actor=who.name, to=to)
    return api.respond(done, 201 if done.changed else 200)


def promote(request: Request) -> Response:
    """``{"from": "dev", "to": "prod"}``, and perhaps the ``version`` and a ``reason``."""
    who = api.needs(request, "developer")
    given = api.document(request)
    source = api.environment(request, _text(given, "from"))
    if not given.get("to"):
        raise Invalid('say where it is to go: {"to": "prod"}')
    target = api.environment(request, _text(given, "to"))
    with pages.reading(request) as conn:
        done = rollouts.promote(
            conn,
            request.path_params["job"],
            source.name,
            order_of(given, target.name),
            actor=who.name,
            version=version_of(given.get("version")),
        )
    return api.respond(done, 201 if done.changed else 200)


def canary(request: Request) -> Response:
    """``{"share": "25%"}``, ``{"promote": true}`` or ``{"abort": true}``."""
    who = api.needs(request, "operator")
    given, environment = _given(request)
    promoted, aborted = _is_yes(given, "promote"), _is_yes(given, "abort")
    if (given.get("share") is not None) + promoted + aborted != 1:
        raise Invalid("say one of share, promote and abort")
    name, reason = request.path_params["job"], _reason(given)
    with pages.reading(request) as conn:
        if promoted or aborted:
            version = rollouts.end_canary(
                conn, name, environment.name, promote=promoted, actor=who.name, reason=reason
            )
        else:
            share = plans.share(given["share"])
            version = rollouts.resize_canary(
                conn, name, environment.name, share, actor=who.name, reason=reason
            )
    return api.respond({"job": name, "environment": environment.name, "version": version})


def _given(request: Request) -> tuple[dict[str, Any], Environment]:
    """The document, and the environment that it or the address names."""
    given = api.document(request)
    return given, api.environment(request, _text(given, "env"))


JOBS = f"{api.PREFIX}/jobs"
ROUTES = [
    Route(f"{api.PREFIX}/deploy", deploy, name="api_deploy", methods=["POST"]),
    Route(JOBS, listing, name="api_jobs"),
    Route(f"{JOBS}/{{job}}", show, name="api_job"),
    Route(f"{JOBS}/{{job}}/diff", diff, name="api_job_diff"),
    Route(f"{JOBS}/{{job}}/why", explain, name="api_job_why"),
    Route(f"{JOBS}/{{job}}/trigger", trigger, methods=["POST"]),
    Route(f"{JOBS}/{{job}}/rollback", rollback, methods=["POST"]),
    Route(f"{JOBS}/{{job}}/promote", promote, methods=["POST"]),
    Route(f"{JOBS}/{{job}}/canary", canary, methods=["POST"]),
]
