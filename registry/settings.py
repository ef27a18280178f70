"""Settings of one registry: DIR/settings.toml, overridden by FIRMLEDGER_* in the environment.

Guarantees: the environment is read here and nowhere else; unknown keys in the file are refused; a
registry of profile ``production`` does not start on an embedded part (ledger, SQLite, file store),
and nothing falls back silently.

Rules: paths are those of the registry's directory. The file holds no secrets; keys are files of
their own (``keys/``), and this module does not open them.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from protocol.errors import FirmledgerError, LocalFault, Misuse
from protocol.ids import Address, Hash

FILE = "settings.toml"
MAX_FILE = 64 * 1024
_FINALITY = re.compile(r"instant|tag:finalized|depth:([1-9]\d{0,5})")


def _address(value: object) -> object:
    return _parsed(Address, value)


def _hash(value: object) -> object:
    return _parsed(Hash, value)


def _parsed(kind: type[Address] | type[Hash], value: object) -> object:
    try:
        return kind.parse(value) if isinstance(value, str) else value
    except FirmledgerError as error:
        raise ValueError(error.why) from error


_Address = Annotated[Address, BeforeValidator(_address), PlainSerializer(str)]
_Hash = Annotated[Hash, BeforeValidator(_hash), PlainSerializer(str)]


class Settings(BaseSettings):
    """The settings, checked. Read them with `Settings.load`, write them with `save`."""

    model_config = SettingsConfigDict(
        env_prefix="FIRMLEDGER_", extra="forbid", frozen=True, arbitrary_types_allowed=True
    )

    directory: Path = Field(exclude=True)
    """The registry's directory; not in the file."""
    profile: Literal["embedded", "production"] = "embedded"
    chain_id: int = Field(ge=1)
    contract: _Address | None = None
    """The ledger contract; None before ``firmledger ledger deploy``."""
    code_hash: _Hash | None = None
    """keccak256 of the contract's runtime code."""
    deployed_at: int = Field(default=0, ge=0)
    """Height of the block that holds the deployment: nothing happened before it."""
    rpc: str | None = Field(default=None, pattern=r"^https?://", max_length=2048)
    """JSON-RPC of the chain; None is the embedded ledger."""
    database: str | None = Field(default=None, pattern=r"^postgresql(\+psycopg)?://")
    """Database of the registry; None is SQLite in the directory."""
    object_store: str | None = Field(default=None, pattern=r"^s3://")
    """Where blobs are kept; None is files in the directory."""
    finality: str = Field(default="instant", pattern=f"^(?:{_FINALITY.pattern})$")
    """When a block counts as final: ``instant``, ``depth:N`` or ``tag:finalized``."""
    heartbeat: int = Field(default=10, ge=1, le=3600)
    """Seconds after which the embedded ledger seals an empty block."""
    max_age: int = Field(default=86_400, ge=10)
    """Seconds a proof stays fresh enough for devices; goes into trust files."""
    anchor_every: int = Field(default=10, ge=1)
    """Seconds that receipts gather before a batch is anchored."""
    host: str = Field(default="127.0.0.1", max_length=255)
    port: int = Field(default=8700, ge=0, le=65535)
    max_blob: int = Field(default=1 << 30, ge=1 << 10)
    """Largest blob taken, in bytes."""
    fee_cap: int = Field(default=500 * 10**9, ge=0)
    """Most that is ever offered, in wei per gas."""
    bump_after: int = Field(default=60, ge=1)
    """Seconds a transaction waits before its fee is raised."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.heartbeat * 2 > self.max_age:
            raise ValueError("heartbeat must be at most half of max_age, or proofs go stale")
        if self.profile == "production":
            embedded = {
                "rpc (the embedded ledger)": self.rpc,
                "database (SQLite)": self.database,
                "object_store (files)": self.object_store,
            }
            missing = [name for name, value in embedded.items() if value is None]
            if missing:
                raise ValueError(
                    f"profile production refuses embedded parts: set {', '.join(missing)}"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the file, which comes in as arguments; no other source."""
        return env_settings, init_settings

    @classmethod
    def load(cls, directory: Path) -> Self:
        """From ``directory``/settings.toml and the environment.

        `Misuse` where there is no registry or a setting is refused, `LocalFault` if unreadable.
        """
        return cls.of(directory, **_read(directory / FILE))

    @classmethod
    def of(cls, directory: Path, **members: Any) -> Self:
        """From given members and the environment; `Misuse` ``bad-settings`` if one is refused."""
        try:
            return cls(directory=directory, **members)
        except ValidationError as error:
            lines = [_sentence(item) for item in error.errors()]
            raise Misuse(
                "bad-settings",
                f"settings of {directory} refused",
                "; ".join(lines),
                f"mend {directory / FILE}, or the FIRMLEDGER_* variables of the environment",
            ) from error

    def save(self) -> None:
        """Writes settings.toml whole or not at all; what is None stays out."""
        members = self.model_dump(exclude_none=True, exclude={"directory"})
        text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in members.items())
        target = self.directory / FILE
        aside = target.with_name(FILE + ".unfinished")
        try:
            with aside.open("w") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            aside.replace(target)
        except OSError as fault:
            raise LocalFault(
                "settings-unwritable", f"{target} not written", str(fault), "check space and rights"
            ) from fault

    @property
    def finality_depth(self) -> int | None:
        """Blocks on top that make one final; None for ``tag:finalized``."""
        if self.finality == "tag:finalized":
            return None
        return 0 if self.finality == "instant" else int(self.finality.removeprefix("depth:"))

    @property
    def registry_file(self) -> Path:
        """SQLite: outbox, receipts, fleets; nothing of it can be derived."""
        return self.directory / "registry.sqlite"

    @property
    def catalogue_file(self) -> Path:
        """SQLite: what is derived from the chain; may be deleted."""
        return self.directory / "catalogue.sqlite"

    @property
    def blobs(self) -> Path:
        """The content-addressed store."""
        return self.directory / "blobs"

    @property
    def fee_file(self) -> Path:
        """The registry's own account."""
        return self.directory / "keys" / "fee.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except FileNotFoundError as error:
        raise Misuse(
            "no-registry",
            f"no registry opened in {path.parent}",
            f"{path} does not exist",
            "make one with `firmledger init`, or name its directory with -C",
        ) from error
    except NotADirectoryError as error:
        raise Misuse(
            "no-registry",
            f"no registry opened in {path.parent}",
            "that is a file",
            "name the registry's directory with -C",
        ) from error
    except OSError as fault:
        raise LocalFault(
            "settings-unreadable", f"{path} not read", str(fault), "check its permissions"
        ) from fault
    try:
        if len(raw) > MAX_FILE:
            raise ValueError(f"it is larger than {MAX_FILE} bytes")
        members = tomllib.loads(raw.decode())
    except ValueError as error:
        raise Misuse("bad-settings", f"{path} refused", str(error), "mend the file") from error
    if "directory" in members:
        raise Misuse("bad-settings", f"{path} refused", "directory is no setting", "drop it")
    return members


def _sentence(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    text = str(item["msg"]).removeprefix("Value error, ")
    return f"{where}: {text}" if where else text
