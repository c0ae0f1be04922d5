# /// script
# dependencies = ["kirby"]
#
# [tool.kirby]
# description = "Keeps flights, minutes of delay and the worst flight of each carrier"
# daemon = true
# replicas = 2
# ///
"""Keep the state carrier_delay: for each carrier its flights, total minutes, and worst flight."""

import kirby

carriers = kirby.state("carrier_delay")


@kirby.stream("delays")
def tally(delay):
    row = carriers.get(delay["carrier"], {"flights": 0, "minutes": 0, "worst": None})
    row["flights"] += 1
    row["minutes"] += delay["minutes"]
    if row["worst"] is None or delay["minutes"] > row["worst"]["minutes"]:
        row["worst"] = {each: delay[each] for each in ("flight", "date", "minutes")}
    carriers[delay["carrier"]] = row


if __name__ == "__main__":
    kirby.run()
