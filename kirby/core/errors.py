"""Every error that Kirby raises on purpose, and the SQLSTATE that stands for it."""

from __future__ import annotations


class KirbyError(Exception):
    """Base of all errors whose message may be shown to a user: one line, what and where."""

    sqlstate = ""


class Invalid(KirbyError):
    """What was given is not acceptable: a bad name, payload, schedule, option or file."""

    sqlstate = "KB001"


class NotFound(KirbyError):
    """There is no such environment, topic, job, run or state."""

    sqlstate = "KB002"


class Denied(KirbyError):
    """There is no valid token, or it does not carry this right."""

    sqlstate = "KB003"


class Conflict(KirbyError):
    """Something else changed what this change was based on; read again and retry."""

    sqlstate = "KB004"


class Fenced(KirbyError):
    """The claim was lost to another worker; nothing was written."""

    sqlstate = "KB005"


class Taken(KirbyError):
    """The name already belongs to something of another kind."""

    sqlstate = "KB006"


class WrongIsolation(KirbyError):
    """The log is read in READ COMMITTED only: elsewhere the horizon would be wrong."""

    sqlstate = "KB007"


class WrongTransition(KirbyError):
    """The run is in a state from which this step is not possible."""

    sqlstate = "KB008"


class Unavailable(KirbyError):
    """The database does not answer, or the connection was lost."""


class WrongSchema(KirbyError):
    """The database's schema is older or newer than this Kirby."""

    sqlstate = "KB009"


class Busy(KirbyError):
    """A port, lock or folder is in use by something else."""


BY_SQLSTATE: dict[str, type[KirbyError]] = {
    kind.sqlstate: kind for kind in KirbyError.__subclasses__() if kind.sqlstate
}
