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
from kirby.sdk.effects import Effect, effect
from kirby.sdk.failures import InDoubt, Retry
from kirby.sdk.limits import SoftTimeLimit
from kirby.sdk.messages import Message
from kirby.sdk.progress import progress
from kirby.sdk.results import Expired, Result, Revoked, TaskFailed, Timeout
from kirby.sdk.states import State, state
from kirby.sdk.streams import stream
from kirby.sdk.tasks import CurrentTask, Task, current_task, result, task
from kirby.sdk.topics import Out, Topic, topic
from kirby.sdk.transactions import transaction
from kirby.sdk.worker import run

__all__ = [
    "Conflict",
    "CurrentTask",
    "Denied",
    "Effect",
    "Expired",
    "Fenced",
    "InDoubt",
    "Invalid",
    "KirbyError",
    "Message",
    "NotFound",
    "Out",
    "Result",
    "Retry",
    "Revoked",
    "SoftTimeLimit",
    "State",
    "Taken",
    "Task",
    "TaskFailed",
    "Timeout",
    "Topic",
    "Unavailable",
    "WrongSchema",
    "config",
    "current_task",
    "effect",
    "progress",
    "result",
    "run",
    "state",
    "stream",
    "task",
    "topic",
    "transaction",
]
