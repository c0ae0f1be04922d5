"""Packages: kept once for ever, newest first, taken back; by page, by form and by command."""

import io
import json

import pytest
from fix_packages import NAME, rows, sdist, wheel, wheel_name
from fix_web import connected

from kirby.core.errors import Invalid, NotFound, Taken
from kirby.server import database, packages

SDIST = "acme-1.0.tar.gz"
LIMIT = 1 << 30


@pytest.fixture
def publish(engine):
    """`publish("acme", "1.0", …)`: a wheel of that name and version is published."""

    def make(name="acme", version="1.0", *lines, content=None, filename=None, **options):
        content = content or wheel(name, version, *lines, **options)
        filename = filename or wheel_name(name, version)
        with database.unit(engine) as conn:
            return packages.upload(conn, io.BytesIO(content), filename, actor="test", limit=LIMIT)

    return make


@pytest.fixture
def unit(engine):
    return lambda: database.unit(engine)


def test_versions_are_ordered_as_versions_are(publish, unit):
    for version in ("1.9", "1.10", "2.0rc1", "1.0", "1.10.post1", "0.9+local"):
        publish("acme", version)

    with unit() as conn:
        found = packages.get(conn, "ACME")
    assert [release.version for release in found.releases] == [
        "2.0rc1", "1.10.post1", "1.10", "1.9", "1.0", "0.9+local",
    ]  # fmt: skip
    assert found.latest.version == "1.10.post1"
    assert found.latest.jobs == {"hello": "acme:main", "report": "acme:report"}


def test_the_latest_is_not_one_that_was_yanked(publish, unit):
    publish("acme", "1.0")
    publish("acme", "2.0")

    with unit() as conn:
        packages.yank(conn, "acme", "2.0", reason="broken", actor="test")
        assert packages.get(conn, "acme").latest.version == "1.0"
        packages.yank(conn, "acme", "1.0", reason="broken too", actor="test")
        assert packages.get(conn, "acme").latest.version == "2.0"
        packages.unyank(conn, "acme", "1", actor="test")
        assert packages.get(conn, "acme").latest.version == "1.0"


def test_a_version_has_one_wheel_for_its_tags_and_one_sdist(publish, unit):
    publish()
    publish(content=sdist(), filename=SDIST)
    with pytest.raises(Taken, match=r"a file acme-1.0-py3-none-any.whl already"):
        publish(content=wheel("acme", "1.0", "Keywords: x"))
    with pytest.raises(Taken, match=r"a file acme-1.0-py3-none-any.whl already"):
        publish("acme", "1.0.0")

    with unit() as conn:
        release = packages.find(conn, "acme", "v1.0.0")
    assert [file.filename for file in release.files] == [NAME, SDIST]
    assert release.first.kind == "wheel"


def test_one_content_is_stored_once_whatever_it_is_called(publish, dsn):
    publish()
    before = rows(dsn)
    publish(content=wheel())

    assert rows(dsn) == before


def test_names_are_hosted_as_soon_as_a_file_is_there(publish, unit):
    with unit() as conn:
        assert packages.names(conn) == []
    publish("Needs.Acme")
    with unit() as conn:
        assert packages.names(conn) == ["needs-acme"]


def test_what_is_not_there_is_said_with_what_is(publish, unit):
    publish("acme", "1.0")

    with unit() as conn:
        with pytest.raises(NotFound, match="there is no package acne; did you mean acme"):
            packages.get(conn, "acne")
        for version in ("2.0", "nonsense"):
            with pytest.raises(NotFound, match=f"no acme {version} here; there is 1.0"):
                packages.find(conn, "acme", version)
        with pytest.raises(NotFound):
            packages.file(conn, "acme.whl")
        with pytest.raises(Invalid, match="say why"):
            packages.yank(conn, "acme", "1.0", reason="", actor="test")


# Pages


def send(browser, content=None, name=NAME, **options):
    return browser.post(
        "/packages", files={"content": (name, wheel() if content is None else content)}, **options
    )


def test_a_file_is_published_by_the_form_and_shown(admin, dsn):
    answer = send(admin)

    assert answer.status_code == 303
    page = admin.get(answer.headers["location"])
    assert f"{NAME} is published." in page.text
    assert "acme:report" in page.text
    assert "kirby deploy acme==1.0 --env dev" in page.text
    assert 'href="/deploy?requirement=acme%3D%3D1.0&amp;env=dev"' in page.text
    assert "An example" in admin.get("/packages").text
    again = admin.get(send(admin).headers["location"])
    assert "was here already" in again.text
    with connected(dsn) as conn:
        [(actor,)] = conn.execute("select uploaded_by from kirby.package_file").fetchall()
    assert actor == "a-admin"


