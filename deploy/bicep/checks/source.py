"""Parses Bicep files into plain values. Two parsers must accept a file: pycep and tree-sitter's grammar.

Values come from tree-sitter, because it distinguishes names from strings. Bicep's own compiler checks more than both parsers.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re

import pycep
import tree_sitter
import tree_sitter_bicep

GRAMMAR = tree_sitter.Parser(tree_sitter.Language(tree_sitter_bicep.language()))


class Expression(str):
    """The source text of an expression whose value is known only during a deployment."""


@dataclasses.dataclass
class Loop:
    """A list that a `for` expression creates."""

    body: object


@dataclasses.dataclass
class Declaration:
    """A parameter, variable, resource, module or output."""

    kind: str
    name: str
    line: int
    decorators: dict
    #: Type of a parameter or output; type and version of a resource; path of a module.
    type: str
    value: object
    existing: bool
    node: tree_sitter.Node


@dataclasses.dataclass
class File:
    path: pathlib.Path
    text: str
    declarations: list
    problems: list

    def all(self, kind: str) -> dict:
        return {one.name: one for one in self.declarations if one.kind == kind}


def text_of(node: tree_sitter.Node) -> str:
    return node.text.decode()


def children(node: tree_sitter.Node) -> list:
    return [child for child in node.named_children if child.type != "comment"]


def value(node: tree_sitter.Node):
    kind = node.type
    if kind == "string" and all(child.type == "string_content" for child in children(node)):
        return text_of(node)[1:-1].replace("\\'", "'").replace("\\\\", "\\")
    if kind == "number" or (kind == "unary_expression" and re.fullmatch(r"-\d+", text_of(node))):
        return int(text_of(node))
    if kind == "boolean":
        return text_of(node) == "true"
    if kind == "null":
        return None
    if kind == "array":
        return [value(child) for child in children(node)]
    if kind == "object":
        found = {}
        for pair in children(node):
            key, item = children(pair)
            name = value(key) if key.type == "string" else text_of(key)
            found[str(name)] = value(item)
        return found
    if kind == "for_statement":
        return Loop(value(node.child_by_field_name("body")))
    if kind == "if_statement":
        return value(children(node)[-1])
    return Expression(text_of(node))


def broken(node: tree_sitter.Node) -> list:
    if node.type == "ERROR" or node.is_missing:
        return [node]
    return [found for child in node.children for found in broken(child)]


def decorators_of(node: tree_sitter.Node | None) -> dict:
    found = {}
    for decorator in children(node) if node else []:
        call = children(decorator)[0]
        arguments = [value(argument) for argument in children(call.child_by_field_name("arguments"))]
        found[text_of(call.child_by_field_name("function"))] = arguments[0] if arguments else None
    return found


KINDS = {
    "parameter_declaration": "param",
    "variable_declaration": "var",
    "resource_declaration": "resource",
    "module_declaration": "module",
    "output_declaration": "output",
}


def read(path: pathlib.Path) -> File:
    text = path.read_text()
    problems = []
    try:
        pycep.BicepParser().parse(text=text)
    except Exception as error:  # pycep's errors have no common base class.
        problems.append(f"{path}: pycep: {str(error).splitlines()[0]}")
    root = GRAMMAR.parse(text.encode()).root_node
    for node in broken(root):
        line = node.start_point[0] + 1
        problems.append(f"{path}:{line}: tree-sitter: syntax error: {text_of(node)[:60]!r}")
    declarations = []
    decorators = None
    for node in children(root):
        if node.type == "decorators":
            decorators = node
            continue
        kind = KINDS.get(node.type)
        if kind:
            parts = children(node)
            middle = parts[1:-1]
            if kind == "param" and len(parts) == 2:
                middle, default = parts[1:], None
            else:
                default = parts[-1]
            declarations.append(
                Declaration(
                    kind=kind,
                    name=text_of(parts[0]),
                    line=node.start_point[0] + 1,
                    decorators=decorators_of(decorators),
                    type=text_of(middle[0]).strip("'") if middle else "",
                    value=None if default is None else value(default),
                    existing=bool(re.match(r"resource \w+ '[^']+' existing\b", text_of(node))),
                    node=node,
                )
            )
            declarations[-1].has_value = default is not None
        decorators = None
    return File(path, text, declarations, problems)
