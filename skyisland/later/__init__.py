"""Calls that answer later: accepted, kept on disk, run when there is room, their results kept for a while.

    accept ─▶ Queue ─▶ Later runs it ─▶ Results ─▶ whoever asks, and a callback

    calls       what is kept of such a call: its order, its record, its attempts
    keeping     what a driver keeps: the protocols `Queue` and `Results`
    lines       who is next: clients in turns, each when it is due, within bounds
    memory      a driver that forgets with the process, for unit tests
    sqlite      a driver for one machine: one file, and larger results beside it
    orders      its queues
    journal     its transactions: many writers, one fsync
    running     runs orders, tries again, and notes how they ended
    pauses      how long to wait before that
    later       `Later`: accepts, tells, cancels, has the dead run again
    callbacks   sends the records of calls to who wants them, signed

What a driver promises: what it accepted is on disk before it says so; it is handed out until somebody says
that it is over; a result is recorded once, and the first one counts. So a call is run at least once, and at
most as often as `async.attempts` says, at whatever moment the process is killed.

It uses wire and codec, settings and host; it runs no call itself, but asks whoever made it to.
"""
