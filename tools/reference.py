# SPDX-License-Identifier: BSD-3-Clause
"""Pages of the docs that are made of the code: the topology's fields, of the models that check
them; the commands, of their ``--help``; the drop reasons, of the list that is compiled in.

Descriptions are the strings below the fields, read from the source: pydantic could collect them,
but only while the program starts.
"""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import os
import textwrap
import types
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from unittest import mock

from pydantic import BaseModel, IPvAnyAddress
from pydantic.fields import FieldInfo

from hummingbird import cli, nfs, ports, rules, topology
from hummingbird.dataplane.plane import reasons
from hummingbird.textfile import NAME_RULE

KINDS = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "`true` or `false`",
    Path: "file",
    IPv4Address: "IPv4 address",
    IPv6Address: "IPv6 address",
    IPvAnyAddress: "address",
}
"""What a value of a type looks like in YAML."""

READ = {
    "_address": "address",
    "_endpoint": "ADDRESS:PORT",
    "_host": "address",
    "_mac": "Ethernet address",
    "_network": "IPv4 prefix",
    "_port_range": "port or range of ports",
    "_ports": "port, range of ports or `any`",
    "_prefix": "address or prefix",
    "_protocol": "protocol",
    "_range": "port or range of ports",
}
"""The same where a validator reads it, by the validator's function."""

ENDLESS = 1 << 53
"""Nobody meets such a bound."""

LISTED = ("_as_list", "_listed", "_rules")
"""Validators that take one value for a list of one."""

VALIDATED = {
    "_scaled": "suffix `k`, `M` or `G` allowed",
    "_power_of_two": "a power of two",
    "_unless_auto": "or `auto`",
    "_input": "that exists",
    "_output": "that can be made or replaced",
    "_prime": "a prime",
}
"""What validators add to that, by their functions."""


# --- Descriptions ---------------------------------------------------------------------------------


@functools.cache
def described(model: type[BaseModel]) -> dict[str, str]:
    """The strings below the fields of a model and of its bases."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                found.pop(field.target.id, None)
                if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                    found[field.target.id] = inspect.cleandoc(str(text.value.value))
    return {name: " ".join(text.split()).replace("``", "`") for name, text in found.items()}


# --- Types ----------------------------------------------------------------------------------------


def kind_of(annotation: Any) -> str:
    """A type in words; `~Model~` stands for a model."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return annotated(args[0], args[1:])
    if origin is Literal:
        return either([f"`{value}`" for value in args])
    if origin in (Union, types.UnionType):
        return " or ".join(kind_of(arg) for arg in args if arg is not type(None))
    if origin in (list, tuple, set, frozenset):
        return f"list of {plural(kind_of(args[0]))}"
    if origin is dict:
        return f"map of {plural(kind_of(args[0]))} to {plural(kind_of(args[1]))}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"~{annotation.__qualname__}~"
    return KINDS[annotation]


def annotated(base: Any, metadata: tuple[Any, ...]) -> str:
    """A type with bounds and validators, in words."""
    functions = [getattr(getattr(item, "func", None), "__name__", "") for item in metadata]
    said = next((READ[name] for name in functions if name in READ), "") or kind_of(base)
    if any(name in LISTED for name in functions):
        said = f"{kind_of(listed(base))}, or a list of such"
    more = [bounds_in_words(metadata)] + [
        VALIDATED[name] for name in functions if name in VALIDATED
    ]
    return ", ".join([said, *filter(None, more)])


def listed(annotation: Any) -> Any:
    """What a list is of, wherever it stands in a type."""
    while get_origin(annotation) not in (list, tuple):
        annotation = get_args(annotation)[0]
    return get_args(annotation)[0]


def bounds_in_words(metadata: tuple[Any, ...]) -> str:
    """From where to where."""
    bounds = list(bounds_of(metadata))
    low = max((value for name, value in bounds if name == "ge"), default=None)
    high = min((v - (name == "lt") for name, v in bounds if name in ("le", "lt")), default=ENDLESS)
    most = min((value for name, value in bounds if name == "max_length"), default=ENDLESS)
    if low is not None:
        return f"{number(low)} or more" if high >= ENDLESS else f"{number(low)} to {number(high)}"
    return f"{number(most)} at most" if most < ENDLESS else ""


