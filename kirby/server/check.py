"""Check: everything in the database that is wrong, or near it, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection

from kirby.server import health, partitions, query, retention, spans, supervisors
from kirby.server.supervisors import Supervisor, Waiting

Level = Literal["wrong", "near"]

# Where it begins to be near, and where it is wrong (docs/operating.md has the table).
HELD = (health.HELD, 60.0)  # seconds that a writer may hold back a topic's readers
PREPARED = 300.0
SNAPSHOT = (600.0, 7200.0)
SLOT_AGE = (10_000_000, 100_000_000)  # transactions
NOTIFICATIONS = (0.1, 0.5)
RUNWAY = 3600.0
DEAD = ((10_000, 5), (100_000, 20))  # rows, and how many times the live ones
BEHIND = 300.0
UNCOUNTED = (60.0, 600.0)
WRAPAROUND = (1_000_000_000, 1_600_000_000)
POSITIONS = (2**62, 2**63 // 4 * 3)
LATE = 3600.0  # seconds; or a tenth of the policy, if that is more
BLOCKED = 60.0

NOW = "select kirby.now()"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or near it: where it was looked at, what it is, and what to do."""

    level: Level
    about: str
    what: str
    todo: str

    def __str__(self) -> str:
        return f"{self.level}: {self.about}: {self.what}; {self.todo}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report was judged by."""

    now: datetime
    server: health.Server
    supervisors: list[Supervisor]
    waiting: list[Waiting]
    leases: list[health.Lease]
    holders: list[health.Holder]
    snapshots: list[health.Snapshot]
    hot_tables: list[health.HotTable]
    logs: list[partitions.Log]
    topics_kept: list[retention.Policy]
    logs_kept: list[retention.LogPolicy]
    subscriptions: list[health.Stuck]


@dataclass(frozen=True, slots=True)
class Report:
    findings: list[Finding]
    facts: Facts

    @property
    def well(self) -> bool:
        """Whether nothing is wrong; something may be near it."""
        return not any(finding.level == "wrong" for finding in self.findings)


def report(conn: Connection) -> Report:
    """Look at everything; what is wrong first."""
    known = facts(conn)
    found = [finding for judge in JUDGES for finding in judge(known)]
    return Report(sorted(found, key=lambda each: each.level, reverse=True), known)


def facts(conn: Connection) -> Facts:
    """Everything that is judged."""
    return Facts(
        now=query.value(conn, NOW),
        server=health.server(conn),
        supervisors=supervisors.listing(conn),
        waiting=supervisors.waiting(conn),
        leases=health.leases(conn),
        holders=health.holders(conn, seconds=HELD[0]),
        snapshots=health.snapshots(conn),
        hot_tables=health.hot_tables(conn),
        logs=partitions.logs(conn),
        topics_kept=retention.listing(conn),
        logs_kept=retention.logs(conn),
        subscriptions=health.stuck(conn, seconds=BEHIND),
    )


def _level(value: float, limits: tuple[float, float]) -> Level | None:
    near, wrong = limits
    return "wrong" if value >= wrong else "near" if value >= near else None


