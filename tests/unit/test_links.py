"""Which parts of a call give an error beside their value, by what Go's compiler says; without a compiler.

The messages are Go 1.27's. That it says so, and that the programs compile, is for test_expressions.py in
tests/real.
"""

from __future__ import annotations

import re

import pytest

from skyisland.golang.call import parse_call
from skyisland.golang.harness import call_errors
from skyisland.golang.links import Link, Links, more_links, placed, shape_of, without
from skyisland.golang.tokens import tokens_of

SEVERAL = "multiple-value {} (value of type ({})) in single-value context"
TOO_MANY = "too many arguments in call to {}\n\thave ({})\n\twant ({})"
OF_LEN = "invalid operation: too many arguments for len({}) (expected 1, found 2)"
SECOND = "cannot use New(1) (value of interface type error) as *C value in argument to V"


def links_of(text: str, *messages: tuple[int, str], known: Links = ()) -> dict[str, tuple[int, bool, str]]:
    """The parts that are links: how many values each gives, whether the last is a bool, and its name."""
    assert parse_call(text).text == text
    output = "# p/_skyisland\n" + "\n".join(f"call:1:{offset + 1}: {said}" for offset, said in messages)
    found = more_links(text, known, output)
    return {_part(text, link): (link.values, link.truth, link.name) for link in found}


def _part(text: str, link: Link) -> str:
    tokens = tokens_of(text)
    return text[tokens[link.first].start : tokens[link.last].start + len(tokens[link.last].text)]


@pytest.mark.parametrize(
    ("text", "offset", "said", "part", "link"),
    [
        ("New(1).Do()", 0, SEVERAL.format("New(1)", "*p.C, error"), "New(1)", (1, False, "New")),
        ("New(1).Do()", 0, SEVERAL.format("New(1)", "c *p.C, err error"), "New(1)", (1, False, "New")),
        ("A(1).B(2).C()", 0, SEVERAL.format("A(1).B(2)", "int, bool"), "A(1).B(2)", (1, True, "B")),
        ("(New(1)).N", 0, SEVERAL.format("(New(1))", "*p.C, error"), "New(1)", (1, False, "New")),
        ("F(1, G[T](2))", 5, SEVERAL.format("G[T](2)", "M[int, int], error"), "G[T](2)", (1, False, "G")),
        ("Take(New(1))", 5, TOO_MANY.format("Take", "*p.C, error", "*p.C"), "New(1)", (1, False, "New")),
        ("Two(Three())", 4, TOO_MANY.format("Two", "a, b, error", "a, b"), "Three()", (2, False, "Three")),
        ("string(F(1))", 7, SEVERAL.format("F(1)", "[]byte, error"), "F(1)", (1, False, "F")),
        ("len(New(1))", 0, OF_LEN.format("New(1)"), "New(1)", (1, False, "New")),
        ("V(New(1))", 2, SECOND, "New(1)", (1, False, "New")),
        ('A("(").B()', 0, SEVERAL.format('A("(")', "int, error"), 'A("(")', (1, False, "A")),
    ],
)  # fmt: skip
def test_a_part(text: str, offset: int, said: str, part: str, link: tuple[int, bool, str]) -> None:
    assert links_of(text, (offset, said)) == {part: link}


@pytest.mark.parametrize(
    ("text", "offset", "said"),
    [
        ("New(1).Do()", 0, SEVERAL.format("New(1)", "int, int")),
        ("New(1).Do()", 0, SEVERAL.format("New(1)", "int, int, error")),
        ("New(1).Do()", 0, SEVERAL.format("New(1).Do().Else()", "int, error")),
        ("New(1).Do()", 99, SEVERAL.format("New(1)", "int, error")),
        ("New(1).Do()", 0, "must1(New(1)).Do undefined"),
        ("Two(Three())", 4, TOO_MANY.format("Two", "a, b, c, d, error", "a")),
        ("F(func()int{return G(1).X})", 19, SEVERAL.format("G(1)", "int, error")),
        ("F(G(1), 2)", 2, TOO_MANY.format("F", "int, error", "int")),
    ],
)
def test_what_is_no_link(text: str, offset: int, said: str) -> None:
    assert links_of(text, (offset, said)) == {}


def test_one_behind_another() -> None:
    text = "A(1).B(2).C(3).D()"
    links: Links = ()
    for said in ("A(1)", "must1(A(1)).B(2)", "must2(must1(A(1)).B(2)).C(3)"):
        links = more_links(text, links, "call:1:1: " + SEVERAL.format(said, "*p.T, error"))
    assert [link.name for link in links] == ["A", "B", "C"]
    bare = re.sub(r"\n//line \S+\n|/\*line \S+\*/", "", placed(text, links))
    assert bare == "must3(must2(must1(A(1)).B(2)).C(3)).D()"
    assert without("must3(must2(must1(A(1)).B(2)).C(3)).D undefined") == "A(1).B(2).C(3).D undefined"


def test_several_at_once_and_a_bool_that_was_taken_for_an_error() -> None:
    text = "F(A(1), len(B(2)))"
    first = (2, SEVERAL.format("A(1)", "int, error"))
    second = (8, OF_LEN.format("B(2)"))
    assert links_of(text, first, second) == {"A(1)": (1, False, "A"), "B(2)": (1, False, "B")}
    both = more_links(text, (), f"call:1:3: {first[1]}\ncall:1:9: {second[1]}")
    wrong = "cannot use B(2) (value of type bool) as error value in argument to must2"
    assert links_of(text, (8, wrong), known=both) == {"A(1)": (1, False, "A"), "B(2)": (1, True, "B")}


@pytest.mark.parametrize(
    "text", ["F(1)", "F(" + ", ".join(f'A("é{"x" * n}")' for n in range(0, 300, 7)) + ")"]
)
def test_positions_are_offsets_in_the_call(text: str) -> None:
    """Line and column as Go counts them from the `//line` comments; no column is one that Go cannot tell."""
    written = placed(text).encode()
    assert [message for _, message in call_errors("skyisland.call:1:1: a\nskyisland.call:7:3: b\n")] == [
        "a",
        "b",
    ]
    assert call_errors("skyisland.call:7:3: b\nskyisland.call:9: c") == [(8, "b"), (8, "c")]
    for chunk in written.split(b"\n//line skyisland.call:")[1:]:
        line, _, source = chunk.partition(b":1\n")
        assert text.encode()[int(line) - 1 :].startswith(source)
        assert len(source.partition(b'"')[0]) < 255


def test_the_shape_leaves_values_out() -> None:
    assert shape_of('New("a", 1).Do()') == shape_of('New("b", 2).Do()') != shape_of("New(1, 2).Do()")
