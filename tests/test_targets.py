import io
import zipfile
from dataclasses import replace

import pytest
from fix_index import Shelf, a_project, a_wheel, an_sdist, lay

from kirby.core.errors import Invalid, KirbyError
from kirby.server import scripts, targets
from kirby.server.needs import Needs
from kirby.server.targets import JobSpec

POINTS = "[kirby.jobs]\nreport = acme.main:report\nsync=acme.main\n"
MAIN = """
# /// script
# dependencies = ["ignored"]
# [tool.kirby]
# schedule = "@daily"
# variables = { A = "module", B = "module" }
# ///
import kirby

def report():
    kirby.config("CURRENCY")
"""


@pytest.fixture
def read(tmp_path, sources):
    """The target that a person names, with what it is built from in a folder of its own."""

    def read(text, **options):
        into = tmp_path / "into"
        into.mkdir(exist_ok=True)
        return targets.read(str(text), into, options.pop("sources", sources), **options)

    return read


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def a_file(folder, named):
    return write(folder, *named)


# Scripts and programs


def test_a_script_is_a_target_with_one_job(read, tmp_path):
    path = write(
        tmp_path,
        "report.py",
        "# /// script\n# dependencies = ['six']\n# requires-python = '>=3.11'\n# [tool.kirby]\n"
        "# schedule = '@daily'\n# timeout = '5m'\n# needs = ['REGION']\n# ///\n"
        "import kirby\nkirby.config('CURRENCY')\n",
    )

    found = read(path)

    assert (found.name, found.kind, found.filename) == ("report", "script", "report.py")
    assert found.source == path.read_text()
    assert (found.dependencies, found.requires_python) == (("six",), ">=3.11")
    assert found.origin == "file report.py"
    settings = {"schedule": ["@daily"], "timeout": 300.0, "needs": ["REGION"]}
    assert found.jobs == (JobSpec("report", "", settings, Needs(("CURRENCY", "REGION"))),)
    assert found.needs.variables == ("CURRENCY", "REGION")


def test_a_shell_script_is_a_target(read, tmp_path):
    path = write(
        tmp_path,
        "backup.sh",
        "#!/bin/sh\n# /// script\n# dependencies = ['six']\n# [tool.kirby]\n"
        "# schedule = '@daily'\n# needs = ['BUCKET']\n# ///\necho $BUCKET\n",
    )

    found = read(path)

    assert (found.name, found.kind, found.filename) == ("backup", "script", "backup.sh")
    assert found.dependencies == ("six",)
    [job] = found.jobs
    assert (job.entry, job.settings["schedule"]) == ("", ["@daily"])
    assert job.needs == Needs(("BUCKET",))


@pytest.mark.parametrize(
    ("name", "content", "job"),
    [
        ("no-shebang.sh", "echo hello\n", "no-shebang"),
        ("collect", "#!/usr/bin/env perl\nprint 1;\n", "collect"),
        ("tool.rb", "#!/usr/bin/env ruby\nputs 1\n", "tool.rb"),
    ],
)
def test_a_program_in_any_language_is_a_target(read, tmp_path, name, content, job):
    found = read(write(tmp_path, name, content))

    assert [each.name for each in found.jobs] == [job]
    assert found.source == content


def test_a_python_program_without_its_extension_is_looked_through(read, tmp_path):
    source = "#!/usr/bin/env python3\nimport os\nos.environ['X']\n"

    assert read(write(tmp_path, "collect", source)).needs.variables == ("X",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.txt", b"hello", "data.txt: it must be a .py file, a .sh file, or begin with `#!`"),
        ("a.out", b"\x7fELF\0\0", "a.out: a program must be a text file"),
        ("x.sh", b"#!/bin/sh\r\necho\r\n", "x.sh:1: ends in a Windows line end"),
        ("x.sh", b"#!/bin/sh\necho \xe9\n", "x.sh:2: not UTF-8"),
        ("x.sh", b"#!/bin/sh\n# /// script\necho\n", "x.sh:2: the `# /// script` block is not"),
        ("My Tool", b"#!/bin/sh\n", "job name 'My Tool' must be lower-case"),
        ("x.py", b"def f(:\n", "x.py:1: does not parse"),
        ("big.sh", b"#!/bin/sh\n" + b"#" * scripts.LARGEST, "big.sh: larger than 5 MB"),
        ("x-1.0.whl", b"", "a package is a wheel (.whl) or an sdist"),
        ("x-1.0-py3-none-any.whl", b"no zip", "it is not a zip file (x-1.0-py3-none-any.whl)"),
        ("x-1.0.tar.gz", b"no tar", "x-1.0.tar.gz"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_deployed_is_refused_in_one_line(
    read, tmp_path, name, content, message
):
    with pytest.raises(Invalid) as refused:
        read(write(tmp_path, name, content))

    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "gone.py",
        "acme",
        "acme>=1",
        "acme==1.0,<2",
        "acme==1.*",
        "x/y.whl",
        "",
        " ",
        "a\0b",
        "x" * 999,
    ],
)
def test_what_is_nothing_says_what_can_be_deployed(read, text):
    with pytest.raises(Invalid) as refused:
        read(text)

    assert "deploy a .py file" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_an_upload_is_read_under_its_own_name(tmp_path, sources):
    path = write(tmp_path, "upload-1", "print('x')\n")

    found = targets.parse(path, "C:\\work\\report.py", tmp_path, sources)

    assert (found.name, found.filename) == ("report", "report.py")


