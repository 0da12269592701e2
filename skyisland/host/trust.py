"""Whom a client trusts that speaks TLS to an island.

On the island's own host that is the certificate which the settings name, and no other: whatever name stands
in it, and whoever signed it, for the island is reached by an address there. Who names authorities
(`--cacert`) trusts what they signed; the certificate must then be for the name that is asked, but on
loopback, for which nobody has one.
"""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from skyisland.errors import SettingsError

_LEAF = "-----END CERTIFICATE-----"


def trusting(url: str, *, own: str = "", authorities: Path | None = None) -> ssl.SSLContext | None:
    """The TLS of a client of `url`; None where that speaks none. Blocks.

    `own`: the file of the island's certificate, on its own host; one that this user may not read is left out.
    `authorities`: a file of certificates, which count in place of `own`. Without both, those of the host
    count, or of the variables SSL_CERT_FILE and SSL_CERT_DIR.

    Raises:
        SettingsError: `authorities` cannot be read.
    """
    if not url.startswith("https:"):
        return None
    if authorities is not None:
        return _of_authorities(url, authorities)
    return _of_certificate(own) or ssl.create_default_context()


def _of_authorities(url: str, file: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=file)
    except OSError as error:  # SSLError is one
        raise SettingsError(f"--cacert: {file} is no file of certificates (PEM): {error}") from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the island's own certificate will do
    context.check_hostname = not _is_loopback(urlsplit(url).hostname or "")
    return context


class OwnCertificate(ssl.SSLContext):
    """Trusts the first certificate of `file` alone: what stands behind it has signed others, too."""

    file = ""

    def read(self) -> None:
        """Trust what the file has now: it may have been renewed. Blocks.

        Raises:
            OSError: it has no certificate, or cannot be read.
        """
        try:
            text = Path(self.file).read_text()
            self.load_verify_locations(cadata=text.partition(_LEAF)[0] + _LEAF)
        except ValueError as error:
            raise OSError(f"{self.file} has no certificate: {error}") from None


def _of_certificate(file: str) -> ssl.SSLContext | None:
    context = OwnCertificate(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.file = file
    try:
        context.read()
    except OSError:
        return None
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def distrust(error: BaseException | None) -> str | None:
    """What of TLS made a connection fail, with the remedy; None if it was something else."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"TLS: its certificate is not trusted ({error.verify_message}); name the file of that, or of who "
            "signed it, by --cacert or SSL_CERT_FILE"
        )
    if error is None:
        return None
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        return "TLS: whoever listens there speaks none; was the island started before api.tls_cert was set?"
    return f"TLS: {error.reason or error}"
