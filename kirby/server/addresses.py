"""The address of a channel, as apprise reads it: what may stand in it, and sending to it.

What is secret in an address stands there as ``${NAME}``. Whoever sends takes it from the variable
KIRBY_CHANNEL_NAME (or from the file that KIRBY_CHANNEL_NAME_FILE names), so that no database, page
or backup has it.
"""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from kirby.core.errors import Invalid, NotFound

if TYPE_CHECKING:
    from apprise import AppriseResult, NotifyBase  # slow to import, and few processes send

PREFIX = "KIRBY_CHANNEL_"
LONGEST = 2000
PLACE = re.compile(r"\$\{([^}]*)\}")
NAME = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
SCHEMA = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
STAND_IN = "kirby{}secret"
STANDS_IN = re.compile(r"(kirby[0-9]+secret)+")
CUT = re.compile(r"[/:@?&=#]+")
SAYS_SECRET = re.compile(r"auth|token|secret|passw|(api|access)[_-]?key|signature", re.IGNORECASE)
LOOKS_SECRET = re.compile(r"(?=[^/]*[0-9])(?=[^/]*[A-Za-z])[A-Za-z0-9_-]{16,}")
ANSWER = re.compile(
    r"(Response Details|Socket Exception|SMTP .*|.*Exception)[^:]*:\s*(.*)", re.DOTALL
)
CAUSES = tuple(
    re.compile(each)
    for each in (r"\[Errno -?\d+\] ([^'\")]+)", r"\[SSL: \w+\] ([^'\"(]+)", r"'([^']+)'[)]*$")
)
LOCAL = frozenset(("dbus", "glib", "qt", "kde", "gnome", "macosx", "windows", "blink1", "syslog"))

LOG = logging.getLogger("apprise")
LOG.propagate = False  # what went wrong is said in its result
LOG.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Letter:
    """What is sent: in the three forms that services take, under a key that stays with retries.

    ``facts`` go beside the text where the receiver is a program; ``thread`` joins mails.
    """

    title: str
    text: str
    html: str
    markdown: str
    kind: str  # info, success, warning, failure
    key: str
    thread: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether it was taken, what was answered in one line, and how many seconds it took."""

    delivered: bool
    answer: str
    seconds: float


def check(address: str) -> str:
    """The address without space around it, if it can be one. Raises Invalid.

    A secret in plain is refused; what is in its ${NAME} is not known here.
    """
    address = address.strip()
    if len(address) > LONGEST or not address.isprintable():
        raise Invalid(f"an address has at most {LONGEST} printable characters")
    names = places(address)
    schema = _schema(address)
    filled = fill(address, {name: STAND_IN.format(n) for n, name in enumerate(names)})
    service = _opened(filled)
    if isinstance(service, str) and not names:
        raise Invalid(f"the address cannot be used: {service}")
    plain = _plain(service, filled) if not isinstance(service, str) else _suspicious(filled)
    if plain or _named_secret(address):
        raise Invalid(
            f"there is a secret in this {schema}:// address: write ${{NAME}} in its place, and give"
            f" the supervisors a variable {PREFIX}NAME"
        )
    return address


def places(address: str) -> list[str]:
    """The names of its secrets, each once. Raises Invalid for one that is no name."""
    found = list(dict.fromkeys(PLACE.findall(address)))
    for name in found:
        if not NAME.fullmatch(name):
            raise Invalid(f"${{{name}}} is no name of a secret: capital letters, digits and _")
    return found


def fill(address: str, values: Mapping[str, str]) -> str:
    """The address with its secrets; what an address cannot hold as it is gets encoded.

    One that is a part of the path may have slashes of its own, as webhooks have them.
    """

    def filled(found: re.Match[str]) -> str:
        before, after = address[: found.start()], address[found.end() :]
        is_path = "?" not in before and not re.match(r"[^/?#]*@", after)
        return quote(values[found[1]], safe="/" if is_path else "")

    return PLACE.sub(filled, address)


def secrets_of(address: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The values of its secrets. Raises NotFound, naming the variable that is missing."""
    return {name: _secret(name, environ) for name in places(address)}


def send(address: str, letter: Letter, environ: Mapping[str, str], timeout: float) -> Outcome:
    """Send it, waiting no longer than `timeout` seconds; never raises, never says a secret."""
    try:
        values = secrets_of(address, environ)
        service = _opened(fill(address, values))
    except (Invalid, NotFound) as error:
        return Outcome(False, str(error), 0.0)
    if isinstance(service, str):
        return Outcome(False, _hidden(f"the address cannot be used: {service}", values), 0.0)
    _stamp(service, letter)
    result = _notify(service, letter, timeout)
    return Outcome(bool(result), _hidden(_answer(result), values), result.elapsed)


