# /// script
# dependencies = ["psycopg[binary]"]
#
# [tool.kirby]
# description = "Prints the five worst carriers; knows nothing of Kirby but a view"
# schedule = "* * * * *"
# ///
"""Print the five carriers with the longest mean delay, from the SQL view of their state."""

import os

import psycopg

WORST = """
    select key, flights, minutes / flights
      from state_dev.carrier_delay,
           jsonb_to_record(value) as row (flights int, minutes numeric)
     order by 3 desc
     limit 5
"""

with psycopg.connect(os.environ["REPORT_DSN"]) as connection:
    try:
        worst = connection.execute(WORST).fetchall()
    except psycopg.errors.UndefinedTable:
        worst = []

for carrier, flights, mean in worst:
    print(f"{carrier}  {flights:6} flights, {mean:6.1f} minutes late on average")
if not worst:
    print("nothing is tallied yet")
