"""Calls with arguments that are data: the name, the types, and the names of parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import Raw

from skyisland.errors import BadCall, BadRequest
from skyisland.golang.callee import MAX_WORDS, MAX_WORDS_BYTES, command_line, parse_callee, understand
from skyisland.golang.parameters import MAX_DECLARATIONS, SIGNATURE_BYTES, parameter_names
from skyisland.model import Call, FunctionRequest, Source

ARGS = Raw(b'[1, "a"]')


def source(folder: Path, package: str = "", **files: str) -> Source:
    for name, text in files.items():
        (folder / package).mkdir(exist_ok=True)
        (folder / package / f"{name}.go").write_text(f"package p\n\n{text}\n")
    return Source(url="example.com/u/r", package=package, commit="0" * 40, checkout=folder)


class TestCallee:
    def test_a_name(self) -> None:
        expected = Call(text="Encode", function="Encode", arguments=(), takes_data=True)
        assert parse_callee(" Encode ") == expected

    def test_with_the_name_of_the_package_and_types(self) -> None:
        call = parse_callee("geo.Max", ("int", "map[string] []geo.Box", "[5]*Point", "Pair[int,string]"))
        assert call.text == call.function == "Max[int, map[string][]Box, [5]*Point, Pair[int, string]]"
        assert call.qualifier == "geo"

    @pytest.mark.parametrize(
        "name", ["", "F()", "F(1)", "a.b.C", "New().Do", "F[int]", "F\nG", "F;", "x" * 300]
    )
    def test_anything_else_is_no_bare_name(self, name: str) -> None:
        with pytest.raises(BadCall, match="bare name of a function"):
            parse_callee(name)

    @pytest.mark.parametrize("name", ["encode", "geo.encode", "func", "go"])
    def test_what_is_not_exported(self, name: str) -> None:
        with pytest.raises(BadCall):
            parse_callee(name)

    @pytest.mark.parametrize(
        "text",
        ["", " ", "5", "G()", "[len(X)]int", "int](1)[", "int, string", "int = 5", "[]int{1}",
         "int\nvar x int", "func() int { return 1 }", "a +", "\x00", "int // x\n"],
    )  # fmt: skip
    def test_a_type_is_nothing_but_a_type(self, text: str) -> None:
        """The main program evaluates what stands there before a call comes."""
        with pytest.raises(BadCall, match=r"types\[1\]: not a type"):
            parse_callee("F", ("int", text))

    @pytest.mark.parametrize("text", ["hidden", "os.File", "[]hidden", "int /* a */"])
    def test_its_names_are_those_of_a_call(self, text: str) -> None:
        """The error is about the type: the caller sent no text of which there is a byte 7."""
        with pytest.raises(BadCall, match=r"^types\[1\]: ") as refused:
            parse_callee("F", ("int", text))
        assert refused.value.details == {"path": "types[1]"}


class TestRequest:
    async def test_with_data_it_names_a_function(self) -> None:
        call = await understand(FunctionRequest(url="u", call="F", args=ARGS, types=("int",)))
        assert (call.function, call.takes_data) == ("F[int]", True)

    async def test_without_it_is_an_expression(self) -> None:
        assert (await understand(FunctionRequest(url="u", call="F(1)"))).arguments == ("1",)

    async def test_types_alone_have_no_meaning(self) -> None:
        with pytest.raises(BadRequest, match="types: an expression has them in itself"):
            await understand(FunctionRequest(url="u", call="F(1)", types=("int",)))

    def test_people_see_the_beginning_of_the_arguments(self) -> None:
        def shown(**fields: object) -> str:
            return FunctionRequest(**{"url": "u", "call": "F", **fields}).shown  # type: ignore[arg-type]

        assert shown(call="F(1)") == "F(1)"
        assert shown(args=ARGS, types=("int",)) == 'F[int](1, "a")'
        assert shown(args=Raw(b'{"a": 1}')) == 'F({"a": 1})'
        assert len(shown(args=Raw(b"[%b]" % (b"1," * 10_000)))) < 1100


class TestProgram:
    @pytest.mark.parametrize("call", ["", "main"])
    async def test_is_what_runs_without_a_name(self, call: str) -> None:
        request = FunctionRequest(url="u", call=call, args=Raw(b'["-x", "\\u00e9 5"]'))
        understood = await understand(request)
        assert understood.is_program
        assert command_line(request) == ("-x", "é 5")
        assert request.shown == 'main("-x", "\\u00e9 5")'
        assert command_line(FunctionRequest(url="u")) == ()

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"args": Raw(b"[1]")}, "args"),
            ({"args": Raw(b'{"a": "b"}')}, "args"),
            ({"args": Raw(b'["a\\u0000b"]')}, "args"),
            ({"args": Raw(b"[%b]" % b",".join([b'"a"'] * (MAX_WORDS + 1)))}, "args"),
            ({"args": Raw(b'["%b"]' % (b"a" * (MAX_WORDS_BYTES + 1)))}, "args"),
            ({"inputs": Raw(b"[]")}, "inputs"),
            ({"types": ("int",)}, "types"),
        ],
    )
    def test_a_command_line_is_texts(self, fields: dict[str, object], field: str) -> None:
        request = FunctionRequest(**{"url": "u", "call": "main", **fields})  # type: ignore[arg-type]
        with pytest.raises(BadRequest) as refused:
            command_line(request)
        assert refused.value.details["field"] == field
        assert "$" not in refused.value.message

    def test_the_word_that_is_no_text_is_named(self) -> None:
        with pytest.raises(
            BadRequest, match=r"^args\[1\]: this is no text; a program takes an array of texts"
        ):
            command_line(FunctionRequest(url="u", args=Raw(b'["a", 5]')))


class TestParameters:
    @pytest.mark.parametrize(
        ("declaration", "names"),
        [
            ("func F(a, b int, words ...string) error {\n", ("a", "b", "words")),
            ("func F() {}", ()),
            ("func F(int, string) {}", ("_", "_")),
            ("func F[T any, U ~int](x T, _ U) (y, z int) {}", ("x", "_")),
            ("func F(\n\ta int, // the first\n\tf func(x int) int,\n) {}", ("a", "f")),
            ("func G(a int) {}\n\n// F does it.\nfunc F(größe int) { return `\nfunc F2(x int)` }",
             ("größe",)),
            ("func (r *R) F(a int) {}\n\nfunc Fx(b int) {}", ()),
            ("func F(a int {}", ()),
            ("var F = func(a int) {}", ()),
        ],
    )  # fmt: skip
    def test_of_a_function(self, tmp_path: Path, declaration: str, names: tuple[str, ...]) -> None:
        assert parameter_names(source(tmp_path, a=declaration), "F[int]") == names

    def test_only_the_files_of_the_package(self, tmp_path: Path) -> None:
        place = source(tmp_path, "sub", a="func F(a int) {}", b_test="func F(b int) {}")
        source(tmp_path, c="func F(c int) {}")
        assert parameter_names(place, "F") == ("a",)
        assert parameter_names(place, "F().G") == ()

    def test_files_that_differ_tell_nothing(self, tmp_path: Path) -> None:
        place = source(tmp_path, a_linux="func F(a int) {}", a_windows="func F(a int) {}")
        assert parameter_names(place, "F") == ("a",)
        assert not parameter_names(source(tmp_path, b="func F(b int) {}"), "F")

    def test_no_link_is_followed_out_of_the_repository(self, tmp_path: Path) -> None:
        (tmp_path / "outside.go").write_text("package p\n\nfunc F(a int) {}\n")
        (tmp_path / "repo").mkdir()
        (tmp_path / "repo" / "a.go").symlink_to("../outside.go")
        assert parameter_names(source(tmp_path / "repo"), "F") == ()

    def test_so_much_is_parsed_and_no_more(self, tmp_path: Path) -> None:
        long = f"func F({', '.join(f'a{n} int' for n in range(SIGNATURE_BYTES))}) {{}}"
        assert parameter_names(source(tmp_path, a=long), "F") == ()
        many = "func F(a int) {}\n" * MAX_DECLARATIONS + "func F(b int) {}"
        assert parameter_names(source(tmp_path, a=many), "F") == ("a",)