def _schema(address: str) -> str:
    from apprise.manager_plugins import NotificationManager

    found = SCHEMA.match(address)
    schema = found[1].lower() if found else ""
    if not schema:
        raise Invalid("an address looks like mailtos://user:${PASSWORD}@host?to=you@example.com")
    if schema in LOCAL or schema not in NotificationManager().schemas():
        raise Invalid(
            f"there is no service {schema}:// to send to: mailtos, jsons, slack, workflows, ntfys …"
            " (apprise has the list)"
        )
    return schema


def _opened(address: str) -> NotifyBase | str:
    """The service of an address without placeholders, or why there is none."""
    from apprise import Apprise, AppriseAsset

    asset = AppriseAsset(app_id="Kirby", app_desc="Kirby", app_url="", plugin_paths=[])
    LOG.setLevel(logging.DEBUG)  # what services answer is said there
    try:
        service = Apprise.instantiate(address, asset=asset, suppress_exceptions=False)
    except Exception as error:  # each service raises its own
        return " ".join(str(error).split()) or type(error).__name__
    return service or "some part of it is missing or not as that service has it"


def _plain(service: NotifyBase, filled: str) -> bool:
    """Whether something that the service holds for a secret was written in plain."""
    shown, masked = CUT.split(service.url()), CUT.split(service.url(privacy=True))
    if len(shown) != len(masked):
        return _suspicious(filled)
    given = unquote(filled)
    hidden = [unquote(a) for a, b in zip(shown, masked, strict=True) if a != b]
    return any(each in given and not STANDS_IN.fullmatch(each) for each in hidden)


def _suspicious(filled: str) -> bool:
    """Whether something in it looks like a token, for services that tell nothing."""
    parts = CUT.split(unquote(filled))
    return any(LOOKS_SECRET.fullmatch(each) and not STANDS_IN.fullmatch(each) for each in parts)


def _named_secret(address: str) -> bool:
    """Whether a parameter that is called like a secret has a value in plain."""
    for each in re.split(r"[?&]", address)[1:]:
        name, _, value = each.partition("=")
        if value and SAYS_SECRET.search(name) and not PLACE.search(value):
            return name.lower() not in ("auth", "authmode")
    return bool(re.match(r"[^:]+://[^/?@:]*:(?!\$\{)[^/?@]+@", address))


def _secret(name: str, environ: Mapping[str, str]) -> str:
    variable = PREFIX + name
    if value := environ.get(variable):
        return value
    if path := environ.get(f"{variable}_FILE"):
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise NotFound(f"the file that {variable}_FILE names cannot be read") from None
    raise NotFound(f"{variable} is not set where notices are delivered, by the supervisors")


def _stamp(service: NotifyBase, letter: Letter) -> None:
    """Give it what tells a receiver that two deliveries are the same; where it can be given."""
    headers = getattr(service, "headers", None)
    if isinstance(headers, dict):
        headers.setdefault("Idempotency-Key", letter.key)
        if letter.thread and "mail" in type(service).__name__.lower():
            headers.setdefault("References", letter.thread)
            headers.setdefault("In-Reply-To", letter.thread)
    extras = getattr(service, "payload_extras", None)
    if isinstance(extras, dict):
        for name, value in letter.facts.items():
            extras.setdefault(name, value)


def _notify(service: NotifyBase, letter: Letter, timeout: float) -> AppriseResult:
    from apprise import Apprise, NotifyFormat, NotifyType

    sender = Apprise()
    sender.add(service)
    known = service.notify_format  # one, or several with the preferred one first
    wanted = known[0] if isinstance(known, tuple) else known
    bodies = {NotifyFormat.HTML: letter.html, NotifyFormat.MARKDOWN: letter.markdown}
    return sender.notify(
        bodies.get(wanted, letter.text),
        title=letter.title,
        notify_type=NotifyType(letter.kind),
        body_format=wanted if wanted in bodies else NotifyFormat.TEXT,
        timeout=timeout,
        log_level=logging.DEBUG,
    )


def _answer(result: AppriseResult) -> str:
    """What the service said, in one line; apprise has it among what it logged."""
    said = [entry for entry in result.logs() if entry.level != "DEBUG"]
    logged = (ANSWER.match(entry.message) for entry in result.logs())
    more = [_cause(_read(found[2])) for found in logged if found]
    texts = [entry.message for entry in said] or ["sent" if result else "it was not taken"]
    return _one_line(texts[-1:] + more[-1:])


def _read(text: str) -> str:
    """Bytes as they are logged, read as text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else text


def _cause(text: str) -> str:
    """Of a connection that failed only why: the library tells of all its layers around it."""
    inmost = text.partition("Caused by ")[2]
    found = next((found for each in CAUSES if (found := each.search(inmost))), None)
    return found[1].strip() if found else text


def _one_line(texts: Sequence[str]) -> str:
    line = " ".join(" ".join(texts).split())
    return line if len(line) <= 500 else line[:499] + "…"


def _hidden(text: str, values: Mapping[str, str]) -> str:
    """The text without the secrets, however an address spells them."""
    for value in values.values():
        for each in {value, quote(value, safe=""), quote(value), *value.split("/")}:
            if len(each) >= 4:
                text = text.replace(each, "***")
    return text
