// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";
import {Player} from "./Player.sol";

/// @title A crowd of accounts, and what they may bring to the ledger
/// @notice Draws who acts, who approves, which terms and which governance. Who holds which role, how many
/// approvers agreed and what a change widens is told from the lists by plain search, not as the ledger does it.
abstract contract Crowd is Player {
    /// @dev In ascending order: the approvers, guardian, auditor, reporter, enroller, outsider of the fixture, and one more.
    address[9] private _crowd;
    mapping(address => uint256) private _keyOf;

    /// @dev Once: the fuzzer may call it, too.
    function setUp() public override {
        if (address(ledger) != address(0)) return;
        super.setUp();
        uint256[9] memory keys = [uint256(1), 2, 3, 101, 102, 103, 104, 105, 106];
        for (uint256 i = 0; i < 9; ++i) {
            address account = vm.addr(keys[i]);
            _keyOf[account] = keys[i];
            uint256 at = i;
            for (; at > 0 && _crowd[at - 1] > account; --at) {
                _crowd[at] = _crowd[at - 1];
            }
            _crowd[at] = account;
        }
    }

    // -- who -----------------------------------------------------------------------------------------

    function _anyone(uint256 seed) internal view returns (address) {
        return _crowd[(seed >> 16) % 9];
    }

    /// @dev One of either list; every fourth time, anyone.
    function _oneOf(address[] memory a, address[] memory b, uint256 seed) internal view returns (address) {
        uint256 count = a.length + b.length;
        if (seed % 4 == 0 || count == 0) return _anyone(seed);
        uint256 at = (seed >> 8) % count;
        return at < a.length ? a[at] : b[at - a.length];
    }

    /// @dev Members of the crowd by the bits of `mask`, so in ascending order.
    function _chosen(uint256 mask) private view returns (address[] memory list) {
        address[] memory all = new address[](9);
        uint256 count = 0;
        for (uint256 i = 0; i < 9; ++i) {
            if (mask >> i & 1 == 1) all[count++] = _crowd[i];
        }
        list = new address[](count);
        for (uint256 i = 0; i < count; ++i) {
            list[i] = all[i];
        }
    }

    // -- approvals -----------------------------------------------------------------------------------

    /// @dev Approvals of a digest, and how many different approvers of the governance in effect gave one.
    function _approvals(bytes32 digest, uint256 seed)
        internal
        returns (IReleaseLedger.Approvals memory a, uint32 agreed)
    {
        address[] memory signers = product.governance.approvers;
        if (seed % 5 == 0) signers = _chosen(seed >> 8); // whoever
        if (seed % 7 == 0 && signers.length > 1) signers[1] = signers[0]; // twice the same
        if (seed % 3 == 0 && signers.length > 0) signers = _without(signers, signers[seed % signers.length]);
        a.validUntil = FOREVER;
        a.signatures = new IReleaseLedger.Signature[](signers.length);
        for (uint256 i = 0; i < signers.length; ++i) {
            a.signatures[i] = _sign(_keyOf[signers[i]], digest);
            if (seed % 11 != i) continue;
            vm.prank(signers[i]);
            ledger.approve(digest);
            a.signatures[i] = IReleaseLedger.Signature(bytes32(uint256(uint160(signers[i]))), 0);
        }
        address[] memory able = product.governance.approvers;
        for (uint256 i = 0; i < able.length; ++i) {
            if (_in(signers, able[i])) ++agreed;
        }
    }

    /// @dev The same for a decision; now and then for one of the epoch before, which counts for nothing.
    function _decision(uint32 id, IReleaseLedger.Action action, uint32 nonce, uint256 seed)
        internal
        returns (IReleaseLedger.Approvals memory a, uint32 agreed)
    {
        bool late = seed & 0xf000 == 0;
        uint32 epoch = product.governance.epoch - (late ? 1 : 0);
        (a, agreed) = _approvals(ledger.decisionDigest(productId, id, action, nonce, epoch, FOREVER), seed);
        if (late) agreed = 0;
    }

    // -- what they ask for ---------------------------------------------------------------------------

    function _drawnTerms(uint256 seed) internal view returns (IReleaseLedger.Terms memory t) {
        t = _terms();
        t.version = product.head.version + uint64(seed % 6);
        t.securityCounter = product.head.securityCounter + uint32(seed >> 8) % 2;
        if (seed & 0x70000 == 0 && t.securityCounter > 0) t.securityCounter -= 1;
        t.imageDigest = bytes32(1 + (seed >> 24) % 3);
        if ((seed >> 32) % 8 == 0) t.requiredAttestations = 1;
        if ((seed >> 36) % 4 == 0) t.notBefore = uint64(vm.getBlockTimestamp() + 1 days);
        if ((seed >> 40) % 2 == 0) t.rollout[0].bps = 9_999;
    }

    /// @dev The governance in effect after one edit or two.
    function _drawnGovernance(uint256 seed) internal view returns (IReleaseLedger.Governance memory g) {
        g = _next();
        for (uint256 i = 0; i < 1 + seed % 2; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            uint256 how = (seed >> 8) % 12;
            if (how == 0) g.approvers = _chosen(seed >> 16 & 0x1ff | 1);
            if (how == 1) g.approvers = _without(g.approvers, g.approvers[0]);
            if (how < 3) g.threshold = uint8(_within(seed >> 32, 1, g.approvers.length == 0 ? 1 : g.approvers.length));
            if (how == 3) g.guardians = _chosen(seed >> 16 & 0x11);
            if (how == 4 && g.guardians.length > 0) g.guardians = _without(g.guardians, g.guardians[0]);
            if (how == 5) g.auditors = _chosen(seed >> 16 & 0x0f);
            if (how == 6) g.reporters = _chosen(seed >> 16 & 0xf0);
            if (how == 7) g.enroller = _anyone(seed);
            if (how == 8) g.keys[0].validThrough = uint32(seed >> 32) % 8;
            if (how == 9) g.haltRule.minFailures = uint32(seed >> 32) % 4;
            if (how == 10) g.releaseDelay = uint32(seed >> 32) % 1_000;
        }
    }

    // -- what a change does --------------------------------------------------------------------------

    /// @dev Whether somebody gets a role, a protection gets weaker, or somebody who stays may halt no more.
    function _widens(IReleaseLedger.Governance memory old, IReleaseLedger.Governance memory g)
        internal
        pure
        returns (bool)
    {
        if (!_inside(g.approvers, old.approvers) || !_inside(g.auditors, old.auditors)) return true;
        if (!_inside(g.reporters, old.reporters)) return true;
        if (g.enroller != old.enroller && g.enroller != address(0)) return true;
        if (g.threshold < old.threshold || g.releaseDelay < old.releaseDelay) return true;
        if (keccak256(abi.encode(g.haltRule)) != keccak256(abi.encode(old.haltRule))) return true;
        if (g.governanceDelay != old.governanceDelay || g.keys.length != old.keys.length) return true;
        for (uint256 i = 0; i < g.keys.length; ++i) {
            if (g.keys[i].keyId != old.keys[i].keyId || g.keys[i].validThrough > old.keys[i].validThrough) return true;
        }
        if (g.guardians.length == 0) return old.guardians.length != 0;
        return !_inside(old.guardians.length == 0 ? g.approvers : old.guardians, g.guardians);
    }
}
