"""Finds basic errors that Bicep's compiler would report: unknown names, missing parameters, unknown outputs."""

from __future__ import annotations

import pathlib
import re

from . import source

FUNCTIONS = set(
    "array bool concat contains empty first guid int items join json last length loadJsonContent loadTextContent max min range "
    "replace resourceGroup resourceId split startsWith string subscription subscriptionResourceId substring take toLower toUpper "
    "trim union uniqueString".split()
)

TYPES = {"string": str, "int": int, "bool": bool, "array": list, "object": dict}


def names_in(node, bound=frozenset()):
    """Yields the names that an expression uses, and the functions that it calls."""
    kind = node.type
    if kind == "identifier":
        if source.text_of(node) not in bound:
            yield ("name", source.text_of(node), node)
        return
    if kind == "object_property":
        key, item = source.children(node)
        if key.type == "string":
            yield from names_in(key, bound)
        yield from names_in(item, bound)
        return
    if kind == "call_expression":
        function = node.child_by_field_name("function")
        if function.type == "identifier":
            yield ("function", source.text_of(function), node)
        else:
            yield from names_in(function, bound)
        yield from names_in(node.child_by_field_name("arguments"), bound)
        return
    if kind == "for_statement":
        # Between `for` and `in` are the name of an item and, optionally, the name of its index.
        before = source.text_of(node).split(" in ", 1)[0]
        inner = bound | set(re.findall(r"\w+", before))
        for child in source.children(node):
            if child.type not in ("for_loop_parameters", "loop_variable", "loop_enumerator"):
                yield from names_in(child, inner)
        return
    for child in source.children(node):
        yield from names_in(child, bound)


def uses(declaration):
    """The names in the expression after the equals sign, or in a parameter's default."""
    parts = source.children(declaration.node)
    if declaration.kind == "param" and not declaration.has_value:
        return []
    return list(names_in(parts[-1]))


def check(files: dict) -> list:
    problems = []
    for path, file in files.items():
        declared = {one.name: one for one in file.declarations if one.kind != "output"}
        used = set()
        for one in file.declarations:
            where = f"{path}:{one.line}"
            if one.kind in ("param", "output"):
                if not (one.decorators.get("description") or "").strip():
                    problems.append(f"{where}: {one.kind} {one.name} has no description")
                if one.type not in TYPES:
                    problems.append(f"{where}: {one.kind} {one.name} has the unknown type {one.type}")
            for kind, name, node in uses(one):
                at = f"{path}:{node.start_point[0] + 1}"
                if kind == "function":
                    if name not in FUNCTIONS:
                        problems.append(f"{at}: FUNCTIONS of checks/compile.py has no {name}")
                elif name in declared:
                    used.add(name)
                else:
                    problems.append(f"{at}: {name} is not declared")
            if one.kind == "param" and one.has_value:
                problems += unfit(where, one, one.value)
        for one in file.declarations:
            if one.kind in ("param", "var") and one.name not in used:
                problems.append(f"{path}:{one.line}: {one.kind} {one.name} is not used")
        for module in file.all("module").values():
            problems += called(files, file, module)
        for module, output in re.findall(r"\b(\w+)\.outputs\.(\w+)", file.text):
            target = target_of(files, file, file.all("module").get(module))
            if target and output not in target.all("output"):
                problems.append(f"{path}: {target.path} has no output {output}")
        for loaded in re.findall(r"load(?:Json|Text)Content\('([^']+)'\)", file.text):
            if not (path.parent / loaded).is_file():
                problems.append(f"{path}: the file {loaded} does not exist")
    return problems


def target_of(files, file, module):
    return module and files.get((file.path.parent / module.type).resolve())


def called(files, file, module) -> list:
    where = f"{file.path}:{module.line}"
    target = target_of(files, file, module)
    if not target:
        return [f"{where}: the file {module.type} does not exist"]
    problems = []
    given = module.value.get("params", {})
    wanted = target.all("param")
    for name, value in given.items():
        if name not in wanted:
            problems.append(f"{where}: {module.type} has no parameter {name}")
        else:
            problems += unfit(where, wanted[name], value)
    for name, parameter in wanted.items():
        if name not in given and not parameter.has_value:
            problems.append(f"{where}: {module.type} needs the parameter {name}")
    # If both declare a parameter, the limits must be equal. Otherwise a value could pass the first and fail the second.
    ours = file.all("param")
    for name, value in given.items():
        if isinstance(value, source.Expression) and value in ours and name in wanted:
            for limit in ("allowed", "minValue", "maxValue"):
                mine, theirs = ours[value].decorators.get(limit), wanted[name].decorators.get(limit)
                if mine != theirs:
                    problems.append(f"{where}: {limit} of {value} is {mine}, and {theirs} in {module.type}")
    return problems


def unfit(where, parameter, value) -> list:
    """Findings if a literal is not a valid value of a parameter."""
    if isinstance(value, (source.Expression, source.Loop)):
        return []
    wanted = TYPES.get(parameter.type)
    if wanted and (not isinstance(value, wanted) or (wanted is int and isinstance(value, bool))):
        return [f"{where}: {parameter.name} = {value!r} is not of type {parameter.type}"]
    limits = parameter.decorators
    if "allowed" in limits and value not in limits["allowed"]:
        return [f"{where}: {parameter.name} = {value!r} is not one of {limits['allowed']}"]
    size = value if isinstance(value, int) else len(value)
    lowest = limits.get("minValue", limits.get("minLength"))
    highest = limits.get("maxValue", limits.get("maxLength"))
    if (lowest is not None and size < lowest) or (highest is not None and size > highest):
        return [f"{where}: {parameter.name} = {value!r} is not between {lowest} and {highest}"]
    return []


def check_parameters(path: pathlib.Path, files: dict) -> list:
    """Checks a .bicepparam file. The parsers do not support these, so it is converted to a Bicep file with variables first."""
    text = path.read_text()
    using = re.search(r"^using '([^']+)'$", text, re.MULTILINE)
    target = using and files.get((path.parent / using[1]).resolve())
    if not target:
        return [f"{path}: the file of `using` does not exist"]
    as_variables = re.sub(r"^param ", "var ", text.replace(using[0], ""), flags=re.MULTILINE)
    root = source.GRAMMAR.parse(as_variables.encode()).root_node
    problems = [f"{path}:{node.start_point[0] + 1}: syntax error" for node in source.broken(root)]
    given = {}
    for node in source.children(root):
        if node.type != "variable_declaration":
            problems.append(f"{path}:{node.start_point[0] + 1}: {node.type} is not allowed in a parameter file")
            continue
        name, value = source.children(node)
        given[source.text_of(name)] = source.value(value)
    wanted = target.all("param")
    for name, value in given.items():
        if name not in wanted:
            problems.append(f"{path}: {target.path.name} has no parameter {name}")
        else:
            problems += unfit(str(path), wanted[name], value)
    problems += [
        f"{path}: {name} has neither a default nor a value in this file"
        for name, parameter in wanted.items()
        if name not in given and not parameter.has_value
    ]
    return problems
