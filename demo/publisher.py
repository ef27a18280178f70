"""The publisher's side: keys, builds and approvals, as `firmledger product` and `release` do them.

Rules: keys lie in ``registry/publisher``, where the command line looks for them and the service
does not; builds in ``releases``. What goes to the registry goes over its operator API, encrypted
and signed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from demo.firmware import image
from protocol.ids import U32_MAX, Address, ProductId, Version
from protocol.records import Governance, HaltRule, Ledger, Phase, SigningKey
from registry.client import Service
from registry.intake import Conditions, Draft, build
from registry.keys import Account, Keyring, ProductKeys
from registry.provisioning import class_key_file, trust_file

PRODUCT = "thermostat"
APPROVERS = ("alice", "bob", "carol")
THRESHOLD = 2
HARDWARE = (1, 3)
SETTLE_SECONDS = 180.0


class Publisher:
    """A manufacturer with one product and three approvers."""

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        sender: Address,
        service: Service,
        break_image: Callable[[bytes, str], bytes],
    ) -> None:
        """``sender``: the registry's own account, which creates, enrols and reports.

        ``break_image`` makes the image of a version whose build goes wrong.
        """
        self._break_image = break_image
        self._ledger, self._sender, self._service = ledger, sender, service
        self._keyring = Keyring(folder / "registry" / "publisher")
        self.releases = folder / "releases"
        self.releases.mkdir()
        self._keys: ProductKeys | None = None

    @property
    def keys(self) -> ProductKeys:
        """The product's keys; `create` first."""
        assert self._keys is not None  # noqa: S101 - the story creates the product first
        return self._keys

    @property
    def product(self) -> ProductId:
        """The product's id."""
        return self.keys.product

    def create(self, halt_rule: HaltRule) -> None:
        """Draws all keys and creates the product on the ledger."""
        accounts = [self._keyring.ensure_account(name, secrets.token_bytes) for name in APPROVERS]
        self._keys = self._keyring.draw_product(
            PRODUCT,
            creator=self._sender,
            ledger=self._ledger,
            hardware=HARDWARE,
            entropy=secrets.token_bytes,
        )
        governance = Governance(
            approvers=tuple(sorted(account.address for account in accounts)),
            threshold=THRESHOLD,
            epoch=1,
            guardians=(),
            auditors=(),
            reporters=(self._sender,),
            enroller=self._sender,
            keys=(SigningKey(self.keys.signer.public.id, U32_MAX),),
            halt_rule=halt_rule,
            release_delay=0,
            governance_delay=86_400,
        )
        self._post(
            "/v1/products",
            {"name": PRODUCT, "salt": str(self.keys.salt), "governance": governance.to_json()},
        )

    def enrol(self, public_keys: Sequence[bytes]) -> None:
        """Adds devices to the fleet whose receipts count."""
        devices = [{"public_key": "0x" + key.hex()} for key in public_keys]
        self._post(f"/v1/products/{self.product}/fleet", {"devices": devices})

    def trust(self, registry: str, min_height: int | None = None) -> tuple[bytes, bytes]:
        """``trust.json`` and ``trust.json.key`` for devices that will ask ``registry``.

        ``min_height``: the ledger's height when they are made, now if it is not said.
        """
        status = self._service.get("/v1/status")
        trust = trust_file(self.keys, status, (self.keys.signer.public.id,), registry)
        if min_height is not None:
            trust = replace(trust, min_height=min_height)
        return trust.to_bytes(), class_key_file(self.keys).to_bytes()

    def build(
        self, version: str, firmware: bytes, rollout: Sequence[Phase], *, defective: bool = False
    ) -> Draft:
        """An image of ``firmware``, encrypted and signed, with its conditions."""
        made = (self._break_image if defective else image)(firmware, version)
        source = self.releases / f"{version}.img"
        source.write_bytes(made)
        conditions = Conditions(
            version=Version.parse(version),
            security_counter=1,
            rollout=tuple(rollout),
            hardware=HARDWARE,
        )
        out = self.releases / version
        return build(source, out, self.keys, conditions, entropy=secrets.token_bytes)

    def approve(self, draft: Draft, names: Sequence[str], now: int) -> Draft:
        """With the approvals of ``names``."""
        for name in names:
            draft = draft.approved_by(self._account(name), 1, now)
        return draft

    def publish(self, draft: Draft) -> dict[str, Any]:
        """Uploads and publishes; the transaction, or the ledger's refusal raised."""
        agreed = draft.agreed
        assert agreed is not None  # noqa: S101 - the story approves first
        self._service.upload(f"/v1/blobs/{draft.payload_digest.hex()}", draft.payload_path, _silent)
        return self._post(
            "/v1/releases",
            {
                "envelope": "0x" + draft.envelope.hex(),
                "signer": "0x" + draft.signer.hex(),
                "terms": draft.terms.to_json(),
                "epoch": agreed.epoch,
                "approvals": agreed.approvals.to_json(),
            },
        )

    def _account(self, name: str) -> Account:
        return self._keyring.account(name)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        row = self._service.post(path, body)["tx"]
        settled: dict[str, Any] = self._service.settled(row, SETTLE_SECONDS)
        return settled


def _silent(_sent: int) -> None:
    """The progress of an upload, which nobody watches here."""
