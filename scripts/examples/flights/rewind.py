"""`scripts/demo --check --rewind`: a bug, its fix, and the source rewound beside live flights."""

import json
import time

BUG = ('row["minutes"] += delay["minutes"]', 'row["minutes"] += max(delay["minutes"], 0)')
RATE = "3000"  # messages a second, so that live flights and kills come in the middle of it

STATE = "select key, value from state_dev.carrier_delay"
MUTATIONS = "select count(*) from state_dev.carrier_delay_history"
BACKLOG = "select coalesce(sum((kirby.lag(s.id)).messages), 0) from kirby.subscription s"
STATUS = "select status from kirby.rewind order by id desc limit 1"
# How many messages of each topic are flagged, and how many are not, before a day and from then on.
MESSAGES = """
    select t.name || case when m.payload ->> 'date' >= '%s' then ' (live)' else '' end
           || case when m.headers ? 'replay' then ', again' else '' end, count(*)
      from kirby.message m join kirby.topic t on t.id = m.topic_id
     where t.name in ('departures', 'delays', 'cancellations') group by 1
"""
# Live flights whose delay does not stand in the order of departures, carrier by carrier.
DISORDER = """
    select count(*) from (
      select m.position, lag(m.position) over (partition by d.key order by d.position) as before
        from kirby.message m
        join kirby.topic t on t.id = m.topic_id and t.name = 'delays'
        join kirby.message d on d.position = m.parents[1]
       where m.payload ->> 'date' >= '%s') o
     where o.position < o.before
"""


class Rewinding:
    """One rewind of the departures in a demo that has come to rest, and what it must come to."""

    def __init__(self, demo, days, states):
        self.demo, self.states = demo, states
        self.days = days
        self.before, self.after = demo.expected(days), demo.expected(days + 1)
        self.rows = []  # name, found, expected

    def plan(self):
        """The plan, which says beforehand and exactly what comes again."""
        plan = json.loads(self.demo.kirby("rewind", "departures", *self.how, "--plan", "--json"))
        topics = {each["name"]: each["messages"] for each in plan["topics"]}
        [[mutations]] = self.demo.ask(MUTATIONS)
        states = {each["name"]: (each["keys"], each["mutations"]) for each in plan["states"]}
        self.note("plan: departures", plan["messages"], self.before["departures"])
        for name in ("delays", "cancellations"):
            self.note(f"plan: {name}", topics.get(name), self.before[name])
        wanted = (len(self.before["carriers"]), mutations)
        self.note("plan: carrier_delay, keys and versions", states.get("carrier_delay"), wanted)
        warned = any("twice" in warning for warning in plan["warnings"])
        self.note("plan: warns that it counts twice", warned, not self.states)

    @property
    def how(self):
        return ["--to", "1", *(["--states"] if self.states else [])]

    def begin(self):
        """Rewind, and let one more day depart meanwhile."""
        reason = ["--reason", "early flights were not counted", "--rate", RATE, "--yes"]
        self.demo.deploy_departures(self.days + 1)
        self.demo.say("rewind", "departures", *self.how, *reason)
        self.demo.say("job", "trigger", "departures")

    def over(self):
        """Whether all is done, live flights too."""
        [[status]] = self.demo.ask(STATUS)
        [[backlog]] = self.demo.ask(BACKLOG)
        flights = sum(row["flights"] for row in dict(self.demo.ask(STATE)).values())
        return status == "done" and not backlog and flights >= self.flights

    @property
    def flights(self):
        return self.after["delays"] + (0 if self.states else self.before["delays"])

    def compare(self, wrong):
        """Every message and every figure; ``wrong``: what the bug had made of the state."""
        found = dict(self.demo.ask(MESSAGES % self.live_day))
        for name in ("departures", "delays", "cancellations"):
            self.note(name, found.get(name), self.before[name])
            if name != "departures":
                self.note(f"{name}, again", found.get(f"{name}, again"), self.before[name])
            live = self.after[name] - self.before[name]
            self.note(f"{name} (live)", found.get(f"{name} (live)", 0), live)
        extra = set(found) - {name for name, _, _ in self.rows}
        self.note("messages that should not be there", sorted(extra), [])
        self.note("live flights out of order", self.demo.ask(DISORDER % self.live_day)[0][0], 0)
        state = dict(self.demo.ask(STATE))
        for carrier, row in sorted(self.after["carriers"].items()):
            self.note(carrier, state.get(carrier), self.wanted(row, carrier, wrong))
        self.note("carriers", sorted(state), sorted(self.after["carriers"]))

    def wanted(self, row, carrier, wrong):
        """The figures of a carrier: those of the data set, or, without --states, counted twice."""
        if self.states or carrier not in wrong:
            return row
        flights = row["flights"] + wrong[carrier]["flights"]
        return {**row, "flights": flights, "minutes": row["minutes"] + wrong[carrier]["minutes"]}

    @property
    def live_day(self):
        months = time.strptime(f"2013 {self.days + 1}", "%Y %j")
        return time.strftime("%Y-%m-%d", months)

    def note(self, name, found, wanted):
        self.rows.append((name, found, wanted))
