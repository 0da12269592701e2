"""The structure of a call, by tree-sitter's Go grammar: one expression, of known kinds of nodes, whose names
are all permitted.

What a name means depends on where it stands:

- A name that a function literal declares, where it is visible. It begins with no upper-case letter, so that
  none hides a name of the package.
- An exported name belongs to the package that is called, unless it is a field or a method. The main program
  imports the package with `import . "path"`, so Go itself distinguishes `Option{A: 1}` (a field) from
  `Palette{Red: 1}` (a constant that is a map's key).
- Predeclared types, constants and functions.
- In front of a dot, the name of a package: the called one's own, one of the standard library, or one of the
  same repository (`imports`).

All others are refused. That a name is permitted here is for the caller, who is told at once; the harness is
safe whatever a name means, see `tokens`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import tree_sitter_go
from tree_sitter import Language, Node, Parser, Point

from skyisland.golang.tokens import REMEDY, Refused, clip, exported, not_exported, words

MAX_DEPTH = 1000
"""Deepest syntax tree. Chains of operators and selectors go deep without brackets. A judgement: 1000 links
take 10 ms to parse."""
_MAX_PARSE_STEPS = 8000
"""Calls of tree-sitter's progress callback, one per about a hundred of its steps. 64 KiB of valid Go need
fewer than 5000; text that needs more is nonsense that the parser tries to repair."""

_GO = Language(tree_sitter_go.language())
_NEW = re.compile(r"\bnew(?=\((?!\[|map\b|chan\b|struct\b|interface\b|func\b))")
_PREFIX = b"package p\nvar _ = "

PREDECLARED = words(
    """any bool byte complex64 complex128 error float32 float64 int int8 int16 int32 int64 rune string
    uint uint8 uint16 uint32 uint64 uintptr true false nil
    append cap clear close complex copy delete imag len make max min new panic real"""
)
NUMBERS = words("int_literal float_literal imaginary_literal rune_literal")
LITERALS = NUMBERS | words("interpreted_string_literal raw_string_literal true false nil")
_SCOPES = words(
    """func_literal function_type block if_statement for_statement expression_switch_statement
    type_switch_statement expression_case default_case type_case"""
)
_NAMES = words("identifier type_identifier iota")
_PERMITTED = (
    LITERALS
    | _SCOPES
    | _NAMES
    | words(
        """argument_list array_type binary_expression call_expression channel_type composite_literal
        field_declaration field_declaration_list field_identifier generic_type
        implicit_length_array_type index_expression interface_type keyed_element literal_element literal_value
        map_type parenthesized_expression parenthesized_type pointer_type selector_expression
        slice_expression slice_type struct_type type_arguments type_assertion_expression
        type_conversion_expression type_elem type_instantiation_expression unary_expression
        variadic_argument escape_sequence interpreted_string_literal_content raw_string_literal_content
        package_identifier qualified_type
        parameter_list parameter_declaration variadic_parameter_declaration
        statement_list expression_list expression_statement short_var_declaration var_declaration var_spec
        assignment_statement inc_statement dec_statement return_statement break_statement continue_statement
        for_clause range_clause send_statement empty_statement"""
    )
)


class Named(NamedTuple):
    """A name of a package in a call."""

    qualifier: str
    """The name of the package in front of it; empty for a name of the called package without one."""
    name: str
    start: int
    """Where it begins, with its qualifier; bytes from the beginning of the text."""


class Structure(NamedTuple):
    source: bytes
    """The call's text."""
    root: Node
    named: list[Named]
    """The names of packages, in the order of the text."""

    def text_of(self, node: Node) -> str:
        return self.source[self.start_of(node) : self.end_of(node)].decode()

    def start_of(self, node: Node) -> int:
        """Where a node begins; bytes from the beginning of the text."""
        return node.start_byte - len(_PREFIX)

    def end_of(self, node: Node) -> int:
        return node.end_byte - len(_PREFIX)


def structure_of(call: str) -> Structure:
    """Parse the text of one expression; check its nodes and names.

    Raises:
        Refused: it is something else; `index` counts bytes.
    """
    root = _root(call)
    walk = _Walk()
    walk.through(root)
    return Structure(call.encode(), root, sorted(walk.named, key=lambda named: named.start))


def _root(call: str) -> Node:
    # Behind `new` this grammar knows types alone, Go since 1.26 any expression, as behind `cap`. If it stands
    # in a literal, no harm is done: nobody reads the texts of literals from the tree.
    readable = _NEW.sub("cap", call)
    file = _parse_go(_PREFIX + readable.encode() + b"\n")
    if file.has_error:
        raise _refused(_first_error(file), "not a Go expression from here on", call)
    declarations = file.named_children[1:]
    values = declarations[0].named_children[0].child_by_field_name("value") if declarations else None
    if len(declarations) != 1 or values is None or values.named_child_count != 1:
        raise Refused(0, "write exactly one call expression")
    return values.named_children[0]


def _refused(node: Node, reason: str, call: str | None = None) -> Refused:
    last = len(call.encode()) - 1 if call else node.start_byte
    return Refused(min(max(node.start_byte - len(_PREFIX), 0), last), reason)


