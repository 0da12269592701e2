"""What `skyisland fleet init` writes: the servers' configuration, and the commands that make certificates.

A server knows a node by its certificate alone (`verify_and_map`): the subject `CN=<node>,O=<fleet>` is a
user of the fleet's own account, who may publish as itself and listen to what is meant for it. So no node can
pretend to be another, and nobody without a certificate of the fleet's authority is heard at all.

    ca.pem ca.key                 the authority; the key stays with whoever adds nodes
    servers/<host>/               nats.conf with the server's certificate: goes to /etc/nats of that host
    nodes/<node>/                 the node's certificate: goes to /etc/skyisland/fleet of its host; and
                                  fleet.toml, the lines for its settings file
    certificates.sh               makes ca, certificates and keys that are not there yet, by openssl(1)

Texts come out, no file is touched here (`cli/joining.py` writes them). Why a limit is as it is stands beside
it in the file that is written.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath

import tomli_w
from msgspec import Struct

from skyisland.fleet.subjects import Subjects

CLIENT_PORT, ROUTE_PORT = 4222, 6222
"""Of clients, and of servers among themselves: NATS' own."""
NODE_FOLDER = "/etc/skyisland/fleet"
"""Where a node's files lie on its host."""
MAX_PAYLOAD = "4MB"
"""Over the default of 1 MB: a call's arguments and output may have as much each."""


class Plan(Struct, frozen=True, kw_only=True):
    """A fleet to be."""

    fleet: str
    nodes: tuple[str, ...]
    servers: tuple[str, ...]
    """Hosts that run nats-server: one, or three and more of them for a cluster."""
    folder: str = "/etc/nats"
    """Where a server's files lie on its host."""
    store: str = "/var/lib/nats"
    """Where a server keeps calls, results and binaries."""
    store_size: str = "10GB"
    listen: str = "0.0.0.0"  # noqa: S104 - whoever has no certificate gets no word
    port: int = CLIENT_PORT
    route_port: int = ROUTE_PORT

    @property
    def replicas(self) -> int:
        """Copies of all that must not be lost."""
        return 3 if len(self.servers) >= 3 else 1

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(f"tls://{host}:{self.port}" for host in self.servers)


def user(fleet: str, node: str) -> str:
    """The name by which a server knows a node: its certificate's subject, as Go prints one."""
    return f"CN={node},O={fleet}"


def publishes(fleet: str, node: str) -> list[str]:
    """The subjects on which a node may publish. An answer goes where a request wants it, and nowhere else."""
    own = Subjects(fleet, node)
    return [
        own.pulse,
        own.hello,
        own.at("*", "call"),
        own.at("*", f"admin.{node}"),
        own.of("admin", node),
        own.hung_up,
        own.built("*"),
        own.commit,
        own.kept(">"),
        own.told("*", "*"),
        own.renamed,
        "$JS.API.>",
        "$JS.ACK.>",
        "$JS.FC.>",
        *(f"$KV.{own.bucket(kind)}.>" for kind in ("COMMITS", "LEASE", "FIRED")),
        # Who compiled what, each under its own name alone.
        f"$KV.{own.bucket('BUILT')}.*.{node}",
        f"$O.{own.bucket('BIN')}.>",
    ]


NEVER = ["$JS.API.STREAM.DELETE.>", "$JS.API.STREAM.RESTORE.>", "$JS.API.STREAM.SNAPSHOT.>"]
"""What no node may ask of a server: that would take all calls, or all results, away."""


def subscribes(fleet: str, node: str) -> list[str]:
    """The subjects to which a node may listen."""
    own = Subjects(fleet, node)
    return [
        f"{own.inbox}.>",
        own.pulses,
        own.hello,
        own.at(node, ">"),
        own.of("admin", "*"),
        own.hung_up,
        own.built("*"),
        own.commit,
        own.told("*", "*"),
        own.renamed,
    ]


def nats_conf(plan: Plan, host: str) -> str:
    """The configuration of the server on this host."""
    return "\n".join(_conf(plan, host)) + "\n"


def _conf(plan: Plan, host: str) -> Iterator[str]:
    folder = PurePosixPath(plan.folder)
    yield f"# The server of the fleet {plan.fleet} on {host}, written by `skyisland fleet init`."
    yield "# nats-server 2.10.25 or newer; 2.11.9 or newer where there are three."
    yield f"server_name: {json.dumps(host)}"
    yield f'listen: "{plan.listen}:{plan.port}"'
    yield ""
    yield "# A call's arguments and output may have 1 MiB each."
    yield f"max_payload: {MAX_PAYLOAD}"
    yield "# Who reads slower than it is sent to is cut off, so that it costs the others nothing."
    yield "max_pending: 32MB"
    yield 'write_deadline: "5s"'
    yield "# A cut cable is noticed within 15 s."
    yield 'ping_interval: "5s"'
    yield "ping_max: 2"
    yield "max_control_line: 4KB"
    yield "max_subscriptions: 1000"
    yield ""
    yield "# The certificate says who a node is, and nothing else does."
    yield "tls {"
    yield f'  ca_file: "{folder / "ca.pem"}"'
    yield f'  cert_file: "{folder / "server.pem"}"'
    yield f'  key_file: "{folder / "server.key"}"'
    yield "  verify_and_map: true"
    yield "  timeout: 5"
    yield "}"
    yield ""
    yield "jetstream {"
    yield f'  store_dir: "{plan.store}"'
    yield f"  max_file_store: {plan.store_size}"
    yield "  max_memory_store: 64MB"
    yield "  # What was accepted is on the disk, also when the power fails."
    yield "  sync_interval: always"
    yield "}"
    if len(plan.servers) > 1:
        yield from _cluster(plan, folder)
    yield ""
    yield "accounts {"
    yield "  SKY {"
    yield "    jetstream { max_file: -1, max_memory: -1, max_streams: 64, max_consumers: 4096 }"
    yield "    users: ["
    for node in plan.nodes:
        yield from _node(plan.fleet, node)
    yield "    ]"
    yield "  }"
    yield "}"


