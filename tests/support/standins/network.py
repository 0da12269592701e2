"""ifconfig(8), route(8), pfctl(8): interfaces that exist only in the state."""

from __future__ import annotations

import sys

from tests.support.standins.state import Facts, KeepAndExit, State


def ifconfig(state: State) -> None:
    words = state.words
    with state.locked() as world:
        say = _ifconfig(state, world, words)
    if say:
        sys.stdout.write(say)


def _ifconfig(state: State, world: Facts, words: list[str]) -> str:
    interfaces = world["interfaces"]
    if words == ["-l"]:
        return " ".join(name for name, found in interfaces.items() if not found.get("jail")) + "\n"
    if words[:1] == ["-g"] and len(words) == 2:
        return "".join(f"{n}\n" for n, found in interfaces.items() if found.get("group") == words[1])
    if words[1:3] == ["create", "group"] and (len(words[3]) > 15 or words[3][-1].isdigit()):
        state.die(f"setifgroup: group name {words[3]}: Invalid argument")
    if words[:3] == ["epair", "create", "group"] and words[4:] in ([], ["up"]):
        number = world["next_epair"]
        world["next_epair"] += 1
        interfaces[f"epair{number}a"] = {"inet": [], "pair": number, "group": words[3]}
        interfaces[f"epair{number}b"] = {"inet": [], "pair": number}
        return f"epair{number}a\n"
    if words[:3] == ["bridge", "create", "group"] and words[4::2] == ["description", "name"]:
        # One after the other: what cannot be named exists all the same, as bridgeN (seen on 15.0).
        made = {"inet": [], "members": [], "description": words[5], "group": words[3]}
        if words[7] in interfaces:
            number = next(n for n in range(99) if f"bridge{n}" not in interfaces)
            interfaces[f"bridge{number}"] = made
            sys.stderr.write("ifconfig: ioctl SIOCSIFNAME (set name): File exists\n")
            raise KeepAndExit
        interfaces[words[7]] = made
        return f"{words[7]}\n"
    if words[:1] == ["-j"]:
        _, jail, name, *rest = words
        if jail not in world["jails"] or world["jails"][jail]["dying"]:
            state.die(f'jail "{jail}" not found')
        if name != "lo0" and interfaces.get(name, {}).get("jail") != jail:
            state.die(f"interface {name} does not exist")
        if len(rest) != 3 or rest[0] != "inet" or rest[2] != "up":
            state.usage()
        return ""
    name, *rest = words
    found = interfaces.get(name)
    if found is None or (found.get("jail") and rest[:1] != ["-vnet"]):
        state.die(f"interface {name} does not exist")
    match rest:
        case []:
            about = f"\tdescription: {found['description']}\n" if "description" in found else ""
            return f"{name}: flags=8843<UP,BROADCAST,RUNNING> metric 0 mtu 1500\n{about}"
        case ["inet"]:
            lines = [f"\tinet {ip} netmask {_hex(bits)} broadcast 0.0.0.0\n" for ip, bits in found["inet"]]
            return f"{name}: flags=8843<UP,BROADCAST,RUNNING> metric 0 mtu 1500\n" + "".join(lines)
        case ["inet", address, "alias"]:
            ip, _, bits = address.partition("/")
            if any(ip == known for other in interfaces.values() for known, _ in other["inet"]):
                return ""  # an alias that is there already is no error (seen on 15.0)
            found["inet"].append([ip, int(bits)])
        case ["inet", ip, "-alias"]:
            if ip not in [known for known, _ in found["inet"]]:
                state.die("SIOCDIFADDR: Can't assign requested address")
            found["inet"] = [pair for pair in found["inet"] if pair[0] != ip]
        case ["inet", address, "up"] if address.replace(".", "").replace("/", "").isdigit():
            if "pair" in found:
                state.die("an address on a member of a bridge: Invalid argument")
            ip, _, bits = address.partition("/")
            if [ip, int(bits)] not in found["inet"]:
                found["inet"].append([ip, int(bits)])
        case ["addm", port, "private", again, "up"] if port == again:
            if port not in interfaces:
                state.die(f"BRDGADD {port}: No such file or directory")
            found["members"].append(port)
        case ["up"]:
            found["up"] = True
        case ["vnet", jail]:
            if jail not in world["jails"] or "vnet" not in world["jails"][jail]["given"]:
                state.die(f'jail "{jail}" not found')
            found["jail"] = jail
        case ["-vnet", jail]:
            if found.get("jail") != jail or jail not in world["jails"]:
                state.die(f'jail "{jail}" not found')
            del found["jail"]
        case ["destroy"]:
            if "pair" in found:
                ends = [n for n, other in interfaces.items() if other.get("pair") == found["pair"]]
                if any(interfaces[end].get("lost") for end in ends):
                    world["lost_interfaces"] = True
                for end in ends:
                    del interfaces[end]
            elif "members" in found:
                del interfaces[name]
            else:
                state.die("SIOCIFDESTROY: Operation not supported")
            for other in interfaces.values():
                if "members" in other:
                    other["members"] = [member for member in other["members"] if member in interfaces]
        case _:
            state.usage()
    return ""


def _hex(bits: int) -> str:
    return f"0x{(0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF:08x}"


def route(state: State) -> None:
    words = state.words
    with state.locked() as world:
        if words == ["-n", "get", "-inet", "default"]:
            if not world["default_route"]:
                state.die("route has not been found")
            sys.stdout.write(f"   route to: 0.0.0.0\n  interface: {world['default_route']}\n")
        elif words[:2] == ["-q", "-j"] and words[3:5] == ["add", "default"] and len(words) == 6:
            if words[2] not in world["jails"]:
                state.die(f'jail "{words[2]}" not found')
        else:
            state.usage()


def pfctl(state: State) -> None:
    words = state.words
    if words[:2] == ["-q", "-k"] and len(words) == 3:
        with state.locked() as world:
            world["pf_states"] = [ip for ip in world.get("pf_states", []) if ip != words[2]]
        return
    if words[:2] != ["-q", "-t"] or words[3:4] != ["-T"]:
        state.usage()
    with state.locked() as world:
        table = world["pf"].get(words[2])
        if table is None:
            state.die("Table does not exist.", 255)
        match words[4:]:
            case ["show"]:
                sys.stdout.write("".join(f"   {ip}\n" for ip in table))
            case ["add", ip]:
                if ip not in table:
                    table.append(ip)
            case ["delete", ip]:
                world["pf"][words[2]] = [other for other in table if other != ip]
            case _:
                state.usage()
