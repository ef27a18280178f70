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

    // Calldata is hashed as it came, without a look at each value: this halves what a halt computes. It is
    // sound because a value out of its type's range hashes to what no record hashes to, so it matches no
    // commitment; and because whatever becomes a commitment is also carried by an event, whose encoder reads
    // every value and refuses those out of range. One thing has two spellings: the length of a list counts
    // modulo 2^251 here. Nothing follows from it: Solidity's own reads of such a list revert.

    // -- commitments ---------------------------------------------------------------------------------

    /// @notice What storage holds for a product whose record is `p` at `time`; the governance in it, and the
    /// hashes of the current and the pending one. Which of the two `g` is follows from `effectiveAt` alone.
    function product(bytes32 productId, IReleaseLedger.Product calldata p, uint256 time)
        internal
        view
        returns (bytes32 slot, IReleaseLedger.Governance calldata g, bytes32 current, bytes32 pending)
    {
        assembly ("memory-safe") {
            g := add(p, calldataload(p))
        }
        current = governance(g, 0);
        bytes32 tag = TAG_PRODUCT;
        assembly ("memory-safe") {
            pending := calldataload(add(p, 0x20)) // other
            let effectiveAt := calldataload(add(p, 0x40))
            if and(gt(effectiveAt, 0), iszero(lt(time, effectiveAt))) {
                let outgoing := pending
                pending := current
                current := outgoing
            }
            let m := mload(0x40)
            mstore(m, tag)
            mstore(add(m, 0x20), chainid())
            mstore(add(m, 0x40), address())
            mstore(add(m, 0x60), productId)
            mstore(add(m, 0x80), current)
            mstore(add(m, 0xa0), pending)
            calldatacopy(add(m, 0xc0), add(p, 0x40), 0xe0) // effectiveAt, head
            slot := keccak256(m, 0x1a0)
        }
    }

    /// @notice What storage shall hold for a product.
    function product(
        bytes32 productId,
        bytes32 current,
        bytes32 pending,
        uint64 effectiveAt,
        IReleaseLedger.Head memory head
    ) internal view returns (bytes32 slot) {
        bytes32 tag = TAG_PRODUCT;
        assembly ("memory-safe") {
            let m := mload(0x40)
            mstore(m, tag)
            mstore(add(m, 0x20), chainid())
            mstore(add(m, 0x40), address())
            mstore(add(m, 0x60), productId)
            mstore(add(m, 0x80), current)
            mstore(add(m, 0xa0), pending)
            mstore(add(m, 0xc0), effectiveAt)
            for { let i := 0 } lt(i, 0xc0) { i := add(i, 0x20) } {
                mstore(add(add(m, 0xe0), i), mload(add(head, i)))
            }
            slot := keccak256(m, 0x1a0)
        }
    }

    /// @notice What storage holds for a release whose record is `r`.
    function release(bytes32 productId, IReleaseLedger.Release calldata r) internal view returns (bytes32) {
        return release(productId, r, r.state.word, r.state.logRoot);
    }

    /// @notice What storage shall hold for the release whose record was `r`.
    function release(bytes32 productId, IReleaseLedger.Release calldata r, uint256 word, bytes32 logRoot)
        internal
        view
        returns (bytes32 slot)
    {
        bytes32 tag = TAG_RELEASE;
        assembly ("memory-safe") {
            let m := mload(0x40)
            mstore(m, tag)
            mstore(add(m, 0x20), chainid())
            mstore(add(m, 0x40), address())
            mstore(add(m, 0x60), productId)
            calldatacopy(add(m, 0x80), r, 0x60) // releaseId, termsHash, startsAt
            mstore(add(m, 0xe0), word)
            mstore(add(m, 0x100), logRoot)
            slot := keccak256(m, 0x120)
        }
    }

    /// @notice What storage holds for a release whose record is in pieces.
    function release(bytes32 productId, uint32 releaseId, bytes32 termsHash, IReleaseLedger.State memory state)
        internal
        view
        returns (bytes32 slot)
    {
        bytes32 tag = TAG_RELEASE;
        assembly ("memory-safe") {
            let m := mload(0x40)
            mstore(m, tag)
            mstore(add(m, 0x20), chainid())
            mstore(add(m, 0x40), address())
            mstore(add(m, 0x60), productId)
            mstore(add(m, 0x80), releaseId)
            mstore(add(m, 0xa0), termsHash)
            mstore(add(m, 0xc0), mload(state))
            mstore(add(m, 0xe0), mload(add(state, 0x20)))
            mstore(add(m, 0x100), mload(add(state, 0x40)))
            slot := keccak256(m, 0x120)
        }
    }

    // -- hashStruct of the records -------------------------------------------------------------------

    /// @notice `hashStruct` of terms.
    function terms(IReleaseLedger.Terms calldata t) internal pure returns (bytes32 hash) {
        (bytes32 typehash, bytes32 phaseTypehash) = (TERMS_TYPEHASH, PHASE_TYPEHASH);
        assembly ("memory-safe") {
            let m := mload(0x40) // typehash and 15 members; then a typehash and 5 members; then the hashes
            let phase := add(m, 0x200)
            let hashes := add(phase, 0xc0)
            mstore(phase, phaseTypehash)
            let from := add(t, calldataload(add(t, 0x1c0)))
            let end := add(hashes, shl(5, calldataload(from)))
            from := add(from, 0x20)
            for { let to := hashes } lt(to, end) { to := add(to, 0x20) } {
                calldatacopy(add(phase, 0x20), from, 0xa0)
                mstore(to, keccak256(phase, 0xc0))
                from := add(from, 0xa0)
            }
            mstore(m, typehash)
            calldatacopy(add(m, 0x20), t, 0x1c0) // the 14 members before `rollout`
            mstore(add(m, 0x1e0), keccak256(hashes, sub(end, hashes)))
            hash := keccak256(m, 0x200)
        }
    }

    /// @notice `hashStruct` of a governance, were its epoch higher by `rise`.
    function governance(IReleaseLedger.Governance calldata g, uint256 rise) internal pure returns (bytes32 hash) {
        (bytes32 typehash, bytes32 keyTypehash, bytes32 ruleTypehash) =
            (GOVERNANCE_TYPEHASH, KEY_TYPEHASH, RULE_TYPEHASH);
        assembly ("memory-safe") {
            // Hash of the accounts whose list is member number `at`/32 of `record`; overwrites memory at `free`.
            function accounts(record, at, free) -> h {
                let from := add(record, calldataload(add(record, at)))
                let size := shl(5, calldataload(from))
                calldatacopy(free, add(from, 0x20), size)
                h := keccak256(free, size)
            }

            let m := mload(0x40)
            let free := add(m, 0x180)
            mstore(m, typehash)
            mstore(add(m, 0x20), accounts(g, 0x00, free)) // approvers
            mstore(add(m, 0x40), calldataload(add(g, 0x20))) // threshold
            mstore(add(m, 0x60), add(calldataload(add(g, 0x40)), rise)) // epoch
            mstore(add(m, 0x80), accounts(g, 0x60, free)) // guardians
            mstore(add(m, 0xa0), accounts(g, 0x80, free)) // auditors
            mstore(add(m, 0xc0), accounts(g, 0xa0, free)) // reporters
            mstore(add(m, 0xe0), calldataload(add(g, 0xc0))) // enroller

            mstore(free, keyTypehash)
            let hashes := add(free, 0x60)
            let from := add(g, calldataload(add(g, 0xe0)))
            let end := add(hashes, shl(5, calldataload(from)))
            from := add(from, 0x20)
            for { let to := hashes } lt(to, end) { to := add(to, 0x20) } {
                calldatacopy(add(free, 0x20), from, 0x40)
                mstore(to, keccak256(free, 0x60))
                from := add(from, 0x40)
            }
            mstore(add(m, 0x100), keccak256(hashes, sub(end, hashes))) // keys

            mstore(free, ruleTypehash)
            calldatacopy(add(free, 0x20), add(g, 0x100), 0x40)
            mstore(add(m, 0x120), keccak256(free, 0x60)) // haltRule
            calldatacopy(add(m, 0x140), add(g, 0x140), 0x40) // releaseDelay, governanceDelay
            hash := keccak256(m, 0x180)
        }
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
