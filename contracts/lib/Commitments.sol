// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";

/// @title Commitments and what approvers sign
/// @notice Every hash of the ledger, byte for byte as docs/spec/commitments.md defines it: EIP-712
/// `hashStruct` of the records, the two commitments, and the EIP-712 digests. Nothing is stored here and
/// nothing is judged.
/// @dev The domain separator is made anew at each call, about 300 gas: kept in immutables, it would give
/// every deployment a different code hash, and devices pin that hash.
library Commitments {
    bytes32 internal constant TAG_PRODUCT = keccak256("firmledger.product.v1");
    bytes32 internal constant TAG_RELEASE = keccak256("firmledger.release.v1");

    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant NAME_HASH = keccak256("Firmledger");
    bytes32 private constant VERSION_HASH = keccak256("1");

    bytes32 private constant PHASE_TYPEHASH = keccak256(
        "Phase(uint16 bps,uint32 delay,uint32 minConfirmed,uint16 maxFailureBps,uint32 gateDeadline)"
    );
    bytes32 private constant TERMS_TYPEHASH = keccak256(
        "Terms(bytes32 productId,uint64 version,uint32 securityCounter,bytes32 imageDigest,"
        "bytes32 manifestDigest,uint64 imageSize,uint32 hardwareMin,uint32 hardwareMax,uint64 minVersion,"
        "uint64 notBefore,uint64 expiry,uint8 requiredAttestations,bool critical,uint32 keyEpoch,"
        "Phase[] rollout)"
        "Phase(uint16 bps,uint32 delay,uint32 minConfirmed,uint16 maxFailureBps,uint32 gateDeadline)"
    );
    bytes32 private constant APPROVAL_TYPEHASH = keccak256(
        "Approval(Terms terms,uint32 epoch,uint64 validUntil)"
        "Phase(uint16 bps,uint32 delay,uint32 minConfirmed,uint16 maxFailureBps,uint32 gateDeadline)"
        "Terms(bytes32 productId,uint64 version,uint32 securityCounter,bytes32 imageDigest,"
        "bytes32 manifestDigest,uint64 imageSize,uint32 hardwareMin,uint32 hardwareMax,uint64 minVersion,"
        "uint64 notBefore,uint64 expiry,uint8 requiredAttestations,bool critical,uint32 keyEpoch,"
        "Phase[] rollout)"
    );
    bytes32 private constant KEY_TYPEHASH = keccak256("SigningKey(bytes32 keyId,uint32 validThrough)");
    bytes32 private constant RULE_TYPEHASH = keccak256("HaltRule(uint32 minFailures,uint16 maxFailureBps)");
    bytes32 private constant GOVERNANCE_TYPEHASH = keccak256(
        "Governance(address[] approvers,uint8 threshold,uint32 epoch,address[] guardians,"
        "address[] auditors,address[] reporters,address enroller,SigningKey[] keys,HaltRule haltRule,"
        "uint32 releaseDelay,uint32 governanceDelay)"
        "HaltRule(uint32 minFailures,uint16 maxFailureBps)"
        "SigningKey(bytes32 keyId,uint32 validThrough)"
    );
    bytes32 private constant AMENDMENT_TYPEHASH = keccak256(
        "Amendment(bytes32 productId,Governance next,uint32 epoch,uint64 validUntil)"
        "Governance(address[] approvers,uint8 threshold,uint32 epoch,address[] guardians,"
        "address[] auditors,address[] reporters,address enroller,SigningKey[] keys,HaltRule haltRule,"
        "uint32 releaseDelay,uint32 governanceDelay)"
        "HaltRule(uint32 minFailures,uint16 maxFailureBps)"
        "SigningKey(bytes32 keyId,uint32 validThrough)"
    );
    bytes32 private constant DECISION_TYPEHASH = keccak256(
        "Decision(bytes32 productId,uint32 releaseId,uint8 action,uint32 nonce,uint32 epoch,"
        "uint64 validUntil)"
    );

    // -- commitments ---------------------------------------------------------------------------------

    /// @notice What storage holds for a product.
    function product(
        bytes32 productId,
        bytes32 current,
        bytes32 pending,
        uint64 effectiveAt,
        IReleaseLedger.Head memory head
    ) internal view returns (bytes32) {
        return keccak256(
            abi.encode(TAG_PRODUCT, block.chainid, address(this), productId, current, pending, effectiveAt, head)
        );
    }

    /// @notice What storage holds for a release.
    function release(
        bytes32 productId,
        uint32 releaseId,
        bytes32 termsHash,
        uint64 startsAt,
        uint256 word,
        bytes32 logRoot
    ) internal view returns (bytes32) {
        return keccak256(
            abi.encode(
                TAG_RELEASE, block.chainid, address(this), productId, releaseId, termsHash, startsAt, word, logRoot
            )
        );
    }

    // -- hashStruct of the records -------------------------------------------------------------------

    /// @notice `hashStruct` of terms.
    function terms(IReleaseLedger.Terms calldata t) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                TERMS_TYPEHASH,
                t.productId,
                t.version,
                t.securityCounter,
                t.imageDigest,
                t.manifestDigest,
                t.imageSize,
                t.hardwareMin,
                t.hardwareMax,
                t.minVersion,
                t.notBefore,
                t.expiry,
                t.requiredAttestations,
                t.critical,
                t.keyEpoch,
                _phases(t.rollout)
            )
        );
    }

    /// @notice `hashStruct` of a governance, with `epoch` in the place of its own.
    function governance(IReleaseLedger.Governance calldata g, uint32 epoch) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                GOVERNANCE_TYPEHASH,
                keccak256(abi.encodePacked(g.approvers)),
                g.threshold,
                epoch,
                keccak256(abi.encodePacked(g.guardians)),
                keccak256(abi.encodePacked(g.auditors)),
                keccak256(abi.encodePacked(g.reporters)),
                g.enroller,
                _keys(g.keys),
                keccak256(abi.encode(RULE_TYPEHASH, g.haltRule)),
                g.releaseDelay,
                g.governanceDelay
            )
        );
    }

    function _phases(IReleaseLedger.Phase[] calldata phases) private pure returns (bytes32) {
        bytes32[] memory hashes = new bytes32[](phases.length);
        for (uint256 i = 0; i < phases.length; ++i) {
            hashes[i] = keccak256(abi.encode(PHASE_TYPEHASH, phases[i]));
        }
        return keccak256(abi.encodePacked(hashes));
    }

    function _keys(IReleaseLedger.SigningKey[] calldata keys) private pure returns (bytes32) {
        bytes32[] memory hashes = new bytes32[](keys.length);
        for (uint256 i = 0; i < keys.length; ++i) {
            hashes[i] = keccak256(abi.encode(KEY_TYPEHASH, keys[i]));
        }
        return keccak256(abi.encodePacked(hashes));
    }

    // -- digests that approvers sign -----------------------------------------------------------------

    /// @notice The digest of Approval(terms, epoch, validUntil).
    function approval(bytes32 termsHash, uint32 epoch, uint64 validUntil) internal view returns (bytes32) {
        return _digest(keccak256(abi.encode(APPROVAL_TYPEHASH, termsHash, epoch, validUntil)));
    }

    /// @notice The digest of Amendment(productId, next, epoch, validUntil).
    function amendment(bytes32 productId, bytes32 next, uint32 epoch, uint64 validUntil)
        internal
        view
        returns (bytes32)
    {
        return _digest(keccak256(abi.encode(AMENDMENT_TYPEHASH, productId, next, epoch, validUntil)));
    }

    /// @notice The digest of Decision(productId, releaseId, action, nonce, epoch, validUntil).
    function decision(
        bytes32 productId,
        uint32 releaseId,
        IReleaseLedger.Action action,
        uint32 nonce,
        uint32 epoch,
        uint64 validUntil
    ) internal view returns (bytes32) {
        return _digest(
            keccak256(abi.encode(DECISION_TYPEHASH, productId, releaseId, action, nonce, epoch, validUntil))
        );
    }

    function _digest(bytes32 structHash) private view returns (bytes32) {
        bytes32 domain =
            keccak256(abi.encode(DOMAIN_TYPEHASH, NAME_HASH, VERSION_HASH, block.chainid, address(this)));
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }
}
