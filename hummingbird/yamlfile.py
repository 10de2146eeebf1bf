# SPDX-License-Identifier: BSD-3-Clause
"""YAML that remembers where everything stood, so that every error can name its line.

Scalars are read by the rules of YAML 1.2: only ``true`` and ``false`` are booleans (not ``no``),
and a MAC address such as ``10:20:30:40:50:51`` is text (not a number to the base of 60). Duplicate
keys, tags and several documents in one file are refused.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml.composer import ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

from hummingbird.errors import UserError
from hummingbird.textfile import decode, quoted, read_bytes, suggest

MAX_BYTES = 1 << 18
MAX_DEPTH = 16
MAX_ENTRIES = 1 << 16
MAX_DIGITS = 20

Key = str | int
Location = tuple[Key, ...]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class YamlFile:
    """A parsed file."""

    path: Path
    data: Any
    """Dictionaries, lists, strings, integers, floats, booleans and None."""
    lines: Mapping[Location, int]
    """Line, counted from 1, of each key and list element by its place, such as ("nfs", "a")."""

    def known(self, place: Iterable[Key]) -> Location:
        """The part of `place` that the file has; keys that it lacks are left out."""
        found: Location = ()
        for key in place:
            if (*found, key) in self.lines:
                found = (*found, key)
        return found

    def line(self, place: Iterable[Key]) -> int:
        """The line of `place`, or of what encloses it."""
        return self.lines[self.known(place)]

    def where(self, value: Key, place: Location) -> Location:
        """Where in `place` this value stands; `place` itself if nowhere."""
        below = (at for at in self.lines if at[: len(place)] == place)
        return next((at for at in below if self.at(at) == value), place)

    def at(self, place: Location) -> Any:
        """The data at `place`."""
        data = self.data
        for key in place:
            data = data[key]
        return data

    def error(self, what: str, place: Iterable[Key], fix: str, missing: str = "") -> UserError:
        """An error at `place`; `missing` is a field that ought to be there."""
        found = self.known(place)
        field = field_name((*found, missing) if missing else found)
        return UserError(what, path=self.path, line=self.lines[found], field=field, fix=fix)

    def validate(
        self, model: type[Model], data: Any, place: Location, context: Mapping[str, Any]
    ) -> Model:
        """`data`, which stands at `place`, as a model.

        Raises:
            UserError: its first mistake; unknown fields go before all others.
        """
        try:
            return model.model_validate(data, context=dict(context))
        except ValidationError as error:
            mistakes = error.errors(include_url=False)
        unknown = [mistake for mistake in mistakes if mistake["type"] == "extra_forbidden"]
        raise self._mistake(model, (unknown or mistakes)[0], place)

    def _mistake(self, model: type[BaseModel], mistake: ErrorDetails, place: Location) -> UserError:
        at = (*place, *(key for key in mistake["loc"] if key != "[key]"))
        if mistake["type"] == "missing":
            name = str(at[-1])
            return self.error(f"{name} is missing", at[:-1], f"add '{name}: ...'", missing=name)
        if mistake["type"] == "extra_forbidden":
            fields = fields_of(model, mistake["loc"][:-1])
            return self.error(f"unknown field {quoted(at[-1])}", at, suggest(at[-1], fields))
        return self.error(*describe(mistake, at))


def describe(mistake: ErrorDetails, at: Location) -> tuple[str, Location, str]:
    """What is wrong, where, and the fix, from what pydantic says."""
    context = mistake.get("ctx", {})
    value, message = mistake["input"], mistake["msg"]
    if "fix" in context:
        return message, at, str(context["fix"])
    if mistake["type"] == "value_error":
        return message.removeprefix("Value error, "), at, "correct this value"
    if mistake["type"] == "literal_error":
        options = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{quoted(value)} is not offered here", at, suggest(value, options)
    if mistake["type"] in ("too_short", "too_long"):
        few = mistake["type"] == "too_short"
        what = f"{context['actual_length'] or 'no'} entries" if few else "too many entries"
        most = f"at least {context['min_length']}" if few else f"{context['max_length']} at most"
        return what, at, f"write {most}"
    if value is None:
        what = "has no value"
    elif isinstance(value, (dict, list)):
        what = f"a {'mapping' if isinstance(value, dict) else 'list'} cannot stand here"
    else:
        what = f"{quoted(value)} cannot stand here"
    fix = re.sub(r"^(Input|value) (is not|should be) ", "it should be ", message)
    return what, at, fix.replace("valid dictionary", "mapping")


def field_name(place: Location) -> str | None:
    """``types.web[0].port``; None for the whole file."""
    text = ""
    for key in place:
        name = key if isinstance(key, str) and key.isprintable() else ascii(key)
        text += f"[{key}]" if isinstance(key, int) else f".{name}" if text else name
    return text or None


def fields_of(model: type[BaseModel], place: Iterable[Key]) -> list[str]:
    """The fields of a model, or of the model that stands at `place` in it."""
    for key in place:
        info = model.model_fields.get(str(key))
        if info is not None:
            model = next(_models_in(info.annotation), model)
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


# --- Text to data ---------------------------------------------------------------------------------


def load(path: Path) -> YamlFile:
    """Read and parse a file; UserError if that cannot be done."""
    return parse(read_bytes(path, MAX_BYTES), path)


def parse(data: bytes, path: Path) -> YamlFile:
    """Parse the bytes of the file `path`; UserError for whatever is not one document."""
    text = _Text(path, decode(data, path))
    node = _compose(text)
    lines: dict[Location, int] = {(): 1}
    return YamlFile(path, None if node is None else _Builder(text, lines).value(node, ()), lines)


class _Text:
    """A file's text, and what knows the line of a place in it.

    PyYAML counts lines, too, but takes characters for line breaks that no editor does (U+0085).
    """

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        self._breaks = [match.start() for match in re.finditer("\n", text)]

    def error(self, what: str, index: int, fix: str, place: Location = ()) -> UserError:
        line, field = self.line(index), field_name(place)
        return UserError(what, path=self.path, line=line, field=field, fix=fix)

    def line(self, index: int) -> int:
        """The line, counted from 1, of a character."""
        return bisect.bisect_left(self._breaks, index) + 1


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the scalars of YAML 1.2, with bounded nesting."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.depth == MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise ComposerError(None, None, "nested too deeply", mark)
        self.depth += 1
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _resolve(tag: str, pattern: str, first: str) -> None:
    regexp = re.compile(rf"(?:{pattern})\Z")
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", regexp, [*first, ""])


_resolve("null", "~|null|", "~n")
_resolve("bool", "true|false", "tf")
_resolve("int", "[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789")
_resolve("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?", "-+.0123456789")


def _compose(text: _Text) -> Node | None:
    fix = "correct the YAML here"
    try:
        loader = _Loader(text.text)
    except ReaderError as error:
        what = f"the character {chr(error.character)!a} cannot stand in YAML"
        raise text.error(what, error.position, "remove it") from None
    try:
        node: Node | None = loader.get_single_node()
        return node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = f"not YAML: {error.problem or error.context}"
        raise text.error(what, mark.index if mark else 0, fix) from None
    except (ValueError, OverflowError):  # PyYAML on "\UFFFFFFFF" and '%YAML 9...9'
        raise text.error("not YAML: a number is out of range", loader.index, fix) from None


@dataclass(frozen=True)
class _Builder:
    text: _Text
    lines: dict[Location, int]

    def value(self, node: Node, place: Location) -> Any:
        """A node as plain data; notes the lines of what is in it. Aliases become copies."""
        if len(place) > MAX_DEPTH or len(self.lines) > MAX_ENTRIES:
            what = "too many values (an alias counts as what it stands for)"
            raise self._error(what, node, place[:2], "write fewer")
        if isinstance(node, MappingNode):
            return self._mapping(node, place)
        if isinstance(node, SequenceNode):
            return self._sequence(node, place)
        assert isinstance(node, ScalarNode)
        return self._scalar(node, place)

    def _mapping(self, node: MappingNode, place: Location) -> dict[Key, Any]:
        self._check_tag(node, "map", place)
        data: dict[Key, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, place)
            line = self.text.line(key_node.start_mark.index)
            if key in data:
                what = f"{quoted(key)} stands here twice; first on line {self.lines[(*place, key)]}"
                raise self._error(what, key_node, place, "remove one of the two")
            self.lines[(*place, key)] = line
            data[key] = self.value(value_node, (*place, key))
        return data

    def _key(self, node: Node, place: Location) -> Key:
        key = self._scalar(node, place) if isinstance(node, ScalarNode) else None
        if isinstance(key, (str, int)) and not isinstance(key, bool):
            return key
        raise self._error("a key must be a name or a number", node, place, "write 'name: value'")

    def _sequence(self, node: SequenceNode, place: Location) -> list[Any]:
        self._check_tag(node, "seq", place)
        for index, item in enumerate(node.value):
            self.lines[(*place, index)] = self.text.line(item.start_mark.index)
        return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]

    def _scalar(self, node: ScalarNode, place: Location) -> Any:
        tag, text = node.tag.removeprefix("tag:yaml.org,2002:"), str(node.value)
        if tag == "str":
            return self._text(node, text, place)
        if tag == "null":
            return None
        if tag == "bool" and text in ("true", "false"):
            return text == "true"
        if tag in ("int", "float"):
            return self._number(node, tag, text, place)
        raise self._tag_error(node, place)

    def _number(self, node: Node, tag: str, text: str, place: Location) -> int | float:
        if len(text) > MAX_DIGITS:
            raise self._error(f"{quoted(text)} is too long", node, place, "write fewer digits")
        try:
            return float(text) if tag == "float" else int(text, 0)
        except ValueError:
            raise self._tag_error(node, place) from None

    def _text(self, node: Node, text: str, place: Location) -> str:
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            fix = "write text that UTF-8 can hold"
            raise self._error(f"{quoted(text)} has impossible characters", node, place, fix)
        return text

    def _check_tag(self, node: Node, tag: str, place: Location) -> None:
        if node.tag != f"tag:yaml.org,2002:{tag}":
            raise self._tag_error(node, place)

    def _tag_error(self, node: Node, place: Location) -> UserError:
        what = f"the tag {quoted(node.tag)} cannot stand here"
        return self._error(what, node, place, "remove it")

    def _error(self, what: str, node: Node, place: Location, fix: str) -> UserError:
        return self.text.error(what, node.start_mark.index, fix, place)
