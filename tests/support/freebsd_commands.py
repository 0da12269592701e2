"""Every command line of FreeBSD, as a reader of its manual pages would check it: docs/freebsd-commands.md.

The page is made of the functions that make the command lines. To make it anew after a change:

    python -m tests.support.freebsd_commands
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from skyisland.drivers.freebsd import base, network
from skyisland.drivers.freebsd import commands as jail
from skyisland.drivers.zfs import commands as zfs
from skyisland.model import Address, Clone, JailSpec, Limits, Mount, NetworkAccess, Snapshot
from tests.support import places

PAGE = places.ROOT / "docs" / "freebsd-commands.md"

ROOT = Path("/sky/jails/sky-c0de-8f2a91c3d0")
GENERATION = "zroot/sky-c0de/base/14.3-RELEASE-1"
CLONE = "zroot/sky-c0de/run/sky-c0de-8f2a91c3d0"
ADDRESS = Address(ip="10.61.0.7", prefix=24, gateway="10.61.0.1")
LIMITS = Limits(memory_bytes=256 << 20, pids=128, cpus=1.0, open_files=256, file_bytes=64 << 20)
SPEC = JailSpec(
    name="sky-c0de-1f",
    jid=31,
    clone=Clone("sky-c0de-1f", Snapshot(f"{GENERATION}@ready", Path("/sky/base/14.3-RELEASE-1")), ROOT),
    argv=("/function",),
    env=(("TZ", "UTC"),),
    limits=LIMITS,
    network=NetworkAccess.none,
)
BUILD = JailSpec(
    name="sky-c0de-20",
    jid=32,
    clone=SPEC.clone,
    argv=("/usr/local/go/bin/go", "build", "-o", "/out/function", "./_skyisland"),
    cwd="/src",
    limits=Limits(memory_bytes=2 << 30, pids=512),
)
FOLDERS = [
    Mount(Path("/usr/local/go"), "/usr/local/go"),
    Mount(Path("/sky/gocache/go1.25.4/own/ab12"), "/cache", writable=True),
]


def make(
    spec: JailSpec, network: tuple[str, ...], folders: Sequence[Mount] = (), rules: Sequence[str] = ()
) -> tuple[str, ...]:
    user = (jail.BUILD_USER, 1_900_000_000) if spec is BUILD else (jail.FUNCTION_USER, 1_900_000_001)
    return ("launcher", *jail.make_words(spec, ROOT, folders, network, user, island=4711, rules=rules))


PARTS: list[tuple[str, str, list[tuple[str, ...]]]] = [
    (
        "At the start",
        "The kernel, the two users, the devices that jails see.",
        [
            jail.LIST_PARAMETERS,
            jail.RACCT,
            jail.user_argv(jail.FUNCTION_USER),
            jail.add_user_argv(jail.FUNCTION_USER, 1_900_000_001),
            jail.devices_argv(jail.RULESET),
            *jail.device_rules(jail.RULESET),
        ],
    ),
    (
        "The base system",
        "Once per release; `MANIFEST` is read and base.txz checked before.",
        [
            base.extract_argv(Path("/sky/base.txz"), Path("/sky/base/14.3-RELEASE-1")),
            base.update_argv(Path("/sky/base/14.3-RELEASE-1"), "14.3-RELEASE", "fetch"),
            base.update_argv(Path("/sky/base/14.3-RELEASE-1"), "14.3-RELEASE", "install"),
        ],
    ),
    (
        "Datasets",
        "The island's own are marked by a property; a generation is laid, held and never written again.",
        [
            zfs.list_argv("zroot/sky-c0de", depth=3, types="filesystem,snapshot"),
            zfs.create_argv(
                "zroot/sky-c0de",
                **{"canmount": "off", "mountpoint": "none", zfs.MARK: "c0de", "compression": "off"},
            ),
            zfs.create_argv("zroot/sky-c0de/base", canmount="off", mountpoint="/sky/base", atime="off"),
            zfs.create_argv(
                "zroot/sky-c0de/run",
                canmount="off",
                mountpoint="/sky/jails",
                sync="disabled",
                atime="off",
                setuid="off",
                exec="on",
            ),
            zfs.create_argv(GENERATION),
            zfs.mounted_argv(GENERATION),
            zfs.argv("set", "readonly=on", GENERATION),
            zfs.argv("snapshot", f"{GENERATION}@ready"),
            zfs.argv("hold", zfs.HOLD, f"{GENERATION}@ready"),
            zfs.argv("mount", GENERATION),
        ],
    ),
    (
        "A newer generation takes over",
        "The old one goes with the last clone that stands on it.",
        [
            zfs.argv("release", zfs.HOLD, "zroot/sky-c0de/base/14.2-RELEASE-1@ready"),
            zfs.retire_argv("zroot/sky-c0de/base/14.2-RELEASE-1@ready"),
            zfs.destroy_argv("zroot/sky-c0de/base/14.2-RELEASE-1"),
        ],
    ),
    (
        "A clone",
        "Made ahead of its call; `mounted` must say yes, whatever the exit code was.",
        [zfs.clone_argv(f"{GENERATION}@ready", CLONE, 256 << 20), zfs.mounted_argv(CLONE)],
    ),
    (
        "A jail for a function",
        "The binary is copied into the clone. An order for the launcher is words on a socket. Their first "
        "letters say what they are (`take` in `skyisland/drivers/freebsd/launcher/order.go`).",
        [
            make(SPEC, jail.NO_ADDRESS, rules=jail.limit_rules(LIMITS)),
            jail.usage_argv(SPEC.name),
        ],
    ),
    (
        "A jail for a build",
        "Folders are mounted by nullfs. The second of these jails downloads modules, on the host's network.",
        [
            make(BUILD, jail.NO_ADDRESS, FOLDERS, rules=jail.limit_rules(BUILD.limits, hard=False)),
            make(BUILD, jail.HOST_NETWORK, FOLDERS, rules=jail.limit_rules(BUILD.limits, hard=False)),
        ],
    ),
    (
        "An address: an alias",
        "It is there before the jail is.",
        [
            network.DEFAULT_ROUTE,
            network.addresses_argv("em0"),
            network.alias_argv("em0", ADDRESS.ip),
            network.TABLE_SHOW,
            network.table_argv("add", ADDRESS.ip),
            make(SPEC, (f"4ip4.addr={ADDRESS.ip}", "iip6=0")),
            network.table_argv("delete", ADDRESS.ip),
            network.forget_argv(ADDRESS.ip),
            network.unalias_argv("em0", ADDRESS.ip),
        ],
    ),
    (
        "An address: a VNET",
        "It is given to the jail, and taken back before the jail ends.",
        [
            network.FORWARDING,
            network.INTERFACES,
            network.show_argv("sky0"),
            network.bridge_argv("sky0", "c0de"),
            network.gateway_argv("sky0", "10.61.0.1", 24),
            make(SPEC, ("ivnet=1",)),
            network.epair_argv("c0de"),
            network.join_argv("sky0", "epair0a"),
            network.give_argv("epair0b", SPEC.name),
            *network.equip_argvs("epair0b", SPEC.name, ADDRESS),
            network.withdraw_argv("epair0b", SPEC.name),
            network.destroy_argv("epair0a"),
            network.destroy_argv("sky0"),
        ],
    ),
    (
        "The end of a jail",
        "With the mounts below its clone, and its rules.",
        [("launcher", *jail.remove_words(SPEC.name, ROOT)), zfs.destroy_argv(CLONE)],
    ),
    (
        "The end of many clones",
        "With the channel program of `skyisland/drivers/zfs/commands.py` on standard input.",
        [
            zfs.umount_argv([str(ROOT), "/sky/jails/sky-c0de-11d0a7b2ee"]),
            zfs.program_argv("zroot", [CLONE, "zroot/sky-c0de/run/sky-c0de-11d0a7b2ee"]),
        ],
    ),
    (
        "What an earlier life left",
        "Jails, mounts, rules, clones and ports are found by the island's name.",
        [
            *(jail.LIST_JAILS, jail.LIST_MOUNTS, jail.LIST_RULES),
            zfs.list_argv("zroot/sky-c0de/run", depth=1),
            network.members_argv(network.ports("c0de")),
            network.members_argv(network.bridges("c0de")),
        ],
    ),
]  # fmt: skip


def skeleton(words: Sequence[str]) -> frozenset[str]:
    """What of a command line does not change with its values: program, verbs, flags, keys."""
    if words[0] == "launcher":
        words = [*words[:2], *(word[1:] for word in words[2:] if word[0] in "sib4")]
    if words[0] == "rctl":
        words = [re.sub(r"^jail:[^:]+", "jail:", word) for word in words]
    kept = [word.partition("=")[0] for word in words if "=" in word or re.fullmatch(r"-.*|[a-z:]+", word)]
    return frozenset({words[0], *kept} - {"tank", "zroot", jail.FUNCTION_USER, jail.BUILD_USER})


def page() -> str:
    text = [
        "# Sky Island's command lines on FreeBSD\n",
        "Every line that the drivers run, with example values, in the order of a jail's life. Each is one "
        "argument per word and passes through no shell; words with blanks are quoted here for the eye. The "
        "page is made by `python -m tests.support.freebsd_commands`, and tests hold it against the code.\n",
    ]
    for title, about, lines in PARTS:
        text += [f"## {title}\n", f"{about}\n", "```"]
        text += [" ".join(_shown(word) for word in line) for line in lines]
        text += ["```\n"]
    return "\n".join(text)


def _shown(word: str) -> str:
    return f"'{word}'" if set(word) & set(' *"$') else word


if __name__ == "__main__":
    PAGE.write_text(page())
