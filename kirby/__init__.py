"""Kirby runs your Python scripts, and keeps everything they did in one PostgreSQL event log."""

from kirby.core.errors import (
    Conflict,
    Denied,
    Fenced,
    Invalid,
    KirbyError,
    NotFound,
    Taken,
    Unavailable,
    WrongSchema,
)
from kirby.sdk.configuration import config
from kirby.sdk.loop import run
from kirby.sdk.messages import Message
from kirby.sdk.session import transaction
from kirby.sdk.states import State, state
from kirby.sdk.streams import stream
from kirby.sdk.topics import Out, Topic, topic

__all__ = [
    "Conflict",
    "Denied",
    "Fenced",
    "Invalid",
    "KirbyError",
    "Message",
    "NotFound",
    "Out",
    "State",
    "Taken",
    "Topic",
    "Unavailable",
    "WrongSchema",
    "config",
    "run",
    "state",
    "stream",
    "topic",
    "transaction",
]
