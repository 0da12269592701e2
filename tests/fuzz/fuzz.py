"""Coverage-guided fuzzing of what reads strangers', operators' or programs' text: `make fuzz`.

`fuzz.py SECONDS [TARGET …]` runs each target in a process of its own, on a corpus in `.cache/fuzz` that
grows from run to run. A target takes any bytes and may raise nothing but the refusals it is to raise; what
else it raises ends the run, and the input lies beside the corpus. tests/attacks/test_fuzz.py says the same
of a few hundred examples each, in every run of the tests.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import tomllib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

CORPUS = Path(__file__).parents[2] / ".cache" / "fuzz"
LONGEST_BYTES = 4096
SLOWEST_S = 5
MOST_UNPACKED = 1 << 20
EMPTY_MEMBER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x03\0" + bytes(8)
"""gzip of nothing."""
SEEDS = {
    "packed": [EMPTY_MEMBER * 2, zlib.compress(b"{}" * 50, wbits=31), b"\x1f\x8b"],
    "fleet": [
        b'{"order":{"id":"call-1","client":"a","request":{"url":"a.b/c"}},"due_at":1}',
        b'{"id":"call-1","state":"done","client":"a","url":"u","call":"F()","created_at":1}\n{"stdout":""}',
        b"\x01\x82\xa7outcome\x81\xa7verdict\xa2ok\xa7timings\x80",
        b"\x01\x83\xa4node\xa1a\xa7attempt\xa0\xa5final\xc2",
    ],
    "call": [
        b"Encode(100.1, -80.9, \"a\\n\", 'x', nil)",
        b"geohash.New([]string{`a`}).Run(F(1)...)[0]",
        b"""Map([]int{1}, func(x int) int {
	for i := range x { if i > 1 { return strings.X } }
	switch y := G(x); y { case 1: y++ }
	return 2 })""",
    ],
    "body": [
        b'{"url": "github.com/user/repo", "call": "F()", "stdin_base64": "aGk="}',
        b'{"url": "a.b/c", "call": "F", "args": [1]}',
    ],
    "url": [
        b"https://github.com/user/repo/v2",
        b"git@host:a/b.git",
        b"a.b/c/d/tree/x/y?ref=z#w",
        b"a.b/c@d/e",
    ],
    "page": [b'<!-- x --><meta name="go-import" content="a.b/c git https://a.b/c d"></head>'],
    "settings": [b'[jails]\nexec_timeout = "1h30m"\n[limits]\nmemory = "64m"\n[network.ip4]\nnat = true\n'],
    "git": [b"0123456789012345678901234567890123456789\trefs/heads/main\n", b"100644 blob 01 12\ta/b\0"],
    "freebsd": [b'{"jail-information": {"jail": [{"jid": 1, "name": "a", "path": "/a", "dying": false}]}}'],
    "zfs": [b"zroot/sky\t-\t/zroot/sky\tyes\t0\n"],
    "compiler": [
        b"skyisland.call:1:4: undefined: F\n/src/a.go:1: x\n",
        b'skyisland.call:1:1: multiple-value New("x") (value of type (T, error)) in single-value context\n',
    ],
    "catalogue": [
        b'{"name":"x","import_path":"x","synopsis":"","doc":"","functions":[],"examples":[],'
        b'"schemas":{},"omitted":0}'
    ],
    "origin": [b"https://[::1]:3280\n[::1]:3280"],
    "answer": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"],
    "push": [b'{"ref":"refs/heads/main","repository":{"clone_url":"https://h/u/r.git"}}'],
    "webhook": [b"t=1700000000,v1=00,v1=11", b"v1,AAAA v1a,BBBB"],
    "callee": [b"geo.Max\nmap[string]geo.Box", b"F\n[]func(a int) string"],
    "parameters": [b"package p\n\nfunc F(a, b int, c ...string) {\n}\n", b"package p\n\nfunc F[T any](_ T)"],
    "outcome": [
        b'hi n0000000010000000f{"results":[3]}bye',
        b"panic: no\n\ngoroutine 1 [running]:\nm.F(...)\n\tm/f.go:3 +0x1\nmain.main()\n\tmain.go:1\n",
    ],
    "headers": [
        b"wait=5, respond-async",
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"text/*;q=0",
    ],
    "request": [b"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", b"X: a\r\n\r\n"],
    "watched": [b"hi n00000002000000021two{}bye"],
    "receipt": [
        b'{"receipt":{"form":"skyisland.receipt/1"},"signature":"-----BEGIN SSH SIGNATURE-----\\n"}\n'
    ],
    "package": [b"module example.com/m\n\nrequire x.org/y v1.0.0\n", b"/* a */ // b\n\npackage sub\n"],
}


def call(data: bytes) -> None:
    from skyisland.errors import BadCall
    from skyisland.golang.call import MAX_BYTES, parse_call
    from skyisland.golang.links import placed, shape_of

    try:
        understood = parse_call(data.decode(errors="surrogateescape"))
    except BadCall as refusal:
        assert refusal.message
        return
    if len(understood.text.encode()) <= MAX_BYTES:  # canonical text may have more spaces
        assert parse_call(understood.text).text == understood.text
    assert placed(understood.text)
    shape_of(understood.text)


LINKED = 'New("x").Sub(1).Do(F(2), len(G()))'
"""A call whose parts a compiler may say to give errors."""


def body(data: bytes) -> None:
    from skyisland.codec import decode
    from skyisland.errors import BadRequest
    from skyisland.wire import AddressBody, FunctionBody

    for shape in (FunctionBody, AddressBody):
        with contextlib.suppress(BadRequest):
            read = decode(data, shape)
            if isinstance(read, FunctionBody):
                assert isinstance(read.input, bytes)
                assert len(read.shown) < len(read.call) + len("".join(read.types)) + 2000


def url(data: bytes) -> None:
    from skyisland.errors import IslandError
    from skyisland.sources.url import parse_url, remote_of
    from skyisland.sources.versions import check_version
    from skyisland.sources.written import read

    text = data.decode(errors="surrogateescape")
    with contextlib.suppress(IslandError):
        for name in parse_url(text, ("https", "http", "ssh", "file")).candidates():
            assert not remote_of(name, ()).url.startswith("-")
    with contextlib.suppress(IslandError):
        check_version(text)
    with contextlib.suppress(IslandError):
        written = read(text, None, ("https",))
        for count in range(len(written.versions()) + 1) if written.rest else ():
            written.split(count + 1)


def settings(data: bytes) -> None:
    from skyisland.errors import SettingsError
    from skyisland.settings import Settings
    from skyisland.settings.reading import overlay
    from skyisland.settings.writing import dump

    try:
        tables = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        return
    try:
        read = overlay(Settings(), tables, "fuzz")
    except SettingsError as refusal:
        assert all(line.isprintable() for line in refusal.message.splitlines())
        return
    assert overlay(Settings(), tomllib.loads(dump(read, secrets=True)), "written") == read


def git(data: bytes) -> None:
    from skyisland.errors import IslandError
    from skyisland.sources.git import trouble_of
    from skyisland.sources.releases import order_of, releases_among
    from skyisland.sources.remotes import presentable
    from skyisland.sources.versions import begun_by, commit_among, default_branch, is_commit, near

    for version, package in ((None, ""), ("main", ""), ("latest", "sub"), ("v1", ""), ("/sub/v2", "")):
        with contextlib.suppress(IslandError):
            found = commit_among(data, version, package)
            assert found is None or is_commit(found)
    default_branch(data)
    near("main", data)
    assert all(order_of(one.version) and is_commit(one.commit) for one in releases_among(data, "sub"))
    assert all(is_commit(commit) for commit in begun_by("a", data))
    said = data.decode(errors="replace")
    trouble_of(said)
    assert presentable(said, "https://host/a", "host/a").isprintable()


def freebsd(data: bytes) -> None:
    from skyisland.drivers.freebsd import commands
    from skyisland.errors import DriverError

    text = data.decode(errors="replace")
    for parse in (commands.parse_jls, commands.parse_mounts, commands.parse_rules, commands.parse_usage):
        with contextlib.suppress(DriverError):
            parse(text)


def zfs(data: bytes) -> None:
    from skyisland.drivers.zfs.commands import parse_list
    from skyisland.errors import DriverError

    with contextlib.suppress(DriverError):
        parse_list(data.decode(errors="replace"))


def compiler(data: bytes) -> None:
    from skyisland.cause import Cause
    from skyisland.errors import BuildFailed
    from skyisland.golang.complaints import clean, explain
    from skyisland.golang.harness import call_errors, classify
    from skyisland.golang.links import more_links, without

    text = data.decode(errors="replace")
    for link in more_links(LINKED, (), clean(text, None)):
        assert 0 <= link.first <= link.last
    without(text)
    call_errors(text)
    assert Cause.of_error(BuildFailed(text, output=text)).text
    assert explain(classify(text), text, None)
    assert all(line.isprintable() or "\t" in line for line in clean(text, None).split("\n"))


def page(data: bytes) -> None:
    from skyisland.sources.vanity import go_imports

    assert all(said.vcs for said in go_imports(data))


def outcome(data: bytes) -> None:
    from skyisland.cause import LINE_CHARACTERS, Cause
    from skyisland.codec import encode
    from skyisland.golang.outcome import OneAnswer
    from skyisland.model import Outcome, Verdict

    for code in (0, 2):
        verdict = Verdict.exited if code else Verdict.ok
        left = Outcome(verdict=verdict, exit_code=code, stdout=data, stderr=data)
        answer = OneAnswer("n0")
        answer.take(data[:7])
        answer.take(data[7:])
        read = answer.told(left, len(data) // 2)
        assert len(read.stdout) <= len(data) // 2
        for result in (read.results, encode(read.error)):
            assert result is None or encode(msgspec.Raw(result)).decode()
        assert read.results is None or read.results.startswith(b"[")
        if cause := Cause.of_outcome(read, 1.0, ("a secret",)):
            assert len(cause.text) <= LINE_CHARACTERS
            assert cause.size_bytes < 20_000


def catalogue(data: bytes) -> None:
    from skyisland.errors import BuildFailed
    from skyisland.fakes import CATALOGUE
    from skyisland.golang.catalogue import hint, read

    with contextlib.suppress(BuildFailed):
        read(data)
    said = data.decode(errors="replace")
    for text in (said, f"call:1:1: undefined: {said}"):
        assert hint(CATALOGUE, said[:1000], text).isprintable()


def origin(data: bytes) -> None:
    from api.origin import ForeignOrigin, Origins, welcome
    from api.target import straight

    welcome([(b"access-control-request-method", b"PUT"), (b"access-control-request-headers", data)])
    asked: Any = {"path": data.decode("latin-1"), "headers": []}
    assert straight(asked, "/island")["path"] != "" or not data
    shown, _, host = data.partition(b"\n")
    headers = [(b"host", host), (b"origin", shown)]
    with contextlib.suppress(ForeignOrigin):
        Origins().check("POST", headers)
        assert shown.endswith(b"://" + host)


def answer(data: bytes) -> None:
    import asyncio

    import h11

    from api.handlers import Answering

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    handler = Answering(send, "inv-1")
    handler.asked(b"GET", b"/", [(b"Host", b"a")], b"")
    with contextlib.suppress(h11.RemoteProtocolError):
        asyncio.run(handler.take(data))
    assert handler.begun == bool(sent)


def webhook(data: bytes) -> None:
    from skyisland.errors import Forbidden
    from skyisland.named.webhooks import Scheme, check_signature

    names = [b"x-hub-signature-256", b"x-gitea-signature", b"x-gitlab-token", b"stripe-signature"]
    names += [b"webhook-id", b"webhook-timestamp", b"webhook-signature"]
    for scheme in Scheme:
        with contextlib.suppress(Forbidden):
            check_signature(scheme, "a secret", [(name, data) for name in names], data)
            raise AssertionError(f"{scheme} let it in")


def push(data: bytes) -> None:
    """The body of a push: JSON, or a form."""
    from skyisland.errors import BadRequest
    from skyisland.named.pushes import bare, read_payload

    for text in (data, b"payload=" + data):
        try:
            payload = read_payload(text)
        except BadRequest:
            continue
        for url in payload.repository.names():
            bare(url)


def headers(data: bytes) -> None:
    from api.later import LONGEST_WAIT_S, is_behind, preferences
    from api.media import wanted
    from skyisland.errors import IslandError
    from skyisland.trace import read

    text = data.decode("latin-1")
    assert 0 <= (preferences(text).wait_s or 0.0) <= LONGEST_WAIT_S
    with contextlib.suppress(IslandError):
        wanted(text)
    assert len(read(text)) in (0, 55)
    assert is_behind(data) is (b"u=7" in [one.strip() for one in data.split(b",")])


def request(data: bytes) -> None:
    import h11

    from api.plain import plain

    begun = b"GET / HTTP/1.1\r\nHost: a\r\n"
    for text in (data, begun + data, begun + b"X:" + data + b"\r\n\r\n"):
        if (taken := plain(text)) is not None:
            connection = h11.Connection(h11.SERVER)
            connection.receive_data(text)
            asked = connection.next_event()
            assert isinstance(asked, h11.Request)
            assert (taken.target, taken.headers) == (asked.target, list(asked.headers))


def package(data: bytes) -> None:
    from skyisland.errors import BuildFailed, Complaint
    from skyisland.golang.complaints import OUTPUT_CHARACTERS, add_reasons
    from skyisland.golang.modules import workspace_of
    from skyisland.golang.packages import in_way, read_package
    from skyisland.golang.reasons import uses_lfs
    from skyisland.host.tree import Tree
    from skyisland.model import Source

    with tempfile.TemporaryDirectory() as folder:
        for name in ("go.mod", "x.go", "go.work", ".gitmodules", ".gitattributes"):
            (Path(folder) / name).write_bytes(data)
        source = Source(url="example.com/user/repo", package="", commit="c" * 40, checkout=Path(folder))
        with contextlib.suppress(BuildFailed):
            read = read_package(source, "go1.27.3")
            assert not read.name or read.name.isidentifier()
            for way in read.ways:
                in_way(way, read, source, "go1.27.3")
        # What go.work uses is read only where it uses this very module.
        Path(folder, "go.mod").write_bytes(b"module m\n")
        for text in (data, b"use .\n" + data):
            Path(folder, "go.work").write_bytes(text)
            if workspace := workspace_of(Tree(Path(folder)), ""):
                assert "/../" not in workspace.text("1.27")
        add_reasons(BuildFailed("", complaint=Complaint.no_go_files), source)
        for complaint in (Complaint.undefined, Complaint.package, Complaint.missing_module):
            output = data.decode(errors="replace")[:OUTPUT_CHARACTERS]
            add_reasons(BuildFailed("", complaint=complaint, output=f"undefined: F\n{output}"), source)
        uses_lfs(Tree(Path(folder)), "")


def callee(data: bytes) -> None:
    from skyisland.errors import BadCall
    from skyisland.golang.callee import parse_callee

    name, *types = data.decode(errors="surrogateescape").split("\n")
    with contextlib.suppress(BadCall):
        assert parse_callee(name, tuple(types[:16])).takes_data


def parameters(data: bytes) -> None:
    from skyisland.golang.parameters import parameter_names
    from skyisland.model import Source

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x.go").write_bytes(data)
        source = Source(url="example.com/user/repo", package="", commit="c" * 40, checkout=Path(folder))
        assert all(name.isidentifier() for name in parameter_names(source, "F"))


def watched(data: bytes) -> None:
    from skyisland.jails.outputs import Reader

    for mark in (b"n0", b""):
        reader, written, seen = Reader(whole=True), bytearray(), 0
        for start in range(0, len(data), 4096):
            written += data[start : start + 4096]
            seen += len(reader.more(written, mark))
        while more := reader.more(written, mark, last=True):
            seen += len(more)
        assert seen <= len(data)
        assert mark or seen == len(data.decode(errors="replace"))


def fleet(data: bytes) -> None:
    """What another island wrote for all to find, and what it says."""
    from skyisland.builds.exchange import Offer
    from skyisland.fleet import binaries, commits, errands, frames, members, orders, results, streams

    for shape in (
        errands.CallFrame,
        errands.ResultFrame,
        errands.Word,
        members.Pulse,
        commits.CommitFrame,
        binaries.Lease,
        Offer,
    ):
        with contextlib.suppress(frames.BadFrame):
            frames.unpack(data, shape, most_bytes=errands.RESULT_BYTES)
    orders.put_of(data)
    results.record_of(streams.Stored(1, "", data, {}))
    with contextlib.suppress(frames.BadFrame):
        frames.unpack(data, results.Told, most_bytes=results.CHANGE_BYTES)


def receipt(data: bytes) -> None:
    from skyisland.errors import BadRequest
    from skyisland.receipts.receipt import file_of, read_file

    with contextlib.suppress(BadRequest):
        assert file_of(read_file(data)) == data


def packed(data: bytes) -> None:
    """A body as gzip, of one member or of many."""
    from api.bodies import _unpack
    from skyisland.errors import IslandError

    with contextlib.suppress(IslandError):
        assert len(_unpack(data, MOST_UNPACKED)) <= MOST_UNPACKED


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        call,
        body,
        packed,
        url,
        page,
        settings,
        git,
        freebsd,
        zfs,
        compiler,
        outcome,
        catalogue,
        origin,
        answer,
        webhook,
        push,
        headers,
        request,
        package,
        callee,
        parameters,
        watched,
        fleet,
        receipt,
    )
}


def fuzz(name: str, seconds: int) -> None:
    """Never returns: atheris ends the process."""
    import atheris

    with atheris.instrument_imports(include=["skyisland", "api"]):
        TARGETS[name](b"")
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (folder / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST_BYTES}", f"-timeout={SLOWEST_S}"]
    quiet = ["-verbosity=0", "-print_final_stats=1", f"-artifact_prefix={CORPUS}/{name}-"]
    atheris.Setup([name, *options, *quiet, str(folder)], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    if sys.argv[1] == "--one":
        fuzz(sys.argv[2], int(sys.argv[3]))
    failed = []
    for name in sys.argv[2:] or TARGETS:
        print(f"{name}: {sys.argv[1]} s", flush=True)
        if subprocess.run([sys.executable, __file__, "--one", name, sys.argv[1]], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}; the inputs lie in {CORPUS}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
