import time
from test_restore import *
def test_dbg(house, scripts, tmp_path):
    publish(house, range(200))
    w=scripts(PIPELINE.replace("FOLDER", repr(str(tmp_path)).strip("'")), LEASE="5", SLICE="0.02")
    time.sleep(5)
    print(len(house.values("bills")), house.ask("select reason,count(*) from kirby.due group by 1"), house.ask("select s.name,s.max_attempts,c.kind, count(*) from kirby.claim c join kirby.subscription s on s.id=c.subscription_id group by 1,2,3"))
    w.signal(); print(w.end()[1][-3000:])
    assert 0