# Packages


def test_the_jobs_of_a_wheel_are_its_entry_points(read, tmp_path):
    named = a_wheel("acme", "1.2", "six", files={"acme/main.py": MAIN}, points=POINTS)

    found = read(a_file(tmp_path, named))

    assert (found.name, found.kind, found.version) == ("acme", "package", "1.2")
    assert found.origin == f"wheel {named[0]}"
    assert (found.dependencies, found.source) == (("six",), None)
    assert found.wheel.read_bytes() == named[1]
    assert [(job.name, job.entry) for job in found.jobs] == [
        ("report", "acme.main:report"),
        ("sync", "acme.main"),
    ]
    assert found.job("report").settings == {
        "schedule": ["@daily"],
        "variables": {"A": "module", "B": "module"},
    }
    assert found.job("report").needs == Needs(("CURRENCY",))


def test_a_wheel_with_a_newer_field_than_its_metadata_says_is_taken(read, tmp_path):
    """As setuptools wrote them for years."""
    named = a_wheel("acme", said=["License-File: LICENSE"], files={"acme/__main__.py": ""})

    assert read(a_file(tmp_path, named)).version == "1.0"


def test_nothing_of_a_wheel_is_imported(read, tmp_path):
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\ndef report(): pass\n"
    named = a_wheel("acme", files={"acme/main.py": code}, points=POINTS)

    read(a_file(tmp_path, named))

    assert not (tmp_path / "ran").exists()


def test_what_the_modules_need_that_a_job_imports_is_needed(read, tmp_path):
    files = {
        "acme/main.py": "from .settings import URL\ndef report(): ...\n",
        "acme/settings.py": "import os, acme.deep\nURL = os.environ['URL']\n",
        "acme/deep.py": "import kirby\nkirby.config('DEEP')\ndef f(): kirby.config('UNUSED')\n",
        "acme/other.py": "import os\nos.environ['OTHER']\n",
    }
    found = read(a_file(tmp_path, a_wheel("acme", files=files, points=POINTS)))

    assert found.job("report").needs.variables == ("DEEP", "URL")


def test_modules_that_import_each_other_are_looked_at_once(read, tmp_path):
    files = {
        "acme/main.py": "import acme.main, acme.b\ndef report(): ...\n",
        "acme/b.py": "import acme.main\n",
    }

    assert read(a_file(tmp_path, a_wheel("acme", files=files, points=POINTS))).needs == Needs()


def test_a_package_with_a_main_module_is_a_job(read, tmp_path):
    found = read(a_file(tmp_path, a_wheel("acme-jobs", files={"acme_jobs/__main__.py": "1"})))

    assert [(job.name, job.entry) for job in found.jobs] == [("acme-jobs", "acme_jobs")]


