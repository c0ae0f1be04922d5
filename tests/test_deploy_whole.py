"""The whole way: published, deployed by page, command and API, upgraded beside, rolled back."""

import re
import subprocess
import sys

import httpx2
import pytest
from fix_index import a_project, a_wheel, lay
from fix_kirby import environ

PASSWORD = "long-enough-it-is"
RUN = """
    select r.status, string_agg(l.text, E'\\n' order by l.position)
      from kirby.run r
      left join kirby.log_line l on l.run_id = r.id and l.stream = 'stdout'
     where r.id = %s group by r.id
"""
PINNED = """\
# /// script
# dependencies = ["greeting"]
# ///
import greeting

print("says", greeting.version)
"""
SHELL = """\
#!/bin/sh
# /// script
# [tool.kirby]
# variables = { WHO = "shell" }
# ///
echo "hello $WHO"
"""
SEND = 'def send():\n    print("hello {}")\n\n\ndef count():\n    return 0\n'
POINTS = "[kirby.jobs]\nsend = acme.main:send\ncount = acme.main:count\n"


class Site:
    """A person at a browser without JavaScript, a program with a token, and the command line."""

    def __init__(self, house, until):
        self.house, self._until = house, until
        self.url = f"http://127.0.0.1:{house.port}"
        house.run("user", "add", "ann", "--role", "developer", "--password", PASSWORD)
        token = re.search(
            r'"token": "(\w[\w-]+)"',
            house.run("token", "add", "ci", "--role", "developer", "--json"),
        )
        self.token = token[1]
        self.browser = httpx2.Client(base_url=self.url, timeout=120)
        self.browser.post("/login", data={"login": "ann", "password": PASSWORD})
        self.program = httpx2.Client(
            base_url=f"{self.url}/api/v1",
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=120,
        )

    def page(self, path):
        shown = self.browser.get(path, follow_redirects=True)
        assert shown.status_code == 200, shown.text
        return shown.text

    def ended(self, run_id):
        """The status and output of a run, once it has ended."""

        def end():
            [(status, text)] = self.house.ask(RUN, run_id)
            return (status, text) if status not in ("queued", "starting", "running") else None

        return self._until(end, 60)

    def close(self):
        self.browser.close()
        self.program.close()


@pytest.fixture
def site(dev, upstream, monkeypatch, until):
    monkeypatch.setenv("KIRBY_INDEX_URL", upstream.url)
    site = Site(dev(KIRBY_INDEX_URL=upstream.url).ready(), until)
    yield site
    site.close()


def published(tool, site, folder, version):
    """A version, built by uv and uploaded: the first by twine, the second by uv."""
    project = a_project("acme", version, main=SEND.format(version), points=POINTS)
    lay(project, folder / f"acme-{version}")
    built = tool("uv", "build", "--wheel", "--out-dir", folder / "dist", folder / f"acme-{version}")
    assert built.code == 0, built.out
    [wheel] = (folder / "dist").glob(f"acme-{version}-*.whl")
    index = f"{site.url}/index/"
    if version == "1.0":
        login = ("-u", "__token__", "-p", site.token)
        to = ("upload", "--disable-progress-bar", "--repository-url", index)
        done = tool("twine", *to, *login, wheel)
    else:
        done = tool("uv", "publish", "--publish-url", index, "--token", site.token, wheel)
    assert done.code == 0, done.out
    return f"acme=={version}"


def installed(site, folder, requirement):
    """What pip brings down says."""
    index = site.url.replace("http://", f"http://__token__:{site.token}@") + "/index/simple/"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-input", "--disable-pip-version-check",
         "--index-url", index, "--target", folder / "target", requirement],
        check=True, env=environ(),
    )  # fmt: skip
    said = subprocess.run(
        [sys.executable, "-c", "import acme.main; acme.main.send()"],
        cwd=folder / "target", capture_output=True, text=True, check=True,
    )  # fmt: skip
    return said.stdout


