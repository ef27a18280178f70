"""Firmware images that are real files, boot anywhere Python runs, and can be built with a defect.

An image is the firmware itself, unchanged from its first byte, followed by a small zip archive: the
image's own self-test. Python runs such a file as it is (``python image --self-test``), so that a
device's health check *executes* what was written to its slot. The test compares every block of the
firmware with the digests that were taken when it was built. All images of one firmware have one
size: whatever version a slot held before, no byte of it is left behind the new one.

Not here: anything about releases. To the rest of the system an image is bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import sysconfig
import tarfile
import zipfile
from pathlib import Path

from protocol.errors import LocalFault, Malformed

BLOCK = 64 * 1024
DEFAULT_SIZE = 4 * 1024 * 1024
MAX_SIZE = 1 << 28
_LONGEST_VERSION = len("65535.65535.4294967295")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the least date a zip archive can hold

_SELF_TEST = '''\
"""The image tests itself: every block of the firmware is what was built."""
import hashlib, json, sys, zipfile

with zipfile.ZipFile(sys.argv[0]) as archive:
    built = json.loads(archive.read("built.json"))
with open(sys.argv[0], "rb") as image:
    for number, digest in enumerate(built["blocks"]):
        size = min(built["block"], built["size"] - number * built["block"])
        if hashlib.sha256(image.read(size)).hexdigest() != digest:
            sys.exit(f"self-test of {built['version']}: block {number} is not what was built")
print(f"self-test of {built['version']}: {len(built['blocks'])} blocks are what was built")
'''


def standard_firmware(size: int = DEFAULT_SIZE) -> bytes:
    """About ``size`` bytes of software that is there with every Python: its own library, as a tar.

    Files are taken in the order of their names with dates and owners left out, so that one Python
    gives one image.
    """
    library = Path(sysconfig.get_path("stdlib"))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(library.rglob("*.py")):
            name = path.relative_to(library).as_posix()
            if len(name) > 90 or name.startswith(("site-packages/", "test/")):
                continue
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
            if packed.tell() >= size:
                break
    return packed.getvalue()


def read_firmware(path: Path) -> bytes:
    """The firmware in a file; `Malformed` if it is empty or larger than `MAX_SIZE`."""
    try:
        with path.open("rb") as file:
            firmware = file.read(MAX_SIZE + 1)
    except OSError as fault:
        raise LocalFault(
            "firmware-unreadable",
            f"{path} not read",
            fault.strerror or str(fault),
            "name a firmware image with --firmware",
        ) from fault
    if not 0 < len(firmware) <= MAX_SIZE:
        raise Malformed(
            "firmware-size",
            f"{path} refused",
            "it is empty" if not firmware else f"it has more than {MAX_SIZE} bytes",
            "name a firmware image with --firmware",
        )
    return firmware


def image(firmware: bytes, version: str) -> bytes:
    """The image of one version: ``firmware`` and its self-test."""
    blocks = [
        hashlib.sha256(firmware[at : at + BLOCK]).hexdigest()
        for at in range(0, len(firmware), BLOCK)
    ]
    built = {"version": version, "size": len(firmware), "block": BLOCK, "blocks": blocks}
    padding = " " * (_LONGEST_VERSION - len(version))
    return firmware + _archive(
        {"__main__.py": _SELF_TEST, "built.json": json.dumps(built) + padding}
    )


def defective_image(firmware: bytes, version: str) -> bytes:
    """An image whose build went wrong after its digests were taken: one block is erased flash."""
    good = image(firmware, version)
    start = len(firmware) // 2 // BLOCK * BLOCK
    erased = b"\xff" * min(BLOCK, len(firmware) - start)
    return good[:start] + erased + good[start + len(erased) :]


def _archive(members: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), text)
    return packed.getvalue()
