"""Plans: how a job is to be run in an environment.

What its target says of itself holds where whoever deploys it says nothing. Options have the keys of
[tool.kirby], and come as texts (a command line, a form) or as values (JSON).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from kirby.core.errors import Invalid
from kirby.server import (
    calendars,
    environments,
    followers,
    needs,
    schedules,
    scripts,
    settings,
    variables,
)
from kirby.server.needs import Needs
from kirby.server.scripts import Rule
from kirby.server.targets import JobSpec

LONGEST_REASON = 1000  # characters
MOST_REPLICAS = 1000
MOST_ATTEMPTS = 100
CAUGHT_UP = 10  # ticks, at most, unless it says how many: catch_up = "all(5)"
NOTHING = ("none", "off", "usual")  # what takes back a limit that the target sets itself
LIMITS = ("timeout", "no_progress_timeout", "start_by", "finish_by", "heartbeat", "pause_after")
CONCURRENCY = scripts.CONCURRENCY
SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]+)?) *(%?)")

OPTIONS: dict[str, Rule] = {
    **{key: rule for key, rule in scripts.KEYS.items() if key not in ("name", "description")},
    "replicas": (lambda n: _is_count(n, 0, MOST_REPLICAS), f"from 0 to {MOST_REPLICAS}"),
    "max_attempts": (lambda n: _is_count(n, 1, MOST_ATTEMPTS), f"from 1 to {MOST_ATTEMPTS}"),
}


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asks for: which jobs of a target, where, how, and why.

    `job`: the only one of several, or what a script is called there; `name`: what the one job is
    called there. `options`: checked (``options``). `canary`: the share of the keys that a version
    gets beside the deployed one. `replace`, `drain`: what becomes of runs of older versions.
    """

    environment: str
    job: str | None = None
    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    canary: float | None = None
    replace: bool = False
    drain: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """How a job is to be run. Durations are in seconds; None: no limit, or Kirby's own rule."""

    name: str
    environment: str
    entry: str = ""
    command: tuple[str, ...] | None = None
    schedules: tuple[str, ...] = ()
    tz: str = "UTC"
    daemon: bool = False
    replicas: int = 1
    max_attempts: int = 1
    retry_pause: float = 10.0
    timeout: float | None = None
    grace: float = 10.0
    no_progress_timeout: float | None = None
    priority: int = 0
    labels: tuple[str, ...] = ()
    concurrency: str = "default"
    rerun: str = "original"
    tags: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    catch_up: str = "last"
    catch_up_most: int = CAUGHT_UP
    jitter: float = 0.0
    start_by: float | None = None
    finish_by: float | None = None
    heartbeat: float | None = None
    expects: Mapping[str, float] = field(default_factory=dict)
    alert_after: int = 1
    recover_after: int = 1
    pause_after: int | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    needs: Needs = field(default_factory=Needs)
    description: str = ""
    reason: str = ""

    @property
    def kind(self) -> str:
        return "daemon" if self.daemon else "scheduled" if self.schedules else "manual"


def of(order: Order, kind: str, jobs: Sequence[JobSpec]) -> list[Plan]:
    """The plan of each job that is asked for, by name; raises Invalid.

    `kind` and `jobs` are those of the target or release: of a script, ``order.job`` is a new name.
    """
    if kind == "script":
        names = {jobs[0].name: scripts.job_name(order.name or order.job or jobs[0].name)}
    else:
        names = _chosen(order, jobs)
    made = [_plan(job, names[job.name], order) for job in jobs if job.name in names]
    return sorted(made, key=lambda plan: plan.name)  # so that two deploys lock in one order


def _chosen(order: Order, jobs: Sequence[JobSpec]) -> dict[str, str]:
    """The jobs of a package that are asked for, and what they are called there."""
    offered = [job.name for job in jobs]
    if order.job is not None and order.job not in offered:
        raise Invalid(f"there is no job {order.job!r}: it offers {', '.join(offered)}")
    chosen = [order.job] if order.job else offered
    if order.name and len(chosen) > 1:
        raise Invalid(f"{order.name} can be the name of one job only: choose it of {_list(chosen)}")
    return {name: scripts.job_name(order.name or name) for name in chosen}


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def _plan(job: JobSpec, name: str, order: Order) -> Plan:
    asked = order.options
    made = _layered(job.settings, asked)
    command = made.get("command")
    catch_up, most = caught_up(made.get("catch_up", "last"))
    return Plan(
        name=name,
        environment=order.environment,
        entry=job.entry,
        command=tuple(command) if command else None,
        schedules=tuple(made.get("schedule", ())),
        tz=made.get("tz", "UTC"),
        daemon=made.get("daemon", False),
        labels=_set(made, "labels"),
        tags=_set(made, "tags"),
        exclude=_set(made, "exclude"),
        catch_up=catch_up,
        catch_up_most=most,
        expects=dict(sorted(made.get("expects", {}).items())),
        variables=made["variables"],
        needs=job.needs | needs.declared(asked),
        description=made.get("description", ""),
        reason=order.reason,
        **{key: made[key] for key in PLAIN if key in made},
    )