def _span(seconds: float) -> str:
    """A rough span: 42 s, 3 min, 2 h, 5 d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _who(pid: int | None, application: str, state: str | None) -> str:
    named = f"pid {pid}" if pid is not None else "nobody connected"
    return f"{named} ({', '.join(filter(None, [application or 'unnamed', state]))})"


def _leader(known: Facts) -> Iterator[Finding]:
    alive = [each for each in known.supervisors if each.alive]
    leads = any(each.name == "leader" and each.held for each in known.leases)
    if not alive:
        yield Finding(
            "near", "leader", "no supervisor is alive: nothing is run, counted, or opened ahead",
            "start 'kirby supervisor' (or 'kirby dev')",
        )  # fmt: skip
    elif not leads:
        yield Finding(
            "wrong", "leader", "none of the supervisors leads: no ticks, partitions, retention",
            "look at the supervisors' output; one takes the lead within seconds",
        )  # fmt: skip
    elif level := _level(known.server.counted_ago, UNCOUNTED):
        yield Finding(
            level, "counts", f"messages were last counted {_span(known.server.counted_ago)} ago",
            "lag and lookups by time get slower; look at the leader's output",
        )  # fmt: skip


def _waiting(known: Facts) -> Iterator[Finding]:
    for each in known.waiting:
        labels, span = ",".join(each.labels), _span((known.now - each.since).total_seconds())
        yield Finding(
            "near", f"labels {labels}",
            f"{each.runs} queued for them, the oldest {span} ago, and no supervisor has them",
            f"start 'kirby supervisor --labels {labels}' on such a host",
        )  # fmt: skip


def _horizon(known: Facts) -> Iterator[Finding]:
    for each in known.holders:
        seconds = (known.now - each.since).total_seconds()
        if level := _level(seconds, HELD):
            todo = (
                f"end that transaction, or: select pg_terminate_backend({each.pid})"
                if each.pid is not None
                else "commit or roll back the prepared transaction"
            )
            yield Finding(
                level, f"topic {each.environment}/{each.topic}",
                f"its readers have been held back for {_span(seconds)} by"
                f" {_who(each.pid, each.application, each.state)}", todo,
            )  # fmt: skip


def _snapshots(known: Facts) -> Iterator[Finding]:
    for each in known.snapshots:
        seconds = (known.now - each.since).total_seconds() if each.since else 0.0
        if each.kind == "prepared":
            yield Finding(
                "wrong" if seconds >= PREPARED else "near", "prepared transaction",
                f"{each.name} of {each.application} is open since {_span(seconds)}",
                f"commit prepared '{each.name}' or roll it back",
            )  # fmt: skip
        elif each.kind == "session" and (level := _level(seconds, SNAPSHOT)):
            yield Finding(
                level, "old snapshot",
                f"{_who(each.pid, each.application, each.state)} in {each.name} keeps dead rows"
                f" since {_span(seconds)} ({each.age:,} transactions)",
                f"end it, or: select pg_terminate_backend({each.pid})",
            )  # fmt: skip
        elif each.kind == "slot" and (not each.active or _level(each.age or 0, SLOT_AGE)):
            yield Finding(
                _level(each.age or 0, SLOT_AGE) or "near", f"replication slot {each.name}",
                f"it is {'in use' if each.active else 'not in use'} and keeps"
                f" {each.age or 0:,} transactions of dead rows, and the WAL",
                f"connect its consumer, or: select pg_drop_replication_slot('{each.name}')",
            )  # fmt: skip


def _partitions(known: Facts) -> Iterator[Finding]:
    for each in known.logs:
        if each.overflowed:
            yield Finding(
                "wrong", f"log {each.name}",
                "its default partition has rows: none was opened in time",
                "the leader moves them; if there are very many, in a quiet hour:"
                f" select kirby.empty_default('{each.name}', 10^15::bigint)",
            )  # fmt: skip
        if each.ahead == 0 and each.positions_left == 0:
            level: Level | None = "wrong"
        else:
            short = each.seconds_left is not None and each.seconds_left < RUNWAY
            level = "near" if each.ahead == 0 or short else None
        if level:
            time = "" if each.seconds_left is None else f", {_span(each.seconds_left)} at this pace"
            yield Finding(
                level, f"log {each.name}",
                f"partitions are open for {each.positions_left:,} more positions{time}",
                "the leader opens more every minute: look at its output, or run 'kirby db migrate'",
            )  # fmt: skip


def _retention(known: Facts) -> Iterator[Finding]:
    for each in known.topics_kept:
        about = f"topic {each.environment}/{each.topic}"
        late = f"its oldest message is {_late(each)}"
        if each.blocked_by and each.late >= BLOCKED:
            yield Finding(
                "near", about,
                f"{late}: subscription {each.blocked_by} is not done with it"
                f" ({each.blocked_reason})",
                f"start or mend its job, or: kirby topic retention {each.topic} --env"
                f" {each.environment} --keep {spans.text(each.keep)} --even-unread",
            )  # fmt: skip
        elif not each.blocked_by and _overdue(each):
            yield Finding("wrong", about, late, _in_the_way(known))
    for log in known.logs_kept:
        if _overdue(log):
            late = f"its oldest row is {_late(log)}"
            yield Finding("wrong", f"log {log.log}", late, _in_the_way(known))


def _late(policy: retention.Policy | retention.LogPolicy) -> str:
    return f"{_span(policy.late)} older than the {spans.text(policy.keep)} it is kept"


def _overdue(policy: retention.Policy | retention.LogPolicy) -> bool:
    """Whether retention is later than it may be: see kirby.plan_retention."""
    if policy.keep is None:
        return False
    return policy.late >= 2 * max(LATE, policy.keep.total_seconds() / 10)


def _in_the_way(known: Facts) -> str:
    """Who may keep the leader from its lock on a log: the oldest transaction there is."""
    old = [each for each in known.snapshots if each.kind == "session" and each.since]
    if not old:
        return "look at the leader's output"
    oldest = min(old, key=lambda each: each.since or known.now)
    return (
        "look at the leader's output; the oldest transaction is"
        f" {_who(oldest.pid, oldest.application, oldest.state)}"
    )


def _subscriptions(known: Facts) -> Iterator[Finding]:
    for each in known.subscriptions:
        about = f"subscription {each.environment}/{each.topic}/{each.name}"
        if each.seconds >= BEHIND and not each.paused:
            yield Finding(
                "near", about,
                f"{each.behind:,}{'+' if each.more else ''} messages are not done, the oldest is"
                f" {_span(each.seconds)} old",
                "start its job, give it replicas, or look at its run",
            )  # fmt: skip
        if each.parked:
            yield Finding(
                "near", about, f"{each.parked:,} messages are parked",
                f"kirby subscription show {each.topic} {each.name} --env {each.environment}",
            )  # fmt: skip
        if each.expired and not each.paused:
            yield Finding(
                "near", about,
                f"{each.expired:,} claims ended a minute ago and nobody took them over",
                "start its job: no worker is asking",
            )  # fmt: skip


def _tables(known: Facts) -> Iterator[Finding]:
    for each in known.hot_tables:
        levels: list[Level] = ["near", "wrong"]
        bad = [
            level for level, (rows, times) in zip(levels, DEAD, strict=True)
            if each.dead >= rows and each.dead >= times * each.live
        ]  # fmt: skip
        if bad:
            when = f"{each.cleaned_at:%Y-%m-%d %H:%M}" if each.cleaned_at else "never"
            yield Finding(
                bad[-1], f"table kirby.{each.name}",
                f"{each.dead:,} dead rows beside {each.live:,} live ones, cleaned up: {when}",
                "end the old snapshots named here, see that autovacuum runs",
            )  # fmt: skip


def _server(known: Facts) -> Iterator[Finding]:
    server = known.server
    if server.unsafe:
        settings = ", ".join(server.unsafe)
        if server.throwaway:
            yield Finding("near", "server", f"{settings} off", "it says that it may be lost")
        else:
            yield Finding(
                "wrong", "server", f"{settings} off: a power cut loses commits, or the database",
                "turn it on in postgresql.conf and reload",
            )  # fmt: skip
    if level := _level(server.notifications, NOTIFICATIONS):
        yield Finding(
            level, "notifications", f"their queue is {server.notifications:.0%} full",
            "a listener that idles in a transaction keeps it: see the old snapshots",
        )  # fmt: skip
    for what, age in (("transaction", server.transactions), ("multixact", server.multixacts)):
        if level := _level(age, WRAPAROUND):
            yield Finding(
                level, "wraparound", f"the oldest {what} is {age:,} old; at 2,147,483,647 all stop",
                "let VACUUM finish: end old snapshots, drop dead slots",
            )  # fmt: skip
    if level := _level(server.position, POSITIONS):
        yield Finding(
            level, "positions", f"{server.position:,} of 9,223,372,036,854,775,807 are used",
            "begin a new database",
        )  # fmt: skip
    if not server.sees_all:
        yield Finding(
            "near", "rights", "this login does not see what other sessions do",
            "as an administrator: grant pg_read_all_stats to kirby_server",
        )  # fmt: skip


JUDGES = (
    _server, _leader, _waiting, _horizon, _snapshots, _partitions, _retention, _subscriptions,
    _tables,
)  # fmt: skip
