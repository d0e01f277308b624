"""Reads a package's source with `ast` (nothing is imported) and answers what tests/test_architecture.py asks of it."""

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LAYOUT_TOKENS = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One imported module. `target`: what is loaded; `lazy`: inside a function; `typing`: for the type checker only."""

    target: str
    line: int
    lazy: bool
    typing: bool


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, its path below the package, its text and its tree."""

    name: str
    path: Path
    text: str
    is_package: bool

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed source."""
        return ast.parse(self.text, filename=str(self.path))

    @property
    def room(self) -> str:
        """First folder below the package root; a single file there is a room of its own, and the root itself is ''."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else ""

    @property
    def package(self) -> str:
        """What a relative import with one dot starts from."""
        return self.name if self.is_package else self.name.rpartition(".")[0]

    @property
    def is_public(self) -> bool:
        """True if no part of the dotted name starts with an underscore."""
        return not any(part.startswith("_") for part in self.name.split("."))

    @cached_property
    def code_lines(self) -> frozenset[int]:
        """Numbers of the lines that hold code: no blank line, no comment, no docstring."""
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in LAYOUT_TOKENS:
                lines.update(range(token.start[0], token.end[0] + 1))
        for node in ast.walk(self.tree):
            if (
                isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module))
                and ast.get_docstring(node, clean=False) is not None
            ):
                lines.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
        return frozenset(lines)

    def functions(self) -> Iterator[tuple[str, int, int]]:
        """(name, first line, code lines of the body) of every function and method, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, FUNCTIONS):
                body = range(node.body[0].lineno, (node.end_lineno or 0) + 1)
                yield node.name, node.lineno, len(self.code_lines.intersection(body))

    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        """(dotted name as written, node) of every call whose function is a name or an attribute."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield dotted(node.func), node

    def where(self, line: int) -> str:
        """`path:line`, as an editor understands it."""
        return f"{self.path}:{line}"


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute chain; what cannot be named becomes `?`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "?"


def read_package(folder: Path) -> dict[str, Module]:
    """All modules of the package in `folder`, by dotted name."""
    modules = {}
    for path in sorted(folder.rglob("*.py")):
        parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = Module(name, path.relative_to(folder.parent), path.read_text(encoding="utf-8"), is_package)
    return modules


def imports(module: Module, known: Iterable[str]) -> list[Import]:
    """Every import of `module`. `from a import b` loads `a.b` if that is a module in `known`, else `a`."""
    known = set(known)
    found: list[Import] = []

    def visit(node: ast.AST, lazy: bool, typing: bool) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.extend(Import(target, node.lineno, lazy, typing) for target in targets(node, module, known))
        lazy = lazy or isinstance(node, (*FUNCTIONS, ast.Lambda))
        if isinstance(node, ast.If) and dotted(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                visit(child, lazy, True)
            for child in node.orelse:
                visit(child, lazy, typing)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, lazy, typing)

    visit(module.tree, False, False)
    return found


def targets(node: ast.Import | ast.ImportFrom, module: Module, known: set[str]) -> list[str]:
    """The dotted names of the modules that one import statement loads."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        start = module.package.split(".")
        start = start[: len(start) - node.level + 1]
        base = ".".join([*start, base] if base else start)
    return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of two or more nodes that reach each other (strongly connected components, Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def connect(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(edges.get(node, ())):
            if target not in index:
                connect(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                groups.append(sorted(group))

    for node in sorted(edges):
        if node not in index:
            connect(node)
    return groups


def heavy_modules(modules: dict[str, Module], libraries: frozenset[str]) -> dict[str, str]:
    """Modules whose import loads one of `libraries` at once, directly or through others; values: the next step there.

    Importing `a.b.c` also runs the `__init__` of `a` and of `a.b`: those count.
    """
    loads = {}
    for module in modules.values():
        direct = {found.target for found in imports(module, modules) if not (found.lazy or found.typing)}
        loads[module.name] = {parent for target in direct | {module.name} for parent in lineage(target)} - {module.name}
    heavy = {
        name: min(hits) for name, found in loads.items() if (hits := {t for t in found if t.split(".")[0] in libraries})
    }
    while True:
        more = {
            name: min(hits) for name, found in loads.items() if name not in heavy and (hits := found & heavy.keys())
        }
        if not more:
            return heavy
        heavy |= more


def lineage(name: str) -> list[str]:
    """`a.b.c` -> `a`, `a.b`, `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def undocumented(module: Module) -> Iterator[tuple[str, int]]:
    """Public functions, classes and methods of `module` without a docstring.

    A method of a class with bases may inherit its contract, and with it the docstring; so may an overload.
    """
    for node in module.tree.body:
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None and not is_overload(node):
            yield node.name, node.lineno
        if isinstance(node, ast.ClassDef) and not node.bases:
            for method in node.body:
                if not isinstance(method, FUNCTIONS) or method.name.startswith("_") or is_overload(method):
                    continue
                if ast.get_docstring(method) is None:
                    yield f"{node.name}.{method.name}", method.lineno


def is_overload(node: ast.stmt) -> bool:
    """True for `@overload` signatures, whose implementation carries the docstring."""
    return any(dotted(decorator).endswith("overload") for decorator in getattr(node, "decorator_list", ()))
