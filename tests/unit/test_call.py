"""What is a call and what is not, without a compiler."""

from __future__ import annotations

import re
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyisland.errors import BadCall
from skyisland.golang.call import MAX_BYTES, parse_call, read_call
from skyisland.golang.tokens import BLANK, MAX_NESTING
from skyisland.model import Call


def refusal(text: str) -> BadCall:
    with pytest.raises(BadCall) as caught:
        parse_call(text)
    return caught.value


def attempt(text: str) -> tuple[Call | None, BadCall | None]:
    try:
        return parse_call(text), None
    except BadCall as e:
        return None, e


_PIECES = """F G.H x os. ( ) [ ] { } , . ... : ; - + * & < <- 1 .5 'a' "b" `c` int map
    chan struct interface func true nil = := // if"""


class TestLiteralArguments:
    @pytest.mark.parametrize(
        ("text", "arguments"),
        [
            ("Encode(100.1, 80.9)", ("100.1", "80.9")),
            ("F()", ()),
            ("F(-1,+2,- 3)", ("-1", "+2", "-3")),
            ("F(1,)", ("1",)),
            ("F(0x1F,0b1,0o17,017,1_000)", ("0x1F", "0b1", "0o17", "017", "1_000")),
            ("F(.5,5.,1e+5,0x1p-2,089.5)", (".5", "5.", "1e+5", "0x1p-2", "089.5")),
            ("F(1i,0x1p-2i)", ("1i", "0x1p-2i")),
            (
                r"""F('a','\'','\x41','\u00e9','\U0001f600')""",
                ("'a'", r"'\''", r"'\x41'", r"'\u00e9'", r"'\U0001f600'"),
            ),
            (r'F("a\n\"b\"","é // no comment")', (r'"a\n\"b\""', '"é // no comment"')),
            ('F(`raw\n\\n\t"`)', ('`raw\n\\n\t"`',)),
            ("F(true, false, nil)", ("true", "false", "nil")),
            ('F("new(1)", `new(x`)', ('"new(1)"', "`new(x`")),
            (
                'F("👨\u200d👩\u200d👧", "क्\u200cष", "\U0001f3f4\U000e0067\U000e007f")',
                ('"👨\u200d👩\u200d👧"', '"क्\u200cष"', '"\U0001f3f4\U000e0067\U000e007f"'),
            ),
            ("Été(1)", ("1",)),
        ],
    )
    def test_are_kept_as_written(self, text: str, arguments: tuple[str, ...]) -> None:
        call = parse_call(text)
        assert call.arguments == arguments
        assert call.text == f"{text.partition('(')[0]}({', '.join(arguments)})"

    def test_qualifier_is_told_and_left_out(self) -> None:
        call = parse_call("geohash.Encode(1)")
        assert (call.text, call.function, call.arguments) == ("Encode(1)", "Encode", ("1",))
        assert (call.qualifier, call.imports, call.apart) == ("geohash", (), False)
        assert parse_call(" geohash . Encode ( 1 ) \r\n") == call

    @given(
        st.text(st.characters(categories=("L", "N", "P", "S", "Zs"), exclude_characters=BLANK), max_size=30),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False),
    )
    def test_any_value(self, text: str, whole: int, real: float) -> None:
        quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        number = repr(real) if real not in (float("inf"), float("-inf")) else "1e999"
        assert parse_call(f"F({quoted}, {whole}, {number})").arguments == (quoted, str(whole), number)


_TOKENS = 'New ( Option { A : - 1 , B : 1 - - 1 } , map [ T ] chan T ( nil ) , "a" ) . Len ( 0x1p-2 , A . B )'