def test_a_job_that_is_not_there_says_which_are(read, tmp_path):
    found = read(a_file(tmp_path, a_wheel("acme", files={"acme/main.py": MAIN}, points=POINTS)))

    with pytest.raises(Invalid, match=r"offers no job 'x'; it has report, sync"):
        found.job("x")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ("", "acme-1.0-py3-none-any.whl offers no job: name one as entry point"),
        ("[kirby.jobs]\nx = acme.gone:main", "job x: there is no module acme.gone in acme-1.0"),
        ("[kirby.jobs]\nx = acme.main:gone", "job x: module acme.main has no gone"),
        ("[kirby.jobs]\nx = not an entry", "job x: the entry 'not an entry' is not"),
        ("[kirby.jobs]\nMy Job = acme.main", "job name 'My Job' must be lower-case"),
    ],
)
def test_a_package_whose_jobs_are_wrong_is_refused(read, tmp_path, points, message):
    named = a_wheel("acme", files={"acme/main.py": MAIN}, points=points)

    with pytest.raises(Invalid) as refused:
        read(a_file(tmp_path, named))

    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "source", ["from x import *", "def __getattr__(n): ...", "import x as report", "report = 1"]
)
def test_a_function_that_may_be_there_is_not_missed(read, tmp_path, source):
    read(a_file(tmp_path, a_wheel("acme", files={"acme/main.py": source}, points=POINTS)))


def test_an_entry_of_another_package_is_left_to_the_run(read, tmp_path):
    found = read(a_file(tmp_path, a_wheel("acme", points="[kirby.jobs]\nx = gunicorn.app:run\n")))

    assert [job.entry for job in found.jobs] == ["gunicorn.app:run"]


def test_a_wrong_setting_in_a_module_is_refused_with_its_entry(read, tmp_path):
    code = "# /// script\n# [tool.kirby]\n# replicas = 0\n# ///\ndef report(): ...\n"

    with pytest.raises(Invalid, match=r"acme\.main.*:3: \[tool\.kirby\] replicas must be"):
        read(a_file(tmp_path, a_wheel("acme", files={"acme/main.py": code}, points=POINTS)))


TOML = """
[tool.kirby]
tz = "Europe/Brussels"
variables = { B = "project", C = "project" }

[tool.kirby.jobs.report]
daemon = true
variables = { C = "job" }

[tool.kirby.jobs.clean]
command = ["sh", "-c", "true"]
grace = 2
"""


def test_a_folder_is_built_and_its_project_says_more_of_its_jobs(read, tmp_path):
    folder = lay(a_project("acme", main=MAIN, points=POINTS, toml=TOML), tmp_path / "acme")

    found = read(folder)

    assert (found.name, found.kind, found.origin) == ("acme", "package", "folder acme")
    assert [(job.name, job.entry) for job in found.jobs] == [
        ("clean", ""),
        ("report", "acme.main:report"),
        ("sync", "acme.main"),
    ]
    # The module's own, the project's over it, the job's over that; a daemon has no schedule.
    assert found.job("report").settings == {
        "tz": "Europe/Brussels",
        "daemon": True,
        "variables": {"A": "module", "B": "project", "C": "job"},
    }
    assert found.job("sync").settings["schedule"] == ["@daily"]
    assert found.job("clean").settings["command"] == ["sh", "-c", "true"]
    assert found.job("clean").settings["grace"] == 2.0
    assert found.job("clean").needs == Needs()


@pytest.mark.parametrize(
    ("toml", "jobs"),
    [
        ("[tool.kirby]\ncommand = ['acme', 'go']", [("acme", "")]),
        ("[tool.kirby]\nname = 'other'\ncommand = ['acme', 'go']", [("other", "")]),
        ("[tool.kirby.jobs.go]\nentry = 'acme.main'", [("go", "acme.main")]),
    ],
)
def test_a_project_may_name_its_jobs_without_entry_points(read, tmp_path, toml, jobs):
    found = read(lay(a_project("acme", toml=toml), tmp_path / "acme"))

    assert [(job.name, job.entry) for job in found.jobs] == jobs


def test_a_command_of_the_project_is_not_that_of_its_entry_points(read, tmp_path):
    toml = "[tool.kirby]\ncommand = ['acme']\n[tool.kirby.jobs.sync]\ncommand = ['sync']\n"

    found = read(lay(a_project("acme", main=MAIN, points=POINTS, toml=toml), tmp_path / "acme"))

    assert "command" not in found.job("report").settings
    assert found.job("sync").settings["command"] == ["sync"]


def test_a_job_without_entry_and_command_is_refused(read, tmp_path):
    folder = lay(a_project("acme", toml="[tool.kirby.jobs.go]\ntz='UTC'"), tmp_path / "acme")

    with pytest.raises(Invalid, match="job go of acme has neither an entry nor a command"):
        read(folder)


