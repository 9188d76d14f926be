"""Resolving names in a config to objects: tables, plugins and checked fields.

A config section such as ``{'name': 'sgd', 'momentum': 0.9}`` describes a call.
``name`` is a key of a table, or ``package.module:attribute``, which is imported.
Every other key is a keyword argument. The signature of the callable is the schema: a
misspelt key or a value of the wrong type is refused before anything compiles, and the
error lists the choices.
"""

import ast
import dataclasses
import difflib
import functools
import importlib
import inspect
import sys
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class ConfigError(ValueError):
    """A config (or command line) that cannot be run; the message is one line."""


def choices(kind: str, value: Any, allowed: Sequence[Any]) -> ConfigError:
    """The error for a ``value`` that is not among ``allowed``.

    Args:
      kind: the kind of value, for the message ('model', 'key').
      value: the value found.
      allowed: the accepted values.

    Returns:
      A `ConfigError` that names the value, the choices and the closest choice.
    """
    names = [str(option) for option in allowed]
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    listed = ", ".join(names) if names else "none"
    return ConfigError(f"unknown {kind} {value!r}{hint}; choices: {listed}")


def few(found: Sequence[str], most: int = 5) -> str:
    """The first few of many names, and the number of the rest."""
    shown = ", ".join(found[:most])
    return shown if len(found) <= most else f"{shown} and {len(found) - most} more"


def resolve(kind: str, name: Any, table: Mapping[str, Any], called: bool = True) -> Any:
    """The object that ``name`` refers to.

    Args:
      kind: the kind of object, for the message ('model', 'optimizer').
      name: a key of ``table``, or ``package.module:attribute``.
      table: the built-in names.
      called: whether it is a function or class, to be called with fields.

    Returns:
      The object.

    Raises:
      ConfigError: the name is neither in the table nor an importable attribute.
    """
    if not isinstance(name, str):
        raise ConfigError(f"{kind} must be a name (str), got {name!r}")
    if ":" not in name:
        if name not in table:
            raise choices(kind, name, [*table, "package.module:attribute"])
        return table[name]
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{kind} {name!r}: cannot import module {module_name!r}: {error}"
        ) from error
    except (Exception, SystemExit) as error:  # raised by the module or by its name
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(
            f"{kind} {name!r}: importing {module_name!r} fails{_where(error)}: {words}"
        ) from error
    try:
        found = functools.reduce(getattr, attribute.split("."), module)
    except AttributeError:
        public = [key for key in vars(module) if not key.startswith("_")]
        raise choices(f"attribute of {module_name!r}", attribute, public) from None
    if called and not callable(found):
        raise ConfigError(
            f"{kind} {name!r} must be a function or class, got {type(found).__name__}"
        )
    return found


def _where(error: BaseException) -> str:
    """The file and line that raised, outside Python's import system."""
    calls = traceback.extract_tb(error.__traceback__)[1:]
    frames = [frame for frame in calls if "importlib" not in frame.filename]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword arguments that ``target`` accepts, by name.

    Linen's ``parent`` and ``name`` are left out. Arguments preset by a
    `functools.partial` are included, with the preset value as default.
    """
    try:
        found = inspect.signature(target).parameters
    except (TypeError, ValueError):  # not callable, or written in C
        raise ConfigError(
            f"expected a function or class written in Python, got {target!r:.60}, "
            "which has no signature"
        ) from None
    return {
        name: parameter
        for name, parameter in found.items()
        if name not in ("parent", "name", "self")
        and parameter.kind
        in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    }


def parse_fields(words: Sequence[str]) -> dict[str, Any]:
    """Parse ``['depth=56', 'shortcut=B']`` to ``{'depth': 56, 'shortcut': 'B'}``.

    Args:
      words: arguments of a command line.

    Returns:
      Values parsed as Python literals, or else kept as strings.

    Raises:
      ConfigError: a word does not have the form KEY=VALUE.
    """
    fields = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not key or not equals:
            raise ConfigError(f"expected KEY=VALUE, got {word!r}")
        try:
            fields[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            fields[key] = text
    return fields


def has_type(value: Any, annotation: Any) -> bool:
    """Whether ``value`` has the plain type that ``annotation`` names.

    Checks bool, int, float, str, literals, tuples, sections and unions of these. Any
    other annotation (a module) accepts everything. An int is a float, if it is not
    larger than any float; a bool is not an int.
    """
    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        return any(has_type(value, option) for option in typing.get_args(annotation))
    if origin is typing.Literal:
        options = typing.get_args(annotation)  # 1 == 1.0 == True
        return any(type(value) is type(it) and value == it for it in options)
    if origin is tuple or annotation is tuple or origin is Sequence:
        inner = typing.get_args(annotation)
        if not isinstance(value, tuple | list):
            return False
        if origin is Sequence or inner[1:] == (...,):
            inner = inner[:1] * len(value)
        return not inner or (
            len(value) == len(inner) and all(map(has_type, value, inner))
        )
    if origin is Mapping:
        return isinstance(value, Mapping)
    if origin is Callable:
        return callable(value)
    if annotation is float:
        small = isinstance(value, int) and abs(value) <= sys.float_info.max
        return isinstance(value, float) or (small and not isinstance(value, bool))
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (bool, str):
        return isinstance(value, annotation)
    if annotation is type(None):
        return value is None
    return True


def as_type(value: Any, annotation: Any) -> Any:
    """A value that has a type, with floats in place of ints where it names floats."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return as_type(value, next(kind for kind in inner if has_type(value, kind)))
    if origin in (tuple, Sequence) and inner:
        if origin is Sequence or inner[1:] == (...,):
            inner = inner[:1] * len(value)
        return type(value)(map(as_type, value, inner))
    return float(value) if annotation is float else value


