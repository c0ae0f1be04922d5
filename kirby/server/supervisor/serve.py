"""A supervisor as a process: from its settings to its end."""

from __future__ import annotations

import logging
from collections.abc import Callable

from kirby.core.errors import Invalid
from kirby.server.settings import Settings
from kirby.server.supervisor import Supervisor
from kirby.server.supervisor.warmer import Warmer
from kirby.server.virtualenvs import Virtualenvs


def supervise(settings: Settings, ready: Callable[[], object] | None = None) -> None:
    """Be the supervisor of this process until it is told to stop; see ``run_forever``."""
    if not (settings.dsn and settings.worker_dsn):
        raise Invalid("a supervisor needs KIRBY_DSN (as kirby_server) and, for what it runs,"
                      " KIRBY_WORKER_DSN (as kirby_worker)")  # fmt: skip
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    virtualenvs = Virtualenvs(settings.data / "virtualenvs", index_url=settings.index_url)
    virtualenvs.forget_half_built()
    supervisor = Supervisor(
        dsn=settings.dsn,
        worker_dsn=settings.worker_dsn,
        data=settings.data,
        slots=settings.slots,
        labels=settings.labels,
        spill=settings.spill,
        ensure=virtualenvs.ensure,
        hold=virtualenvs.hold,
        warmer=Warmer(
            settings.dsn, virtualenvs, settings.max_virtualenvs, sorted(set(settings.labels))
        ),
        url=settings.url or "",
        ping_url=settings.ping_url,
    )
    supervisor.run_forever(ready)
