"""What people are told of incidents and exceptions: the letter of a notice, as services take it.

A notice is the payload of a message on ``kirby.notices`` (kirby.notice_of,
kirby.exception_notice): all that is said stands in it, so that a letter that is sent again is the
same. Its templates are in ui/notices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment as Jinja
from jinja2 import FileSystemLoader, StrictUndefined

from kirby.core.errors import Invalid
from kirby.server.addresses import Letter
from kirby.server.paths import UI

TOPIC, SUBSCRIPTION = "kirby.notices", "channels"
EVENTS = ("opened", "updated", "retried", "resolved", "ending", "over")
OF_EXCEPTIONS = ("ending", "over")
KINDS = ("failing", "missed", "late", "stuck", "silent", "retrying", "channel", "storm", "platform")
LONGEST_TITLE = 150
SPECIAL = re.compile(r"([\\`*\[\]<>|])")
SAID = {
    "failing": "FAILING",
    "missed": "MISSED",
    "late": "LATE",
    "stuck": "STUCK",
    "silent": "SILENT",
    "retrying": "RETRYING",
    "channel": "CHANNEL",
    "storm": "STORM",
    "platform": "KIRBY",
}
WORDS = {
    "failing": "it fails",
    "missed": "it should have run and did not",
    "late": "it should have ended by now",
    "stuck": "it is stuck",
    "silent": "it is alive and gives no sign",
    "retrying": "it failed and is tried again",
    "channel": "notices do not arrive there",
    "storm": "many things went wrong at once",
    "platform": "Kirby itself",
}
# Details that are said by other means, or are for programs.
UNSAID = frozenset(("channel_id", "deployment_id", "fingerprint", "common", "log"))


def letter(notice: Mapping[str, Any], position: int, url: str = "") -> Letter:
    """The letter of a notice. `url`: where people reach the pages; without it there are no links.

    Raises Invalid for what is no notice.
    """
    try:
        facts = _facts(notice, url.rstrip("/"))
        return Letter(
            title=_subject(notice),
            text=_render("notice.txt", facts),
            html=_render("notice.html", facts),
            markdown=_render("notice.md", facts),
            kind=_kind(notice),
            key=f"kirby-notice-{position}",
            thread=_thread(notice),
            facts={"kirby": _for_programs(notice, facts)},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Invalid(f"this is no notice of Kirby: {type(error).__name__} {error}") from None


def _thread(notice: Mapping[str, Any]) -> str:
    """What is told of one thing is one thread of mails."""
    of = next((each for each in ("incident", "exception") if each in notice), None)
    return f"<{of}-{notice[of]}@kirby>" if of else ""


def _subject(notice: Mapping[str, Any]) -> str:
    """``[prod] FAILING nightly: exit code 3``; what is over says so, and for how long it was."""
    where = f"[{notice['environment']}] " if notice.get("environment") else ""
    if notice["event"] == "test":
        return f"{where}Kirby: a test of the channel {notice['channel']}"
    if notice["event"] in OF_EXCEPTIONS:
        state = "ENDING SOON" if notice["event"] == "ending" else "BACK TO NORMAL"
        return _short(f"{where}{state}: {notice['title']}")
    what = SAID[notice["kind"]]
    state = {"resolved": "RESOLVED", "updated": f"STILL {what}"}.get(notice["event"], what)
    job = notice.get("job")
    named = f" {job}:" if job and job not in notice["title"] else ""
    return _short(f"{where}{state}{named} {notice['title']}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_TITLE else line[: LONGEST_TITLE - 1] + "…"


def _kind(notice: Mapping[str, Any]) -> str:
    known = {"resolved": "success", "test": "info", "retried": "warning",
             "ending": "info", "over": "success"}  # fmt: skip
    return known.get(notice["event"], "failure")


def _facts(notice: Mapping[str, Any], url: str) -> dict[str, Any]:
    """What the templates see."""
    if notice["event"] == "test":
        return {"notice": notice, "subject": _subject(notice), "rows": [], "links": {}, "log": [],
                "told": [], "hidden": 0}  # fmt: skip
    if notice["event"] in OF_EXCEPTIONS:
        return {"notice": notice, "subject": _subject(notice), "rows": _rows_of_exception(notice),
                "links": _links_of_exception(notice, url) if url else {}, "log": [], "told": [],
                "hidden": 0}  # fmt: skip
    told = list(notice["told"])
    return {
        "notice": notice,
        "subject": _subject(notice),
        "rows": [(name, value) for name, value in _rows(notice) if value not in (None, "")],
        "links": _links(notice, url) if url else {},
        "log": [] if notice["event"] == "resolved" else [str(line) for line in notice["log"]],
        "told": told,
        "hidden": int(notice["told_count"]) - len(told),
    }


def _rows(notice: Mapping[str, Any]) -> list[tuple[str, Any]]:
    opened = datetime.fromisoformat(notice["opened_at"])
    ended = notice.get("resolved_at")
    now = datetime.fromisoformat(ended or notice["at"])
    details = {**notice["details"], **notice["more"]}
    said = [(_word(name), _text(value)) for name, value in details.items() if name not in UNSAID]
    count = notice["count"]
    return [
        ("Job", notice.get("job")),
        ("Environment", notice.get("environment")),
        ("About", notice.get("job_description")),
        ("What", WORDS[notice["kind"]] + (", on and off" if notice["flapping"] else "")),
        ("Since", f"{_time(opened)}, {_span(opened, now)}" + (" long" if ended else "")),
        ("Over since", _time(now) if ended else None),
        ("By", notice.get("resolved_by") if notice.get("resolved_by") != "kirby" else None),
        ("Times", f"{count:,}" if count > 1 else None),
        ("Acknowledged by", notice.get("acknowledged_by") if not ended else None),
        *([] if ended else said),
    ]


def _rows_of_exception(notice: Mapping[str, Any]) -> list[tuple[str, Any]]:
    since, until = (datetime.fromisoformat(notice[each]) for each in ("from", "until"))
    about = f"{notice['scope']} {notice['target']}" if notice["target"] else "everything"
    over, ended_by = notice["event"] == "over", notice["ended_by"]
    rows = [
        ("About", about),
        ("Environment", notice["environment"] or "all"),
        ("From", _time(since)),
        ("Until", _time(until) + (f", ended early by {ended_by}" if ended_by else "")),
        ("Held back", _held(notice) if over else None),
        ("Then", _then(notice)),
        (
            "Its return",
            f"runs started, or about to be: {notice['started']:,}"
            if over and notice["started"]
            else None,
        ),
        ("Reason", notice["reason"]),
        ("Ticket", notice["ticket"]),
        ("By", notice["actor"]),
    ]
    return [(name, value) for name, value in rows if value]


def _held(notice: Mapping[str, Any]) -> str:
    return f"ticks: {notice['held']:,}, of jobs: {notice['jobs']:,}"


def _then(notice: Mapping[str, Any]) -> str:
    return {
        "next_tick": "each job runs at its next tick",
        "run_once": "each job of which a tick was held runs once",
        "catch_up": f"of each job the last {notice['return_most']} ticks that were held are run",
    }[notice["on_return"]]


def _links_of_exception(notice: Mapping[str, Any], url: str) -> dict[str, str]:
    asked = f"?{urlencode({'env': notice['environment']})}" if notice["environment"] else ""
    name = "Extend it" if notice["event"] == "ending" else "The exception"
    links = {name: f"{url}/exceptions/{notice['exception']}{asked}"}
    if notice["scope"] == "job":
        links["The job"] = f"{url}/jobs/{quote(notice['target'])}{asked}"
    return links


def _links(notice: Mapping[str, Any], url: str) -> dict[str, str]:
    env = {"env": notice["environment"]} if notice.get("environment") else {}
    asked = f"?{urlencode(env)}" if env else ""
    links = {"The incident": f"{url}/incidents/{notice['incident']}{asked}"}
    if notice.get("run"):
        links["The run"] = f"{url}/runs/{notice['run']}{asked}"
    if notice.get("job"):
        links["The job"] = f"{url}/jobs/{quote(notice['job'])}{asked}"
    return links


def _for_programs(notice: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a webhook gets beside the text: the same facts, by name."""
    left_out = ("log", "channel_id")
    return {k: v for k, v in notice.items() if k not in left_out} | {"links": facts["links"]}


