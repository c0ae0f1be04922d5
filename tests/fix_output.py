"""A script that writes a hundred megabytes, and how its log is checked."""

from fix_runs import ENDED


def ended(runs, run_id):
    return lambda: runs.get(run_id)["status"] in ENDED


# A script that writes a hundred megabytes as fast as it can: lines that say their number. It keeps
# how long its slowest write took, and all of them.
HUNDRED = """
import os, time
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.01)
slowest, began = 0.0, time.monotonic()
for first in range(0, 1_000_000, 1000):
    view = memoryview(b"".join(b"%099d\\n" % n for n in range(first, first + 1000)))
    at = time.monotonic()
    while view:
        view = view[os.write(1, view):]
    slowest = max(slowest, time.monotonic() - at)
with open(os.environ["DONE"] + ".new", "w") as file:
    print(slowest, time.monotonic() - began, file=file)
os.rename(os.environ["DONE"] + ".new", os.environ["DONE"])
"""


class Hundred:
    """A run of that script."""

    def __init__(self, runs, folder, **options):
        self.runs, self.path, self.go = runs, folder / "done", folder / "go"
        variables = {"DONE": str(self.path), "GO": str(self.go)}
        self.id = runs.start(HUNDRED, variables=variables, **options)

    def has_written(self):
        """Let it write; whether it has written all."""
        self.go.touch()
        return self.path.exists()

    def has_ended(self):
        self.go.touch()
        return self.runs.get(self.id)["status"] in ENDED

    def lines(self):
        return self.runs.value("select count(*) from kirby.log_line where run_id = %s", self.id)

    def check(self):
        """All of it is in the log, in order, once, and the script never waited for long."""
        assert self.runs.get(self.id)["status"] == "succeeded"
        assert self.runs.texts(self.id, "kirby") == []
        [found] = self.runs.ask(
            "select count(*) as lines, count(distinct text) as different,"
            " min(text::numeric) as first, max(text::numeric) as last,"
            " bool_and(text::numeric > before or before is null) as in_order"
            " from (select text, lag(text::numeric) over (order by position) as before"
            "         from kirby.log_line where run_id = %s) l",
            self.id,
        )
        assert list(found.values()) == [1_000_000, 1_000_000, 0, 999_999, True]
        slowest, total = map(float, self.path.read_text().split())
        assert slowest < 1.0
        assert total < 30.0