def test_an_sdist_is_built_and_its_project_says_more_of_its_jobs(read, tmp_path):
    named = an_sdist("acme", "1.0", "six", main=MAIN, points=POINTS, toml=TOML)

    found = read(a_file(tmp_path, named))

    assert (found.kind, found.filename) == ("package", "acme-1.0-py3-none-any.whl")
    assert found.origin == "sdist acme-1.0.tar.gz"
    assert found.dependencies == ("six",)
    assert found.job("report").settings["daemon"] is True


def test_an_uploaded_sdist_is_built_under_its_own_name(tmp_path, sources):
    filename, content = an_sdist("acme", points=POINTS, main=MAIN)
    path = write(tmp_path, "upload-1", content)

    assert targets.parse(path, filename, tmp_path / "into", sources).name == "acme"


@pytest.mark.parametrize("text", ["acme==1.0", "Acme == 1.0", "acme[extra]==1.0"])
def test_a_requirement_is_looked_up_upstream(read, upstream, text):
    upstream.add(a_wheel("acme", "1.0", "six", files={"acme/main.py": MAIN}, points=POINTS))
    upstream.add(a_wheel("acme", "2.0"))

    found = read(text)

    assert (found.name, found.version) == ("acme", "1.0")
    assert found.origin == f"{text}, upstream"
    assert found.extras == (("extra",) if "extra" in text else ())
    assert [job.name for job in found.jobs] == ["report", "sync"]
    assert not upstream.asked_for("six")


def test_a_requirement_that_is_hosted_here_is_not_looked_up_upstream(read, upstream, sources):
    mine = a_wheel("acme", "1.0", files={"acme/main.py": MAIN}, points=POINTS)
    upstream.add(a_wheel("acme", "1.0"))

    found = read("acme==1.0", sources=replace(sources, hosted=Shelf(mine)))

    assert found.origin == "acme==1.0, hosted here"
    assert found.wheel.read_bytes() == mine[1]
    assert not upstream.asked_for("acme")


def test_the_sdist_beside_a_hosted_wheel_says_more_of_its_jobs(read, sources):
    wheel = a_wheel("acme", "1.0", files={"acme/main.py": MAIN}, points=POINTS)
    sdist = an_sdist("acme", "1.0", fail="nobody builds it", toml=TOML)

    found = read("acme==1.0", sources=replace(sources, hosted=Shelf(wheel, sdist)))

    assert found.wheel.read_bytes() == wheel[1]
    assert found.job("report").settings["tz"] == "Europe/Brussels"
    assert [job.name for job in found.jobs] == ["clean", "report", "sync"]


def test_a_requirement_that_is_an_sdist_only_is_built(read, upstream):
    upstream.add(an_sdist("acme", points=POINTS, main=MAIN))

    assert [job.name for job in read("acme==1.0").jobs] == ["report", "sync"]


def test_the_sdk_is_no_target(read, sdk, tmp_path):
    path = write(tmp_path, *a_wheel("kirby", files={"kirby/__main__.py": ""}))

    for text in (f"kirby=={sdk.version}", path):
        with pytest.raises(Invalid, match="kirby is this server's own SDK: it offers no job"):
            read(text)


def test_a_requirement_that_is_nowhere_is_refused(read):
    with pytest.raises(Invalid, match="acme") as refused:
        read("acme==1.0")

    assert len(str(refused.value).splitlines()) == 1


def test_an_index_that_is_not_there_is_no_fault_of_the_target(read, sources):
    with pytest.raises(KirbyError, match="the package index cannot be reached") as failed:
        read("acme==1.0", sources=replace(sources, index_url="http://127.0.0.1:9/simple"))

    assert not isinstance(failed.value, Invalid)


def test_a_version_of_python_that_does_not_fit_is_refused(read, tmp_path):
    toml = 'requires-python = ">=4"\n'
    files = a_project("acme", points=POINTS, main=MAIN)
    files["pyproject.toml"] = files["pyproject.toml"].replace("[build-s", f"{toml}[build-s")

    with pytest.raises(Invalid, match="needs Python >=4: this server runs"):
        read(lay(files, tmp_path / "acme"))


def test_a_wheel_that_was_changed_is_refused(read, tmp_path):
    filename, content = a_wheel("acme", files={"acme/main.py": MAIN}, points=POINTS)
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(changed, "w") as new:
        for entry in old.infolist():
            text = old.read(entry).replace(b"CURRENCY", b"SOMETHING")
            new.writestr(entry.filename, text)

    with pytest.raises(Invalid, match=r"wrong hash \(acme-1\.0-py3-none-any\.whl\)"):
        read(write(tmp_path, filename, changed.getvalue()))
