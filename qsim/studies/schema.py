"""The form of `result.json` as a JSON Schema, made of the dataclasses that it is read into and their docstrings."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import textwrap
import types
import typing
from typing import Any, Literal

from qsim.studies.result import SCHEMA, Result
from qsim.verdicts import Outcome

__all__ = ["schema"]


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of `result.json`."""
    named: dict[str, Any] = {}
    top = _of(Result, named)
    body = named.pop(Result.__name__)
    body["properties"]["schema"] = {"const": SCHEMA, "description": body["properties"]["schema"]["description"]}
    assert top == {"$ref": "#/$defs/Result"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"result.json of a qsim study, form {SCHEMA}",
        **body,
        "$defs": named,
    }


def _of(kind: Any, named: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a type; those of dataclasses go to `named`."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Outcome:
        return {"enum": [str(outcome) for outcome in Outcome]}
    if dataclasses.is_dataclass(kind):
        name = getattr(kind, "__name__", "")
        if name not in named:
            named[name] = {}  # a place of its own before what it holds
            named[name] = _object(kind, named)
        return {"$ref": f"#/$defs/{name}"}
    if origin is tuple:
        if args[-1] is Ellipsis:
            return {"type": "array", "items": _of(args[0], named)}
        return {
            "type": "array",
            "prefixItems": [_of(arg, named) for arg in args],
            "items": False,
            "minItems": len(args),
        }
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of(arg, named) for arg in args]}
    if origin is dict:
        return {"type": "object"}
    plain = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    return {"type": plain[kind]}


def _object(kind: Any, named: dict[str, Any]) -> dict[str, Any]:
    hints, words = typing.get_type_hints(kind), _docstrings(kind)
    properties = {}
    for field in dataclasses.fields(kind):
        found = _of(hints[field.name], named)
        properties[field.name] = found | ({"description": words[field.name]} if field.name in words else {})
    return {
        "description": inspect.getdoc(kind),
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@functools.cache
def _docstrings(kind: Any) -> dict[str, str]:
    """Return the texts that stand below the fields of a class."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found
