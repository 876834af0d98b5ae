"""Whole enrolments a second through the plain port, against a loop that only signs, and against the openssl tool."""

import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from measures import Figures, Limit, Outdo, Reach, Result, Scale, Workshop, result
from servers import CpuMeter, broker_command, serving
from wire import REQUEST_RESPONSE, data_of, request, setup

RATE = ("--enrollments-per-minute", "1000000")
CLAIMS = {"os": "Linux", "device": "bench", "device_id": "", "app": "Bench", "sdk_version": 4, "medium": 1}
ANSWERED_WITHIN = 60.0
REACHES: tuple[Reach, ...] = (
    Outdo(0.45, "signing loop", ("rate",)),
    Outdo(10, "openssl tool", ("rate",)),
    Limit("refused", 0, "in all"),
)


@attrs.frozen
class Applicant:
    """An app's folder, with its request in it."""

    app_id: str
    folder: Path
    csr: bytes


class Applicants:
    """Makes apps, before the clock starts. They share one key: what is measured is not the making of keys."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self.key = rsa.generate_private_key(65537, 2048)  # what Flipper's SDKs make
        self.made: list[Applicant] = []

    def take(self, count: int) -> list[Applicant]:
        new = [self._make(f"org.example.bench{next(self._numbers)}") for _ in range(count)]
        self.made += new
        return new

    def _make(self, app_id: str) -> Applicant:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, app_id)])
        csr = x509.CertificateSigningRequestBuilder(name).sign(self.key, hashes.SHA256())
        folder = self._folder / app_id
        folder.mkdir(parents=True, mode=0o700)
        pem = csr.public_bytes(serialization.Encoding.PEM)
        (folder / "app.csr").write_bytes(pem)
        return Applicant(app_id, folder, pem)


async def enrol(port: int, applicant: Applicant) -> bool:
    """The whole exchange, as an SDK does it. False when it was refused."""
    body = {"method": "signCertificate", "csr": applicant.csr.decode(), "destination": f"{applicant.folder}/"}
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ask = request(1, REQUEST_RESPONSE, None, json.dumps({**body, "medium": 1}).encode())
    writer.write(setup(CLAIMS) + ask)
    answer = await reader.readexactly(int.from_bytes(await reader.readexactly(3), "big"))
    writer.close()
    return b"deviceId" in data_of(answer)


async def enrol_all(port: int, pid: int, applicants: Sequence[Applicant], at_once: int) -> Figures:
    waiting, enrolled = iter(applicants), []

    async def worker() -> None:
        enrolled.extend([await enrol(port, applicant) for applicant in waiting])

    meter, started = CpuMeter(pid), time.perf_counter()
    async with asyncio.timeout(ANSWERED_WITHIN), asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
    elapsed, used = time.perf_counter() - started, meter.seconds()
    done = len(applicants)
    return {"rate": done / elapsed, "cpu": used / done * 1e6, "refused": float(enrolled.count(False))}


def check_deployed(applicants: Sequence[Applicant], key: rsa.RSAPrivateKey) -> None:
    for applicant in applicants:
        leaf = x509.load_pem_x509_certificate((applicant.folder / "device.crt").read_bytes())
        assert leaf.public_key() == key.public_key(), applicant.app_id


# --- the references --------------------------------------------------------------------------------------------------


def authority_of(home: Path) -> Path:
    """The folder of the home's only generation."""
    (generation,) = (home / "ca").iterdir()
    return generation


def signing_loop(home: Path, applicants: Sequence[Applicant]) -> Figures:
    """Parse, check the request's signature, build, sign, write as PEM, with the broker's CA key and library."""
    folder = authority_of(home)
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    issuer = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes()).subject
    assert isinstance(key, rsa.RSAPrivateKey)
    now = datetime.now(UTC)
    started, used = time.perf_counter(), time.process_time()
    for applicant in applicants:
        csr = x509.load_pem_x509_csr(applicant.csr)
        assert csr.is_signature_valid
        serial = x509.random_serial_number()
        builder = x509.CertificateBuilder(issuer, csr.subject, csr.public_key(), serial, now, now + timedelta(30))
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    done, elapsed = len(applicants), time.perf_counter() - started
    return {"rate": done / elapsed, "cpu": (time.process_time() - used) / done * 1e6}


def openssl_tool(home: Path, applicants: Sequence[Applicant]) -> Figures:
    """The way of Flipper's desktop: one openssl process for each request, signing with the same CA key."""
    folder = authority_of(home)
    started = time.perf_counter()
    for number, applicant in enumerate(applicants):
        authority = ["-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key", "-set_serial", str(number + 1)]
        command = ["openssl", "x509", "-req", "-in", f"{applicant.folder}/app.csr", *authority, "-days", "30"]
        subprocess.run([*command, "-sha256"], check=True, capture_output=True)
    return {"rate": len(applicants) / (time.perf_counter() - started)}


# --- the measure -----------------------------------------------------------------------------------------------------


def measure(workshop: Workshop, scale: Scale) -> Iterator[Result]:
    home = workshop.copied_home()
    applicants = Applicants(workshop.folder / "apps")
    references: dict[str, Callable[[Path, Sequence[Applicant]], Figures]] = {"signing loop": signing_loop}
    if shutil.which("openssl"):
        references["openssl tool"] = openssl_tool
    else:
        workshop.say("without the openssl tool: apt-get install openssl")
    with serving(home, *RATE) as (pid, ports):
        for at_once in (1, 4, 32):
            name = f"enrolments, file system, {at_once} at a time"
            if not scale.wants(name):
                continue
            found: dict[str, list[Figures]] = {"broker": []} | {name: [] for name in references}
            for _ in range(scale.rounds):
                those = applicants.take(scale.amount(160, least=at_once))
                found["broker"].append(asyncio.run(enrol_all(ports["insecure_port"], pid, those, at_once)))
                check_deployed(those, applicants.key)
                for reference, job in references.items():
                    found[reference].append(job(home, those[: scale.amount(80, least=8)]))
            yield result(name, found, REACHES, "serve " + " ".join(RATE))
        os.kill(pid, signal.SIGKILL)
    check_recorded(home, applicants.made)


def check_recorded(home: Path, applicants: Sequence[Applicant]) -> None:
    """Every app that had its answer before the broker was killed is in the record."""
    listed = subprocess.run(
        broker_command("--home", str(home), "ca", "list", "--json"), check=True, capture_output=True, text=True
    )
    lost = {one.app_id for one in applicants} - {entry["app_id"] for entry in json.loads(listed.stdout)}
    assert not lost, f"answered and not recorded: {sorted(lost)[:5]}"
