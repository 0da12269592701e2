"""Reads the names of a function's parameters from the files of its package, without running Go.

The main program hands them to the harness, so that arguments can be given by name. They are a comfort: where
they cannot be read plainly, arguments are given in order. The files are a stranger's. So much of them is read
and no more, in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

import tree_sitter_go
from tree_sitter import Language, Node, Parser

from skyisland.host.tree import Tree
from skyisland.model import Source

FILE_BYTES = 1 << 20
"""How much of a file is searched. A judgement: what is longer was generated."""
PACKAGE_BYTES = 16 << 20
"""How much of a package is searched. A judgement: the longest of the standard library has 3 MiB."""
SIGNATURE_BYTES = 1 << 12
"""How much of a function is parsed. A judgement: a page of parameters is none that one writes by hand."""
MAX_DECLARATIONS = 16
"""As many functions of the name are looked at: a comment or a raw string may hold one, too."""

_GO = Language(tree_sitter_go.language())


def parameter_names(source: Source, function: str) -> tuple[str, ...]:
    """The names of the parameters of a function of the package, in order; `_` for one without a name.

    Empty if it has none, or if they are not plain: several files for several systems may declare it. Blocks.
    """
    name = function.partition("[")[0]
    if not re.fullmatch(r"\w+", name):
        return ()
    found = (text for file in _files(source) for text in _declarations(file, name.encode()))
    parsed = [_parameters(text) for text in islice(found, MAX_DECLARATIONS)]
    declared = {names for names in parsed if names is not None}
    return declared.pop() if len(declared) == 1 else ()


def _files(source: Source) -> Iterator[bytes]:
    """The texts of the package's files, up to `PACKAGE_BYTES` together."""
    tree, left = Tree(source.checkout), PACKAGE_BYTES
    for file in tree.names(source.package) or ():
        if file.endswith(".go") and not file.endswith("_test.go") and left > 0:
            text = tree.read(f"{source.package}/{file}", min(FILE_BYTES, left)) or b""
            left -= len(text)
            yield text


def _declarations(text: bytes, name: bytes) -> Iterator[bytes]:
    """The beginning of whatever may be a declaration of the function."""
    at = -1
    while (at := text.find(b"\nfunc " + name, at + 1)) >= 0:
        if text[at + 6 + len(name) : at + 7 + len(name)] in (b"(", b"["):
            yield text[at + 1 : at + 1 + SIGNATURE_BYTES]


def _parameters(declaration: bytes) -> tuple[str, ...] | None:
    """The names of the parameters; None if it does not declare a function."""
    for node in Parser(_GO).parse(b"package p\n" + declaration).root_node.named_children:
        parameters = node.child_by_field_name("parameters")
        if parameters is not None:
            return None if parameters.has_error else tuple(_names(parameters))
    return None


def _names(parameters: Node) -> Iterator[str]:
    for declaration in parameters.named_children:
        if declaration.type == "comment":
            continue
        names = [(name.text or b"").decode() for name in declaration.children_by_field_name("name")]
        yield from names or ("_",)