class TestExpressions:
    @pytest.mark.parametrize(
        ("text", "function", "canonical"),
        [
            ("geo .N", "N", "N"),
            ('New("x").Len()', "New", 'New("x").Len()'),
            ('Join([]string{"a","b"},"-")', "Join", 'Join([]string{"a", "b"}, "-")'),
            ("Map[int](1)", "Map", "Map[int](1)"),
            ("Map [ int , string ]( 1 )", "Map", "Map[int, string](1)"),
            ("F(G(1), H)", "F", "F(G(1), H)"),
            ("New(Option{A : 1, B: Red}).Len()", "New", "New(Option{A:1, B:Red}).Len()"),
            ("geo.New(geo.Option{A: geo.Red}, chan  geo.T(nil))", "New", "New(Option{A:Red}, chan T(nil))"),
            ("F([]Point{{1,2}}, map[string]int{}, struct{}{}, [...]int{1}, [2]int{})", "F", ""),
            ("F(&Point{1, 2}, *Default, New().X[0], Y[1:2], Z.(Stringer))", "F", ""),
            ("F(int64(3), len(Names), any(1), []interface{}{1, nil})", "F", ""),
            ("F([]int{1}...)", "F", "F([]int{1}...)"),
            ("F(1 - -1, 1 < -1, 1+1)", "F", "F(1- -1, 1< -1, 1+1)"),
            ("F(-(1), (1), ^1, !true)", "F", "F(-(1), (1), ^1, !true)"),
            ("F(1 .String())", "F", "F(1 .String())"),
            ("F(1)(2)", "F", "F(1)(2)"),
            ("Default.Len(1)", "Default", "Default.Len(1)"),
            ("Point{1, 2}.Sum()", "Point", "Point{1, 2}.Sum()"),
            ("Version", "Version", "Version"),
            ("F(1).X", "F", "F(1).X"),
            ("F(1) + F(2)", "F", "F(1)+F(2)"),
            ("(&T{1}).M()", "T", "(&T{1}).M()"),
            ("*F()", "F", "*F()"),
            ("<-F()", "F", "<-F()"),
            ("string(F())", "F", "string(F())"),
            ("[]string(F())", "F", "[]string(F())"),
            ("len(X)", "X", "len(X)"),
            ('F(new("x"), new(B.C), new(T))', "F", 'F(new("x"), new(B.C), new(T))'),
            ("F(func(x int, _ int) int { return 2 * x })", "F", "F(func(x int, _ int)int{return 2*x})"),
            ("F(func() {\n\tx := 1\n\tx++\n\tG(x)\n})", "F", "F(func(){x:=1; x++; G(x)})"),
            ("F(func() { var x, y int = 1, 2; x, y = y, x; _ = x })", "F", ""),
            ("F(func() { if x := G(); x > 1 { H(x) } else if x < 0 { H(-x) } else { return } })", "F", ""),
            (
                "F(func(n int) { for i := 0; i < n; i++ { continue }; for range n {}; for { break } })",
                "F",
                "",
            ),
            ("F(func() { for i, x := range X { G(i, x) }; for i = range X {} })", "F", None),
            ("F(func() (s string, err error) { s, err = G(); return })", "F", ""),
            ("F(func() { switch x := G(); x { case 1, 2: A(); default: B() } })", "F", ""),
            ("F(func(a any) { switch v := a.(type) { case int, T: G(v); case nil: } })", "F", ""),
            ("F(func(f func(int) string, c chan<- int) { c <- len(f(3)) })", "F", ""),
            ("F(func() func() int { x := 1; return func() int { x++; return x } })", "F", ""),
            ("F(func(len int) int { return len })", "F", ""),
            ("F(func(größe int) int { return größe })", "F", ""),
            ("F(\n\t1,\n\tG.\n\t\tH(),\n)", "F", "F(1, G.H(),)"),
            ("F(strings.NewReader(A), time.Second, os.Stdout)", "F", ""),
            ("F(func(strings []int) int { return len(strings) + strings[0] }, strings.X)", "F", ""),
        ],
    )
    def test_keep_their_meaning(self, text: str, function: str, canonical: str | None) -> None:
        if canonical is None:
            assert "not exported" in refusal(text).message
            return
        call = parse_call(text)
        assert (call.function, call.arguments) == (function, None)
        assert call.text == (canonical or call.text)
        if "\n" not in text:
            assert call.text.replace(" ", "") == text.replace(" ", "").replace("geo.", "")
        assert parse_call(call.text).text == call.text

    def test_canonical_text_is_the_same_for_the_same_tokens(self) -> None:
        tokens = _TOKENS.split()
        expected = parse_call(" ".join(tokens))
        for seed in range(50):
            wide = "".join(
                token + " \t"[(seed + i) % 2] * (1 + seed * i % 3) for i, token in enumerate(tokens)
            )
            assert parse_call(wide) == expected
        assert parse_call(expected.text) == expected


