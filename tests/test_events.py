"""The catalogue of log events is what the code logs: read from the source, place by place."""

from __future__ import annotations

import ast
import dataclasses
import functools
from pathlib import Path

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from dsmgateway.events import FIELDS, OF_CONNECTION, OF_WARNING, Event, log_bug
from dsmgateway.store.values import Expired, Recovery

PACKAGE = Path(__file__).parent.parent / "dsmgateway"
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


@dataclasses.dataclass(frozen=True)
class Logged:
    """A place in the code that writes a log event: which events, with which fields."""

    where: str
    events: tuple[str, ...]
    fields: frozenset[str]


#: Fields that are spread from a value of ours, by how the code spells it.
SPREAD = {
    "dataclasses.asdict(part)": frozenset(field.name for field in dataclasses.fields(Expired)),
    "counts": frozenset(field.name for field in dataclasses.fields(Recovery)),
}
#: Functions that hand on an event that they were given, and add fields to it, by level.
FORWARDERS = {"_note": {"warn": OF_WARNING}}


def _template(node: ast.Call) -> str:
    """The message template that a call begins with, if any."""
    return str(node.args[0].value) if node.args and isinstance(node.args[0], ast.Constant) else ""


class LoggedFinder(ast.NodeVisitor):
    """Finds every log event in a module."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.found: list[Logged] = []
        self._functions: list[ast.FunctionDef] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Remember which function we are in."""
        self._functions.append(node)
        self.generic_visit(node)
        self._functions.pop()

    def visit_Call(self, node: ast.Call) -> None:
        """Look at a call."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "log_event":
            self._add(node, self._events(node.args[1]), self._keywords(node.keywords))
        elif name == "_note":
            events = self._events(node.args[0])
            added = {
                field for label in events or () for field in FORWARDERS[name].get(Event[label].level, OF_CONNECTION)
            }
            if name == "_note":  # which counts what it leaves out of connections without a device
                added |= {field for label in events or () for field in Event[label].fields if field == "suppressed"}
            self._add(node, events, self._keywords(node.keywords) | added)
        elif name == "log_bug":
            self._add(node, ("BUG",), self._keywords(node.keywords))
        elif name == "Note":
            assert self._events(node.args[0]) is None, "only _note makes notes"
        assert "{event" not in _template(node), f"{self.module}:{node.lineno} goes past log_event and log_bug"
        self.generic_visit(node)

    def _add(self, node: ast.Call, events: tuple[str, ...] | None, fields: set[str]) -> None:
        if events is not None:
            self.found.append(Logged(f"{self.module}:{node.lineno}", events, frozenset(fields)))

    def _events(self, node: ast.expr) -> tuple[str, ...] | None:
        """The names of the events, None where the function only hands on what it was given."""
        if isinstance(node, ast.Attribute):
            assert getattr(node.value, "id", "") == "Event", ast.unparse(node)
            return (node.attr,)
        if isinstance(node, ast.IfExp):
            return (*(self._events(node.body) or ()), *(self._events(node.orelse) or ()))
        assert isinstance(node, ast.Name), ast.unparse(node)
        function = self._functions[-1]
        if node.id in {argument.arg for argument in function.args.args}:
            assert function.name in {"log_event", *FORWARDERS}, function.name
            return None
        value = self._assigned(node.id)
        # A name that is bound by `case Note(event, fields)` is handed on.
        return None if value is None else self._events(value)

    def _keywords(self, keywords: list[ast.keyword]) -> set[str]:
        names = {keyword.arg for keyword in keywords if keyword.arg is not None}
        for keyword in keywords:
            if keyword.arg is None and ast.unparse(keyword.value) != "fields":
                names |= SPREAD[ast.unparse(keyword.value)]
        return names

    def _assigned(self, name: str) -> ast.expr | None:
        """What is assigned to a name in the function we are in."""
        for node in ast.walk(self._functions[-1]):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if isinstance(node, ast.Assign | ast.AnnAssign) and name in {getattr(one, "id", "") for one in targets}:
                return node.value
        return None


@functools.cache
def everything_logged() -> list[Logged]:
    """Every place in the package that writes a log event, but for where all of them go through."""
    found = []
    for module in set(MODULES) - {"events.py"}:
        finder = LoggedFinder(module)
        finder.visit(ast.parse((PACKAGE / module).read_text(encoding="utf-8")))
        found += finder.found
    return found


def test_every_event_in_the_code_is_in_the_catalogue_with_its_fields() -> None:
    for logged in everything_logged():
        for name in logged.events:
            undeclared = logged.fields - set(Event[name].fields)
            assert not undeclared, f"{logged.where}: {name} has no {undeclared}"


def test_every_event_of_the_catalogue_and_each_of_its_fields_is_used() -> None:
    used: dict[str, set[str]] = {}
    for logged in everything_logged():
        for name in logged.events:
            used.setdefault(name, set()).update(logged.fields)
    assert used == {event.name: set(event.fields) for event in Event}


def test_every_field_is_explained_once() -> None:
    assert {name for event in Event for name in event.fields} == set(FIELDS)


def test_events_have_names_of_their_own_and_levels_that_exist() -> None:
    assert len({event.label for event in Event}) == len(Event)
    assert {event.level for event in Event} <= {"critical", "error", "warn", "info"}
    assert all(len(set(event.fields)) == len(event.fields) for event in Event)


def test_nobody_logs_past_the_catalogue() -> None:
    """No module calls a logger but with an event of the catalogue."""
    levels = {"critical", "error", "warn", "info", "debug", "trace", "failure"}
    for module in MODULES:
        for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in levels:
                owner = ast.unparse(node.func.value)
                if owner.rpartition(".")[2] in {"log", "_log"}:
                    assert _template(node).startswith("{event}"), f"{module}:{node.lineno}"


def test_an_error_of_our_own_is_logged_with_where_it_was_found_and_its_traceback() -> None:
    seen: list[dict[str, object]] = []
    failure = Failure(ValueError("not foreseen"))
    log_bug(Logger(observer=seen.append), failure, imei="350000000000006", state="receiving")
    (line,) = seen
    assert (line["event"], line["fields"]) == (Event.BUG.label, {"imei": "350000000000006", "state": "receiving"})
    assert (line["log_level"], line["log_failure"]) == (LogLevel.critical, failure)
