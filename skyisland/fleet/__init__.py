"""Several islands that are one, over servers of NATS: `[fleet]` in the settings.

    island ── Fleet ── Line ── NATS servers ── Line ── Fleet ── island

An island in a fleet is a whole island. What it can answer alone it answers alone, with no message sent; while
the servers are away it does alone all that one can, and says so. Without `[fleet]` nothing here is imported.

    opening     from settings to a fleet
    checks      what `skyisland doctor` says of it
    fleet       `Fleet`: joins and leaves, says a pulse each second, tells operators who is there
    elsewhere   where a call runs that has no room here; told when it is lost
    guests      calls of other islands that run here
    errands     what both say to each other
    operators   what an operator asks of other islands, and their answers
    commits     what remotes said to any island: one answer for all
    binaries    one build for all: leases, and who compiled what
    files       the bytes of binaries, by hash
    members     what is known of each island, by its last pulse; which ones are home to a function
    line        what the room asks of a connection: publish, listen, serve, request, gather
    natsline    that, to NATS servers (nats-py)
    buckets     small things that all share, by key
    store       calls that answer later, kept by the servers
    orders      their queues: one island has each order, until it is done or that island is lost
    lanes       how an island asks a queue, client after client
    results     their records, and Idempotency-Keys
    index       which calls there are, for lists
    pieces      results that are longer than a message
    spool       the same for what one island alone keeps, while the servers are away
    names       functions with a name, the same on all islands
    streams     a stream of the servers: made, written to, read
    words       what may stand in a subject; refusals in the words of `later`
    frames      what islands say to each other: msgpack, bounded, of one form
    subjects    the names of subjects, buckets and streams
    serverfiles what `skyisland fleet init` writes for servers and nodes

To add a subject, give it a name in `subjects` and a struct for its frames, and then, at any time, whether the
servers can be reached or not:

    await line.listen(subject, heard)            heard(message) is called for each; it must not raise or wait
    await serve(line, subject, answers)          answers(message) makes the answer; many at a time
    await request(line, subject, pack(frame), within_s=1)
    await gather(line, subject, pack(frame), within_s=0.3, most=len(fleet.members.nodes()))

What came is read by `unpack(message.data, Shape, most_bytes=…)`, which is linear and refuses what is longer.
What needs streams or buckets takes `NatsLine.client.jetstream()` where it needs it, never before: `client`
raises `Away` while there is none. What must be there first is made by a coroutine that is given to
`line.whenever_joined`, and awaited each time that the servers are reached. A publish into a stream carries a
`Nats-Msg-Id`.

Tests: `tests.support.fleets` has a line in memory (`Hub`), and the fixture `nats_server`: a real server for a
whole run, in which the name of a fleet keeps tests apart (`fleet_name`).

It uses rooms, later, named, status, settings and host. Nobody imports it but wiring.
"""
