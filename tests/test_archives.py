"""Wheels and sdists are read without running them, and refused unless everything is right."""

import gzip
import hashlib
import io
import random
import struct
import tarfile
import zipfile

import pytest
from fix_packages import (
    contents,
    link,
    metadata,
    recorded,
    sdist,
    sources,
    tarred,
    wheel,
    wheel_name,
    zipped,
)

from kirby.core.errors import Invalid
from kirby.server import archives, members

NAME = wheel_name()
SDIST = "acme-1.0.tar.gz"
INFO = "acme-1.0.dist-info"


def inspect(content, filename=NAME, declared=None):
    return archives.inspect(io.BytesIO(content), filename, declared)


def test_a_wheel_says_what_it_is(tmp_path):
    lines = ("Requires-Python: >=3.11", "Requires-Dist: six>=1", "Requires-Dist: attrs")
    content = wheel("Acme.Jobs", "1.0", *lines)
    path = tmp_path / wheel_name("Acme.Jobs")
    path.write_bytes(content)

    archive = archives.inspect(path, path.name)

    assert (archive.kind, archive.name, archive.version) == ("wheel", "acme-jobs", "1.0")
    assert (archive.requires_python, archive.requires_dist) == (">=3.11", ("six>=1", "attrs"))
    assert (archive.sha256, archive.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert archive.metadata_sha256 == hashlib.sha256(archive.metadata).hexdigest()
    assert archive.entry_points["console_scripts"] == {"Acme_Jobs": "Acme_Jobs:main"}
    assert archive.jobs == {"hello": "Acme_Jobs:main", "report": "Acme_Jobs:report"}


def test_the_source_of_a_module_is_read_without_importing_it():
    files = contents()
    files["acme/daily/__init__.py"] = "raise SystemExit('imported')"
    archive = inspect(zipped(recorded(files)))

    assert archive.module("acme").startswith("def main()")
    assert archive.module("acme.daily") == "raise SystemExit('imported')"
    assert archive.module("acme.weekly") is None
    assert archive.read(f"{INFO}/METADATA").startswith(b"Metadata-Version")
    assert archive.read("nothing") is None


def test_an_sdist_says_what_it_is():
    archive = inspect(sdist("acme", "1.0", "Requires-Python: >=3.11"), SDIST)

    assert (archive.kind, archive.name, archive.version) == ("sdist", "acme", "1.0")
    assert archive.requires_python == ">=3.11"
    assert archive.jobs == {"hello": "acme:main"}
    assert archive.read("pyproject.toml").startswith(b"\n[build-system]")
    assert archive.module("acme").startswith("def main()")
    assert "PKG-INFO" in archive.names


def test_an_sdist_may_be_a_zip_and_its_entry_points_setuptools_own():
    files = sources()
    files["acme-1.0/src/acme.egg-info/entry_points.txt"] = "[kirby.jobs]\nnight = acme.x:run\n"
    for content, filename in ((zipped(files), "acme-1.0.zip"), (tarred(files), SDIST)):
        archive = inspect(content, filename)
        assert archive.jobs == {"night": "acme.x:run"}
        assert archive.module("acme").startswith("def main()")


def test_links_within_an_sdist_are_no_harm():
    archive = inspect(
        tarred(
            sources(),
            link("acme-1.0/docs/README", "../PKG-INFO"),
            link("acme-1.0/COPY", "acme-1.0/PKG-INFO", tarfile.LNKTYPE),
        ),
        SDIST,
    )

    assert archive.name == "acme"


def test_what_uploaders_declare_is_checked():
    content = wheel()
    right = {
        "sha256": hashlib.sha256(content).hexdigest().upper(),
        "md5": hashlib.md5(content).hexdigest(),
        "blake2_256": hashlib.blake2b(content, digest_size=32).hexdigest(),
    }
    assert inspect(content, declared=right).name == "acme"
    for kind in right:
        with pytest.raises(Invalid, match=f"the {kind} digest is not that of the file"):
            inspect(content, declared=right | {kind: "0" * 64})


@pytest.mark.parametrize(
    ("spelt", "same"),
    [
        ("Acme-1.0-py3-none-any.whl", "acme-1-py3-none-any.whl"),
        ("acme.x-1.0.tar.gz", "acme_x-1.0.0.zip"),
        ("a-1-py2.py3-none-any.whl", "a-1-py3.py2-none-any.whl"),
    ],
)
def test_two_spellings_of_a_file_are_one_thing(spelt, same):
    assert archives.identity(spelt) == archives.identity(same)


def test_wheels_of_other_tags_or_builds_are_other_things():
    names = ["a-1-py3-none-any.whl", "a-1-1-py3-none-any.whl", "a-1-cp311-none-any.whl", "a-1.zip"]
    assert len({archives.identity(name) for name in names}) == 4


def changed(name, content):
    """A wheel in which one file is another one, but recorded."""
    files = contents()
    files[name] = content
    return zipped(recorded(files))


def unrecorded(name, content="x"):
    return zipped(recorded(contents()) | {name: content})


def without(name):
    files = recorded(contents())
    del files[name]
    return zipped(files)


def symlink_in_zip():
    info = zipfile.ZipInfo("acme/passwd")
    info.external_attr = 0o120777 << 16
    return zipped(recorded(contents()) | {info: "/etc/passwd"})


def flipped(content):
    """One bit of the first member's compressed content is another one."""
    broken = bytearray(content)
    broken[70] ^= 4
    return bytes(broken)


def lying():
    """A wheel whose directory promises fewer bytes than come out of it."""
    content = bytearray(wheel())
    at = content.rindex(b"PK\x01\x02", 0, content.rindex(b"METADATA"))
    size = struct.unpack_from("<I", content, at + 24)[0]
    struct.pack_into("<I", content, at + 24, size - 1)
    return bytes(content)


def encrypted():
    content = bytearray(wheel())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def bzipped():
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_BZIP2) as archive:
        for name, content in recorded(contents()).items():
            archive.writestr(name, content)
    return made.getvalue()


