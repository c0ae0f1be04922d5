"""What a script needs, found in its source without running it: variables, secrets, topics."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Every run has them, or may have them, from the host.
GIVEN = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "PWD", "USER")
READING = ("consume", "read")
WRITING = ("publish", "publish_many", "apublish", "apublish_many", "retract")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
CATCHES = ("KeyError", "LookupError", "Exception", "BaseException")


@dataclass(frozen=True, slots=True)
class Needs:
    """Names, sorted: variables and secrets that must be there, topics that it reads and writes."""

    variables: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            _names(self.variables, other.variables),
            _names(self.secrets, other.secrets),
            _names(self.reads, other.reads),
            _names(self.writes, other.writes),
        )


def declared(settings: Mapping[str, Any]) -> Needs:
    """What a [tool.kirby] table lists as `needs`, `secrets`, `reads` and `writes`."""
    return Needs(
        _names(settings.get("needs", ())),
        _names(settings.get("secrets", ())),
        _names(settings.get("reads", ())),
        _names(settings.get("writes", ())),
    )


def detect(source: str, *, imported: bool = False) -> Needs:
    """What Python source asks for by constant names; nothing for what is no Python.

    `kirby.config("X")` without a default, `os.environ["X"]`, `kirby.secret("X")`, and the topics of
    `kirby.topic("t")` and `@kirby.stream("t", to="u")`, under whatever name they were imported. A
    variable that the source sets itself, asks about first (`"X" in os.environ`) or whose absence it
    catches is not needed. `imported`: only what is done when the module is imported.
    """
    tree = _parsed(source)
    return _Reading(list(_at_import(tree) if imported else ast.walk(tree))).needs()


def imports(source: str, package: str) -> set[str]:
    """The modules that Python source in `package` may import, and what it takes from them."""
    found: set[str] = set()
    for node in ast.walk(_parsed(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: -(node.level - 1) or None] if node.level else []
            module = ".".join([*parts, *filter(None, [node.module])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def _parsed(source: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those of the bodies of functions; nesting may be deeper than our stack."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for name, value in ast.iter_fields(node):
            if name != "body" or not isinstance(node, FUNCTIONS):
                children = value if isinstance(value, list) else [value]
                waiting += [child for child in children if isinstance(child, ast.AST)]


class _Reading:
    """One walk through a module."""

    def __init__(self, nodes: list[ast.AST]) -> None:
        self._nodes = nodes
        self._names = dict(_imported(self._nodes))  # local name -> "kirby.config", "os.environ" …
        self._caught = {id(node) for node in _caught(self._nodes)}
        self._variables: set[str] = set()
        self._optional: set[str] = set()
        self._secrets: set[str] = set()
        self._reads: set[str] = set()
        self._writes: set[str] = set()
        self._topics: dict[str, str] = {}  # variable -> topic

    def needs(self) -> Needs:
        for node in self._nodes:
            if isinstance(node, ast.Call):
                self._call(node)
            elif isinstance(node, ast.Subscript):
                self._subscript(node)
            elif isinstance(node, ast.Compare):
                self._compare(node)
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr):
                self._assign(node)
        self._uses()
        variables = {
            name for name in self._variables - self._optional
            if name not in GIVEN and not name.startswith("KIRBY_")
        }  # fmt: skip
        return Needs(
            _names(variables), _names(self._secrets), _names(self._reads), _names(self._writes)
        )

    def _called(self, node: ast.expr) -> str:
        """The dotted name that an expression means, by what was imported: "kirby.config"; or ""."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id, "")
        if isinstance(node, ast.Attribute):
            left = self._called(node.value)
            return f"{left}.{node.attr}" if left else ""
        return ""

    def _call(self, node: ast.Call) -> None:
        called, first = self._called(node.func), _text(_argument(node, 0, "name"))
        if called == "kirby.config" and _argument(node, 1, "default") is None and first:
            if id(node) not in self._caught:
                self._variables.add(first)
        elif called == "kirby.secret" and _argument(node, 1, "default") is None and first:
            self._secrets.add(first)
        elif called == "kirby.stream":
            self._reads |= _set(_text(_argument(node, 0, "topic")))
            self._writes |= _set(_text(_argument(node, 1, "to")))
        elif called == "kirby.Out":
            self._writes |= _set(_text(_argument(node, 3, "to")))
        elif called in ("os.environ.setdefault", "os.putenv") and first:
            self._optional.add(first)

    def _subscript(self, node: ast.Subscript) -> None:
        name = _text(node.slice)
        if not name or self._called(node.value) != "os.environ":
            return
        if not isinstance(node.ctx, ast.Load):
            self._optional.add(name)
        elif id(node) not in self._caught:
            self._variables.add(name)

    def _compare(self, node: ast.Compare) -> None:
        """`"X" in os.environ` and its reverse."""
        asks = isinstance(node.ops[0], ast.In | ast.NotIn)
        if asks and self._called(node.comparators[0]) == "os.environ":
            self._optional |= _set(_text(node.left))

    def _assign(self, node: ast.Assign | ast.AnnAssign | ast.NamedExpr) -> None:
        topic = self._topic(node.value) if node.value else ""
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if topic and isinstance(target, ast.Name):
                self._topics[target.id] = topic

    def _topic(self, node: ast.expr) -> str:
        """The topic that an expression is: `kirby.topic("t")`, or a variable that holds one."""
        if isinstance(node, ast.NamedExpr):
            node = node.value
        if isinstance(node, ast.Name):
            return self._topics.get(node.id, "")
        if isinstance(node, ast.Call) and self._called(node.func) == "kirby.topic":
            return _text(_argument(node, 0, "name"))
        return ""

    def _uses(self) -> None:
        """What is done with topics; one of which nothing is seen may be read and written."""
        for node in self._nodes:
            if isinstance(node, ast.Attribute) and (topic := self._topic(node.value)):
                self._reads |= {topic} if node.attr in READING else set()
                self._writes |= {topic} if node.attr in WRITING else set()
        named = {self._topic(node) for node in self._nodes if isinstance(node, ast.Call)} - {""}
        unseen = named - self._reads - self._writes
        self._reads |= unseen
        self._writes |= unseen


def _imported(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    """What the names of `kirby` and `os` are called here, wherever they are imported."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in ("kirby", "os"):
                    name = alias.name if alias.asname else alias.name.partition(".")[0]
                    yield alias.asname or name, name
        elif isinstance(node, ast.ImportFrom) and node.module in ("kirby", "os") and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _caught(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Everything that stands in a `try` which catches that a name is missing."""
    for node in nodes:
        if isinstance(node, ast.Try) and any(map(_catches, node.handlers)):
            for statement in node.body:
                yield from ast.walk(statement)


def _catches(handler: ast.ExceptHandler) -> bool:
    kind = handler.type
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    named = [each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", None)
             for each in kinds]  # fmt: skip
    return kind is None or any(name in (*CATCHES, "NotFound", "KirbyError") for name in named)


def _argument(node: ast.Call, place: int, name: str) -> ast.expr | None:
    for keyword in node.keywords:
        if keyword.arg == name:
            return keyword.value
    return node.args[place] if len(node.args) > place else None


def _text(node: ast.expr | None) -> str:
    """The value of a constant text; "" for anything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _set(name: str) -> set[str]:
    return {name} if name else set()


def _names(*several: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({name for names in several for name in names}))
