"""Values as JSON: what the commands and the API print of dataclasses, times and spans."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timedelta
from typing import Any

from kirby.server import spans


def plain(value: Any) -> Any:
    """What JSON can hold: dataclasses as objects, times as ISO 8601, spans as 30d, else text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return spans.text(value)
    return str(value)


def text(value: Any, indent: int | None = None) -> str:
    """One JSON document."""
    return json.dumps(value, default=plain, indent=indent, ensure_ascii=False)
