// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";
import {ReleaseLedger} from "../ReleaseLedger.sol";
import {Fixture} from "./Fixture.sol";
import {Vm} from "./Vm.sol";

/// @title One stolen key of each kind, in the hands of someone who tries everything
/// @notice The thief plays the ledger's acts in any order, at any time, with the newest records and with any
/// records of its making; each act with one stolen key. It cannot forge: signatures of others it does not
/// have, so what it can bring as approvals is what its one key gives, in every form and number.
contract Thief is Fixture {
    /// @dev Keys of: the first approver, guardian, auditor, reporter, enroller, and nobody.
    uint256[6] private _stolen;
    IReleaseLedger.Governance private _before;
    /// @dev What the product's pending change is; anything while there is none.
    IReleaseLedger.Governance internal _coming;
    uint256 public acts;

    /// @dev Once: the fuzzer may call it, too.
    function setUp() public virtual override {
        if (address(ledger) != address(0)) return;
        super.setUp();
        _stolen = [approverKeys[0], 101, 102, 103, 104, 105];
        _publish(_terms(), 3);
        _before = product.governance;
        _coming = _next();
    }

    // -- what the thief does -------------------------------------------------------------------------

    function wait(uint32 time) external virtual {
        vm.warp(vm.getBlockTimestamp() + _within(time, 1, 10 days));
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
        _try(key, abi.encodeCall(ledger.cancel, (productId, product, _coming)));
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
        vm.prank(_account(key));
        (bool done,) = address(ledger).call(abi.encodeCall(ledger.pause, (productId, p)));
        vm.assertTrue(!done, "a record of its making was taken");
    }

    // -- what must hold ------------------------------------------------------------------------------

    /// @dev Nothing published, resumed, unpaused, superseded or revoked; nobody added; nothing loosened.
    function check() external view virtual {
        vm.assertEq(product.head.latestRelease, 1, "published");
        vm.assertEq(ledger.releaseSlot(productId, 2), 0, "published");
        uint256 word = release.state.word;
        vm.assertTrue(word & 0xf == 1 || word & 0xf == 2, "revoked");
        vm.assertEq((word >> 4) & 0xf, 0, "superseded");
        vm.assertTrue(word & 0xf == 2 || uint8(word >> 8) == 0, "resumed");
        vm.assertEq(product.head.pausedTotal, 0, "unpaused");
        vm.assertEq(product.other, 0, "a change is pending");
        vm.assertTrue(uint32(word >> 64) + uint256(uint32(word >> 96)) <= word >> 224, "counts");
        IReleaseLedger.Governance memory g = product.governance;
        vm.assertTrue(g.threshold == _before.threshold && g.releaseDelay == _before.releaseDelay, "threshold");
        vm.assertTrue(_inside(g.approvers, _before.approvers) && g.approvers.length >= 2, "approvers");
        vm.assertTrue(_inside(g.guardians, _before.guardians) && g.guardians.length == 1, "guardians");
        vm.assertTrue(_inside(g.auditors, _before.auditors), "auditors");
        vm.assertTrue(_inside(g.reporters, _before.reporters), "reporters");
        vm.assertTrue(g.enroller == enroller || g.enroller == address(0), "enroller");
        for (uint256 i = 0; i < 2; ++i) {
            vm.assertEq(g.keys[i].keyId, _before.keys[i].keyId, "key");
        }
        if (word & 0xf == 2 || product.head.pausedAt != 0) {
            IReleaseLedger.Device memory d = IReleaseLedger.Device("device", 0, 0, 3);
            IReleaseLedger.Reason r = ledger.eligible(product, _terms(), 1, release.state, d);
            vm.assertTrue(
                r == IReleaseLedger.Reason.Halted || r == IReleaseLedger.Reason.ProductPaused, "installable"
            );
        }
        _check();
    }

    // -- its tools -----------------------------------------------------------------------------------

    function _account(uint8 key) internal view virtual returns (address) {
        return vm.addr(_stolen[key % 6]);
    }

    /// @dev Plays an act; if it was taken, follows the records from the last event.
    function _try(uint8 key, bytes memory act) private {
        uint256 size = release.state.word >> 224;
        vm.recordLogs();
        vm.prank(_account(key));
        (bool done,) = address(ledger).call(act);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        if (!done) return;
        ++acts;
        for (uint256 i = 0; i < logs.length; ++i) {
            _follow(logs[i]);
        }
        vm.assertTrue(release.state.word >> 224 >= size, "the log shrank");
    }

    function _follow(Vm.Log memory log) private {
        bytes32 topic = log.topics[0];
        if (topic == IReleaseLedger.ReleaseHalted.selector) {
            (release.state,) = abi.decode(log.data, (IReleaseLedger.State, string));
        } else if (topic == IReleaseLedger.ReceiptsAnchored.selector) {
            (,, release.state) = abi.decode(log.data, (uint32, uint32, IReleaseLedger.State));
        } else if (topic == IReleaseLedger.ReleaseAttested.selector) {
            (,, release.state) = abi.decode(log.data, (uint8, bytes32, IReleaseLedger.State));
        } else if (topic == IReleaseLedger.ProductPaused.selector) {
            product.head = abi.decode(log.data, (IReleaseLedger.Head));
        } else if (topic == IReleaseLedger.GovernanceChanged.selector) {
            (product,) = abi.decode(log.data, (IReleaseLedger.Product, address[]));
        } else if (topic == IReleaseLedger.FleetSet.selector || topic == IReleaseLedger.TermsWithdrawn.selector) {
            return;
        } else {
            revert("an act that no single key may do");
        }
    }

    /// @dev The one signature it can make, in the forms that might pass for two.
    function _forged(uint8 key, uint8 form, bytes32 digest) private returns (IReleaseLedger.Approvals memory a) {
        a.validUntil = FOREVER;
        uint256 secret = _stolen[key % 6];
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

    function _inside(address[] memory some, address[] memory all) private pure returns (bool) {
        for (uint256 i = 0; i < some.length; ++i) {
            bool found = false;
            for (uint256 j = 0; j < all.length; ++j) {
                found = found || some[i] == all[j];
            }
            if (!found) return false;
        }
        return true;
    }
}

/// @title No single key, whatever it plays for any length of time, publishes, resumes or widens who may
contract LedgerInvariants {
    Thief private _thief;

    function setUp() public {
        _thief = new Thief();
        _thief.setUp();
    }

    function targetContracts() external view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(_thief);
    }

    /// @dev Were every act refused, the invariant would say nothing.
    function test_the_thief_gets_as_far_as_its_keys_reach() external {
        _thief.attest(2, 0);
        _thief.anchor(3, 9, 1, 1, "root");
        _thief.restrict(0, 5 << 8);
        _thief.setFleet(4, "root");
        _thief.withdraw(0, "terms");
        _thief.halt(1);
        _thief.pause(0);
        require(_thief.acts() == 7, "refused");
        _thief.check();
    }

    function invariant_one_key_gets_nowhere() external view {
        _thief.check();
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
        _coming.guardians = new address[](0);
        _propose(_coming);
        _due = product.effectiveAt;
    }

    function wait(uint32 time) external override {
        vm.warp(vm.getBlockTimestamp() + _within(time, 1, 12 hours));
        if (vm.getBlockTimestamp() < _due || product.governance.guardians.length == 0) return;
        product.other = _hash(product.governance);
        product.governance = _coming;
        _actsBefore = acts;
    }

    /// @dev The change waits as agreed, then it is in effect and the thief's acts have come to an end.
    function check() external view override {
        bool over = vm.getBlockTimestamp() >= _due;
        vm.assertEq(product.effectiveAt, _due, "put off");
        vm.assertEq(_hash(over ? product.governance : _coming), over ? _hash(_coming) : product.other, "dropped");
        vm.assertTrue(!over || acts == _actsBefore, "it acted after its removal");
        _check();
    }

    function _account(uint8) internal view override returns (address) {
        return guardian;
    }
}

/// @title No stolen guardian keeps its seat, whatever it plays
contract RemovalInvariants {
    BarredGuardian private _thief;

    function setUp() public {
        _thief = new BarredGuardian();
        _thief.setUp();
    }

    function targetContracts() external view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(_thief);
    }

    function test_the_guardian_acts_until_it_is_out() external {
        _thief.halt(0);
        _thief.pause(0);
        _thief.cancel(0);
        _thief.restrict(0, 5 << 8);
        require(_thief.acts() == 2, "it halts and pauses, and no more");
        for (uint256 i = 0; i < 7; ++i) {
            _thief.wait(12 hours - 1);
            _thief.check();
        }
        _thief.restrict(0, 5 << 8);
        require(_thief.acts() == 2, "out");
        _thief.check();
    }

    function invariant_a_stolen_guardian_cannot_prevent_its_removal() external view {
        _thief.check();
    }
}
