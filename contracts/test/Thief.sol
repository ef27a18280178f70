// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";
import {Player} from "./Player.sol";

/// @title One stolen key of each kind, in the hands of someone who tries everything
/// @notice The thief plays the ledger's acts in any order, at any time, with the newest records and with any
/// records of its making; each act with one stolen key. It cannot forge: signatures of others it does not
/// have, so what it can bring as approvals is what its one key gives, in every form and number.
contract Thief is Player {
    /// @dev Keys of: the first approver, guardian, auditor, reporter, enroller, and nobody.
    uint256[6] private _stolen;
    IReleaseLedger.Governance private _before;
    /// @notice Acts that the ledger took.
    uint256 public acts;

    /// @dev Once: the fuzzer may call it, too.
    function setUp() public virtual override {
        if (address(ledger) != address(0)) return;
        super.setUp();
        _stolen = [approverKeys[0], 101, 102, 103, 104, 105];
        _publish(_terms(), 3);
        _before = product.governance;
        coming = _next(); // whatever it says is pending
    }

    // -- what the thief does -------------------------------------------------------------------------

    function wait(uint32 time) external virtual {
        _pass(_within(time, 1, 10 days));
    }

    function halt(uint8 key) external {
        _try(key, abi.encodeCall(ledger.halt, (productId, product, release, "")));
    }

    function anchor(uint8 key, uint32 growth, uint32 confirmed, uint32 failed, bytes32 root) external {
        uint32 size = uint32(release.state.word >> 224);
        growth = uint32(_within(growth, 0, 100));
        (confirmed, failed) = (uint32(_within(confirmed, 0, 100)), uint32(_within(failed, 0, 100)));
        bytes memory act = abi.encodeCall(
            ledger.anchor, (productId, product, release, size + growth, root, confirmed, failed)
        );
        _try(key, act);
    }

    function attest(uint8 key, uint8 kind) external {
        _try(key, abi.encodeCall(ledger.attest, (productId, product, release, kind % 9, "false")));
    }

    function pause(uint8 key) external {
        _try(key, abi.encodeCall(ledger.pause, (productId, product)));
    }

    function cancel(uint8 key) external {
        _try(key, abi.encodeCall(ledger.cancel, (productId, product, coming)));
    }

    function withdraw(uint8 key, bytes32 hash) external {
        _try(key, abi.encodeCall(ledger.withdraw, (productId, product, hash)));
    }

    function setFleet(uint8 key, bytes32 root) external {
        _try(key, abi.encodeCall(ledger.setFleet, (productId, product, root, 1)));
    }

    function restrict(uint8 key, uint256 seed) external {
        _try(key, abi.encodeCall(ledger.restrict, (productId, product, _wanted(seed))));
    }

    function publish(uint8 key, uint8 form, uint64 rise) external {
        IReleaseLedger.Terms memory t = _terms();
        t.version = product.head.version + uint64(_within(rise, 1, 1000));
        bytes32 digest = ledger.approvalDigest(ledger.termsHash(t), product.governance.epoch, FOREVER);
        _try(key, abi.encodeCall(ledger.publish, (product, t, _forged(key, form, digest))));
    }

    function amend(uint8 key, uint8 form, uint256 seed) external {
        IReleaseLedger.Governance memory next = _wanted(seed);
        bytes32 digest = ledger.amendmentDigest(productId, next, product.governance.epoch, FOREVER);
        _try(key, abi.encodeCall(ledger.amend, (productId, product, next, _forged(key, form, digest))));
    }

    function decide(uint8 key, uint8 form, uint8 what) external {
        uint32 epoch = product.governance.epoch;
        IReleaseLedger.Action action = IReleaseLedger.Action(_within(what, 1, 4));
        uint32 nonce = action == IReleaseLedger.Action.Resume ? uint8(release.state.word >> 8) : 0;
        uint32 id = 1;
        if (action == IReleaseLedger.Action.Unpause) (nonce, id) = (product.head.pauses, 0);
        bytes32 digest = ledger.decisionDigest(productId, id, action, nonce, epoch, FOREVER);
        IReleaseLedger.Approvals memory a = _forged(key, form, digest);
        if (action == IReleaseLedger.Action.Resume) {
            _try(key, abi.encodeCall(ledger.resume, (productId, product, release, a)));
        } else if (action == IReleaseLedger.Action.Supersede) {
            _try(key, abi.encodeCall(ledger.supersede, (productId, product, release, a)));
        } else if (action == IReleaseLedger.Action.Revoke) {
            _try(key, abi.encodeCall(ledger.revoke, (productId, product, release, a)));
        } else {
            _try(key, abi.encodeCall(ledger.unpause, (productId, product, a)));
        }
    }

    /// @dev Records of the thief's own making, for an act that its key may do.
    function lie(uint8 key, uint256 seed) external {
        IReleaseLedger.Product memory p = product;
        p.governance = _wanted(seed);
        if (seed & 1 == 0) p.governance.epoch = product.governance.epoch;
        if (seed & 2 == 0) p.other = _hash(product.governance);
        if (seed & 4 == 0) p.effectiveAt = uint64(vm.getBlockTimestamp());
        if (keccak256(abi.encode(p)) == keccak256(abi.encode(product))) return; // the truth, by chance
        vm.prank(vm.addr(_secret(key)));
        (bool done,) = address(ledger).call(abi.encodeCall(ledger.pause, (productId, p)));
        vm.assertTrue(!done, "a record of its making was taken");
    }

    // -- what must hold ------------------------------------------------------------------------------

    function checkNothingPublished() external view {
        vm.assertEq(product.head.latestRelease, 1, "published");
        vm.assertEq(ledger.releaseSlot(productId, 2), 0, "published");
    }

    /// @dev And nothing unpaused, superseded or revoked, which M of N decide, too.
    function checkNothingResumed() external view {
        uint256 word = release.state.word;
        vm.assertTrue(word & 0xf == 1 || word & 0xf == 2, "revoked");
        vm.assertEq((word >> 4) & 0xf, 0, "superseded");
        vm.assertTrue(word & 0xf == 2 || uint8(word >> 8) == 0, "resumed");
        vm.assertTrue(product.head.pausedAt != 0 || product.head.pauses == 0, "unpaused");
        if (word & 0xf == 1 && product.head.pausedAt == 0) return;
        IReleaseLedger.Device memory d = IReleaseLedger.Device("device", 0, 0, 3);
        IReleaseLedger.Reason r = ledger.eligible(product, _terms(), 1, release.state, d);
        vm.assertTrue(r == IReleaseLedger.Reason.Halted || r == IReleaseLedger.Reason.ProductPaused, "installable");
    }

    /// @dev Nobody has a role who had it not before; what was fixed is as it was.
    function checkNothingWidened() external view virtual {
        IReleaseLedger.Governance memory g = product.governance;
        vm.assertEq(product.other, 0, "a change is pending");
        vm.assertTrue(g.threshold == _before.threshold && g.releaseDelay == _before.releaseDelay, "threshold");
        vm.assertTrue(_inside(g.approvers, _before.approvers) && g.approvers.length >= g.threshold, "approvers");
        vm.assertTrue(_inside(g.guardians, _before.guardians) && g.guardians.length == 1, "guardians");
        vm.assertTrue(_inside(g.auditors, _before.auditors), "auditors");
        vm.assertTrue(_inside(g.reporters, _before.reporters), "reporters");
        vm.assertTrue(g.enroller == enroller || g.enroller == address(0), "enroller");
        vm.assertTrue(
            keccak256(abi.encode(g.haltRule)) == keccak256(abi.encode(_before.haltRule))
                && g.keys.length == _before.keys.length,
            "halting rule, keys"
        );
        for (uint256 i = 0; i < g.keys.length; ++i) {
            vm.assertEq(g.keys[i].keyId, _before.keys[i].keyId, "key");
            vm.assertTrue(g.keys[i].validThrough <= _before.keys[i].validThrough, "key valid for longer");
        }
        _check();
    }

    // -- its tools -----------------------------------------------------------------------------------

    function _secret(uint8 key) internal view virtual returns (uint256) {
        return _stolen[key % 6];
    }

    /// @dev Plays an act and counts it if it was taken.
    function _try(uint8 key, bytes memory act) private {
        if (_play(vm.addr(_secret(key)), act)) ++acts;
    }

    /// @dev The one signature it can make, in the forms that might pass for two.
    function _forged(uint8 key, uint8 form, bytes32 digest) private returns (IReleaseLedger.Approvals memory a) {
        a.validUntil = FOREVER;
        uint256 secret = _secret(key);
        a.signatures = new IReleaseLedger.Signature[](_within(form, 1, 3));
        for (uint256 i = 0; i < a.signatures.length; ++i) {
            uint256 how = (form >> (2 * i)) % 5;
            if (how == 0) a.signatures[i] = _sign(secret, digest);
            if (how == 1) a.signatures[i] = _sign(secret, keccak256(abi.encode(digest, i)));
            if (how == 2) a.signatures[i].r = bytes32(uint256(uint160(approvers[i % 3]))); // as if approved on chain
            if (how == 3) a.signatures[i] = IReleaseLedger.Signature(digest, bytes32(uint256(form) + 1));
            if (how == 4) {
                vm.prank(vm.addr(secret));
                ledger.approve(digest);
                a.signatures[i].r = bytes32(uint256(uint160(vm.addr(secret))));
            }
        }
    }

    /// @dev A governance it would like, or may get.
    function _wanted(uint256 seed) private view returns (IReleaseLedger.Governance memory g) {
        g = _next();
        for (uint256 i = 0; i < 1 + seed % 2; ++i) {
            uint256 how = (seed >> (8 * (i + 1))) % 16;
            if (how == 0) g.approvers = _one(outsider);
            if (how == 1) g.threshold = 1;
            if (how == 2) g.guardians = _one(outsider);
            if (how == 3) g.guardians = new address[](0);
            if (how == 4) g.reporters = _one(outsider);
            if (how == 5) g.auditors = new address[](0);
            if (how == 6) g.reporters = new address[](0);
            if (how == 7) g.enroller = address(0);
            if (how == 8) g.enroller = outsider;
            if (how == 9) g.keys[0].validThrough = uint32(seed >> 32) % 3;
            if (how == 10) g.keys[1].validThrough = type(uint32).max;
            if (how == 11) g.approvers = _two(approvers[1], approvers[2]);
            if (how == 12) g.approvers = _two(approvers[0], approvers[1]);
            if (how == 13) g.releaseDelay = uint32(seed >> 32);
            if (how == 14) g.haltRule.minFailures = 0;
            if (how == 15) g.epoch = uint32(seed >> 32);
        }
    }
}

/// @title A stolen guardian whose removal M of N have agreed on
/// @notice The thief plays its acts as that guardian, until the change takes effect and after.
contract BarredGuardian is Thief {
    uint64 private _due;
    uint256 private _actsBefore;

    function setUp() public override {
        if (address(ledger) != address(0)) return;
        super.setUp();
        coming.guardians = new address[](0);
        _propose(coming);
        _due = product.effectiveAt;
    }

    function wait(uint32 time) external override {
        bool before = vm.getBlockTimestamp() < _due;
        _pass(_within(time, 1, 12 hours));
        if (before) _actsBefore = acts;
    }

    /// @dev The change waits as agreed, then it is in effect and the thief's acts have come to an end.
    function checkNothingWidened() external view override {
        bool over = vm.getBlockTimestamp() >= _due;
        vm.assertEq(product.effectiveAt, _due, "put off");
        vm.assertEq(_hash(coming), over ? _hash(product.governance) : product.other, "dropped");
        vm.assertTrue(!over || acts == _actsBefore, "it acted after its removal");
        _check();
    }

    function isOver() external view returns (bool) {
        return vm.getBlockTimestamp() >= _due;
    }

    function _secret(uint8) internal pure override returns (uint256) {
        return 101;
    }
}
