"""Live streams: one connection listens, every open page is woken, and each reads on for itself.

The one async module. A notification is a hint that a run has something new; each stream also looks
by itself every second, so a lost one costs a second and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from kirby.core import db, pooler
from kirby.core.errors import KirbyError, Unavailable
from kirby.server import run_logs, runs
from kirby.server.run_logs import Choice
from kirby.server.web import pages

CHANNELS = ("listen kirby_log", "listen kirby_job")
POLL = 1.0  # seconds, with jitter
HEARTBEAT = 10.0  # seconds without an event after which a comment keeps the connection known
RECONNECT = 1.0
BATCH = 500  # lines in one event
BEHIND = 5000  # lines that a page keeps; a stream that is further behind leaves out the older ones
LINGER = 2.0  # seconds that a stream stays for the last lines of a run that has ended

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Hub:
    """Wakes the streams of a run when PostgreSQL says that there is something new."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.closing = asyncio.Event()
        self.waiting: dict[int, set[asyncio.Event]] = defaultdict(set)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen for as long as the app is up."""
        task = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            self.close()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def close(self) -> None:
        """End every stream: the server is stopping."""
        self.closing.set()
        self._wake(None)

    async def _listen(self) -> None:
        while not self.closing.is_set():
            with contextlib.suppress(psycopg.Error, KirbyError):
                await self._follow()
            await asyncio.sleep(RECONNECT)  # streams poll meanwhile

    async def _follow(self) -> None:
        async with await self._connection() as connection:
            [[pid]] = await (await connection.execute(pooler.BACKEND)).fetchall()
            if pid != connection.info.backend_pid:  # through a pooler nothing can be listened to
                await self.closing.wait()
                return
            for channel in CHANNELS:
                await connection.execute(channel)
            self._wake(None)
            async for notification in connection.notifies():
                self._wake(notification.payload)

    async def _connection(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(
            self.dsn,
            autocommit=True,
            application_name="kirby web live",
            connect_timeout=db.CONNECT_TIMEOUT,
            keepalives_idle=db.KEEPALIVE["keepalives_idle"],
            keepalives_interval=db.KEEPALIVE["keepalives_interval"],
            keepalives_count=db.KEEPALIVE["keepalives_count"],
        )

    def _wake(self, payload: str | None) -> None:
        """Wake the streams of the runs that a payload names; all of them if it names none."""
        named = {int(digits) for digits in re.findall(r"\d{1,18}", payload or "")}
        for run_id, streams in list(self.waiting.items()):
            if not named or run_id in named:
                for woken in streams:
                    woken.set()

    @contextlib.contextmanager
    def subscription(self, run_id: int) -> Iterator[asyncio.Event]:
        """An event that is set whenever the run may have something new."""
        woken = asyncio.Event()
        self.waiting[run_id].add(woken)
        try:
            yield woken
        finally:
            self.waiting[run_id].discard(woken)
            if not self.waiting[run_id]:
                del self.waiting[run_id]


@dataclass(frozen=True, slots=True)
class News:
    """What a stream has not said yet."""

    run: runs.Run
    after: int  # all lines up to here were looked at
    more: bool  # there are lines behind that by now
    html: str
    status: str
    mark: object  # changes with whatever the page shows of the run beside its lines


async def stream(request: Request) -> Response:
    """Server-sent events of a run: its lines, its status when that changes, and its end.

    The id of an event is a position up to which all was said: a browser that reconnects says it,
    and goes on behind it (Last-Event-ID, or ?after= the first time). `stream`, `level` and `q`
    choose lines. Raises NotFound, Invalid.
    """
    run_id, chosen = request.path_params["run_id"], choice(request)
    first = await run_in_threadpool(_news, request, run_id, chosen, _after(request))
    return StreamingResponse(
        _events(request, run_id, chosen, first), media_type="text/event-stream", headers=HEADERS
    )


def choice(request: Request) -> Choice:
    """Which lines of a log the address asks for; raises Invalid."""
    word = pages.word
    return Choice.of(word(request, "stream"), word(request, "level"), word(request, "q").strip())


def _after(request: Request) -> int:
    seen = request.headers.get("last-event-id", "")
    if seen.isascii() and seen.isdigit() and len(seen) < 19:
        return int(seen)
    return pages.number(request, "after") or 0


def _news(request: Request, run_id: int, choice: Choice, after: int) -> News:
    """One look at the database, and how the news reads as a part of the page."""
    with pages.reading(request) as conn:
        run = runs.get(conn, run_id)
        upto = max(after, run_logs.last(conn, run_id))
        begin = after if choice else max(after, run_logs.last(conn, run_id, but=BEHIND))
        lines = run_logs.after(conn, run_id, begin, upto=upto, limit=BATCH, choice=choice)
    html = ""
    if lines:
        html = pages.text(request, "runs/_lines.html", lines=lines, run=run, left_out=begin > after)
    seen = lines[-1].position if lines else upto
    status = run.status + ("!" if run.cancel_at else "")
    return News(run, seen, seen < upto, html, status, (status, run.progress_at))


async def _events(request: Request, run_id: int, choice: Choice, news: News) -> AsyncIterator[str]:
    hub: Hub = request.app.state.hub
    mark, ended, spoke = news.mark, 0.0, time.monotonic()
    yield "retry: 1000\n\n"
    with hub.subscription(run_id) as woken:
        while True:
            if news.html:
                spoke = time.monotonic()
                yield event("lines", news.html, news.after)
            if news.mark != mark:
                mark, spoke = news.mark, time.monotonic()
                yield event("status", news.status, news.after)
            if not (news.run.live or news.html or news.more):
                ended = ended or time.monotonic()
                if time.monotonic() - ended >= _linger(news.run):
                    yield event("end", news.run.status, news.after)
                    return
            if time.monotonic() - spoke > HEARTBEAT:
                spoke = time.monotonic()
                yield ": still here\n\n"
            if not news.more:
                await _woken(woken)
            if hub.closing.is_set():
                return
            woken.clear()
            with contextlib.suppress(Unavailable):  # the database is away: stay, and look again
                news = await run_in_threadpool(_news, request, run_id, choice, news.after)


async def follow(
    request: Request,
    run_id: int,
    choice: Choice,
    position: int,
    write: Callable[[list[run_logs.Line]], str],
) -> AsyncIterator[str]:
    """All lines after a position as `write` has them, until the run has ended, or we stop."""
    hub: Hub = request.app.state.hub
    with hub.subscription(run_id) as woken:
        while not hub.closing.is_set():
            woken.clear()
            try:
                ended, lines, upto = await run_in_threadpool(
                    _piece, request, run_id, choice, position
                )
            except Unavailable:  # stay, and look again
                await _woken(woken)
                continue
            position = lines[-1].position if lines else upto
            if lines:
                yield write(lines)
            if position < upto:
                continue
            if ended:  # all lines are in the log before the end is
                return
            await _woken(woken)


def _piece(
    request: Request, run_id: int, choice: Choice, position: int
) -> tuple[bool, list[run_logs.Line], int]:
    """Whether the run has ended, its next lines, and up to where they were looked for."""
    with pages.reading(request) as conn:
        ended = not runs.get(conn, run_id).live
        upto = max(position, run_logs.last(conn, run_id))
        return ended, run_logs.after(conn, run_id, position, upto=upto, choice=choice), upto


def _linger(run: runs.Run) -> float:
    """Nothing more comes from a run that ended long ago."""
    ended = run.ended_at.timestamp() if run.ended_at else time.time()
    return 0.0 if time.time() - ended > 2 * LINGER else LINGER


async def _woken(woken: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(woken.wait(), POLL * random.uniform(0.8, 1.2))  # noqa: S311


def event(name: str, data: str, position: int) -> str:
    """One server-sent event."""
    body = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"id: {position}\nevent: {name}\n{body}\n"
