# /// script
# dependencies = ["kirby"]
#
# [tool.kirby]
# description = "Turns departures into delays; cancelled flights have none"
# daemon = true
# ///
"""Departures in, delays out. A cancelled flight has no delay: it goes to topic cancellations."""

import kirby


@kirby.stream("departures", to="delays")
def delay(flight):
    name = f"{flight['carrier']}{flight['flight']}"
    if flight["dep_delay"] is None:
        return kirby.Out({"flight": name, "date": flight["date"]}, to="cancellations")
    return {
        "carrier": flight["carrier"],
        "flight": name,
        "date": flight["date"],
        "minutes": int(flight["dep_delay"]),
    }


if __name__ == "__main__":
    kirby.run()
