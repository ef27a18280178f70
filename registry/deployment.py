"""The contract and the registry's settings: putting it on a chain, and finding it there again.

Guarantees: a registry is opened only on the chain and the code that its settings name.
"""

from __future__ import annotations

import logging

from protocol import _abi
from protocol.errors import Misuse
from registry.chain import Chain, deploy, node_at
from registry.embedded import EmbeddedLedger
from registry.settings import Settings
from registry.signer import file_signer

DEPLOY_SECONDS = 120

log = logging.getLogger(__name__)


def open_chain(settings: Settings, ledger: EmbeddedLedger | None) -> Chain:
    """The ledger that the settings name; `Misuse` if there is no contract, or another one."""
    if settings.contract is None or settings.code_hash is None:
        raise Misuse(
            "no-contract",
            "registry not opened",
            "its settings name no contract",
            "deploy one with `firmledger ledger deploy`",
        )
    if ledger is not None:
        chain = Chain.inside(ledger, settings.contract)
    else:
        chain = Chain.connect(settings.rpc or "", settings.contract)
    if chain.ledger.chain_id != settings.chain_id or chain.code_hash() != settings.code_hash:
        raise Misuse(
            "wrong-ledger",
            "registry not opened",
            f"chain {chain.ledger.chain_id} and the code at {settings.contract} are not those of "
            "the settings",
            "check rpc, chain_id, contract and code_hash in settings.toml",
        )
    if settings.code_hash != _abi.CODE_HASH:
        log.warning("the contract's code is not the one this version was built with")
    return chain


def deploy_at(rpc: str, settings: Settings) -> Settings:
    """Puts the contract on the chain at ``rpc`` and saves the settings that name it.

    `Misuse` ``another-ledger`` once this registry has followed a ledger: its records are that
    one's.
    """
    if settings.registry_file.exists() or settings.catalogue_file.exists():
        raise Misuse(
            "another-ledger",
            "no contract deployed",
            "this registry has followed its present ledger already",
            "make a new registry with `firmledger init`, and deploy before you serve it",
        )
    signer = file_signer(settings.fee_file)
    contract, receipt = deploy(node_at(rpc), signer, timeout=DEPLOY_SECONDS)
    chain = Chain.connect(rpc, contract)
    placed = {
        "rpc": rpc,
        "chain_id": chain.ledger.chain_id,
        "contract": contract,
        "code_hash": chain.code_hash(),
        "deployed_at": receipt.block,
    }
    changed = settings.model_copy(update=placed)
    changed.save()
    return changed