class TestPackages:
    """The name of a package in front of a dot: the called one's own, or another's."""

    @pytest.mark.parametrize(
        ("text", "own", "function", "imports", "other"),
        [
            ("geo.F(1)", "F(1)", "F", (), "geo.F(1)"),
            ("string(geo.F(geo.X))", "string(F(X))", "F", (), "string(geo.F(geo.X))"),
            ("errors.Wrap(io.EOF, A)", "Wrap(io.EOF, A)", "Wrap", ("io",), "errors.Wrap(io.EOF, A)"),
            ("strings.ToUpper(Name())", "ToUpper(Name())", "ToUpper", (), "strings.ToUpper(Name())"),
            ("[]big.Int{*F()}", "[]Int{*F()}", "Int", (), "[]big.Int{*F()}"),
            ("geo.F(func(geo T) int { return geo.X })", None, "F", (), None),
            ('strings.ToUpper("x")', 'ToUpper("x")', "ToUpper", (), None),
            ("os.Exit(New())", "Exit(New())", "Exit", (), None),
        ],
    )
    def test_in_front_has_two_readings(
        self, text: str, own: str | None, function: str, imports: tuple[str, ...], other: str | None
    ) -> None:
        call = parse_call(text)
        assert (call.text, call.function, call.imports) == (own or call.text, function, imports)
        assert call.qualifier == text.lstrip("[]").replace("string(", "").partition(".")[0]
        if own is None:
            assert call.text == "F(func(geo T)int{return geo.X})"
        else:
            assert (call.otherwise and call.otherwise.text) == other
        if call.otherwise:
            assert call.otherwise.qualifier is None
            assert call.qualifier in call.otherwise.imports

    def test_behind_the_first_name_it_is_kept(self) -> None:
        call = parse_call("New(geo.X, strings.NewReader(time.Now().String()), sub.Y)")
        assert call.imports == ("geo", "strings", "sub", "time")
        assert (call.qualifier, call.otherwise, call.apart) == (None, None, False)

    def test_a_call_of_another_package_alone(self) -> None:
        other = parse_call("sub.F(1, sub.X)").otherwise
        assert other is not None
        assert (other.function, other.imports, other.apart) == ("sub.F", ("sub",), True)
        literal = parse_call("sub.F(1)").otherwise
        assert literal is not None
        assert (literal.function, literal.arguments, literal.text) == ("sub.F", ("1",), "sub.F(1)")


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "position", "reason"),
        [
            ("", 0, "empty"),
            (" \n", 2, "empty"),
            ("F(1), F(2)", 0, "exactly one"),
            ("1 + 1", 0, "name a function of the package"),
            ("[]int{1}.F()", 0, "name a function of the package"),
            ("encode(1)", 0, "not exported"),
            ("geohash.encode(1)", 8, "not exported"),
            ("New().len()", 6, "not exported"),
            ("len(x)", 4, "not exported"),
            ("F(x)", 2, "not exported"),
            ("F(_)", 2, "not exported"),
            ("F(iota)", 2, "not exported"),
            ("F(func(x int, y x){})", 16, "not exported"),
            ("F(func(x func(x x)){})", 16, "not exported"),
            ("F(func(x int)(y x){return})", 16, "not exported"),
            # C1 and C2: more than one expression
            ("X()); os.Exit(0);(", 3, "closes nothing"),
            ("F(1);", 4, "semicolon"),
            ("F(1)\nG(2)", 4, "on one line"),
            ("F(\n1\n)", 4, "Go ends the expression at this line feed"),
            ("F()\n.G()", 3, "behind a comma, a dot"),
            ("F(1)}\nfunc init() {", 4, "closes nothing"),
            ("F(1) // hello", 5, "comments"),
            ("F(/* hello */1)", 2, "comments"),
            ("F(`)", 2, "not closed"),
            ('F(")', 2, "not closed"),
            ('F("a\nb")', 2, "not closed"),
            ('import "os"', 0, "statements"),
            ("go F()", 0, "statements"),
            ("defer F()", 0, "statements"),
            ("return F()", 0, "statements"),
            ("F(x := 1)", 4, "assignments"),
            ("F(T{A = 1})", 6, "not a Go expression"),
            ("F(A = 1)", 4, "assignments"),
            ("F(A++)", 3, "statements"),
            # C3: names of others, of the main program, of nobody
            ("F(os.Args)", 2, "of os, a call may name Stdin"),
            ("F(os.Exit(1))", 2, "of os, a call may name Stdin"),
            ("geohash.F(unsafe.Sizeof(1))", 10, "unsafe is foreign"),
            ("F(syscall.Kill)", 2, "syscall is foreign"),
            ("geohash.F(New().geohash.X)", 16, "not exported"),
            ("geohash.F(geohash.(X))", 10, "not exported"),
            ("geohash.F(geohash)", 10, "not exported"),
            ("F(harness.Fail)", 2, "name of the program around the call"),
            ("F(main)", 2, "name of the program around the call"),
            ("F(init)", 2, "name of the program around the call"),
            ("F(must1(1))", 2, "name of the program around the call"),
            ("F(func(must2 int) {})", 7, "name of the program around the call"),
            ("F(println)", 2, "not exported"),
            ("F(strings)", 2, "not exported"),
            ("F(strings.x)", 10, "not exported"),
            # C7: function literals
            ("F(func() { go G() })", 11, "go belongs to statements"),
            ("F(func() { defer G() })", 11, "defer belongs to statements"),
            ("F(func() { select {} })", 11, "select belongs to statements"),
            ("F(func() { goto x })", 11, "goto belongs to statements"),
            ('F(func() { import "os" })', 11, "import belongs to statements"),
            ("F(func() { type x int })", 11, "type belongs to statements"),
            ("F(func() { const x = 1 })", 11, "const belongs to statements"),
            ("F(func() { x: for {} })", 11, "labeled statement"),
            ("F(func() { return x })", 18, "not exported"),
            ("F(func() { x := x })", 16, "not exported"),
            ("F(func() { if x := 1; x > 0 {}; G(x) })", 34, "not exported"),
            ("F(func() { for i := range 3 {}; G(i) })", 34, "not exported"),
            ("F(func() { switch x := G().(type) { case int: }; H(x) })", 51, "not exported"),
            ("F(func(x int) {}, x)", 18, "not exported"),
            ("F(func(X int) {})", 7, "would hide a name of the package"),
            ("F(func() { Y := 1; G(Y) })", 11, "would hide a name of the package"),
            ("F(func() { G() = 1; G().X := 2 })", 20, "only a name can be declared"),
            ("F(func(strings int) { var x strings.Reader; G(x) })", 28, "strings is no package here"),
            ("F(func(x int) int { return _ })", 27, "not exported"),
            ("F(func() { //line x:1\n})", 11, "comments"),
            ("F(func() { /*line x:1*/ })", 11, "comments"),
            ("F(func[T any](x T) {})", 6, "not a Go expression"),
            ("F(func() {}; func() {})", 11, "semicolon"),
            ("F(func() { }}; func main() {)", 12, "closes nothing"),
            ("F(return)", 2, "statements"),
            ("{ F() }", 0, "not a Go expression"),
            ("F() { }", 4, "not a Go expression"),
            ("if x := F(); x {}", 0, "statements"),
            # nonsense
            ("F(", 1, "never closed"),
            ("F(1]", 3, "closes nothing"),
            ("F(1 2)", 2, "not a Go expression"),
            ("F(1,,2)", 4, "not a Go expression"),
            ("F(1)::", 4, "not a Go expression"),
            ("F(1)5", 4, "not a Go expression"),
            ("F(08)", 2, "octal"),
            ("F(1x)", 2, "malformed number"),
            ("F(1_)", 2, "malformed number"),
            ("F(1e)", 2, "malformed number"),
            ("F(0x)", 2, "malformed number"),
            ("F(1.5.2)", 2, "malformed number"),
            ("F('ab')", 2, "characters that Go refuses"),
            (r"F('\400')", 2, "escape"),
            (r'F("\ud800")', 2, "escape"),
            (r'F("\U00110000")', 2, "escape"),
            (r'F("\z")', 2, "escape"),
            ("F(@)", 2, "U+0040"),
            ("F(\u00a01)", 2, "U+00A0"),
            ("F(a²)", 2, "not a Go name"),
            ("F(interface{ M() }(nil))", 13, "method elem"),
            # C4: invisible characters
            ("F(1\x00)", 3, "U+0000"),
            ("F(\x1b[2J)", 2, "U+001B"),
            ('F("\r")', 3, "U+000D"),
            ('F("é\u202e")', 5, "U+202E is invisible; write \\u202e inside a string"),
            ("F(\u200b1)", 2, "U+200B is invisible; it may stand inside a string only"),
            ('F("\ufeff")', 3, "\\ufeff"),
            ('F("\u2028")', 3, "\\u2028"),
            ("F\U000e0041()", 1, "U+E0041 is invisible"),
            ('F("\u2066x")', 3, "\\u2066"),
            ("F\u3164(1)", 1, "U+3164"),
            ('F("\ud800")', 3, "UTF-8"),
            ("é\u200d(1)", 2, "U+200D"),
        ],
    )  # fmt: skip
    def test_say_where_and_why(self, text: str, position: int, reason: str) -> None:
        refused = refusal(text)
        assert reason in refused.message
        assert refused.details["position"] == position or "not a Go expression" in reason

    def test_count_leading_space(self) -> None:
        assert refusal(" \t F(x)").details["position"] == 5

    def test_never_repeat_long_names(self) -> None:
        assert len(refusal(f"F({'x' * 60000})").message) < 200

    @given(st.text(max_size=40))
    def test_any_text_is_refused_or_a_call(self, text: str) -> None:
        call, refused = attempt(text)
        assert (call is None) != (refused is None)
        if refused is not None:
            assert 0 <= refused.details["position"] <= len(text.encode("utf-8", "surrogatepass"))

    @given(st.lists(st.sampled_from([*_PIECES.split(), " ", "\n"]), max_size=14).map("".join))
    def test_no_other_names_and_no_statements_get_through(self, text: str) -> None:
        call, _ = attempt(f"F({text})")
        if call is not None:
            bare = re.sub(r"'a'|\"b\"|`c`", "", call.text)
            lower = {word for word in re.findall(r"[A-Za-z]\w*", bare) if word[0].islower()}
            allowed = {"int", "map", "chan", "struct", "interface", "true", "nil", *call.imports}
            if "func" in lower:  # a literal has names and statements of its own
                allowed |= {"func", "if", "x"}
            else:
                assert not re.search(r";|:=|\n", bare)
            assert lower <= allowed
            assert "//" not in bare
            assert attempt(call.text)[0] == call


