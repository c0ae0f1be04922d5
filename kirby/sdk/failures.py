"""A handler that raises: what is said of it, and how it asks for another try."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from kirby.core.errors import Invalid, KirbyError
from kirby.core.subscriptions import Batch

SDK = str(Path(__file__).parent)
MAX_ERROR = 8000  # characters of a traceback that are kept with a failed message
MAX_COUNTDOWN = 366 * 86400


class Retry(KirbyError):
    """Raised by a handler: try this message again in ``countdown`` seconds (a back-off if None).

    It counts as an attempt; after the last one the message is parked.
    """

    def __init__(self, message: str = "asked for another try", *, countdown: float | None = None):
        if countdown is not None and not 0 <= countdown <= MAX_COUNTDOWN:
            raise Invalid(f"countdown is {countdown!r}: from 0 seconds to a year")
        super().__init__(message)
        self.countdown = countdown


class InDoubt(KirbyError):
    """Raised by an effect that was begun and not confirmed, and cannot be repeated: nobody knows
    whether it happened. The message is parked; a person looks, and says `kirby effect resolve`.
    """


def pause_of(error: BaseException) -> float | None:
    """How long a handler wants its message to wait; None: a back-off."""
    return error.countdown if isinstance(error, Retry) else None


def story(error: BaseException) -> str:
    """The traceback of a handler's error, without our own frames above it, as PostgreSQL takes it.

    What an error says must never keep the error from being filed.
    """
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(SDK):
        tb = tb.tb_next
    text = "".join(traceback.format_exception(type(error), error, tb or error.__traceback__))
    return storable(text)


def storable(text: str) -> str:
    """Text as PostgreSQL takes it: without NUL and halves of characters."""
    return text.replace("\0", "\u2400").encode("utf-8", "replace").decode()


def tell(topic: str, batch: Batch, index: int, text: str) -> None:
    """Say on standard error what happened to a message."""
    print(
        f"kirby: message {batch.positions[index]} of topic {topic} (key {batch.keys[index]!r})"
        f" failed at attempt {batch.attempt}:\n{text}",
        file=sys.stderr, end="", flush=True,
    )  # fmt: skip
