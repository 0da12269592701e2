"""What stands in a receipt, and its one form in bytes: JSON with sorted keys and without spaces.

A receipt has texts, whole numbers and lists of texts alone, so its form is also that of RFC 8785. A file that
is not byte for byte in this form is no receipt, whatever it says: nothing in it may change unnoticed.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, structs

from skyisland.errors import BadRequest

FORM = "skyisland.receipt/1"
FILE_BYTES = 256 << 10
"""No receipt is longer: its expression, which may be 64 KiB of signs that JSON escapes, is the most of it."""
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
LINE_CHARACTERS = 70
"""Of the lines of a signature, as OpenSSH writes them."""

Text = Annotated[str, Meta(max_length=2048)]
Hash = Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")]
"""A SHA-256 in hex digits; empty where there is nothing to hash."""
Commit = Annotated[str, Meta(pattern="^[0-9a-f]{40}$")]


class Provenance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a binary was made of."""

    repository: Text
    """The repository's canonical name: `github.com/user/repo`."""
    package: Text
    """Folder of the package below the repository, empty for its root."""
    commit: Commit
    function: Annotated[str, Meta(max_length=64 << 10)]
    expression: Annotated[str, Meta(max_length=128 << 10)] | None
    """The compiled expression; None where the binary takes its arguments as data."""
    package_name: Text
    go_mod_sha256: Hash
    go_sum_sha256: Hash
    """Of the files of the package's module: they say what else it was compiled of."""
    toolchain: Text
    """`go1.25.4`."""
    platform: Text
    """`linux/amd64`."""
    flags: tuple[Text, ...]
    """Of `go build`."""
    recipe: Hash
    """Of all that went into it, and of the main program that the island puts around it: its key in the
    cache."""
    binary_sha256: Hash


class Receipt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a call was, and what came of it."""

    form: Text = FORM
    island: Text
    """The tag of the island that answered."""
    island_version: Text
    id: Text
    """The call's."""
    at: int
    """When it began, in seconds since the epoch."""
    url: Text
    """What the caller asked for, or the name that it called stands for."""
    arguments_sha256: Hash
    """Of `args` as they were sent, to the byte; else of the text of `call`."""
    stdin_sha256: Hash
    """Of what the function could read."""
    verdict: Text
    exit_code: int | None
    output_sha256: Hash
    """Of `data`, to the byte."""
    results_sha256: Hash
    """Of the JSON of `results`, to the byte; empty where there are none."""
    made: Provenance
    limits: dict[Text, int]
    """What the jail might use, of what was limited."""
    driver: Text
    """What confined it."""
    enforced: tuple[Text, ...]
    """What the host enforced, of the capabilities that it tells."""


class Signed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A receipt with its signature by SSH (PROTOCOL.sshsig), as it stands in a file."""

    receipt: Receipt
    signature: Annotated[str, Meta(max_length=8192)]


class Built(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/reproduce: what to build again."""

    repository: Text
    package: Text
    commit: Commit
    function: Annotated[str, Meta(max_length=64 << 10)]
    expression: Annotated[str, Meta(max_length=128 << 10)] | None = None
    package_name: Text = ""

    @classmethod
    def of(cls, made: Provenance) -> Built:
        return cls(**{field: getattr(made, field) for field in cls.__struct_fields__})


def canonical(value: Any) -> bytes:
    """The one form of a receipt, or of a file."""
    return msgspec.json.encode(value, order="sorted")


def file_of(signed: Signed) -> bytes:
    """The content of a receipt's file: one line."""
    return canonical(signed) + b"\n"


def read_file(content: bytes) -> Signed:
    """A receipt that nobody has verified yet, from the content of its file.

    Raises:
        BadRequest: it is none, or not in its one form.
    """
    if len(content) > FILE_BYTES:
        raise BadRequest(f"a receipt is no longer than {FILE_BYTES} bytes")
    try:
        signed = msgspec.json.decode(content, type=Signed)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"this is no receipt: {error}") from None
    if signed.receipt.form != FORM:
        raise BadRequest(f"this is no receipt of the form {FORM}")
    if file_of(signed) != content or _armored(signed.signature) != signed.signature:
        raise BadRequest("the file was changed: its bytes are not in the form in which a receipt is written")
    return signed


def _armored(signature: str) -> str:
    """The signature as OpenSSH would write it; empty if it is none."""
    head, _, rest = signature.partition("\n")
    body, _, tail = rest.rstrip("\n").rpartition("\n")
    if (head, tail) != (BEGIN, END):
        return ""
    try:
        text = b64encode(b64decode(body.replace("\n", ""), validate=True)).decode()
    except ValueError:
        return ""
    lines = [text[at : at + LINE_CHARACTERS] for at in range(0, len(text), LINE_CHARACTERS)]
    return "\n".join((BEGIN, *lines, END, ""))


def differences(told: Provenance, found: Provenance) -> list[str]:
    """In words, in what two binaries differ that should be the same. Another recipe does not count where it
    makes the same binary: a later Sky Island may have changed what this one has nothing of."""
    if told.binary_sha256 == found.binary_sha256:
        found = structs.replace(found, recipe=told.recipe)
    return [
        f"{field}: the receipt says {getattr(told, field)}, and it is {getattr(found, field)}"
        for field in Provenance.__struct_fields__
        if getattr(told, field) != getattr(found, field)
    ]
