"""What a class can be told, read from its source: importing torch and Lightning for that takes seconds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from docstring_parser import DocstringStyle, parse

_DEEPEST = 8  # imports from file to file, and base classes


@dataclass(frozen=True)
class Argument:
    """One argument.

    Attributes:
        type: As the source has it; empty where it says nothing.
        default: As the source has it; None where there is none.
        help: What the docstring says.
    """

    type: str = ""
    default: str | None = None
    help: str = ""


@dataclass(frozen=True)
class Signature:
    """What a class or a method can be told.

    Attributes:
        arguments: By name.
        summary: The first sentence of its docstring.
        complete: Whether that is all; not with `**kwargs`, which go where the source does not say.
    """

    arguments: dict[str, Argument] = field(default_factory=dict)
    summary: str = ""
    complete: bool = True


@cache
def of(path: str, method: str = "__init__") -> Signature | None:
    """The signature of a class, or of one of its methods; None where the source does not show it.

    Args:
        path: Import path of the class.
        method: Whose arguments are wanted.
    """
    module, _, name = path.rpartition(".")
    found = _find(module, name) if module else None
    return _signature(*found, method) if found else None


def _signature(module: str, node: ast.ClassDef, method: str, depth: int = _DEEPEST) -> Signature | None:
    told = _documented(node)
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == method:
            told |= _documented(each)
            own = dict(_arguments(each.args, told))
            if method != "__init__":
                return Signature(own, _summary(each))
            more = _more(module, node, each, depth)
            return Signature({**more.arguments, **own}, _summary(node), more.complete and each.args.vararg is None)
    if method == "__init__" and any("dataclass" in ast.unparse(each) for each in node.decorator_list):
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
        arguments = {
            each.target.id: _argument(each.target.id, each.annotation, each.value, told)  # type: ignore[union-attr]
            for each in fields
        }
        return Signature(arguments, _summary(node), not node.bases)
    inherited = _parent(module, node, depth, method)
    if inherited is None or method != "__init__":
        return inherited
    return Signature(inherited.arguments, _summary(node) or inherited.summary, inherited.complete)


def _parent(module: str, node: ast.ClassDef, depth: int, method: str = "__init__") -> Signature | None:
    found = _find(*_imported(module, node.bases[0])) if node.bases and depth else None
    return _signature(*found, method, depth - 1) if found else None


def _more(module: str, node: ast.ClassDef, init: ast.FunctionDef, depth: int) -> Signature:
    """What `**kwargs` may be: the arguments of the one class that they are passed on to."""
    if init.args.kwarg is None:
        return Signature()
    calls = [
        (ast.unparse(each.func), {keyword.arg for keyword in each.keywords})
        for each in ast.walk(init)
        if isinstance(each, ast.Call)
        and any(keyword.arg is None and ast.unparse(keyword.value) == init.args.kwarg.arg for keyword in each.keywords)
    ]
    if len(calls) != 1:
        return Signature(complete=False)
    (function, given), receiver = calls[0], None
    if function == "super().__init__":
        receiver = _parent(module, node, depth)
    else:
        found = _find(*_imported(module, ast.Name(function)))
        receiver = _signature(*found, "__init__", depth - 1) if found else None
    if receiver is None:
        return Signature(complete=False)
    more = {name: each for name, each in receiver.arguments.items() if name not in given}
    return Signature(more, complete=receiver.complete)


def _arguments(args: ast.arguments, told: dict[str, str]) -> Iterator[tuple[str, Argument]]:
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    for each, default in zip([*positional, *args.kwonlyargs], [*defaults, *args.kw_defaults], strict=True):
        if each.arg != "self":
            yield each.arg, _argument(each.arg, each.annotation, default, told)


def _argument(name: str, annotation: ast.expr | None, default: ast.expr | None, told: dict[str, str]) -> Argument:
    kind = "" if annotation is None else ast.unparse(annotation)
    return Argument(kind, None if default is None else ast.unparse(default), told.get(name, ""))


def _documented(node: ast.ClassDef | ast.FunctionDef) -> dict[str, str]:
    docstring = parse(ast.get_docstring(node) or "", style=DocstringStyle.GOOGLE)
    return {each.arg_name: each.description or "" for each in docstring.params}


def _summary(node: ast.ClassDef | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")


def _find(module: str, name: str, depth: int = _DEEPEST) -> tuple[str, ast.ClassDef] | None:
    """The module that defines a class, and its definition, wherever it is imported from."""
    content = _source(module)
    if content is None or not depth:
        return None
    for node in ast.walk(content):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
    home = _imported(module, ast.Name(name))
    return _find(*home, depth - 1) if home[0] else None


def _imported(module: str, expression: ast.expr) -> tuple[str, str]:
    """Where a name, or `module.Name`, comes from: module and name; without a module where it is not known."""
    source = _source(module)
    written = ast.unparse(expression)
    first, _, rest = written.partition(".")
    for node in ast.walk(source) if source else ():
        if isinstance(node, ast.ClassDef) and node.name == written:
            return module, written
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for alias in node.names:
            if (alias.asname or alias.name) != first:
                continue
            if isinstance(node, ast.Import):
                return (alias.name, rest)
            if not rest and not node.level:
                return node.module or "", alias.name
    return "", ""


@cache
def _source(module: str) -> ast.Module | None:
    """A module's source, found without importing the packages that it is in."""
    first, *rest = module.split(".")
    spec = find_spec(first)
    for name in rest:
        places = spec.submodule_search_locations if spec else None
        spec = PathFinder.find_spec(name, list(places)) if places else None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return ast.parse(Path(spec.origin).read_bytes())