class TestSize:
    def test_largest(self) -> None:
        text = f'F("{"x" * (MAX_BYTES - 5)}")'
        assert len(text) == MAX_BYTES
        assert parse_call(text).text == text
        assert f"{MAX_BYTES} bytes" in refusal(text + " ").message
        assert f"{MAX_BYTES} bytes" in refusal(f'F("{"é" * 33000}")').message

    def test_deepest(self) -> None:
        nested = "F(" * MAX_NESTING + "1" + ")" * MAX_NESTING
        assert parse_call(nested).text == nested
        assert refusal(f"F({nested})").details["position"] == 2 * MAX_NESTING + 1

    @pytest.mark.parametrize(
        "unit", ["F(", "[]", "- ", "A.", "1+", "{", "A{", "*", "(A)", "<-chan ", "A[", "&"]
    )
    def test_chains_are_bounded(self, unit: str) -> None:
        text = "F(" + unit * (20000 // len(unit)) + "1)"
        assert any(word in refusal(text).message for word in ("nested", "chain", "Go expression", "closed"))

    def test_a_million_brackets_are_refused_at_once(self) -> None:
        began = time.process_time()
        refusal("F" + "(" * 1_000_000)
        refusal("F" + "(" * 60_000)
        assert time.process_time() - began < 0.05

    async def test_large_texts_are_read_in_a_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        threads = []

        def watch(text: str) -> Call:
            threads.append(threading.current_thread() is threading.main_thread())
            return parse_call(text)

        monkeypatch.setattr("skyisland.golang.call.parse_call", watch)
        assert (await read_call("NobodyElseCallsThis(1)")).arguments == ("1",)  # short calls are cached
        assert (await read_call(f'F("{"x" * 5000}")')).function == "F"
        assert threads == [True, False]
