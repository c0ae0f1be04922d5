import io
import json
import shutil
import subprocess
import sys
import zipfile
from email.parser import BytesParser
from importlib import metadata
from pathlib import Path

import pytest

import kirby
from kirby.core.errors import Invalid
from kirby.server import sdk_wheel
from kirby.server.sdk_wheel import SdkWheel

PACKAGE = Path(kirby.__file__).parent


@pytest.fixture(scope="module")
def wheel():
    return sdk_wheel.build()


@pytest.fixture(scope="module")
def archive(wheel):
    with zipfile.ZipFile(io.BytesIO(wheel.content)) as opened:
        yield opened


def test_the_same_code_gives_the_same_bytes(wheel):
    assert sdk_wheel.build() == wheel


def test_the_wheel_holds_the_sdk_and_nothing_of_the_server(archive):
    names = archive.namelist()

    assert {"kirby/__init__.py", "kirby/py.typed", "kirby/core/errors.py"} <= set(names)
    assert not [name for name in names if "server" in name or not name.startswith("kirby")]
    assert not [name for name in names if name.endswith((".pyc", "entry_points.txt"))]
    assert names == sorted(names)


def test_the_metadata_is_that_of_the_installed_distribution(archive, wheel):
    info = f"kirby-{metadata.version('kirby')}.dist-info"
    said = BytesParser().parsebytes(archive.read(f"{info}/METADATA"))

    assert (said["Name"], said["Version"]) == ("kirby", wheel.version)
    assert said["Requires-Python"] == ">=3.11"
    assert [need.split("[")[0] for need in said.get_all("Requires-Dist")] == ["psycopg"]
    assert not said.get_all("Provides-Extra")


def test_every_file_is_in_the_record(archive):
    info = f"kirby-{metadata.version('kirby')}.dist-info"
    rows = archive.read(f"{info}/RECORD").decode().splitlines()

    assert sorted(row.split(",")[0] for row in rows) == sorted(archive.namelist())


def test_an_installed_wheel_packs_the_same_bytes_as_the_checkout(tmp_path, wheel):
    shutil.copytree(PACKAGE, tmp_path / "kirby", ignore=shutil.ignore_patterns("ui", "migrations"))
    said = metadata.distribution("kirby").read_text("METADATA")
    info = tmp_path / f"kirby-{wheel.version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(said)
    code = (
        f"import sys, json; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from kirby.server import sdk_wheel; wheel = sdk_wheel.build()\n"
        "print(json.dumps([sdk_wheel.__file__, wheel.filename, wheel.sha256]))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )

    file, filename, sha256 = json.loads(done.stdout)
    assert file.startswith(str(tmp_path))
    assert (filename, sha256) == (wheel.filename, wheel.sha256)


def test_stored_bytes_are_recognised(wheel):
    assert SdkWheel.of(wheel.content) == wheel


@pytest.mark.parametrize("content", [b"", b"not a zip"])
def test_other_bytes_are_refused(content):
    with pytest.raises(Invalid, match="not a wheel of the Kirby SDK"):
        SdkWheel.of(content)


def test_the_wheel_of_another_package_is_refused():
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as opened:
        opened.writestr("other-1.0.dist-info/WHEEL", "")

    with pytest.raises(Invalid, match="not a wheel of the Kirby SDK"):
        SdkWheel.of(stored.getvalue())
