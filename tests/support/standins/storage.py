"""zfs(8), mount(8), umount(8). A dataset is a folder at its mount point, a snapshot a copy aside."""

from __future__ import annotations

import os
import sys

from tests.support.standins.state import TYPE_CHECKING, Facts, KeepAndExit, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

PROPERTIES = "mountpoint canmount sync atime setuid exec devices compression quota readonly".split()


def zfs(state: State) -> None:
    verb, *words = state.words
    if any(w[:1] == "-" and w[1:].isalpha() and "r" in w.lower() for w in words) or verb == "promote":
        state.usage()
    verbs = {
        "clone": _clone, "create": _create, "destroy": _destroy, "get": _get, "hold": _hold, "list": _list,
        "mount": _mount, "program": _program, "release": _release, "set": _set, "snapshot": _snapshot,
    }  # fmt: skip
    if verb not in verbs:
        sys.stderr.write(f"unrecognized command '{verb}'\n")
        raise SystemExit(2)
    with state.locked() as world:
        say = verbs[verb](state, world, words)
    if say:
        sys.stdout.write(say)


def _die(text: str, code: int = 1) -> NoReturn:
    sys.stderr.write(f"{text}\n")
    raise SystemExit(code)


def _options(state: State, words: list[str]) -> tuple[dict[str, str], list[str]]:
    given = {}
    while words[:1] == ["-o"]:
        key, equals, value = words[1].partition("=")
        if not equals or not (key in PROPERTIES or ":" in key):
            _die(f"cannot create: invalid property '{key}'", 2)
        given[key] = value
        words = words[2:]
    return given, words


def _inherited(world: Facts, name: str, key: str, default: str) -> str:
    while name:
        properties: dict[str, str | None] = world["datasets"].get(name, {}).get("properties", {})
        if (value := properties.get(key)) is not None:
            return value
        name = name.rpartition("/")[0]
    return default


def mountpoint(world: Facts, name: str) -> str | None:
    above, below = name, ""
    while above:
        point: str | None = world["datasets"][above]["properties"].get("mountpoint")
        if point == "none":
            return None
        if point:
            return point + below
        above, _, last = above.rpartition("/")
        below = f"/{last}{below}"
    return None


def _new(world: Facts, name: str, properties: dict[str, str], origin: str = "-") -> None:
    if not all(c.isalnum() or c in "_.:/-" for c in name):
        _die(f"cannot create '{name}': invalid character in name")
    if name in world["datasets"]:
        _die(f"cannot create '{name}': dataset already exists")
    pool = name.partition("/")[0]
    if pool not in world["datasets"]:
        _die(f"cannot create '{name}': no such pool '{pool}'")
    if name.rpartition("/")[0] not in world["datasets"]:
        _die(f"cannot create '{name}': parent does not exist")
    world["datasets"][name] = {"properties": properties, "mounted": False, "origin": origin}


def _mount_it(world: Facts, name: str) -> bool:
    dataset = world["datasets"][name]
    point = mountpoint(world, name)
    if dataset["properties"].get("canmount") == "off" or point is None:
        return True
    if world.get("mount_fails"):
        return False
    os.makedirs(point, exist_ok=True)
    dataset["mounted"] = True
    return True


def _not_mounted(world: Facts) -> None:
    sys.stderr.write("filesystem successfully created, but not mounted\n")
    if world["mount_fails"] == "exit 1":
        raise KeepAndExit


def _create(state: State, world: Facts, words: list[str]) -> None:
    properties, (name,) = _options(state, words)
    _new(world, name, properties)
    if not _mount_it(world, name):
        _not_mounted(world)


def _store(state: State, snapshot: str) -> str:
    return f"{state.folder}/snapshots/{snapshot.replace('/', '+')}"


def _copy(source: str, target: str) -> None:
    if os.spawnv(os.P_WAIT, "/bin/cp", ["cp", "-a", "--reflink=auto", f"{source}/.", target]) != 0:
        _die(f"a stand-in cannot copy {source} to {target}")


def _remove(folder: str) -> None:
    if os.spawnv(os.P_WAIT, "/bin/rm", ["rm", "-rf", folder]) != 0:
        _die(f"a stand-in cannot remove {folder}")


def _snapshot(state: State, world: Facts, words: list[str]) -> None:
    (name,) = words
    dataset, at, last = name.partition("@")
    if not at or not last or dataset not in world["datasets"]:
        _die(f"cannot open '{dataset}': dataset does not exist")
    if name in world["datasets"]:
        _die(f"cannot create snapshot '{name}': dataset already exists")
    point = mountpoint(world, dataset)
    if point is None:
        _die(f"a stand-in takes no snapshot of '{dataset}', which has no mount point")
    store = _store(state, name)
    os.mkdir(store)
    _copy(point, store)
    world["datasets"][name] = {"properties": {}, "mounted": False, "origin": "-", "holds": []}


