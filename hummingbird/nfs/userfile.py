# SPDX-License-Identifier: BSD-3-Clause
"""Runs Python files that users write. Whatever goes wrong in one is a UserError with its line."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import ParamSpec, TypeVar

from hummingbird.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")

LONGEST = 300
"""Characters of an exception's text that are shown."""


def load(path: Path) -> ModuleType:
    """The module in a file, run anew. At its top it may import others from its folder: each user's
    file gets its own, and none stands in the way of an installed module of the same name.

    Raises:
        UserError: it cannot be read, or something in it fails.
    """
    spec = spec_from_file_location(f"hummingbird_user.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError("no Python file", path=path, fix="name a file that ends in .py")
    module = module_from_spec(spec)
    before = set(sys.modules)
    sys.path.append(str(path.parent))
    try:
        guarded(spec.loader.exec_module, path)(module)
    finally:
        sys.path.remove(str(path.parent))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent == path.parent:
                del sys.modules[name]
    return module


def guarded(function: Callable[P, T], path: Path) -> Callable[P, T]:
    """``function``, whose exceptions become UserErrors about the user's file ``path``."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise error_in(path, error) from None

    return call


def error_in(path: Path, error: BaseException) -> UserError:
    """An exception as one line, at the last line of the user's file that it went through."""
    if isinstance(error, OSError) and error.filename == str(path):
        what = f"cannot be read: {error.strerror}"
        return UserError(what, path=path, fix="name a file that can be read")
    if isinstance(error, SyntaxError) and error.filename:
        what = f"this is not Python: {error.msg}"
        return UserError(what, path=error.filename, line=error.lineno, fix="correct this line")
    frames = traceback.extract_tb(error.__traceback__)
    line = next((f.lineno for f in reversed(frames) if f.filename == str(path)), None)
    text = " ".join(str(error).split())[:LONGEST]
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return UserError(what, path=path, line=line, fix="correct this line" if line else None)
