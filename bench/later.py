"""Figure 10: calls that answer later. How many are accepted in a second, and how soon after the 202 is the
result.

Accepted means on disk: the rate is that of the disk's fsync, shared by those who come at one time. The island
runs calls meanwhile, as it would.
"""

from __future__ import annotations

import http.client
import json
import selectors
from contextlib import closing

from bench.figures import Measured
from bench.load import Connection, now
from bench.rows import Row, ms, p50, p99
from bench.stand import CALL, PATH, Stand, body

CONNECTIONS = 64
SETTINGS = {"async": {"max_queued": 1_000_000, "queued_per_client": 1_000_000}}
TARGET_RATE = 1000.0


def later(stand: Stand, seconds: float, calls: int) -> Measured:
    """Measure both, and plain warm calls beside them."""
    plain = [_one(stand, {})[0] for _ in range(calls)][calls // 5 :]
    pairs = [_one(stand, {"Prefer": "respond-async"}) for _ in range(calls)][calls // 5 :]
    accepted, results = zip(*pairs, strict=True)
    rate = _rate(stand, seconds)
    note = f"{CONNECTIONS} connections"
    rows = [
        Row(
            figure="10a",
            what="calls accepted per second, each on disk before its 202",
            ours=f"{rate:.0f}",
            target=f"≥ {TARGET_RATE:.0f}",
            hit=rate >= TARGET_RATE,
            note=note,
        ),
        Row(
            figure="10b",
            what="a warm call accepted",
            ours=ms(p50(accepted)),
            peer=ms(p50(plain)),
            peer_name="answered",
            ratio=p50(accepted) / p50(plain),
        ),
        Row(
            figure="10c",
            what="from the 202 to the result, p50",
            ours=ms(p50(results)),
            peer=ms(p50(plain)),
            peer_name="answered",
            ratio=p50(results) / p50(plain),
            note=f"p99 {ms(p99(results))}",
        ),
    ]
    return rows, {"rate": rate, "accepted_ms": list(accepted), "result_ms": list(results)}


def _one(stand: Stand, headers: dict[str, str]) -> tuple[float, float]:
    """Milliseconds until a call is answered; and from there until its result, if it answers later."""
    with closing(http.client.HTTPConnection("127.0.0.1", stand.port, timeout=60)) as connection:
        connection.connect()
        begun = now()
        connection.request("POST", PATH, body("geohash", CALL), headers)
        answer = connection.getresponse()
        said = json.loads(answer.read())
        answered = now()
        if answer.status == http.client.ACCEPTED:
            connection.request("GET", f"/api/v1/calls/{said['id']}", headers={"Prefer": "wait=30"})
            said = json.loads(connection.getresponse().read())
            assert said["state"] == "done", said
    return (answered - begun) * 1000, (now() - answered) * 1000


def _rate(stand: Stand, seconds: float) -> float:
    """Calls accepted per second."""
    content = body("geohash", CALL)
    request = b"POST %b HTTP/1.1\r\nHost: bench\r\nPrefer: respond-async\r\nContent-Length: %d\r\n\r\n%b" % (
        PATH.encode(),
        len(content),
        content,
    )
    poll, count, begun = selectors.DefaultSelector(), 0, now()
    connections = [Connection(stand.port) for _ in range(CONNECTIONS)]
    for one in connections:
        poll.register(one.socket, selectors.EVENT_READ, one)
        one.send(request)
    while now() - begun < seconds:
        for key, _ in poll.select(1):
            if key.data.receive() is not None:
                count += 1
                key.data.send(request)
    spent = now() - begun
    for one in connections:
        one.socket.close()
    return count / spent
