"""Pages that deploy: a file or a package version, its jobs, what would change, and why."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from kirby.core.errors import Invalid, KirbyError
from kirby.server import (
    contents,
    deployments,
    diffs,
    drafts,
    jobs,
    packages,
    plans,
    proposals,
    releases,
    sdk_wheel,
    targets,
)
from kirby.server.contents import Contents
from kirby.server.database import unit
from kirby.server.deployments import Deployed
from kirby.server.plans import Order, Plan
from kirby.server.sources import Sources
from kirby.server.targets import JobSpec, Target
from kirby.server.web import api, pages, uploads

TIMING = (
    *("exclude", "jitter", "catch_up", "start_by", "finish_by", "heartbeat", "expects", "tags"),
    *("alert_after", "recover_after", "pause_after"),
)
FIELDS = (
    *("schedule", "tz", "daemon", "replicas", "max_attempts", "retry_pause", "timeout"),
    *("no_progress_timeout", "grace", "concurrency", "rerun", "priority", "labels", "variables"),
    *TIMING,
)


# The target


def new(request: Request, status: int = 200, problem: str | None = None) -> Response:
    """The form for a file or a package version."""
    api.needs(request, "developer")
    with pages.reading(request) as conn:
        found = packages.listing(conn)
    return pages.render(
        request,
        "deploy/new.html",
        status,
        problem=problem,
        packages=found,
        requirement=pages.word(request, "requirement"),
        limit=request.app.state.settings.max_upload,
    )


def read(request: Request) -> Response:
    """Make a release of what was sent, and go on to its page. Nothing is deployed by that."""
    who = api.needs(request, "developer")
    try:
        with uploads.form(request) as form, tempfile.TemporaryDirectory(prefix="kirby-") as folder:
            given = uploads.texts(form)
            found = sources(request)
            python = given.get("python") or None
            target = target_of(form, given, Path(folder), found, python)
            lock = releases.resolve(target, found, python)
            lock = releases.fetch(target, lock, Path(folder), found)
            with unit(request.app.state.engine) as conn:
                release_id = releases.make(conn, target, lock, found.sdk, actor=who.name)
    except KirbyError as error:
        return new(request, pages.status_of(error), str(error))
    env = pages.environment(request).name
    path = request.app.url_path_for("deploy_release", release_id=release_id)
    return RedirectResponse(f"{path}?{urlencode({'env': env})}", status_code=303)


def sources(request: Request) -> Sources:
    """Where packages come from, for this server."""
    engine, settings = request.app.state.engine, request.app.state.settings

    def opened() -> AbstractContextManager[Connection]:
        return unit(engine)

    hosted = releases.Stored(opened)
    return Sources(sdk_wheel.build(), hosted=hosted, index_url=settings.index_url)


def target_of(
    form: FormData | None,
    given: Mapping[str, Any],
    folder: Path,
    sources: Sources,
    python: str | None,
) -> Target:
    """The file of a form, or the package version that is named; raises Invalid."""
    sent = uploads.file(form, "file") if form is not None else None
    requirement = given.get("requirement") or ""
    if sent is not None:
        filename, content = sent
        path = folder / "sent"
        with path.open("wb") as file:
            shutil.copyfileobj(content, file)
        return targets.parse(path, filename, folder, sources, python=python)
    if not isinstance(requirement, str) or not requirement.strip():
        raise Invalid("send a file, or name a package version: NAME==VERSION")
    return targets.require(requirement.strip(), folder, sources, python=python)


# The release


def show(request: Request) -> Response:
    """The jobs of a release, how they may be deployed, and what that would change."""
    api.needs(request, "developer")
    given = dict(request.query_params)
    return _page(request, given, kept=True)


def act(request: Request) -> Response:
    """Show what would change, or deploy; a form that is wrong comes back with why."""
    who = api.needs(request, "developer")
    given = pages.form(request)
    if given.get("do") != "deploy":
        return _page(request, given)
    try:
        environment = api.environment(request, given.get("env")).name
        order = _order(given, environment)
        with pages.reading(request) as conn:
            release = contents.get(conn, request.path_params["release_id"])
            made = proposals.plan_release(conn, release, order)
            done = deployments.deploy_all(conn, made, release.id or 0, order, actor=who.name)
            run_id = _first_run(request, conn, done, given, who.name)
    except KirbyError as error:
        return _page(request, given, pages.status_of(error), str(error))
    return _after(request, done, environment, run_id)


def _first_run(
    request: Request, conn: Connection, done: list[Deployed], given: Mapping[str, str], actor: str
) -> int | None:
    if given.get("run") != "yes" or len(done) != 1 or done[0].kind == "daemon":
        return None
    environment = api.environment(request, done[0].environment)
    job = jobs.get(conn, environment, done[0].job)
    return jobs.trigger(conn, job, actor=actor, reason="the first run of a deploy")


def _after(
    request: Request, done: list[Deployed], environment: str, run_id: int | None
) -> Response:
    if run_id is not None:
        path = request.app.url_path_for("run", run_id=run_id)
        return RedirectResponse(f"{path}?{urlencode({'env': environment})}", status_code=303)
    if len(done) > 1:
        path = request.app.url_path_for("jobs")
        said = ", ".join(each.job for each in done)
        query = urlencode({"env": environment, "deployed": said})
        return RedirectResponse(f"{path}?{query}", status_code=303)
    [one] = done
    path = request.app.url_path_for("job", job=one.job)
    said = "deployed" if one.changed else "this is deployed already"
    query = urlencode({"env": environment, "done": f"{said}: version {one.version}"})
    return RedirectResponse(f"{path}?{query}", status_code=303)


def _page(
    request: Request,
    given: Mapping[str, str],
    status: int = 200,
    problem: str | None = None,
    *,
    kept: bool = False,
) -> Response:
    environment = api.environment(request, given.get("env"))
    request.state.environment = environment
    with pages.reading(request) as conn:
        release = contents.get(conn, request.path_params["release_id"])
        alone = _alone(release, given)
        if kept and alone:
            given = {**_kept(conn, environment.name, _called(alone, given)), **given}
        found, drafted = [], {}
        try:
            made = _plans(conn, release, given, environment.name)
            found = [diffs.of_plan(conn, plan, release) for plan in made]
            drafted = {plan.name: drafts.of_plan(conn, plan) for plan in made if plan.schedules}
        except KirbyError as error:
            problem = problem or str(error)
            status = status if kept else max(status, pages.status_of(error))
        called = _called(alone, given) if alone else ""
        deployed = deployments.find(conn, environment.name, called)
    context: dict[str, Any] = {
        "release": release,
        "alone": alone,
        "plans": made if found else [],
        "diffs": found,
        "drafts": drafted,
        "given": given,
        "problem": problem,
        "deployed": deployed,
        "marked": diffs.marked,
        "policy": diffs.policy,
        "concurrency": plans.CONCURRENCY,
        "timing": TIMING,
    }
    return pages.render(request, "deploy/show.html", status, **context)


def _plans(
    conn: Connection, release: Contents, given: Mapping[str, str], environment: str
) -> list[Plan]:
    return list(proposals.plan_release(conn, release, _order(given, environment)))


def _alone(release: Contents, given: Mapping[str, str]) -> JobSpec | None:
    """The one job that the page is about; None: all of several."""
    if len(release.jobs) == 1:
        return release.jobs[0]
    return next((job for job in release.jobs if job.name == given.get("job")), None)


def _called(alone: JobSpec, given: Mapping[str, str]) -> str:
    """What the one job is called there."""
    return given.get("as") or alone.name


def _order(given: Mapping[str, str], environment: str) -> Order:
    """What the form asks for; raises Invalid."""
    running = given.get("running", "")
    canary = given.get("canary") or None
    reason = given.get("reason", "")
    plans.check_reason(reason)
    replace, drain = running == "replace", running == "drain"
    plans.check_old_runs(replace=replace, drain=drain, canary=canary)
    return Order(
        environment=environment,
        job=given.get("job") or None,
        name=given.get("as") or None,
        options=plans.options({key: given[key] for key in FIELDS if key in given}),
        reason=reason,
        canary=plans.share(canary) if canary else None,
        replace=replace,
        drain=drain,
    )


def _kept(conn: Connection, environment: str, name: str) -> dict[str, str]:
    """What the last deploy was asked for beyond what its release says: the form begins with it."""
    deployed = deployments.find(conn, environment, name)
    if deployed is None:
        return {}
    stored = deployments.version_content(conn, *deployed)
    own = contents.job_of(conn, stored["release_id"], name, stored["entry"])
    if own is None:
        return {}
    [plan] = plans.of(Order(environment), "package", [own])
    usual = deployments.content(plan, stored["release_id"])
    differ = {key: value for key, value in stored.items() if value != usual[key]}
    kept = {key: text for key in FIELDS if (text := _text(key, differ, usual))}
    is_daemon = deployments.kind(conn, name) == "daemon"
    return kept if is_daemon == plan.daemon else {**kept, "daemon": "yes" if is_daemon else "no"}


def _text(key: str, differ: Mapping[str, Any], usual: Mapping[str, Any]) -> str:
    """What a field says of a setting that differs; "" if it does not."""
    key = "schedules" if key == "schedule" else key
    if key == "catch_up" and "catch_up_most" in differ:
        differ = {"catch_up": "all", **differ}
    if key not in differ:
        return ""
    value = differ[key]
    if key == "variables":
        own = {name: each for name, each in value.items() if usual[key].get(name) != each}
        return "\n".join(f"{name}={each}" for name, each in own.items())
    if key == "schedules":
        return "\n".join(value)
    if key == "catch_up":
        return plans.catching_up(value, differ.get("catch_up_most", usual["catch_up_most"]))
    if key == "concurrency" and value == "default":
        return ""
    return diffs.policy(key, value)


ROUTES = [
    Route("/deploy", new, name="deploy"),
    Route("/deploy", read, name="deploy_read", methods=["POST"]),
    Route("/deploy/{release_id:int}", show, name="deploy_release"),
    Route("/deploy/{release_id:int}", act, name="deploy_act", methods=["POST"]),
]
