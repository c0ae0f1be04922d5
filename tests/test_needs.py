import pytest

from kirby.server import needs
from kirby.server.needs import Needs


def variables(source):
    return needs.detect(source).variables


@pytest.mark.parametrize(
    "source",
    [
        "import kirby\nkirby.config('X')",
        "import kirby as k\nk.config('X', type=int)",
        "from kirby import config\nconfig(name='X')",
        "from kirby import config as c\ndef f():\n    return c('X')",
        "import os\nos.environ['X']",
        "from os import environ\nprint(environ['X'])",
        "from os import environ as e\nprint(e['X'])",
        "import os.path\nos.environ['X']",
        "import os\ntry:\n    os.environ['X']\nexcept ValueError:\n    pass",
    ],
)
def test_a_variable_that_must_be_there_is_found(source):
    assert variables(source) == ("X",)


@pytest.mark.parametrize(
    "source",
    [
        "import kirby\nkirby.config('X', None)",
        "import kirby\nkirby.config('X', default='')",
        "import kirby\nname = 'X'\nkirby.config(name)",
        "config('X')",
        "environ['X']",
        "import mine as kirby\nkirby.config('X')",
        "from .kirby import config\nconfig('X')",
        "import os\nos.environ.get('X')",
        "import os\nos.getenv('X')",
        "import os\nos.environ['X'] = '1'\nprint(os.environ['X'])",
        "import os\ndel os.environ['X']",
        "import os\nos.environ.setdefault('X', '1')\nos.environ['X']",
        "import os\nif 'X' in os.environ:\n    os.environ['X']",
        "import os\nx = os.environ['X'] if not 'X' not in os.environ else ''",
        "import os\ntry:\n    os.environ['X']\nexcept KeyError:\n    pass",
        "import os\ntry:\n    os.environ['X']\nexcept (ValueError, LookupError):\n    pass",
        "import kirby\ntry:\n    kirby.config('X')\nexcept kirby.NotFound:\n    pass",
        "import kirby\ntry:\n    kirby.config('X')\nexcept:\n    pass",
        "import os\nos.environ['PATH'], os.environ['HOME'], os.environ['KIRBY_RUN']",
        "this is no python",
        "x = '\0'",
        "# kirby.config('X')\n'''os.environ['X']'''",
    ],
)
def test_what_need_not_be_there_is_not(source):
    assert variables(source) == ()


def test_nothing_is_run(tmp_path):
    flag = tmp_path / "ran"

    needs.detect(f"import kirby, os\nopen({str(flag)!r}, 'w')\nkirby.config('X')")

    assert not flag.exists()


def test_secrets_and_topics_are_found():
    source = """
import kirby
from kirby import stream as handles

orders = kirby.topic("orders")
kirby.secret("SMTP_PASSWORD")
kirby.secret("OPTIONAL", None)

@handles("departures", to="delays")
def delay(flight):
    return kirby.Out(1, to="audit")

@kirby.stream(topic="delays")
def tally(delay):
    kirby.topic("totals").publish(1)

def main():
    for message in orders.consume():
        kirby.topic("invoices").publish_many([])
    (log := kirby.topic("log")).publish(1)
    helper(kirby.topic("passed-on"))
"""
    assert needs.detect(source) == Needs(
        secrets=("SMTP_PASSWORD",),
        reads=("delays", "departures", "orders", "passed-on"),
        writes=("audit", "delays", "invoices", "log", "passed-on", "totals"),
    )


def test_what_is_declared_joins_what_is_found():
    found = needs.detect("import kirby\nkirby.config('B')\nkirby.topic('t').read()")
    said = needs.declared({"needs": ["C", "A"], "secrets": ["S"], "reads": ["u"], "tz": "UTC"})

    assert found | said == Needs(("A", "B", "C"), ("S",), ("t", "u"), ())


def test_of_a_module_that_is_imported_only_what_it_does_then():
    source = """
import kirby, os
DATABASE = os.environ["DATABASE"]
class Settings:
    region = kirby.config("REGION")
def later(default=kirby.config("DEFAULT")):
    return kirby.config("LATER")
always = lambda: os.environ["LAMBDA"]
@kirby.stream("orders")
async def handle(order):
    os.environ["HANDLER"]
if True:
    kirby.topic("log").publish(1)
"""
    found = needs.detect(source, imported=True)

    assert found == Needs(("DATABASE", "DEFAULT", "REGION"), (), ("orders",), ("log",))
    assert set(needs.detect(source).variables) > set(found.variables)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import acme.a, os.path as p", {"acme.a", "os.path"}),
        ("from acme import a, b as c", {"acme", "acme.a", "acme.b"}),
        ("from . import a", {"acme.sub", "acme.sub.a"}),
        ("from .a import x", {"acme.sub.a", "acme.sub.a.x"}),
        ("from ..b import x", {"acme.b", "acme.b.x"}),
        ("def f():\n    import late", {"late"}),
        ("no python", set()),
    ],
)
def test_imports_are_found(source, names):
    assert needs.imports(source, "acme.sub") == names


def test_code_that_is_nested_deeply_is_looked_through():
    source = "import os\nx = " + "+".join(["1"] * 900) + " + len(os.environ['X'])\n"

    assert needs.detect(source, imported=True).variables == ("X",)