def _clone(state: State, world: Facts, words: list[str]) -> None:
    properties, (snapshot, name) = _options(state, words)
    if "@" not in snapshot or snapshot not in world["datasets"]:
        _die(f"cannot open '{snapshot}': dataset does not exist")
    if "refquota" in properties:
        _die("a stand-in knows better than refquota on a clone", 2)
    _new(world, name, properties, origin=snapshot)
    if not _mount_it(world, name):
        _not_mounted(world)
        return
    point = mountpoint(world, name)
    if point is None or os.listdir(point):
        _die(f"cannot mount '{point}': directory is not empty")
    _copy(_store(state, snapshot), point)


def _destroy(state: State, world: Facts, words: list[str]) -> None:
    deferred = words[:1] == ["-d"]
    if words[:1] in (["-f"], ["-d"]):
        words = words[1:]
    (name,) = words
    problem = destroy(state, world, name, deferred=deferred)
    if problem:
        sys.stderr.write(f"{problem}\n")
        raise KeepAndExit  # a dying jail has come nearer to its end


def destroy(state: State, world: Facts, name: str, *, deferred: bool = False) -> str:
    """What is wrong, or nothing when it is gone."""
    datasets = world["datasets"]
    if "@" in name:
        if name not in datasets:
            return "could not find any snapshots to destroy; check snapshot names."
        clones = [other for other, found in datasets.items() if found["origin"] == name]
        if datasets[name]["holds"] and not deferred:
            return f"cannot destroy snapshot {name}: it's being held"
        if clones and not deferred:
            return f"cannot destroy snapshot {name}: snapshot is cloned"
        datasets[name]["deferred"] = True
        _settle(state, datasets)
        return ""
    if name not in datasets:
        return f"cannot open '{name}': dataset does not exist"
    if any(other.startswith((f"{name}/", f"{name}@")) for other in datasets):
        return f"cannot destroy '{name}': filesystem has children\nuse '-r' to destroy the following datasets"
    if (problem := busy(world, name)) or not release_pins(world, name):
        return problem or f"cannot destroy '{name}': dataset is busy"
    point = mountpoint(world, name)
    if datasets[name]["mounted"] and point:
        _remove(point)
    del datasets[name]
    _settle(state, datasets)
    return ""


def busy(world: Facts, name: str) -> str:
    point = mountpoint(world, name)
    if any(mount["point"].startswith(f"{point}/") for mount in world["mounts"]):
        return f"cannot unmount '{point}': pool or dataset is busy"
    if any(jail["path"] == point and not jail["dying"] for jail in world["jails"].values()):
        return f"cannot unmount '{point}': pool or dataset is busy"
    return ""


def release_pins(world: Facts, name: str) -> bool:
    """A dying jail holds its root for a while; here, for a number of attempts."""
    point = mountpoint(world, name)
    for jail_name, jail in list(world["jails"].items()):
        if jail["path"] == point and jail["dying"]:
            jail["dying"] -= 1
            if jail["dying"]:
                return False
            del world["jails"][jail_name]
    return True


def _settle(state: State, datasets: Facts) -> None:
    """Deferred snapshots go when nothing holds them."""
    for name in [name for name, found in datasets.items() if found.get("deferred")]:
        if not datasets[name]["holds"] and all(found["origin"] != name for found in datasets.values()):
            _remove(_store(state, name))
            del datasets[name]


def _rows(world: Facts, words: list[str], types: str) -> Iterator[str]:
    depth = 0
    if words[:1] == ["-d"]:
        depth, words = int(words[1]), words[2:]
    (name,) = words
    if name not in world["datasets"]:
        _die(f"cannot open '{name}': dataset does not exist")
    for other in sorted(world["datasets"]):
        kind = "snapshot" if "@" in other else "filesystem"
        below = other.removeprefix(name)
        deep = below.count("/") + below.count("@")
        if (
            other.startswith(name)
            and below[:1] in ("", "/", "@")
            and deep <= depth
            and kind in types.split(",")
        ):
            yield other


def _list(state: State, world: Facts, words: list[str]) -> str:
    if words[:2] != ["-Hp", "-o"] or words[3] != "-t":
        state.usage()
    columns, types = words[2].split(","), words[4]
    lines = []
    for name in _rows(world, words[5:], types):
        lines.append("\t".join(_value(world, name, column) for column in columns))
    return "".join(f"{line}\n" for line in lines)


def _value(world: Facts, name: str, column: str) -> str:
    found = world["datasets"][name]
    if column == "name":
        return name
    if column == "origin":
        return str(found.get("origin", "-"))
    if column == "mounted":
        return "-" if "@" in name else ("yes" if found["mounted"] else "no")
    return _inherited(world, name.partition("@")[0], column, "-")


