"""What the scoreboard says: figures of a few rounds, and rows that set two of them side by side."""

import statistics
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """One quantity, measured once a round; ``missing`` says why there is none."""

    samples: tuple[float, ...] = ()
    missing: str = ""

    @property
    def median(self):
        return statistics.median(self.samples) if self.samples else None

    @property
    def spread(self):
        """The lowest and the highest round."""
        return [min(self.samples), max(self.samples)] if self.samples else None


@dataclass(frozen=True)
class Row:
    """Kirby's figure beside that of a peer.

    The target bounds the ratio kirby / against, or, when there is nothing to set beside it, Kirby's
    own figure. ``better`` is "higher" (at least the target) or "lower" (at most the target).
    """

    group: str
    name: str
    kirby: Figure
    against: Figure = field(default_factory=Figure)
    peer: str = ""
    unit: str = "/s"
    target: float | None = None
    better: str = "higher"
    note: str = ""

    @property
    def ratio(self):
        if self.kirby.median is None or not self.against.median:
            return None
        return self.kirby.median / self.against.median

    @property
    def judged(self):
        """What the target is for: the ratio, or the figure itself where there is no peer."""
        return self.ratio if self.peer else self.kirby.median

    @property
    def ok(self):
        """Whether the target is met; None without a target, or without the peer."""
        if self.target is None or (self.peer and self.against.median is None):
            return None
        if self.judged is None:
            return False  # Kirby itself gave no figure
        return self.judged >= self.target if self.better == "higher" else self.judged <= self.target

    def document(self):
        return {
            "name": f"{self.name}, beside {self.peer}" if self.peer else self.name,
            "kirby": self.kirby.median,
            "against": self.against.median,
            "ratio": self.ratio,
            "target": self.target,
            "ok": self.ok,
            "group": self.group,
            "what": self.name,
            "peer": self.peer or None,
            "unit": self.unit,
            "better": self.better,
            "target_is_of": "ratio" if self.peer else "kirby",
            "rounds": len(self.kirby.samples),
            "kirby_spread": self.kirby.spread,
            "against_spread": self.against.spread,
            "missing": self.kirby.missing or self.against.missing or None,
            "note": self.note or None,
        }


def document(rows, **more):
    """What ``--json`` prints."""
    return {"rows": [row.document() for row in rows], **more}


def shown(value, unit):
    """A figure for people: three digits and its unit."""
    if value is None:
        return "-"
    if unit == "/s":
        return f"{value / 1000:.1f} k/s" if value >= 10_000 else f"{value:,.0f}/s"
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def shown_ratio(ratio):
    return "-" if ratio is None else f"{ratio:.{2 if ratio < 10 else 1 if ratio < 100 else 0}f}x"


def shown_target(row):
    if row.target is None:
        return "-"
    sign = "≥" if row.better == "higher" else "≤"
    return f"{sign} {row.target:g}{'x' if row.peer else ' ' + row.unit}"


def verdict(row):
    return {True: "met", False: "missed", None: "-"}[row.ok]
