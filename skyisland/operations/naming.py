"""What is asked of functions with a name: to call, define, move and pause them, and their secrets."""

from __future__ import annotations

from skyisland.named.definition import DefinitionBody, MoveBody, Revision, RollbackBody, SecretBody
from skyisland.named.functions import Named
from skyisland.named.pushes import Pushed
from skyisland.operations.operation import Operation, Role
from skyisland.wire import Answer, NamedCallBody

CALL = Operation(
    name="call",
    method="POST",
    path="/api/v1/names/{name}",
    summary="Run the function that has this name, at the commit that it stands for. Takes a token where the "
    "island is not open to all, or the name is for some callers only.",
    role=Role.caller,
    body=NamedCallBody,
    answer=Answer,
)

NAMES = Operation(
    name="names",
    method="GET",
    path="/api/v1/names",
    summary="The functions that have a name.",
    role=Role.operator,
    answer=list[Named],
    field="names",
)

NAME = Operation(
    name="named",
    method="GET",
    path="/api/v1/names/{name}",
    summary="What a name stands for; its revision is the ETag.",
    role=Role.operator,
    answer=Named,
    tag="revision",
)

DEFINE = Operation(
    name="define",
    method="PUT",
    path="/api/v1/names/{name}",
    summary="Have a name stand for a function, once that is built. With `If-Match`, only if the name is at "
    "that revision; with `If-None-Match: *`, only if it is new.",
    role=Role.admin,
    body=DefinitionBody,
    answer=Named,
    tag="revision",
)

FORGET = Operation(
    name="forget",
    method="DELETE",
    path="/api/v1/names/{name}",
    summary="Forget a name and its history.",
    role=Role.admin,
    answer=str,
    field="forgotten",
)

REVISIONS = Operation(
    name="revisions",
    method="GET",
    path="/api/v1/names/{name}/revisions",
    summary="What a name stood for, latest first.",
    role=Role.operator,
    answer=list[Revision],
    field="revisions",
)

MOVE = Operation(
    name="move",
    method="POST",
    path="/api/v1/names/{name}/move",
    summary="Move a name to another version, or to where its version points now, once that is built.",
    role=Role.admin,
    body=MoveBody,
    answer=Named,
    tag="revision",
)

ROLL_BACK = Operation(
    name="roll_back",
    method="POST",
    path="/api/v1/names/{name}/rollback",
    summary="Have a name stand for what an earlier revision stood for, at its commit.",
    role=Role.admin,
    body=RollbackBody,
    answer=Named,
    tag="revision",
)

PAUSE = Operation(
    name="pause",
    method="POST",
    path="/api/v1/names/{name}/pause",
    summary="Refuse calls of a name.",
    role=Role.admin,
    answer=Named,
    tag="revision",
)

RESUME = Operation(
    name="resume",
    method="POST",
    path="/api/v1/names/{name}/resume",
    summary="Take calls of a name again.",
    role=Role.admin,
    answer=Named,
    tag="revision",
)

PUSH = Operation(
    name="push",
    method="POST",
    path="/api/v1/names/{name}/push",
    summary="Tell a name that something was pushed to its repository, as GitHub, Gitea and GitLab do by "
    "themselves. The signature counts, and no token; the body is theirs.",
    answer=Pushed,
    field="push",
)

SECRETS = Operation(
    name="secrets",
    method="GET",
    path="/api/v1/secrets",
    summary="The names of the secrets. Nothing shows their values.",
    role=Role.operator,
    answer=list[str],
    field="secrets",
)

SET_SECRET = Operation(
    name="set_secret",
    method="PUT",
    path="/api/v1/secrets/{secret}",
    summary="Keep a secret, for the names that have it.",
    role=Role.admin,
    body=SecretBody,
    answer=str,
    field="secret",
)

FORGET_SECRET = Operation(
    name="forget_secret",
    method="DELETE",
    path="/api/v1/secrets/{secret}",
    summary="Forget a secret that no name has.",
    role=Role.admin,
    answer=str,
    field="forgotten",
)