def _get(state: State, world: Facts, words: list[str]) -> str:
    if words[:3] != ["-Hpo", "value", "mounted"] or len(words) != 4:
        state.usage()
    if words[3] not in world["datasets"]:
        _die(f"cannot open '{words[3]}': dataset does not exist")
    return _value(world, words[3], "mounted") + "\n"


def _set(state: State, world: Facts, words: list[str]) -> None:
    (assignment, name) = words
    key, _, value = assignment.partition("=")
    if key not in PROPERTIES or name not in world["datasets"]:
        _die(f"cannot open '{name}': dataset does not exist")
    world["datasets"][name]["properties"][key] = value


def _hold(state: State, world: Facts, words: list[str]) -> None:
    (tag, snapshot) = words
    if snapshot not in world["datasets"]:
        _die(f"cannot hold snapshot '{snapshot}': dataset does not exist")
    if tag in world["datasets"][snapshot]["holds"]:
        _die(f"cannot hold snapshot '{snapshot}': tag already exists on this dataset")
    world["datasets"][snapshot]["holds"].append(tag)


def _release(state: State, world: Facts, words: list[str]) -> None:
    (tag, snapshot) = words
    if tag not in world["datasets"].get(snapshot, {}).get("holds", []):
        _die(f"cannot release hold from snapshot '{snapshot}': no such tag on this dataset")
    world["datasets"][snapshot]["holds"].remove(tag)
    _settle(state, world["datasets"])


def _mount(state: State, world: Facts, words: list[str]) -> None:
    (name,) = words
    if world["datasets"][name]["mounted"]:
        _die(f"cannot mount '{name}': filesystem already mounted")
    if not _mount_it(world, name):
        _die(f"cannot mount '{name}': mountpoint or dataset is busy")


def _program(state: State, world: Facts, words: list[str]) -> str:
    flag, pool, script, *names = words
    if (flag, script) != ("-j", "-") or pool not in world["datasets"] or not names:
        state.usage()
    text = sys.stdin.read()
    if "zfs.sync.destroy(" not in text:
        _die("a stand-in knows one program only")
    results = {}
    for name in names:
        if name not in world["datasets"]:
            _die(f"Channel program execution failed:\nno such dataset '{name}'")
        still = world["datasets"][name]["mounted"] or busy(world, name)
        results[name] = 16 if still or destroy(state, world, name) else 0
    import json

    return json.dumps({"return": results}) + "\n"


# mount, umount


def mount(state: State) -> None:
    words = state.words
    if words == ["-p"]:
        with state.locked() as world:
            lines = [
                f"{name}\t{mountpoint(world, name)}\tzfs\trw\t0 0\n"
                for name, found in world["datasets"].items()
                if found["mounted"] and mountpoint(world, name)
            ]
            lines += [
                f"{m['source']}\t{m['point']}\t{m['type']}\t{m['options']}\t0 0\n" for m in world["mounts"]
            ]
        sys.stdout.write("".join(lines))
    else:
        state.usage()


def nullfs(state: State, writable: bool, source: str, point: str) -> str:
    """Show a folder at another place; why not, if that cannot be."""
    if not os.path.isdir(source) or not os.path.isdir(point):
        return "no such file or directory"
    if os.path.realpath(point) != point:
        return "a stand-in does not like a symbolic link"
    with state.locked() as world:
        if any(mount["point"] == point for mount in world["mounts"]):
            return "resource deadlock avoided"
        options = "rw" if writable else "ro"
        world["mounts"].append({"type": "nullfs", "source": source, "point": point, "options": options})
    return ""


def umount(state: State) -> None:
    flag, *points = state.words
    if flag != "-f" or not points:
        state.usage()
    failed = False
    for point in points:
        with state.locked() as world:
            found = next((mount for mount in world["mounts"] if mount["point"] == point), None)
            dataset = next(
                (name for name, known in world["datasets"].items()
                 if known["mounted"] and mountpoint(world, name) == point), None
            )  # fmt: skip
            if (
                found is None
                and dataset is not None
                and not busy(world, dataset)
                and release_pins(world, dataset)
            ):
                _remove(point)
                os.mkdir(point)
                world["datasets"][dataset]["mounted"] = False
                continue
            if found is None:
                sys.stderr.write(f"umount: {point}: not a file system root directory\n")
                failed = True
                continue
            if any(mount["point"].startswith(f"{point}/") for mount in world["mounts"]):
                sys.stderr.write(f"umount: unmount of {point} failed: Device busy\n")
                failed = True
                continue
            world["mounts"].remove(found)
        if found["type"] == "devfs":
            from tests.support.standins.jails import empty

            empty(point)
    if failed:
        raise SystemExit(1)
