"""However large a file is: the server that takes it and gives it stays as small as it was."""

import os
import re
from pathlib import Path

from fix_packages import NAME, simple, wheel, wheel_name, write_wheel
from fix_web import connected, scalar

from kirby.server import files

MEGABYTES = int(os.environ.get("KIRBY_TEST_WHEEL_MB", "60"))


def peak(pid):
    """The most memory that a process had since `forget`, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def forget(pid):
    """Count the peak from here on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def test_memory_stays_flat_while_a_large_wheel_goes_up_and_comes_down(
    web, give, tool, tmp_path, dsn
):
    token, path = give(), tmp_path / wheel_name("big")
    write_wheel(path, MEGABYTES)
    small = tmp_path / NAME
    small.write_bytes(wheel())
    publish = ("uv", "publish", "--publish-url", f"{web.url}/index/", "--token", token)
    for _ in range(2):
        assert tool(*publish, small).code == 0
    forget(web.pid)
    before = peak(web.pid)

    done = tool(*publish, path)
    assert done.code == 0, done.out
    up = peak(web.pid)
    forget(web.pid)
    got = tool("pip", "download", "--index-url", simple(web, token), "-d", "there", "big")
    assert got.code == 0, got.out
    down = peak(web.pid)

    with open(path, "rb") as sent, open(tmp_path / "there" / path.name, "rb") as came:
        assert files.digest(sent) == files.digest(came)
    with connected(dsn) as conn:
        assert scalar(conn, "select max(size) from kirby.file") == path.stat().st_size
    print(f"a wheel of {MEGABYTES} MB: {before:.0f} MB before, {up:.0f} up, {down:.0f} down")
    assert max(up, down) - before < 40