def _word(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(each) for each in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{_word(k).lower()} {_text(v)}" for k, v in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "" if value is None else str(value)
    try:
        return _time(datetime.fromisoformat(text)) if re.match(r"\d{4}-\d\d-\d\dT", text) else text
    except ValueError:
        return text


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(since: datetime, until: datetime) -> str:
    """``45 s``, ``12 min``, ``3 h 5 min``, ``2 d 4 h``."""
    seconds = max(0, round((until - since).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes == 0:
        return f"{seconds} s"
    if hours == 0:
        return f"{minutes} min"
    if days == 0:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"


@cache
def _templates() -> tuple[Jinja, Jinja]:
    """For HTML, where everything is escaped, and for texts, where templates do it."""
    loader = FileSystemLoader(UI / "notices")
    html, plain = (
        Jinja(loader=loader, autoescape=escaped, undefined=StrictUndefined,  # noqa: S701
              trim_blocks=True, lstrip_blocks=True)
        for escaped in (True, False)
    )  # fmt: skip
    plain.filters["md"] = lambda text: SPECIAL.sub(r"\\\1", str(text))
    plain.filters["fenced"] = lambda text: str(text).replace("```", "'''")
    return html, plain


def _render(name: str, facts: Mapping[str, Any]) -> str:
    html, plain = _templates()
    return (html if name.endswith(".html") else plain).get_template(name).render(facts).strip()
