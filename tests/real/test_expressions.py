"""Calls that are more than a function with literals, built by the real compiler in real jails."""

from __future__ import annotations

import pytest

from skyisland.errors import BadCall
from skyisland.golang import harness
from skyisland.golang.call import parse_call
from skyisland.model import Mount, Returned, Source
from tests.support import answers as told
from tests.support.buildroom import Workshop

pytestmark = [pytest.mark.host, pytest.mark.root]

CLIENT = {
    "go.mod": "module example.com/client\n\ngo 1.15\n",
    "client.go": """package client

import "errors"

const Version = "v1"

type Option struct{ Name string }

var Default = Option{"default"}

type Client struct{ name string }

func New(name string) (*Client, error) {
	if name == "" {
		return nil, errors.New("no name")
	}
	return &Client{name}, nil
}

func (c *Client) Sub(name string) (*Client, error) {
	if name == "" {
		return New("")
	}
	return New(c.name + "/" + name)
}
func (c *Client) Find(name string) (string, bool)  { return c.name + name, name == "x" }
func (c *Client) Name() string                     { return c.name }
func (c *Client) Close()                           {}
func (o *Option) Shout(n int) string               { return o.Name + "!" }
func Names(cs ...*Client) int                      { return len(cs) }
func Text(c *Client) string                        { return c.name }
func Pair() (string, int, error)                   { return "a", 2, nil }
func Three() (string, int, int)                    { return "a", 2, 3 }
func Join(s string, n int) string                  { return s + string(rune('0'+n)) }
func Pointer() *int                                { n := 7; return &n }
func Stream() <-chan int                           { c := make(chan int, 1); c <- 8; return c }
func Map(xs []int, f func(x int, i int) int) []int {
	var ys []int
	for i, x := range xs {
		ys = append(ys, f(x, i))
	}
	return ys
}
""",
    "foreign/g.go": "package größe\n\nfunc Länge(s string) int { return len(s) }\n",
    "tools/strcase/s.go": """package strcase

import "strings"

func Up(s string) string { return strings.ToUpper(s) }
""",
    "a/twice/t.go": "package twice\n\nfunc F() int { return 1 }\n",
    "b/twice/t.go": "package twice\n\nfunc F() int { return 2 }\n",
    "internal/inner/i.go": "package inner\n\nfunc F() int { return 3 }\n",
    "vendor/x/v.go": "package x\n\nfunc F() int { return 4 }\n",
}


async def answer(shop: Workshop, source: Source, text: str) -> Returned | BadCall:
    call = parse_call(text)
    artifact = await shop.builds.build(source, call, refresh=False, invocation=None)
    outcome = await shop.enter((Mount(artifact.path, "/function"),), harness.frame(call, "nonce"))
    if refusal := harness.rejection(outcome, "nonce"):
        return refusal
    _, (said,) = told.returned(outcome.stdout, "nonce")
    return said


async def shown(shop: Workshop, source: Source, text: str) -> str:
    said = await answer(shop, source, text)
    assert isinstance(said, Returned)
    assert said.error is None
    return said.text.decode()


async def failure(shop: Workshop, source: Source, text: str) -> tuple[str, str]:
    """Which part of the call failed, and with what."""
    said = await answer(shop, source, text)
    assert isinstance(said, Returned)
    assert said.error is not None
    assert (said.text, said.results) == (b"", None)
    return said.error.at, said.error.message


def compilations(shop: Workshop) -> int:
    return sum(spec.argv[1:2] == ("build",) for spec in shop.driver.specs)


async def test_chains_go_past_errors(shop: Workshop) -> None:
    """What was learned of a call holds for all of its shape: no second main program is tried."""
    source = shop.source(CLIENT)
    assert await shown(shop, source, 'New("a").Sub("b").Sub("c").Name()') == "a/b/c"
    before = compilations(shop)
    assert await failure(shop, source, 'New("a").Sub("").Sub("c").Name()') == ("Sub", "no name")
    assert compilations(shop) == before + 1
    assert await failure(shop, source, 'Names((New("a")), New(New("x").Find("y")))') == (
        "Find",
        "it gave false: there is no value",
    )
    assert await shown(shop, source, "Join(Pair())") == "a2"
    assert await shown(shop, source, 'Join(Text(New("a")), len(New("abc").Name()))') == "a3"
    assert await shown(shop, source, 'New("a").Close()') == ""

    refused = await shop.refused(source, 'Join("a", 1, New("a").Nope())')
    assert "not fit" in refused.message
    assert 'New("a").Nope undefined' in refused.message
    assert "must" not in refused.message
    assert refused.details["position"] == 22
    unlike = await shop.refused(source, "Join(Three())")
    assert "too many arguments in call to Join" in unlike.message


async def test_expressions(shop: Workshop) -> None:
    source = shop.source(CLIENT)
    mixed = """Map(
        []int{1, len(Version), *Pointer(), <-Stream()},
        func(x, i int) int {
            sum := time.Duration(0)
            for range x {
                sum += 2
            }
            if up := strcase.Up(Default.Name); up == strings.ToUpper("default") {
                return int(sum)
            }
            return -1
        },
    )"""
    assert await shown(shop, source, mixed) == "[2 4 14 16]"
    assert await shown(shop, source, '(&Option{"x"}).Shout(1)') == "x!"
    assert await shown(shop, source, 'strcase.Up("👩\u200d👧 a")') == "👩\u200d👧 A"
    function = await answer(shop, source, "Map")
    assert isinstance(function, BadCall)
    assert "this is a function" in function.message

    for text, reason in {
        "twice.F()": "twice may be a/twice, b/twice",
        "x.F()": "the package is client, not x",
        "F(nope.X)": "the package is client, not nope",
    }.items():
        assert reason in (await shop.refused(source, text)).message
    long = await shop.refused(source, f'Join("{"x" * 500}" + Version + Nope, 1)')
    assert long.message == "example.com/user/repo at 000000000000 has no exported Nope"
    assert long.details["position"] == 500 + len('Join("" + Version + ') - 4

    other = shop.source(CLIENT, "foreign")
    assert await shown(shop, other, 'größe.Länge("é" + client.Version)') == "4"
