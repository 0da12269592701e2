"""Certificates for tests, made by openssl(1)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from msgspec import Struct

from api.tls import Tls


class Signed(Struct, frozen=True):
    """A certificate that has signed itself, with its key."""

    certificate: Path
    key: Path

    @property
    def tls(self) -> Tls:
        return Tls(str(self.certificate), str(self.key))


def signed(folder: Path, name: str = "island.example.org") -> Signed:
    """A new one for `name`, in `cert.pem` and `key.pem` of the folder."""
    made = Signed(folder / "cert.pem", folder / "key.pem")
    words = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name}".split()
    files = ["-keyout", str(made.key), "-out", str(made.certificate), "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run(["openssl", *words, *files], check=True, capture_output=True)
    return made
