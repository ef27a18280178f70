// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";
import {Fixture} from "./Fixture.sol";

/// @title What approvers sign, written out anew from docs/spec/commitments.md
/// @notice Every member counts: whatever is changed in a record changes its hash. The golden vectors that other
/// languages share are compared by tests/contracts/test_commitments.py.
contract DigestsTest is Fixture {
    string private constant PHASE =
        "Phase(uint16 bps,uint32 delay,uint32 minConfirmed,uint16 maxFailureBps,uint32 gateDeadline)";
    string private constant TERMS =
        "Terms(bytes32 productId,uint64 version,uint32 securityCounter,bytes32 imageDigest,bytes32 manifestDigest,uint64 imageSize,uint32 hardwareMin,uint32 hardwareMax,uint64 minVersion,uint64 notBefore,uint64 expiry,uint8 requiredAttestations,bool critical,uint32 keyEpoch,Phase[] rollout)";
    string private constant GOVERNANCE =
        "Governance(address[] approvers,uint8 threshold,uint32 epoch,address[] guardians,address[] auditors,address[] reporters,address enroller,SigningKey[] keys,HaltRule haltRule,uint32 releaseDelay,uint32 governanceDelay)HaltRule(uint32 minFailures,uint16 maxFailureBps)SigningKey(bytes32 keyId,uint32 validThrough)";

    function testFuzz_terms_and_approval(IReleaseLedger.Terms memory t, uint32 epoch, uint64 until) public view {
        bytes32[] memory phases = new bytes32[](t.rollout.length);
        for (uint256 i = 0; i < phases.length; ++i) {
            phases[i] = keccak256(abi.encode(keccak256(bytes(PHASE)), t.rollout[i]));
        }
        bytes memory start = abi.encode(
            t.productId, t.version, t.securityCounter, t.imageDigest, t.manifestDigest, t.imageSize, t.hardwareMin
        );
        bytes memory rest = abi.encode(
            t.hardwareMax, t.minVersion, t.notBefore, t.expiry, t.requiredAttestations, t.critical, t.keyEpoch
        );
        bytes32 hash = keccak256(
            bytes.concat(
                keccak256(abi.encodePacked(TERMS, PHASE)), start, rest, keccak256(abi.encodePacked(phases))
            )
        );
        vm.assertEq(ledger.termsHash(t), hash, "terms");
        bytes32 kind = keccak256(abi.encodePacked("Approval(Terms terms,uint32 epoch,uint64 validUntil)", PHASE, TERMS));
        bytes32 digest = _digest(abi.encode(kind, hash, epoch, until));
        vm.assertEq(ledger.approvalDigest(hash, epoch, until), digest, "approval");
    }

    function testFuzz_amendment(IReleaseLedger.Governance memory g, bytes32 id, uint32 epoch, uint64 until)
        public
        view
    {
        bytes32 kind = keccak256(
            abi.encodePacked("Amendment(bytes32 productId,Governance next,uint32 epoch,uint64 validUntil)", GOVERNANCE)
        );
        bytes32 digest = _digest(abi.encode(kind, id, _hash(g), epoch, until));
        vm.assertEq(ledger.amendmentDigest(id, g, epoch, until), digest, "amendment");
    }

    function testFuzz_decision(bytes32 id, uint32 release_, uint8 action, uint32 nonce, uint32 epoch, uint64 until)
        public
        view
    {
        action = uint8(_within(action, 0, 4));
        bytes32 kind = keccak256(
            "Decision(bytes32 productId,uint32 releaseId,uint8 action,uint32 nonce,uint32 epoch,uint64 validUntil)"
        );
        bytes32 digest = _digest(abi.encode(kind, id, release_, action, nonce, epoch, until));
        bytes32 given = ledger.decisionDigest(id, release_, IReleaseLedger.Action(action), nonce, epoch, until);
        vm.assertEq(given, digest, "decision");
    }

    function _digest(bytes memory message) private view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Firmledger"),
                keccak256("1"),
                block.chainid,
                address(ledger)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, keccak256(message)));
    }
}
