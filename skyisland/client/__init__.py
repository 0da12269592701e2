"""What programs import to call the functions of an island.

    from skyisland.client import Function, Island

    with Island("http://127.0.0.1:3280", token="…") as island:
        encode = Function("github.com/mmcloughlin/geohash", "Encode", version="v0.10.0")
        island.call(encode, 48.8584, 2.2945, as_type=str)          # 'u09tunquc9zh'
        island.call("encode", latitude=48.8584, longitude=2.2945)  # of a function that has a name

    callers      `Island` and `AsyncIsland`: call, submit, result, map, names
    asking       what both send and make of the answers, without sending anything
    operations   `Client`: every operation of the REST API, for the commands

Errors are those of `skyisland.errors`, each with the API's `code`; a function that did not end well is
`CallFailed`. docs/client.md has all of it, with what travels.
"""

from skyisland.client.asking import CallFailed, Function, Unreachable, way_to
from skyisland.client.callers import AsyncIsland, Island
from skyisland.client.operations import Client

__all__ = ["AsyncIsland", "CallFailed", "Client", "Function", "Island", "Unreachable", "way_to"]