class _Walk:
    """Through a syntax tree, in the order in which Go's scopes open and close.

    A list of what is to be done instead of recursion: a tree may be deeper than Python's stack.
    """

    def __init__(self) -> None:
        self.named: list[Named] = []
        self._visible: Counter[str] = Counter()
        """Names that are declared where the walk is, with how many declarations of each."""
        self._scopes: list[list[str]] = []
        """The names that each open scope declares."""
        self._to_do: list[tuple[str, Node, int]] = []

    def through(self, root: Node) -> None:
        self._to_do.append(("visit", root, 0))
        while self._to_do:
            action, node, depth = self._to_do.pop()
            match action:
                case "visit":
                    self._visit(node, depth)
                case "declare":
                    self._declare(node)
                case "close":
                    self._visible.subtract(self._scopes.pop())

    def _next(self, depth: int, *steps: tuple[str, Iterable[Node]]) -> None:
        """Do these steps before all else that is still to be done."""
        flat = [(action, node, depth) for action, nodes in steps for node in nodes]
        self._to_do.extend(reversed(flat))

    def _visit(self, node: Node, depth: int) -> None:
        if node.type not in _PERMITTED:
            raise _refused(node, f"a {node.type.replace('_', ' ')} cannot be in a call; {REMEDY}")
        if depth > MAX_DEPTH:
            raise _refused(node, f"a chain of more than {MAX_DEPTH} links; {REMEDY}")
        if node.type in _SCOPES:
            self._scopes.append([])
            self._to_do.append(("close", node, depth))
        if not node.named_child_count:
            if node.type in _NAMES:
                self._check(node)
            elif node.type == "field_identifier" and not exported(_text(node)):
                raise _refused(node, not_exported(_text(node)))
            return
        children, depth = node.named_children, depth + 1
        match node.type:
            case "selector_expression" | "qualified_type" if self._is_qualified(node, children):
                pass
            case "short_var_declaration" | "range_clause" if any(one.type == ":=" for one in node.children):
                left, right = children
                self._next(depth, ("visit", [right]), ("declare", left.named_children))
            case "type_switch_statement":
                alias = node.children_by_field_name("alias")
                first = [*node.children_by_field_name("initializer"), *node.children_by_field_name("value")]
                cases = [child for child in children if child not in (*alias, *first)]
                names = [name for names in alias for name in names.named_children]
                self._next(depth, ("visit", first), ("declare", names), ("visit", cases))
            case "var_spec":
                self._next(
                    depth, ("visit", _but_names(node)), ("declare", node.children_by_field_name("name"))
                )
            case "func_literal" | "function_type":
                # Parameters and results are declared in the body alone: no type of theirs sees their names.
                *_, last = children
                body = [last] if node.type == "func_literal" else []
                lists = children[: len(children) - len(body)]
                names = [name for one in lists for name in _parameters(one)]
                self._next(depth, ("visit", lists), ("declare", names), ("visit", body))
            case "parameter_declaration" | "variadic_parameter_declaration":
                self._next(depth, ("visit", _but_names(node)))
            case "assignment_statement" | "range_clause":
                *lefts, right = children
                targets = [target for left in lefts for target in left.named_children if _text(target) != "_"]
                self._next(depth, ("visit", [*targets, right]))
            case "keyed_element":
                key, value = children
                names = key.named_children
                field = len(names) == 1 and names[0].type == "identifier" and exported(_text(names[0]))
                self._next(depth, ("visit", [value] if field else children))
            case _:
                self._next(depth, ("visit", children))

    def _is_qualified(self, node: Node, children: list[Node]) -> bool:
        """Whether this is a name behind that of a package; it is then noted."""
        front, name = children
        text = _text(front)
        if front.type not in ("identifier", "package_identifier"):
            return False
        if self._visible[text] > 0 or exported(text) or text in PREDECLARED or text == "_":
            if node.type == "qualified_type":
                raise _refused(front, f"{clip(text)} is no package here")
            return False
        self.named.append(Named(text, _text(name), node.start_byte - len(_PREFIX)))
        return True

    def _declare(self, node: Node) -> None:
        name = _text(node)
        if node.type != "identifier":
            raise _refused(node, "only a name can be declared")
        if exported(name):
            raise _refused(
                node, f"{clip(name)} would hide a name of the package; begin it with a lower-case letter"
            )
        if name != "_":
            self._visible[name] += 1
            self._scopes[-1].append(name)

    def _check(self, node: Node) -> None:
        name = _text(node)
        if exported(name):
            self.named.append(Named("", name, node.start_byte - len(_PREFIX)))
        elif self._visible[name] <= 0 and name not in PREDECLARED:
            raise _refused(node, not_exported(name))


def _but_names(declaration: Node) -> list[Node]:
    """What else than names a declaration has: its type, its values."""
    names = {name.id for name in declaration.children_by_field_name("name")}
    return [child for child in declaration.named_children if child.id not in names]


def _parameters(written: Node) -> list[Node]:
    """The names that a function's parameters or results have; a result may be a type alone."""
    if written.type != "parameter_list":
        return []
    return [name for one in written.named_children for name in one.children_by_field_name("name")]


def _text(node: Node) -> str:
    return (node.text or b"").decode()


def _first_error(node: Node) -> Node:
    """The first node that the parser could not read."""
    while not node.is_error and not node.is_missing:
        inner = next((child for child in node.children if child.has_error), None)
        if inner is None:  # the missing end of a statement has no node: it belongs before the last child
            return node.children[-1] if node.children else node
        node = inner
    return node


def _parse_go(source: bytes) -> Node:
    """Parse with bounded work. The two callbacks let other threads run meanwhile."""
    steps = 0

    def read(offset: int, _: Point) -> bytes:
        return source[offset : offset + 4096]

    def too_many_steps(_: int, __: bool) -> bool:
        nonlocal steps
        steps += 1
        return steps > _MAX_PARSE_STEPS

    try:
        return Parser(_GO).parse(read, progress_callback=too_many_steps).root_node
    except ValueError:
        raise Refused(0, f"too intricate for the parser; {REMEDY}") from None