def test_a_package_from_upload_to_rollback(site, tool, tmp_path):
    house, browser, program = site.house, site.browser, site.program
    first = published(tool, site, tmp_path, "1.0")
    assert installed(site, tmp_path, first) == "hello 1.0\n"

    # from the page, into dev; its first run
    read = browser.post("/deploy", data={"requirement": first}, files={"nothing": ("", b"")})
    assert read.status_code == 303, read.text
    assert "new in dev" in site.page(read.headers["location"])
    path = read.headers["location"].partition("?")[0]
    asked = {"env": "dev", "job": "send", "do": "deploy", "reason": "from the page", "run": "yes"}
    done = browser.post(path, data=asked)
    run_id = int(re.match(r"/runs/(\d+)", done.headers["location"])[1])
    assert site.ended(run_id) == ("succeeded", "hello 1.0")
    assert "hello 1.0" in site.page(f"/runs/{run_id}")

    # by command, into preprod; over the API, into prod
    house.run("deploy", first, "--job", "send", "--env", "preprod", "--reason", "by command")
    over = program.post("/deploy", json={"requirement": first, "job": "send", "env": "prod",
                                         "reason": "by ci"})  # fmt: skip
    assert over.status_code == 201, over.text
    run_id = program.post("/jobs/send/trigger?env=prod", json={}).json()["run"]
    assert site.ended(run_id) == ("succeeded", "hello 1.0")

    # the second version beside the first, in another environment
    second = published(tool, site, tmp_path, "2.0")
    diff = program.post(
        "/deploy", params={"diff": "1"}, json={"requirement": second, "job": "send"}
    )
    assert {"name": "version", "before": "1.0", "after": "2.0", "note": ""} in diff.json()["jobs"][
        0
    ]["release"]
    house.run("deploy", second, "--job", "send", "--env", "dev", "--reason", "better")
    runs = {env: program.post(f"/jobs/send/trigger?env={env}", json={}).json()["run"]
            for env in ("dev", "prod")}  # fmt: skip
    assert site.ended(runs["dev"]) == ("succeeded", "hello 2.0")
    assert site.ended(runs["prod"]) == ("succeeded", "hello 1.0")
    page = site.page("/jobs/send?env=dev")
    for text in ("better", "from the page", "2.0", "by ci"):
        assert (text in page) == (text != "by ci"), text

    # and back, without an index: nothing is resolved
    before = len(house.ask("select from kirby.release"))
    back = browser.post("/jobs/send/rollback?env=dev", data={"to": "1", "reason": "worse"})
    assert back.status_code == 303
    run_id = program.post("/jobs/send/trigger", json={}).json()["run"]
    assert site.ended(run_id) == ("succeeded", "hello 1.0")
    assert len(house.ask("select from kirby.release")) == before
    page = site.page("/jobs/send?env=dev")
    assert "back to version 1" in page
    assert "worse" in page
    assert "2.0" in site.page("/jobs/send/diff?env=dev&from=2&to=3")


def test_a_script_with_dependencies_a_shell_script_and_a_project(site, upstream, tmp_path):
    upstream.add(a_wheel("greeting", "1.5"))
    (tmp_path / "says.py").write_text(PINNED)
    (tmp_path / "hello.sh").write_text(SHELL)
    project = lay(
        a_project(
            "robot", main="def walk():\n    print('walking')\n",
            points="[kirby.jobs]\nwalk = robot.main:walk\n",
        ),
        tmp_path / "robot",
    )  # fmt: skip
    for target, job, said in (
        (tmp_path / "says.py", "says", "says 1.5"),
        (tmp_path / "hello.sh", "hello", "hello shell"),
        (project, "walk", "walking"),
    ):
        site.house.run("deploy", target)
        run_id = site.program.post(f"/jobs/{job}/trigger", json={}).json()["run"]

        assert site.ended(run_id) == ("succeeded", said)
