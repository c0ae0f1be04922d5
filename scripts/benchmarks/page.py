"""docs/benchmarks.md and its chart, from the rows of a run."""

from pathlib import Path

from benchmarks import chart, table

DOCS = Path(__file__).parent.parent.parent / "docs"
METHOD = Path(__file__).with_name("method.md")

PAGE = """\
# Benchmarks

{summary}. `scripts/bench --write` wrote this page; `scripts/bench` measures again,
`scripts/bench --quick` in a few minutes.

![Kirby's figures beside their targets](benchmarks.svg)

## Figures

{tables}
{notes}

## Machine and versions

{machine}

{versions}

{settings}

{method}"""


def write(rows, facts, folder=DOCS):
    """Refresh both files."""
    (folder / "benchmarks.svg").write_text(chart.draw(rows))
    (folder / "benchmarks.md").write_text(text(rows, facts))


def text(rows, facts):
    machine = facts["machine"]
    return PAGE.format(
        summary=table.summary(rows, facts).capitalize(),
        tables=table.markdown(rows),
        notes="\n".join(f"* {note}" for note in table.notes(rows)),
        machine=(
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB,"
            f" {machine['system']}."
        ),
        versions=", ".join(" ".join(each) for each in facts["versions"].items()) + ".",
        settings="\n".join(f"* {line}" for line in settings(facts["settings"])),
        method=METHOD.read_text(),
    )


def settings(known):
    for server, values in known.items():
        yield f"{server}: " + ", ".join(f"`{name} = {value}`" for name, value in values.items())