def describe(annotation: Any) -> str:
    """Describe an annotation for an error message."""
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(annotation)))
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return " or ".join(map(describe, typing.get_args(annotation)))
    if typing.get_origin(annotation) is Sequence:
        inner = ", ".join(map(describe, typing.get_args(annotation)))
        return f"a sequence of {inner}"
    if typing.get_origin(annotation) is Mapping:
        return "a section"
    if typing.get_origin(annotation) is Callable:
        return "a function or class, which only a config file can set"
    if typing.get_origin(annotation) is tuple:
        return str(annotation)
    return getattr(annotation, "__name__", str(annotation))


def check_fields(
    kind: str,
    target: Callable[..., Any],
    fields: Mapping[str, Any],
    given: Sequence[str] = (),
) -> dict[str, Any]:
    """Refuse fields that ``target`` does not accept or that have the wrong type.

    Args:
      kind: the owner of the fields, for the message ("model 'alexnet'").
      target: the callable.
      fields: keyword arguments from a config.
      given: arguments that the program supplies, which a config must not set.

    Returns:
      The fields, with floats in place of ints where the target expects floats.

    Raises:
      ConfigError: unknown field, wrong type, or missing required field.
    """
    accepted = {
        name: parameter
        for name, parameter in parameters(target).items()
        if name not in given
    }
    hints = annotations(target)
    typed = dict(fields)
    for name, value in fields.items():
        if name not in accepted:
            raise choices(f"field of {kind}", name, sorted(accepted))
        annotation = hints.get(name, accepted[name].annotation)
        if annotation is inspect.Parameter.empty:
            continue
        if not has_type(value, annotation):
            raise ConfigError(
                f"{kind}: {name} must be {describe(annotation)}, "
                f"got {value!r} ({type(value).__name__})"
            )
        typed[name] = as_type(value, annotation)
    for name, parameter in accepted.items():
        if parameter.default is inspect.Parameter.empty and name not in fields:
            raise ConfigError(f"{kind} needs the field {name!r}")
    return typed


def build(
    kind: str,
    section: Mapping[str, Any],
    table: Mapping[str, Callable[..., Any]],
    **supplied: Any,
) -> Any:
    """Make the call that a config section describes.

    Args:
      kind: the kind of section, for messages ('optimizer').
      section: ``name`` and keyword arguments.
      table: the built-in names.
      **supplied: arguments that the program adds; those that the target does
        not accept are dropped.

    Returns:
      The result of the call.

    Raises:
      ConfigError: unknown name, unknown field, wrong type, missing field.
    """
    if "name" not in section:
        raise ConfigError(f"{kind} needs a 'name'; choices: {', '.join(table)}")
    name = section["name"]
    target = resolve(kind, name, table)
    fields = {key: value for key, value in section.items() if key != "name"}
    fields = check_fields(f"{kind} {name!r}", target, fields, given=tuple(supplied))
    accepted = parameters(target)
    extra = {key: value for key, value in supplied.items() if key in accepted}
    return target(**fields, **extra)


def configure(
    kind: str,
    section: str | Mapping[str, Any],
    table: Mapping[str, Callable[..., Any]],
    given: Sequence[str] = (),
) -> Callable[..., Any]:
    """Bind the fields of a config section to its target, for later calls.

    Args:
      kind: the kind of section, for messages ('norm').
      section: a name, or ``name`` and keyword arguments.
      table: the built-in names.
      given: arguments that the caller supplies, which a config must not set.

    Returns:
      The target, or a `functools.partial` of it if there are fields.

    Raises:
      ConfigError: unknown name, unknown field, wrong type, missing field.
    """
    section = {"name": section} if isinstance(section, str) else section
    if "name" not in section:
        raise ConfigError(f"{kind} needs a 'name'; choices: {', '.join(table)}")
    target = resolve(kind, section["name"], table)
    fields = {key: value for key, value in section.items() if key != "name"}
    fields = check_fields(f"{kind} {section['name']!r}", target, fields, given)
    return functools.partial(target, **fields) if fields else target


def annotations(target: Callable[..., Any]) -> dict[str, Any]:
    """Resolved annotations of a class's fields or a function's arguments.

    Empty if an annotation cannot be resolved.
    """
    while isinstance(target, functools.partial):
        target = target.func
    subject = target
    if inspect.isclass(target) and not dataclasses.is_dataclass(target):
        subject = target.__init__
    try:
        return typing.get_type_hints(subject)
    except (NameError, TypeError):
        return {}