PLAIN = ("replicas", "max_attempts", "retry_pause", "timeout", "grace", "no_progress_timeout",
         "priority", "concurrency", "rerun", "jitter", "start_by", "finish_by", "heartbeat",
         "alert_after", "recover_after", "pause_after")  # fmt: skip
OF_SCHEDULES = ("exclude", "catch_up", "jitter", "start_by", "finish_by")


def _set(made: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(sorted(set(made.get(key, ()))))


def caught_up(text: str) -> tuple[str, int]:
    """`all(5)` as what is caught up after an outage, and at most how many ticks of it."""
    found = scripts.CATCH_UP.fullmatch(text)
    if found is None:
        raise Invalid(f"catch-up is {text!r}: it must be {OPTIONS['catch_up'][1]}")
    return found[1], int(found[2] or CAUGHT_UP)


def catching_up(how: str, most: int) -> str:
    """The same as it may be written: none, last, all(5)."""
    return f"all({most})" if how == "all" else how


def _layered(own: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Options over what a job says of itself; one of another kind takes that kind back."""
    under = dict(own)
    if asked.get("daemon") and "schedule" not in asked:
        under = {
            key: value for key, value in under.items() if key not in ("schedule", *OF_SCHEDULES)
        }
    if "schedule" in asked and "daemon" not in asked:
        under = {key: value for key, value in under.items() if key not in ("daemon", "heartbeat")}
    made = {**under, **asked}
    if not made.get("daemon") and "replicas" not in asked:
        made.pop("replicas", None)
    return {**made, "variables": {**own.get("variables", {}), **asked.get("variables", {})}}


# Options


def options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they come, checked and in one form: numbers, lists, seconds. Raises Invalid.

    What is None, or an empty text or list, was not given.
    """
    made: dict[str, Any] = {}
    for name, value in given.items():
        key = name.replace("-", "_")
        if key not in OPTIONS:
            raise Invalid(_unknown(name))
        if value is None or value in ("", [], ()):
            continue
        if key in LIMITS and value in NOTHING:
            made[key] = None
            continue
        made[key] = _value(key, value)
        fits, wanted = OPTIONS[key]
        if not fits(made[key]):
            raise Invalid(f"{_said(key)} is {made[key]!r:.60}: it must be {wanted}")
    return scripts.plain(made)


def _value(key: str, value: Any) -> Any:
    """A text as what it stands for, where it is one."""
    if isinstance(value, tuple):
        value = list(value)
    if key in NUMBERS and isinstance(value, str):
        return int(value) if re.fullmatch(r" *-?[0-9]{1,9} *", value) else value
    if key in DURATIONS and isinstance(value, str):
        return _number(value)
    if key in LISTS and isinstance(value, str):
        return [each.strip() for each in value.split(",") if each.strip()]
    if key == "daemon" and isinstance(value, str):
        return {"true": True, "yes": True, "on": True, "false": False, "no": False}.get(value)
    if key == "schedule" and isinstance(value, str):
        return [line.strip() for line in value.splitlines() if line.strip()]
    if key in ("variables", "expects") and not isinstance(value, Mapping):
        lines = value.splitlines() if isinstance(value, str) else value
        pairs = [assignment(line) for line in lines if not isinstance(line, str) or line.strip()]
        return {each.strip(): _number(n) for each, n in pairs} if key == "expects" else dict(pairs)
    return value


def _number(text: str) -> float | str:
    """A number of seconds, if the text is one."""
    return float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else text


DURATIONS = scripts.DURATIONS
LISTS = ("labels", "needs", "secrets", "reads", "writes", "tags", "exclude")
NUMBERS = ("replicas", "max_attempts", "priority", "alert_after", "recover_after", "pause_after")


def assignment(text: Any) -> tuple[str, str]:
    """NAME=VALUE as a pair; raises Invalid."""
    name, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
    if not equals or not name:
        raise Invalid(f"{text!r} is not NAME=VALUE")
    return name, value


def share(given: Any) -> float:
    """A share of the keys: 10%, 0.1 or "0.1"; raises Invalid."""
    found = SHARE.fullmatch(str(given).strip())
    part = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < part < 1:
        raise Invalid(f"{given!r} is no share of the keys: more than 0% and less than 100%")
    return figure(part)


def figure(value: float) -> float:
    """A number as PostgreSQL's real keeps it: six digits."""
    return float(f"{value:.6g}")


def _is_count(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _said(key: str) -> str:
    return key.replace("_", "-")


def _unknown(key: str) -> str:
    close = difflib.get_close_matches(key, OPTIONS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(OPTIONS)}"
    return f"there is no option {key!r}; {hint}"


# Checks


def check(conn: Connection, plan: Plan) -> None:
    """Find what is wrong with a plan, before anything slow is done or anything stored.

    Raises NotFound (no such environment) and Invalid: a bad schedule, zone, count, label or
    variable, or something that the job needs and would not have.
    """
    environments.get(conn, plan.environment)
    for wrong in CHECKS:
        wrong(plan)
    _check_needs(conn, plan)
    calendars.check(conn, plan.environment, plan.exclude)
    followers.check(conn, plan.environment, plan.name, schedules.parse(plan.schedules, plan.tz))


def _check_kind(plan: Plan) -> None:
    if plan.daemon and plan.schedules:
        raise Invalid(f"{plan.name} cannot be both a daemon and scheduled: choose one")
    if plan.replicas != 1 and not plan.daemon:
        raise Invalid(f"replicas are for daemons: {plan.name} is {plan.kind} (add --daemon)")


def _check_counts(plan: Plan) -> None:
    if not 0 <= plan.replicas <= MOST_REPLICAS:
        raise Invalid(f"replicas is {plan.replicas}: from 0 to {MOST_REPLICAS}")
    if not 1 <= plan.max_attempts <= MOST_ATTEMPTS:
        raise Invalid(f"max-attempts is {plan.max_attempts}: from 1 to {MOST_ATTEMPTS}")


def _check_when(plan: Plan) -> None:
    schedules.parse(plan.schedules, plan.tz)
    usual = Plan("", "")
    asked = [key for key in OF_SCHEDULES if getattr(plan, key) != getattr(usual, key)]
    if asked and plan.kind != "scheduled":
        raise Invalid(f"{_said(asked[0])} is for schedules: {plan.name} is {plan.kind}")
    if plan.heartbeat is not None and not plan.daemon:
        raise Invalid(f"heartbeat is for daemons: {plan.name} is {plan.kind} (say finish-by)")


def _check_rest(plan: Plan) -> None:
    check_reason(plan.reason)
    variables.check(plan.variables)
    settings.labels_of(",".join(plan.labels))


CHECKS: tuple[Callable[[Plan], None], ...] = (
    _check_kind,
    _check_counts,
    _check_rest,
    _check_when,
)


def check_reason(reason: str) -> None:
    """Raise Invalid for a reason that is a book, or no text."""
    if len(reason) > LONGEST_REASON:
        raise Invalid(f"the reason is {len(reason):,} characters: at most {LONGEST_REASON:,}")
    if "\0" in reason:
        raise Invalid("the reason holds a NUL character")


def check_old_runs(*, replace: bool, drain: bool, canary: object = None) -> None:
    """Raise Invalid if two things are asked at once about what runs already."""
    if replace and drain:
        raise Invalid("say replace (all at once) or drain (one after the other), not both")
    if canary is not None and (replace or drain):
        raise Invalid(
            "a canary stands beside the deployed version: say it without replace or drain"
        )


def _check_needs(conn: Connection, plan: Plan) -> None:
    """What a script asks for by name and nobody set would fail at its first run."""
    if plan.needs.secrets:
        name = plan.needs.secrets[0]
        raise Invalid(f"{plan.name} needs the secret {name}: there is none in {plan.environment}")
    known = variables.planned(conn, plan.environment, plan.name, plan.variables)
    if missing := [name for name in plan.needs.variables if name not in known]:
        what = "variable" if len(missing) == 1 else "variables"
        raise Invalid(
            f"{plan.name} needs the {what} {', '.join(missing)}, not set in {plan.environment}:"
            f" kirby config set {missing[0]}=… --env {plan.environment}, or --var {missing[0]}=…"
        )
