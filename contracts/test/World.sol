// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";
import {Crowd} from "./Crowd.sol";

/// @title A product's life: every act, by everybody, with and without what it takes
/// @notice Each act is played by whoever may, or by anyone of a crowd; with approvals that suffice, or short,
/// repeated, foreign or outdated ones. The world keeps its own record of what it did and by whom, against which
/// Ledger.invariants.t.sol holds the ledger. It reads roles from lists and counts approvers itself.
contract World is Crowd {
    /// @notice A release as the world remembers it.
    struct Past {
        bytes32 termsHash;
        uint64 startsAt;
        uint32 approvers; // of the epoch in effect, each counted once
        uint32 threshold;
        uint32 confirmed;
        uint32 failed;
        uint32 size;
        bytes32 root;
        IReleaseLedger.State state;
    }

    Past[] private _past;
    IReleaseLedger.Terms[] private _agreedTerms;

    /// @notice Acts that the ledger took, by name; and those among them that it should not have taken.
    mapping(bytes32 name => uint256) public taken;
    uint256 public byStrangers;
    uint256 public withoutApproval;
    uint256 public widenedAtOnce;
    uint256 public shrunk;
    /// @notice Changes that waited and came into effect.
    uint256 public tookEffect;

    // -- time ----------------------------------------------------------------------------------------

    function wait(uint32 time) external {
        _live(_within(time, 1, 2 days));
    }

    function waitForTheChange(uint8 off) external {
        uint256 due = uint256(product.effectiveAt) + off % 3;
        if (due > vm.getBlockTimestamp() + 1) _live(due - 1 - vm.getBlockTimestamp());
    }

    // -- acts on the product -------------------------------------------------------------------------

    function amend(uint256 seed) external {
        IReleaseLedger.Governance memory old = product.governance;
        IReleaseLedger.Governance memory next = _drawnGovernance(seed >> 64);
        bytes32 digest = ledger.amendmentDigest(productId, next, old.epoch, FOREVER);
        (IReleaseLedger.Approvals memory a, uint32 agreed) = _approvals(digest, seed);
        bool waits = product.effectiveAt > vm.getBlockTimestamp();
        if (!_act("amend", _anyone(seed), abi.encodeCall(ledger.amend, (productId, product, next, a)))) return;
        if (agreed < old.threshold) ++withoutApproval;
        bool atOnce = product.governance.epoch == next.epoch;
        bool early = waits || product.effectiveAt < vm.getBlockTimestamp() + old.governanceDelay;
        if (atOnce ? _widens(old, next) : early) ++widenedAtOnce;
    }

    function restrict(uint256 seed) external {
        IReleaseLedger.Governance memory old = product.governance;
        IReleaseLedger.Governance memory next = seed & 0xf == 0 ? _drawnGovernance(seed >> 64) : _next();
        address watcher = _oneOf(old.approvers, old.guardians, seed);
        if (seed & 0x30 == 0) next.auditors = new address[](0);
        if (seed & 0xc0 == 0) next.reporters = new address[](0);
        if (seed & 0x300 == 0) next.enroller = address(0);
        if (seed & 0xc00 == 0) next.keys[0].validThrough = uint32(seed >> 12) % 2 * product.head.latestRelease;
        if (seed & 0x3000 == 0) next.approvers = _without(old.approvers, watcher);
        if (!_act("restrict", watcher, abi.encodeCall(ledger.restrict, (productId, product, next)))) return;
        if (!_in(old.approvers, watcher) && !_in(old.guardians, watcher)) ++byStrangers;
        if (_widens(old, next)) ++widenedAtOnce;
    }

    function cancel(uint256 seed) external {
        IReleaseLedger.Governance memory g = product.governance;
        address watcher = _oneOf(g.approvers, g.guardians, seed);
        if (!_act("cancel", watcher, abi.encodeCall(ledger.cancel, (productId, product, coming)))) return;
        if (!_in(g.approvers, watcher) && !_in(g.guardians, watcher)) ++byStrangers;
        if (_widens(g, product.governance)) ++widenedAtOnce;
    }

    function pause(uint256 seed) external {
        IReleaseLedger.Governance memory g = product.governance;
        address watcher = _oneOf(g.approvers, g.guardians, seed);
        if (!_act("pause", watcher, abi.encodeCall(ledger.pause, (productId, product)))) return;
        if (!_in(g.approvers, watcher) && !_in(g.guardians, watcher)) ++byStrangers;
    }

    function unpause(uint256 seed) external {
        (IReleaseLedger.Approvals memory a, uint32 agreed) =
            _decision(0, IReleaseLedger.Action.Unpause, product.head.pauses, seed);
        uint8 threshold = product.governance.threshold;
        if (!_act("unpause", _anyone(seed), abi.encodeCall(ledger.unpause, (productId, product, a)))) return;
        if (agreed < threshold) ++withoutApproval;
    }

    function setFleet(uint256 seed) external {
        address by = seed % 4 == 0 ? _anyone(seed >> 2) : product.governance.enroller;
        bytes memory act = abi.encodeCall(ledger.setFleet, (productId, product, bytes32(seed), uint32(seed)));
        if (_act("setFleet", by, act) && by != product.governance.enroller) ++byStrangers;
    }

    function withdraw(uint256 seed) external {
        IReleaseLedger.Governance memory g = product.governance;
        address by = _oneOf(g.approvers, g.approvers, seed);
        IReleaseLedger.Terms memory t = _drawnTerms(seed >> 32);
        bytes memory act = abi.encodeCall(ledger.withdraw, (productId, product, ledger.termsHash(t)));
        if (_act("withdraw", by, act) && !_in(g.approvers, by)) ++byStrangers;
    }

    // -- acts on a release ---------------------------------------------------------------------------

    function publish(uint256 seed) external {
        IReleaseLedger.Terms memory t = _drawnTerms(seed >> 32);
        IReleaseLedger.Governance memory g = product.governance;
        bytes32 digest = ledger.approvalDigest(ledger.termsHash(t), g.epoch, FOREVER);
        (IReleaseLedger.Approvals memory a, uint32 agreed) = _approvals(digest, seed);
        if (!_act("publish", _anyone(seed), abi.encodeCall(ledger.publish, (product, t, a)))) return;
        if (agreed < g.threshold) ++withoutApproval;
        IReleaseLedger.State memory s = release.state;
        _past.push(Past(release.termsHash, s.startsAt, agreed, g.threshold, 0, 0, 0, 0, s));
        _agreedTerms.push(t);
    }

    function halt(uint256 seed) external picks(seed) {
        IReleaseLedger.Governance memory g = product.governance;
        address[] memory able = g.guardians.length == 0 ? g.approvers : g.guardians;
        address by = _oneOf(able, able, seed);
        if (_act("halt", by, abi.encodeCall(ledger.halt, (productId, product, release, "")))) {
            if (!_in(able, by)) ++byStrangers;
        }
    }

    function resume(uint256 seed) external picks(seed) {
        (IReleaseLedger.Approvals memory a, uint32 agreed) = _decision(
            release.releaseId, IReleaseLedger.Action.Resume, uint8(release.state.word >> 8), seed
        );
        bytes memory act = abi.encodeCall(ledger.resume, (productId, product, release, a));
        if (_act("resume", _anyone(seed), act) && agreed < product.governance.threshold) ++withoutApproval;
    }

    function supersede(uint256 seed) external picks(seed) {
        (IReleaseLedger.Approvals memory a, uint32 agreed) =
            _decision(release.releaseId, IReleaseLedger.Action.Supersede, 0, seed);
        bytes memory act = abi.encodeCall(ledger.supersede, (productId, product, release, a));
        if (_act("supersede", _anyone(seed), act) && agreed < product.governance.threshold) ++withoutApproval;
    }

    function revoke(uint256 seed) external picks(seed) {
        if (seed & 0x300 != 0) return; // for good, so not often
        (IReleaseLedger.Approvals memory a, uint32 agreed) =
            _decision(release.releaseId, IReleaseLedger.Action.Revoke, 0, seed);
        bytes memory act = abi.encodeCall(ledger.revoke, (productId, product, release, a));
        if (_act("revoke", _anyone(seed), act) && agreed < product.governance.threshold) ++withoutApproval;
    }

    function attest(uint256 seed) external picks(seed) {
        address[] memory able = product.governance.auditors;
        address by = _oneOf(able, able, seed);
        bytes memory act = abi.encodeCall(
            ledger.attest, (productId, product, release, uint8(_within(seed >> 40, 0, 8)), "evidence")
        );
        if (_act("attest", by, act) && !_in(able, by)) ++byStrangers;
    }

    function anchor(uint256 seed, uint8 good, uint8 bad, uint8 spare) external picks(seed) {
        address[] memory able = product.governance.reporters;
        address by = _oneOf(able, able, seed);
        (uint32 confirmed, uint32 failed) = (good % 8, bad % 4);
        Past storage past = _past[release.releaseId - 1];
        uint32 size = past.size + confirmed + failed + spare % 4;
        if (spare > 250) size -= 1; // counts more than it holds, or does not grow
        bytes memory act = abi.encodeCall(
            ledger.anchor, (productId, product, release, size, bytes32(seed), confirmed, failed)
        );
        if (!_act("anchor", by, act)) return;
        if (!_in(able, by)) ++byStrangers;
        if (size <= past.size) ++shrunk;
        (past.confirmed, past.failed) = (past.confirmed + confirmed, past.failed + failed);
        (past.size, past.root) = (size, bytes32(seed));
    }

    /// @dev The act is on one of the releases; afterwards its state is kept.
    modifier picks(uint256 seed) {
        if (_past.length == 0) return;
        uint32 id = uint32(_past.length - (seed >> 128) % (_past.length < 3 ? _past.length : 3));
        release = IReleaseLedger.Release(id, _past[id - 1].termsHash, _past[id - 1].state);
        _;
        _past[id - 1].state = release.state;
    }

    // -- what it remembers ---------------------------------------------------------------------------

    function releases() external view returns (uint32) {
        return uint32(_past.length);
    }

    function pastOf(uint32 id) external view returns (Past memory, IReleaseLedger.Terms memory) {
        return (_past[id - 1], _agreedTerms[id - 1]);
    }

    function known() external view returns (IReleaseLedger, bytes32, IReleaseLedger.Product memory) {
        return (ledger, productId, product);
    }

    /// @dev The product's commitment; those of the releases are compared by the invariant.
    function checkProduct() external view {
        _check();
    }

    function _live(uint256 time) private {
        uint32 epoch = product.governance.epoch;
        _pass(time);
        if (product.governance.epoch != epoch) ++tookEffect;
    }

    // -- playing -------------------------------------------------------------------------------------

    /// @dev Plays an act and counts it if it was taken.
    function _act(bytes32 name, address by, bytes memory act) private returns (bool done) {
        done = _play(by, act);
        if (done) ++taken[name];
    }
}
