"""Where an embedded ledger lives: its folders, its keys, and the lock that keeps it to one process.

Layout, under the registry's directory:

=============================  ===================================================================
``ledger/chain.sqlite``        the chain (see `store`)
``ledger/validators/N.key``    four private keys, 32 bytes in hex, mode 0600: opened by this package
                               alone; whoever reads them can seal anything
``ledger/lock``                held (flock) by the one process that has the ledger open
``keys/fee.json``              the registry's own sender account, mode 0600, opened by its worker:
                               ``{"address": "0x…", "private_key": "0x…"}``
=============================  ===================================================================

Guarantees: a ledger is laid whole or not at all (built aside, then renamed); a second process is
refused; a lock left by a killed process is no lock, for the kernel drops it.

Danger: ``ledger/`` must never be copied back from a backup and served. The chain would go on from
an old head with other blocks at heights already sealed, which devices rightly take for
equivocation, and freeze. See docs/adr/0003-embedded-ledger.md.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from coincurve import PrivateKey

from protocol.errors import LocalFault, Misuse
from protocol.ids import Address
from registry.embedded.sealing import address_of

VALIDATORS = 4
KEY_BYTES = 32
MAX_KEY_FILE = 1024

Entropy = Callable[[int], bytes]


class Home:
    """The paths of one ledger under ``directory``, and its keys."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ledger = directory / "ledger"
        self.fee_file = directory / "keys" / "fee.json"

    @property
    def chain_file(self) -> Path:
        """The SQLite file."""
        return self.ledger / "chain.sqlite"

    def validator_keys(self, listed: Sequence[Address]) -> list[PrivateKey]:
        """The four sealing keys, which must be those of the validators that the chain lists."""
        folder = self.ledger / "validators"
        keys = [_read_key(folder / f"{place}.key") for place in range(1, VALIDATORS + 1)]
        if {address_of(key.public_key) for key in keys} != set(listed):
            raise LocalFault(
                "ledger-keys",
                f"{self.ledger} not opened",
                "its validators' keys are not those of its chain",
                "put the keys back that were made with it",
            )
        return keys

    def fee_address(self) -> Address:
        """The registry's own account; its key stays in the file."""
        return Address.parse(_read_json(self.fee_file)["address"])

    def draw_fee_key(self, entropy: Entropy) -> Address:
        """The fee account, drawn now unless this directory has one already."""
        with _faults(self.fee_file):
            if not self.fee_file.exists():
                self.fee_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                key = draw_key(entropy)
                address = str(address_of(key.public_key))
                account = {"address": address, "private_key": "0x" + key.to_hex()}
                _write_secret(self.fee_file, json.dumps(account, indent=2) + "\n")
        return self.fee_address()

    def stage(self, keys: list[PrivateKey]) -> Path:
        """A folder aside with the validators' keys, to be filled and then put in place."""
        if self.ledger.exists():
            raise Misuse(
                "ledger-exists",
                f"no ledger made in {self.ledger}",
                "there is one already",
                "open it, or choose another directory",
            )
        aside = self.directory / "ledger.unfinished"
        with _faults(aside):
            shutil.rmtree(aside, ignore_errors=True)  # left by a creation that was killed
            (aside / "validators").mkdir(mode=0o700, parents=True)
            for place, key in enumerate(keys, start=1):
                _write_secret(aside / "validators" / f"{place}.key", key.to_hex() + "\n")
        return aside

    def put_in_place(self, aside: Path) -> None:
        """The staged folder becomes the ledger, in one durable step."""
        with _faults(self.ledger):
            _sync(aside)
            aside.rename(self.ledger)
            _sync(self.directory)


class Lock:
    """Holds a ledger for this process until `release`, or its end, however that comes."""

    def __init__(self, home: Home) -> None:
        """`LocalFault` ``ledger-locked`` while another process has it; `Misuse` without ledger."""
        if not home.ledger.is_dir():
            raise Misuse(
                "no-ledger",
                f"no ledger opened in {home.directory}",
                "there is none",
                "make one with `firmledger init`",
            )
        path = home.ledger / "lock"
        with _faults(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as held:
            os.close(self._file)
            raise LocalFault(
                "ledger-locked",
                f"{home.ledger} not opened",
                "another process has it open",
                "stop that one first, or talk to it over its address",
            ) from held

    def release(self) -> None:
        """Lets the next process in."""
        os.close(self._file)


def draw_key(entropy: Entropy) -> PrivateKey:
    """A secp256k1 key; draws again in the one case of 2**128 where the number is no key."""
    while True:
        try:
            return PrivateKey(entropy(KEY_BYTES))
        except ValueError:
            continue


def draw_chain_id(entropy: Entropy) -> int:
    """A chain id above every well-known one, exact in any JSON reader: 2**32 .. 2**33-1."""
    return 1 << 32 | int.from_bytes(entropy(4), "big")


def _write_secret(path: Path, text: str) -> None:
    """Whole or not at all: written aside, synced, then renamed."""
    aside = path.with_name(path.name + ".unfinished")
    aside.unlink(missing_ok=True)
    file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    aside.rename(path)
    _sync(path.parent)


def _read_text(path: Path) -> str:
    try:
        with path.open() as file:
            return file.read(MAX_KEY_FILE)
    except (OSError, UnicodeDecodeError) as fault:
        raise LocalFault(
            "key-unreadable", f"{path} not read", str(fault), "restore the file or its permissions"
        ) from fault


def _read_key(path: Path) -> PrivateKey:
    try:
        secret = bytes.fromhex(_read_text(path).strip())
        if len(secret) != KEY_BYTES:  # coincurve would fill up a shorter one
            raise ValueError(f"{len(secret)} bytes")
        return PrivateKey(secret)
    except ValueError as fault:
        raise LocalFault(
            "key-damaged",
            f"{path} not used",
            "it is not a private key of 32 bytes in hex",
            "restore the file",
        ) from fault


def _read_json(path: Path) -> dict[str, str]:
    try:
        account = json.loads(_read_text(path))
        return {"address": str(account["address"])}
    except (ValueError, KeyError, TypeError) as fault:
        raise LocalFault(
            "key-damaged", f"{path} not used", "it is not a fee account", "restore the file"
        ) from fault


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Where the operating system's errors become ours."""
    try:
        yield
    except OSError as fault:
        raise LocalFault(
            "ledger-directory",
            f"{path} not written",
            fault.strerror or str(fault),
            "check the directory's permissions and the free space",
        ) from fault


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
