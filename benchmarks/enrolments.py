"""Whole enrolments a second through the plain port, against the openssl command line signing the same requests."""

import asyncio
import json
import shutil
import subprocess
import time
from pathlib import Path

from calls import broker

from rsocket_broker.credentials import make_signing_request

COUNT = 60
"""As many as the broker's default rate lets one peer ask for in one go."""
AT_ONCE = 4


def app_folders(work: Path) -> list[tuple[Path, str]]:
    """A folder with a request in it for each app, made before the clock starts."""
    folders = []
    for number in range(COUNT):
        folder = work / f"app-{number}" / "sonar"
        folder.mkdir(parents=True, mode=0o700)
        request = make_signing_request(f"org.example.bench{number}")
        (folder / "app.csr").write_bytes(request.csr_pem)
        folders.append((folder, request.csr_pem.decode()))
    return folders


async def enroll(port: int, folder: Path, csr: str) -> None:
    from load import HEADER, frame, setup_frame  # the plain port takes claims as JSON, in the same frames

    claims = {"os": "Linux", "device": "bench", "device_id": "", "app": "Bench", "sdk_version": 4, "medium": 1}
    body = {"method": "signCertificate", "csr": csr, "destination": f"{folder}/", "medium": 1}
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(frame(setup_frame()[3:] + json.dumps(claims).encode()))
    writer.write(frame(HEADER.pack(1, 0x04 << 10) + json.dumps(body).encode()))
    size = int.from_bytes(await reader.readexactly(3), "big")
    answer = await reader.readexactly(size)
    writer.close()
    assert b"deviceId" in answer, answer
    assert (folder / "device.crt").exists()


async def enroll_all(port: int, folders: list[tuple[Path, str]]) -> float:
    queue = list(folders)

    async def worker() -> None:
        while queue:
            await enroll(port, *queue.pop())

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return len(folders) / (time.perf_counter() - started)


def sign_with_openssl(home: Path, folders: list[tuple[Path, str]], work: Path) -> float:
    """The way of Flipper's desktop: one openssl process for each request, signing with the same CA key."""
    authority = next((home / "ca").iterdir())
    started = time.perf_counter()
    for number, (folder, _) in enumerate(folders):
        arguments = ["-in", f"{folder}/app.csr", "-CA", f"{authority}/ca.crt", "-CAkey", f"{authority}/ca.key"]
        command = ["openssl", "x509", "-req", *arguments, "-set_serial", str(number + 1), "-days", "30", "-sha256"]
        subprocess.run([*command, "-out", f"{work}/{number}.crt"], check=True, capture_output=True)
    return len(folders) / (time.perf_counter() - started)


def measure_enrolments(work: Path) -> dict[str, float]:
    """name → enrolments (or bare signatures) a second."""
    home = work / "enrolment-home"
    home.mkdir(mode=0o700)
    folders = app_folders(work)
    with broker(home) as (_, ports):
        rate = asyncio.run(enroll_all(ports["insecure_port"], folders))
    figures = {"broker": rate}
    if shutil.which("openssl"):
        figures["openssl command line"] = sign_with_openssl(home, folders, work)
    return figures
