"""Receipts: what an island answered, of which code, signed, so that anybody may check it later.

    call ─▶ note ─▶ Receipt ─▶ canonical JSON ─▶ ssh-keygen -Y sign ─▶ Signed, a file

    receipt     what stands in one; its one form in bytes
    signing     the key, signatures, and how they are verified
    receipts    `Receipts`: remembers calls whose callers want one, makes it when it is fetched, and builds
                again what another receipt tells of

A call whose caller wants none costs nothing here. A receipt says that this island did this; that the code at
this commit is this binary, anybody can find out without trusting it, because builds are bit-identical.

It uses host and model; what it needs of an island is a protocol.
"""
