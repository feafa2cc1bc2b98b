"""A certificate authority to throw away, made by the ``openssl`` program."""

import shutil
import ssl
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

_REQUEST = """\
[req]
distinguished_name = name
prompt = no
[name]
CN = {name}
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth
subjectAltName = {alternatives}
"""


class NoOpenssl(Exception):  # noqa: N818 - what is missing
    """There is no ``openssl`` program on this machine, or it cannot do what is needed."""


@dataclass(slots=True, frozen=True)
class Certificates:
    """A server's certificate for one host, and who has signed it.

    Attributes:
        authority: What clients must trust, in PEM.
        context: What the server needs.
    """

    authority: str
    context: ssl.SSLContext


def make_certificates(host: str) -> Certificates:
    """Make an authority, and a certificate that it signs for a host (and localhost), good for some days.

    Raises:
        NoOpenssl: The program that makes them is missing, or failed.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        raise NoOpenssl("there is no openssl program on this machine")
    is_address = host.replace(".", "").isdigit()
    alternatives = f"DNS:localhost, IP:127.0.0.1, {'IP' if is_address else 'DNS'}:{host}"
    with tempfile.TemporaryDirectory(prefix="bitrix-pull-") as directory:
        here = Path(directory)

        def run(*arguments: str) -> None:
            done = subprocess.run([openssl, *arguments], cwd=here, capture_output=True, check=False)
            if done.returncode:
                raise NoOpenssl(f"openssl failed: {done.stderr.decode(errors='replace').strip()}")

        def config(name: str) -> str:
            path = here / f"{name}.cnf"
            path.write_text(_REQUEST.format(name=f"bitrix_pull emulator {name}", alternatives=alternatives))
            return path.name

        new_key = ("-newkey", "rsa:2048", "-nodes")
        authority = "ca.pem -keyout ca.key -extensions authority -days 30 -config " + config("authority")
        run("req", "-x509", *new_key, "-out", *authority.split())
        request = "server.csr -keyout server.key -config " + config("server")
        run("req", *new_key, "-out", *request.split())
        signed = "server.pem -CA ca.pem -CAkey ca.key -CAcreateserial -extensions server -days 30"
        run("x509", "-req", "-in", "server.csr", "-extfile", "server.cnf", "-out", *signed.split())
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(here / "server.pem", here / "server.key")
        return Certificates((here / "ca.pem").read_text(), context)