def bounds_of(metadata: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """annotated_types' bounds, those inside pydantic's Field, too."""
    for item in metadata:
        for piece in item.metadata if isinstance(item, FieldInfo) else [item]:
            for name in ("ge", "le", "lt", "max_length"):
                if (value := getattr(piece, name, None)) is not None:
                    yield name, value


def number(value: Any) -> str:
    """With thousands apart."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value:,}"


def either(words: list[str]) -> str:
    """a, b or c."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def plural(words: str) -> str:
    """Of the first word or two, for lists."""
    many = {"whole number": "numbers", "address": "addresses", "text": "names", "file": "files"}
    one, comma, rest = words.partition(",")
    return many.get(one, one) + comma + rest


def default_of(field: FieldInfo) -> str:
    """What holds where nothing is written, as it would be written."""
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ({}, (), []) or isinstance(value, BaseModel):
        return ""
    if isinstance(value, tuple) and value[0] in (None, rules.ANY_ADDRESS, rules.ANY_PORT):
        return "any"
    return f"`{written(value)}`"


def written(value: Any) -> str:
    """A value in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {written(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, tuple) and len(value) == 1:
        return written(value[0])
    if isinstance(value, tuple) and all(isinstance(entry, int) for entry in value):
        return "-".join(map(str, value))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


# --- Tables ---------------------------------------------------------------------------------------


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that values of a type consist of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for arg in get_args(annotation):
        yield from models_in(arg)


def table(model: type[BaseModel]) -> list[str]:
    """The fields of a model."""
    lines = ["| Field | Value | Default | |", "| --- | --- | --- | --- |"]
    texts = described(model)
    for name, field in sorted(
        model.model_fields.items(), key=lambda item: not item[1].is_required()
    ):
        kind = annotated(field.annotation, tuple(field.metadata))
        for inner in models_in(field.annotation):
            kind = kind.replace(
                f"~{inner.__qualname__}~", f"[{inner_name(inner)}](#{anchor(inner)})"
            )
        cells = [f"`{name}`", kind, default_of(field), texts.get(name, "")]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""] if model.model_fields else []


def inner_name(model: type[BaseModel]) -> str:
    """What the reference calls a model inside another one."""
    name = model.__name__.removesuffix("Params")
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()


def anchor(model: type[BaseModel]) -> str:
    """Of its heading."""
    part = model.__module__.rpartition(".")[2].removesuffix("_config")
    return f"{part}-{inner_name(model).replace(' ', '-')}"


def summary(thing: Any) -> str:
    """A docstring, as one paragraph."""
    text = inspect.getdoc(thing) or ""
    return " ".join(text.split()).replace("``", "`")


def section(heading: str, model: type[BaseModel], intro: str = "", level: int = 2) -> list[str]:
    """A heading, the model's table, and the models inside it."""
    lines = [f"{'#' * level} {heading}", "", *([intro, ""] if intro else []), *table(model)]
    annotations = [field.annotation for field in model.model_fields.values()]
    for inner in dict.fromkeys(inner for one in annotations for inner in models_in(one)):
        title = f"{inner_name(inner)} {{ #{anchor(inner)} }}"
        lines += section(title, inner, summary(inner), level + 1)
    return lines


def topology_page() -> str:
    """Every section and field of a topology."""
    file = topology._File
    lines = [
        "# The topology: all fields",
        "",
        "Made of the models that check a topology, so what stands here is what is accepted.",
        "[Write a policy](../write-a-policy.md) shows how to begin one.",
        "",
        *top_table(file),
        "A name is " + NAME_RULE + "; ports and NFs may not share one, and none is `drop`. "
        "Files are relative to the topology. Only `true` and `false` are booleans; keys that stand "
        f"twice are refused. There are {topology.MAX_NODES} ports and NFs and {topology.MAX_TYPES} "
        "packet types at most.",
        "",
        "## ports { #ports }",
        "",
        "Each has a `driver` and the fields of that. Those that take packets in also have",
        "",
        *table(topology._Zone),
    ]
    for name in ports.NAMES:
        driver = ports.load(name)
        lines += section(f"driver: {name} {{ #{name} }}", driver.params, module_says(driver), 3)
    lines += ["## nfs { #nfs }", "", NF_INTRO, ""]
    for name in nfs.TYPES:
        nf = nfs.load(name)
        lines += section(f"type: {name} {{ #{name} }}", nf.params, engines_of(nf), 3)
    lines += section("types { #types }", rules.RuleParams, TYPES_INTRO)
    for name, field in file.model_fields.items():
        if name not in ("policy", "ports", "nfs", "types"):
            (model,) = models_in(field.annotation)
            lines += section(f"{name} {{ #{name} }}", model, summary(model))
    return "\n".join(lines)


NF_INTRO = """\
Each has a `type`, an `engine` and the fields of its type. `engine` is `auto` (the default: on the
CPU, by the fastest engine that this machine has), `cpu` (on the CPU, by the source that the GPU
runs, too), `gpu` (on the OpenCL device; where there is none, as `auto`, with a warning), or one
that its type names below. The answers are the same with each. `type: ./NAME.py` is
[an NF of your own](../write-an-nf.md), with fields of its own."""

TYPES_INTRO = """\
`NAME: RULE` or `NAME: [RULE, ...]`, in order: the first rule that matches a packet gives it its
type. What none matches, and what is not IP, has the type `other`. All fields of a rule must hold;
one that is left out is any; one with a list holds if one of its values does. A fragment matches no
rule that asks for ports."""


def top_table(file: type[BaseModel]) -> list[str]:
    """The sections."""
    texts = described(file)
    lines = ["| Section | | |", "| --- | --- | --- |"]
    for name, field in file.model_fields.items():
        need = "**required**" if field.is_required() else ""
        shown = f"[`{name}`](#{name})" if name != "policy" else "[`policy`](../route-policy.md)"
        lines.append(f"| {shown} | {need} | {texts.get(name, '')} |")
    return [*lines, ""]


def module_says(driver: ports.Port) -> str:
    """The first sentence of a driver's module, without its name."""
    text = inspect.getdoc(inspect.getmodule(driver.attach)) or ""
    first = " ".join(text.split("\n\n")[0].split()).partition(": ")[2].replace("``", "`")
    return first[:1].upper() + first[1:]


def engines_of(nf: nfs.Nf) -> str:
    """What an NF has besides the usual engines."""
    if nf.peer:
        return "It has an engine of its own: leave `engine` out."
    return (
        f"Engines of its own: {either([f'`{name}`' for name in nf.engines])}." if nf.engines else ""
    )


# --- Commands -------------------------------------------------------------------------------------


@contextmanager
def eighty_columns() -> Iterator[None]:
    """argparse asks the terminal."""
    with mock.patch.dict(os.environ, {"COLUMNS": "80", "NO_COLOR": "1"}):
        yield


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each subcommand: its name with those before it, and its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield inner.prog.removeprefix("hummingbird "), inner
                yield from commands(inner)


def commands_page() -> str:
    """The help of each command."""
    lines = ["# The command line", "", "What `hummingbird COMMAND --help` says."]
    with eighty_columns():
        for name, parser in [("hummingbird", top := cli.parser()), *commands(top)]:
            lines += ["", f"## {name}", "", "```text", parser.format_help().rstrip(), "```"]
    return "\n".join([*lines, ""])


# --- Drop reasons ---------------------------------------------------------------------------------


def drop_reasons() -> list[tuple[str, str]]:
    """Name and meaning of each; the first of the list is none."""
    return [(name, text) for name, text in reasons() if name != "none"]


def drops_table() -> str:
    """Each with a link to its section of the page."""
    lines = ["| Reason | A packet is dropped when |", "| --- | --- |"]
    lines += [f"| [`{name}`](#{name}) | {text} |" for name, text in drop_reasons()]
    return "\n".join(lines)