def _cluster(plan: Plan, folder: PurePosixPath) -> Iterator[str]:
    yield ""
    yield "cluster {"
    yield f"  name: {json.dumps(plan.fleet)}"
    yield f'  listen: "{plan.listen}:{plan.route_port}"'
    yield "  # Only hosts that are named here are servers: a node's certificate opens no route."
    yield "  tls {"
    yield f'    ca_file: "{folder / "ca.pem"}"'
    yield f'    cert_file: "{folder / "server.pem"}"'
    yield f'    key_file: "{folder / "server.key"}"'
    yield "    verify_cert_and_check_known_urls: true"
    yield "    timeout: 5"
    yield "  }"
    yield "  routes: ["
    for host in plan.servers:
        yield f'    "nats-route://{host}:{plan.route_port}"'
    yield "  ]"
    yield "}"


def _node(fleet: str, node: str) -> Iterator[str]:
    yield "      {"
    yield f"        user: {json.dumps(user(fleet, node))}"
    yield "        permissions {"
    yield f"          publish {{ allow: {json.dumps(publishes(fleet, node))}"
    yield f"            deny: {json.dumps(NEVER)} }}"
    yield f"          subscribe {{ allow: {json.dumps(subscribes(fleet, node))} }}"
    yield "          # Answers and beats of a call go to whoever asked for it, for as long as it may run."
    yield '          allow_responses { max: 100000, expires: "1h" }'
    yield "        }"
    yield "      }"


def node_toml(plan: Plan, node: str) -> str:
    """The section of a node's settings file."""
    files = {"tls_ca": "ca.pem", "tls_cert": "node.pem", "tls_key": "node.key"}
    section = {
        "name": plan.fleet,
        "node": node,
        "servers": list(plan.urls),
        **{key: f"{NODE_FOLDER}/{file}" for key, file in files.items()},
        "replicas": plan.replicas,
    }
    return tomli_w.dumps({"fleet": section})


def certificates_sh(plan: Plan) -> str:
    """The commands that make the authority, and a certificate for each server and node that has none yet."""
    return "\n".join(_commands(plan)) + "\n"


def _commands(plan: Plan) -> Iterator[str]:
    yield "#!/bin/sh"
    yield f"# Certificates of the fleet {plan.fleet}, by openssl(1). What is there stays, so run it again for"
    yield "# a node that was added. Whoever has ca.key can add nodes: keep it away from all of them."
    yield "set -eu"
    yield "umask 077"
    yield 'cd "$(dirname "$0")"'
    yield "key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'"
    yield ""
    yield "[ -e ca.pem ] || openssl req -x509 $key -days 3650 -keyout ca.key -out ca.pem \\"
    yield f"  -subj {shlex.quote(f'/O={plan.fleet}/CN=the authority of {plan.fleet}')} \\"
    yield "  -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign"
    yield ""
    yield "# NAME FOLDER SUBJECT EXTENSIONS: a key, and a certificate for it that the authority signs."
    yield "certify() {"
    yield '  [ -e "$2/$1.pem" ] && return'
    yield '  mkdir -p "$2"'
    yield '  openssl req -new $key -subj "$3" -keyout "$2/$1.key" -out "$2/$1.csr"'
    yield '  printf "%b" "$4" >"$2/$1.ext"'
    yield '  openssl x509 -req -in "$2/$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 \\'
    yield '    -extfile "$2/$1.ext" -out "$2/$1.pem"'
    yield '  rm "$2/$1.csr" "$2/$1.ext"'
    yield '  cp ca.pem "$2/ca.pem"'
    yield "}"
    yield ""
    for host in plan.servers:
        extensions = f"subjectAltName={_name(host)}\\nextendedKeyUsage=serverAuth,clientAuth\\n"
        subject = f"/O={plan.fleet}/OU=servers/CN={host}"
        yield f"certify server servers/{shlex.quote(host)} {shlex.quote(subject)} {shlex.quote(extensions)}"
    for node in plan.nodes:
        subject = f"/O={plan.fleet}/CN={node}"
        yield f"certify node nodes/{node} {shlex.quote(subject)} 'extendedKeyUsage=clientAuth\\n'"


def _name(host: str) -> str:
    """A host among the names of a certificate. Servers compare each other's with DNS names alone, so that an
    address is one, too."""
    is_address = ":" in host or re.fullmatch(r"[0-9.]+", host)
    return f"IP:{host},DNS:{host}" if is_address else f"DNS:{host}"