def nul_name():
    return wheel().replace(b"acme/__init__.py", b"acme/__init\0_.py")


def bomb():
    return changed("acme/zeros", b"\0" * (members.RATIO_FROM + 1))


BAD_WHEELS = {
    "not a zip": (lambda: b"MZ" + wheel(), "it is not a zip file"),
    "empty": (lambda: b"", "it is not a zip file"),
    "cut off": (lambda: wheel()[:-30], "the zip file is damaged"),
    "cut in half": (lambda: wheel()[:400], "the zip file is damaged"),
    "a flipped bit": (lambda: flipped(wheel()), "damaged"),
    "something behind it": (lambda: wheel() + b"x", "something is behind its end"),
    "a comment": (lambda: wheel()[:-2] + b"\1\0x", "something is behind its end"),
    "a lie about a size": (lying, "damaged"),
    "encrypted": (encrypted, "is encrypted"),
    "bzip2": (bzipped, "not deflate"),
    "up and out": (lambda: unrecorded("../evil.py"), "would lead out of the archive"),
    "up from within": (lambda: unrecorded("acme/../../evil.py"), "would lead out"),
    "absolute": (lambda: unrecorded("/etc/cron.d/evil"), "would lead out"),
    "a drive": (lambda: unrecorded("C:/evil.py"), "would lead out"),
    "backslashes": (lambda: unrecorded("..\\evil.py"), "would lead out"),
    "NUL in a name": (nul_name, "is no name of a file"),
    "a line break in a name": (lambda: unrecorded("a\nb"), "is no name of a file"),
    "a very long name": (lambda: unrecorded("a" * 2000), "is no name of a file"),
    "a link": (symlink_in_zip, "is a link or a device"),
    "a bomb": (bomb, "looks like a zip bomb"),
    "no METADATA": (lambda: without(f"{INFO}/METADATA"), "has no acme-1.0.dist-info/METADATA"),
    "no RECORD": (lambda: without(f"{INFO}/RECORD"), "has no acme-1.0.dist-info/RECORD"),
    "no WHEEL": (lambda: without(f"{INFO}/WHEEL"), "has no acme-1.0.dist-info/WHEEL"),
    "a missing file": (lambda: without("acme/__init__.py"), "RECORD names acme/__init__.py"),
    "an unrecorded file": (lambda: unrecorded("acme/x.py"), "acme/x.py is in the wheel, but not"),
    "another hash": (
        lambda: zipped(recorded(contents()) | {"acme/__init__.py": "evil"}),
        "acme/__init__.py is not what RECORD says",
    ),
    "RECORD is no CSV": (
        lambda: zipped(contents() | {f"{INFO}/RECORD": "a,b"}),
        "RECORD cannot be read",
    ),
    "no dist-info": (lambda: zipped({"acme.py": "x"}), "this one has 0"),
    "two dist-infos": (lambda: unrecorded("x-1.dist-info/METADATA"), "this one has 2"),
    "another's dist-info": (lambda: wheel("other"), "does not belong to acme-1.0"),
    "another version": (lambda: wheel("acme", "1.1"), "does not belong to acme-1.0"),
    "another name in METADATA": (
        lambda: changed(f"{INFO}/METADATA", metadata("other")),
        "the metadata is of other, not of acme",
    ),
    "another version in METADATA": (
        lambda: changed(f"{INFO}/METADATA", metadata("acme", "2.0")),
        "the metadata is of version 2.0, not of 1.0",
    ),
    "no version in METADATA": (
        lambda: changed(f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: acme\n"),
        "the metadata is not valid: version",
    ),
    "a bad requirement": (lambda: wheel("acme", "1.0", "Requires-Dist: six>>1"), "not valid"),
    "a bad Python": (lambda: wheel("acme", "1.0", "Requires-Python: three"), "not valid"),
    "NUL in METADATA": (
        lambda: changed(f"{INFO}/METADATA", metadata() + "\0"),
        "the metadata holds a NUL character",
    ),
    "METADATA is not UTF-8": (
        lambda: changed(f"{INFO}/METADATA", metadata().encode() + b"\xff"),
        "the metadata is not UTF-8",
    ),
    "bad entry points": (
        lambda: changed(f"{INFO}/entry_points.txt", "hello = acme:main\n"),
        "entry_points.txt cannot be read",
    ),
}


@pytest.mark.parametrize("case", BAD_WHEELS)
def test_a_bad_wheel_is_refused_in_one_line(case):
    make, message = BAD_WHEELS[case]

    with pytest.raises(Invalid, match=message) as refusal:
        inspect(make())
    assert "\n" not in str(refusal.value)


def device():
    member = tarfile.TarInfo("acme-1.0/null")
    member.type = tarfile.CHRTYPE
    return member


def long_header():
    """A tar file that announces a name of two gigabytes."""
    member = tarfile.TarInfo("acme-1.0/x")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2 << 30
    return tar_bomb(member)


def tar_bomb(member):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        archive.fileobj.write(member.tobuf())
        piece = b"\0" * (1 << 20)
        for _ in range(members.RATIO_FROM // len(piece) + 2):
            archive.fileobj.write(piece)
    return made.getvalue()


def large():
    member = tarfile.TarInfo("acme-1.0/zeros")
    member.size = members.RATIO_FROM + (2 << 20)
    return tar_bomb(member)


def tail():
    """A second archive behind the first one's end: other readers would see it."""
    return gzip.compress(gzip.decompress(sdist()) + gzip.decompress(sdist("evil")))


def broken_header():
    plain = bytearray(gzip.decompress(sdist()))
    at = plain.index(b"acme-1.0/pyproject.toml")
    plain[at] ^= 1
    return gzip.compress(plain)


def chained_links():
    return tarred(
        sources(),
        link("acme-1.0/a", "."),
        link("acme-1.0/b", "a/.."),  # as texts it stays inside
    )


BAD_SDISTS = {
    "not a gzip": (wheel, "the tar file is damaged"),
    "no tar": (lambda: gzip.compress(b"x" * 1000), "damaged"),
    "empty": (lambda: b"", "damaged"),
    "cut off": (lambda: sdist()[:-20], "damaged"),
    "a flipped bit": (lambda: sdist()[:60] + b"\x55" + sdist()[61:], "damaged"),
    "a header that is none": (broken_header, "a header is not one"),
    "something behind it": (tail, "behind the tar file's end"),
    "up and out": (lambda: tarred(sources() | {"acme-1.0/../../x": "x"}), "lead out"),
    "absolute": (lambda: tarred(sources() | {"/etc/x": "x"}), "lead out"),
    "a link out": (lambda: tarred(sources(), link("acme-1.0/x", "../../etc")), "leads out"),
    "a link to the root": (lambda: tarred(sources(), link("acme-1.0/x", "/etc")), "leads out"),
    "links that lead out together": (chained_links, "leads out"),
    "a file through a link": (
        lambda: tarred(sources(), link("acme-1.0/x", "src"), tarfile.TarInfo("acme-1.0/x/y")),
        "unpacked through a link",
    ),
    "a folder that becomes a link": (
        lambda: tarred(sources(), link("acme-1.0/src/acme", "..")),
        "is a folder and a link",
    ),
    "a hard link out": (
        lambda: tarred(sources(), link("acme-1.0/x", "/etc/passwd", tarfile.LNKTYPE)),
        "leads to nothing in the archive",
    ),
    "a device": (lambda: tarred(sources(), device()), "is a device"),
    "a name of two gigabytes": (long_header, "a header of the tar file is too large"),
    "a bomb": (large, "looks like a zip bomb"),
    "twice the same": (
        lambda: tarred(sources(), tarfile.TarInfo("acme-1.0/PKG-INFO")),
        "is there twice",
    ),
    "two folders": (lambda: tarred(sources() | {"other/x": "x"}), "this one has 2"),
    "another's folder": (lambda: sdist("other"), "does not belong to acme-1.0"),
    "no PKG-INFO": (lambda: tarred({"acme-1.0/x": "x"}), "has no acme-1.0/PKG-INFO"),
    "another version in PKG-INFO": (
        lambda: tarred(sources() | {"acme-1.0/PKG-INFO": metadata("acme", "2.0")}),
        "the metadata is of version 2.0",
    ),
    "pyproject.toml is no TOML": (
        lambda: tarred(sources(pyproject="[project")),
        "pyproject.toml is not TOML",
    ),
    "entry points that are no texts": (
        lambda: tarred(sources(pyproject="[project.scripts]\na = 1\n")),
        "are not texts",
    ),
    "project is no table": (lambda: tarred(sources(pyproject="project = 1\n")), "must be a table"),
}


@pytest.mark.parametrize("case", BAD_SDISTS)
def test_a_bad_sdist_is_refused_in_one_line(case):
    make, message = BAD_SDISTS[case]

    with pytest.raises(Invalid, match=message) as refusal:
        inspect(make(), SDIST)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "filename",
    [
        "acme.whl",
        "acme-1.0.whl",
        "acme-1.0-py3-none.whl",
        "acme-one-py3-none-any.whl",
        "../acme-1.0-py3-none-any.whl",
        "acme/1.0-py3-none-any.whl",
        "acme-1.0-py3-none-any.whl\0",
        "acme-1.0-py3-none-any.whl\n",
        "-acme-1.0-py3-none-any.whl",
        "acme-1.0.tar.bz2",
        "acme-1.0.exe",
        "acme-1.0.egg",
        "acme.tar.gz",
        "",
        "é-1.0.tar.gz",
        f"{'a' * 300}-1.0.tar.gz",
    ],
)
def test_a_bad_file_name_is_refused_in_one_line(filename):
    with pytest.raises(Invalid, match=r"a package is a wheel \(.whl\) or an sdist") as refusal:
        inspect(wheel(), filename)
    assert "\n" not in str(refusal.value)
    assert "\0" not in str(refusal.value)


def test_more_files_than_anybody_needs_are_refused(monkeypatch):
    monkeypatch.setattr(members, "MOST", 5)

    with pytest.raises(Invalid, match="more than 5 files"):
        inspect(unrecorded("acme/x.py"))


def test_a_text_that_is_too_large_is_not_read(monkeypatch):
    monkeypatch.setattr(members, "MAX_TEXT", 1000)
    content = "x" * 1001

    with pytest.raises(Invalid, match="is larger than"):
        inspect(changed(f"{INFO}/METADATA", metadata() + content))
    with pytest.raises(Invalid, match="is larger than"):
        inspect(tarred(sources(pyproject=content)), SDIST)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(Invalid, match="cannot be read: No such file"):
        archives.inspect(tmp_path / NAME, NAME)


@pytest.mark.parametrize("filename", [NAME, SDIST, "acme-1.0.zip"])
def test_whatever_is_broken_is_refused_and_nothing_else_happens(filename):
    """Bytes changed, left out or doubled at random: a right answer, or one line."""
    good = {NAME: wheel, SDIST: sdist, "acme-1.0.zip": lambda: zipped(sources())}[filename]()
    if filename == SDIST:
        good = gzip.decompress(good)  # what gzip finds by itself is no trial
    chance = random.Random(7)
    refused = []
    for _ in range(600):
        broken = bytearray(good)
        at, length = chance.randrange(len(good)), chance.choice((1, 1, 4, 512))
        broken[at : at + length] = chance.choice((b"", chance.randbytes(length), good[:length]))
        content = gzip.compress(bytes(broken), 1) if filename == SDIST else bytes(broken)
        try:
            inspect(content, filename)
        except Invalid as refusal:
            refused.append(str(refusal))
    assert len(refused) > 300
    assert "\n" not in "".join(refused)