@pytest.mark.parametrize(
    ("content", "name", "status", "message"),
    [
        (b"x", NAME, 400, f"It is not a zip file ({NAME})."),
        (None, "acme.exe", 400, "a package is a wheel"),
        (None, "", 400, "There is no file in the field"),
    ],
)
def test_a_form_that_is_refused_comes_back_with_why(content, name, status, message, admin, dsn):
    before = rows(dsn)

    answer = send(admin, content, name)

    assert answer.status_code == status
    assert message in answer.text
    assert 'role="alert"' in answer.text
    assert "Publish a package" in answer.text
    assert rows(dsn) == before


def test_other_bytes_are_refused_by_the_form_too(admin, dsn):
    send(admin)
    before = rows(dsn)

    answer = send(admin, wheel("acme", "1.0", "Keywords: x"))

    assert answer.status_code == 409
    assert "files never change" in answer.text
    assert rows(dsn) == before


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_who_is_no_developer_looks_and_changes_nothing(role, admin, client, people, dsn):
    send(admin)
    browser = client(people(role))
    before = rows(dsn)

    assert "Publish a package" not in browser.get("/packages").text
    page = browser.get("/packages/acme").text
    assert "Yank" not in page
    assert NAME in page
    assert send(browser).status_code == 403
    assert browser.post("/packages/acme/1.0/yank", data={"reason": "x"}).status_code == 403
    assert rows(dsn) == before


def test_a_file_is_fetched_from_its_page(viewer, admin):
    send(admin)
    link = viewer.get("/packages/acme").text.split('href="/index/files/')[1].split('"')[0]

    assert viewer.get(f"/index/files/{link}").content == wheel()


def test_taking_back_and_offering_again(admin):
    send(admin)

    empty = admin.post("/packages/acme/1.0/yank", data={"reason": ""})
    assert empty.status_code == 400
    assert admin.post("/packages/acme/1.0/yank", data={"reason": "<b>bad"}).status_code == 303
    page = admin.get("/packages/acme").text
    assert "&lt;b&gt;bad." in page
    assert "Offer 1.0 again" in page
    admin.post("/packages/acme/1.0/yank", data={"again": "yes"})
    assert "&lt;b&gt;bad" not in admin.get("/packages/acme").text


def test_the_pages_without_anything_and_of_what_is_not_there(admin):
    page = admin.get("/packages").text
    assert "No package is published here" in page
    assert "style=" not in page
    assert "<script>" not in page
    assert admin.get("/packages/nothing").status_code == 404


# Commands


def test_the_commands_publish_show_and_take_back(kirby, tmp_path):
    assert kirby("package", "list").out == "no packages\n"
    (tmp_path / NAME).write_bytes(
        wheel("acme", "1.0", "Requires-Dist: six", "Requires-Python: >=3")
    )
    (tmp_path / SDIST).write_bytes(sdist())

    done = kirby("package", "upload", NAME, SDIST)
    assert (done.code, done.out) == (0, f"{NAME} is published\n{SDIST} is published\n")
    again = json.loads(kirby("package", "upload", NAME, "--json").out)
    assert [each["new"] for each in again] == [False]

    assert "acme" in kirby("package", "list").out
    assert json.loads(kirby("package", "list", "--json").out) == [
        {"name": "acme", "latest": "1.0", "versions": ["1.0"]}
    ]
    shown = kirby("package", "show", "acme").out
    for said in ("python >=3, six", "hello = acme:main", NAME, SDIST, "cli:"):
        assert said in shown
    document = json.loads(kirby("package", "show", "acme", "--json").out)
    assert len(document["releases"][0]["files"]) == 2

    assert kirby("package", "yank", "acme", "1.0", "--reason", "it is bad").code == 0
    assert "it is bad" in kirby("package", "show", "acme").out
    assert kirby("package", "unyank", "acme", "1.0").code == 0
    assert "it is bad" not in kirby("package", "show", "acme").out


def test_all_files_of_a_command_are_published_or_none(kirby, tmp_path, dsn):
    (tmp_path / NAME).write_bytes(wheel())
    (tmp_path / SDIST).write_bytes(b"x")
    before = rows(dsn)

    done = kirby("package", "upload", NAME, SDIST)

    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "the tar file is damaged" in done.err
    assert rows(dsn) == before
    assert kirby("package", "upload", "nothing.whl").err.count("\n") == 1
