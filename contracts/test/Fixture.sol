// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";
import {ReleaseLedger} from "../ReleaseLedger.sol";
import {Vm} from "./Vm.sol";

/// @title A product with everybody on board
/// @notice Three approvers (two of them suffice), a guardian, an auditor, a reporter, an enroller, and an
/// outsider; the records as they currently are; and short ways to sign and to act. All keys are test keys.
abstract contract Fixture {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint64 internal constant START = 1_700_000_000;
    uint64 internal constant FOREVER = type(uint64).max;
    uint32 internal constant DELAY = 3 days;
    uint256 internal constant CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    ReleaseLedger internal ledger;
    bytes32 internal productId;
    /// @dev Private keys of the approvers, in the order of their addresses.
    uint256[3] internal approverKeys;
    address[3] internal approvers;
    address internal guardian = vm.addr(101);
    address internal auditor = vm.addr(102);
    address internal reporter = vm.addr(103);
    address internal enroller = vm.addr(104);
    address internal outsider = vm.addr(105);

    IReleaseLedger.Product internal product;
    IReleaseLedger.Release internal release;

    function setUp() public virtual {
        vm.warp(START);
        ledger = _deployed();
        approverKeys = [uint256(1), 2, 3];
        for (uint256 i = 0; i < 3; ++i) {
            for (uint256 j = i + 1; j < 3; ++j) {
                if (vm.addr(approverKeys[j]) < vm.addr(approverKeys[i])) {
                    (approverKeys[i], approverKeys[j]) = (approverKeys[j], approverKeys[i]);
                }
            }
            approvers[i] = vm.addr(approverKeys[i]);
        }
        product.governance = _governance();
        productId = ledger.createProduct("salt", product.governance);
    }

    /// @dev A ledger; or a mutant of it, picked by its number from the code that tests/contracts/mutants.py gives.
    function _deployed() internal returns (ReleaseLedger made) {
        made = new ReleaseLedger();
        bytes memory mutants = vm.envOr("FIRMLEDGER_MUTANTS", bytes(""));
        if (mutants.length == 0) return made;
        vm.etch(address(made), mutants);
        vm.store(address(made), "mutant", bytes32(vm.envOr("FIRMLEDGER_MUTANT", uint256(0))));
    }

    // -- records -------------------------------------------------------------------------------------

    function _governance() internal view returns (IReleaseLedger.Governance memory g) {
        g.approvers = new address[](3);
        for (uint256 i = 0; i < 3; ++i) {
            g.approvers[i] = approvers[i];
        }
        g.threshold = 2;
        g.epoch = 1;
        g.guardians = _one(guardian);
        g.auditors = _one(auditor);
        g.reporters = _one(reporter);
        g.enroller = enroller;
        g.keys = new IReleaseLedger.SigningKey[](2);
        g.keys[0] = IReleaseLedger.SigningKey(bytes32(uint256(0xa1)), type(uint32).max);
        g.keys[1] = IReleaseLedger.SigningKey(bytes32(uint256(0xa2)), type(uint32).max);
        g.haltRule = IReleaseLedger.HaltRule(3, 2_500);
        g.releaseDelay = 600;
        g.governanceDelay = DELAY;
    }

    /// @dev The governance in effect, with the next epoch: what every change starts from.
    function _next() internal view returns (IReleaseLedger.Governance memory g) {
        g = product.governance;
        g.epoch += 1;
    }

    function _terms() internal view returns (IReleaseLedger.Terms memory t) {
        t.productId = productId;
        t.version = 1 << 48;
        t.securityCounter = 1;
        t.imageDigest = "image";
        t.manifestDigest = "manifest";
        t.imageSize = 1_000_000;
        t.hardwareMin = 2;
        t.hardwareMax = 4;
        t.rollout = new IReleaseLedger.Phase[](2);
        t.rollout[0] = IReleaseLedger.Phase(1_000, 0, 0, 10_000, 0);
        t.rollout[1] = IReleaseLedger.Phase(10_000, 1 days, 4, 1_000, 0);
    }

    function _one(address member) internal pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = member;
    }

    function _two(address a, address b) internal pure returns (address[] memory list) {
        list = new address[](2);
        (list[0], list[1]) = a < b ? (a, b) : (b, a);
    }

    // -- signing -------------------------------------------------------------------------------------

    function _sign(uint256 key, bytes32 digest) internal pure returns (IReleaseLedger.Signature memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return IReleaseLedger.Signature(r, bytes32(uint256(s) | uint256(v - 27) << 255));
    }

    /// @dev By the first `count` approvers.
    function _signed(bytes32 digest, uint256 count) internal view returns (IReleaseLedger.Approvals memory a) {
        a.validUntil = FOREVER;
        a.signatures = new IReleaseLedger.Signature[](count);
        for (uint256 i = 0; i < count; ++i) {
            a.signatures[i] = _sign(approverKeys[i], digest);
        }
    }

    function _agreed(IReleaseLedger.Terms memory t, uint256 count)
        internal
        view
        returns (IReleaseLedger.Approvals memory)
    {
        return _signed(ledger.approvalDigest(ledger.termsHash(t), product.governance.epoch, FOREVER), count);
    }

    function _agreed(IReleaseLedger.Governance memory next) internal view returns (IReleaseLedger.Approvals memory) {
        return _signed(ledger.amendmentDigest(productId, next, product.governance.epoch, FOREVER), product.governance.threshold);
    }

    function _decided(uint32 releaseId, IReleaseLedger.Action action, uint32 nonce)
        internal
        view
        returns (IReleaseLedger.Approvals memory)
    {
        uint32 epoch = product.governance.epoch;
        return _signed(ledger.decisionDigest(productId, releaseId, action, nonce, epoch, FOREVER), product.governance.threshold);
    }

    // -- acting, and keeping the records current -----------------------------------------------------

    function _publish() internal {
        _publish(_terms(), 2);
    }

    function _publish(IReleaseLedger.Terms memory t, uint256 count) internal virtual {
        IReleaseLedger.Approvals memory approvals = _agreed(t, count);
        vm.recordLogs();
        uint32 id = ledger.publish(product, t, approvals);
        (, IReleaseLedger.State memory state,,) = abi.decode(
            vm.getRecordedLogs()[0].data,
            (IReleaseLedger.Terms, IReleaseLedger.State, uint32, IReleaseLedger.Approvals)
        );
        release = IReleaseLedger.Release(id, ledger.termsHash(t), state);
        product.head.latestRelease = id;
        product.head.version = t.version;
        product.head.securityCounter = t.securityCounter;
        _check();
    }

    function _halt() internal {
        _halt(guardian);
    }

    function _halt(address by) internal {
        vm.recordLogs();
        vm.prank(by);
        ledger.halt(productId, product, release, "smoke");
        (release.state,) = abi.decode(vm.getRecordedLogs()[0].data, (IReleaseLedger.State, string));
        _check();
    }

    function _resume() internal {
        uint32 nonce = uint8(release.state.word >> 8);
        IReleaseLedger.Approvals memory approvals =
            _decided(release.releaseId, IReleaseLedger.Action.Resume, nonce);
        vm.recordLogs();
        ledger.resume(productId, product, release, approvals);
        (release.state,) = abi.decode(vm.getRecordedLogs()[0].data, (IReleaseLedger.State, address[]));
        _check();
    }

    function _revoke() internal {
        IReleaseLedger.Approvals memory approvals = _decided(release.releaseId, IReleaseLedger.Action.Revoke, 0);
        vm.recordLogs();
        ledger.revoke(productId, product, release, approvals);
        (release.state,) = abi.decode(vm.getRecordedLogs()[0].data, (IReleaseLedger.State, address[]));
        _check();
    }

    function _anchor(uint32 size, uint32 confirmed, uint32 failed) internal {
        vm.recordLogs();
        vm.prank(reporter);
        ledger.anchor(productId, product, release, size, bytes32(uint256(size)), confirmed, failed);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        (,, release.state) = abi.decode(logs[0].data, (uint32, uint32, IReleaseLedger.State));
        if (logs.length == 2) (release.state,) = abi.decode(logs[1].data, (IReleaseLedger.State, string));
        _check();
    }

    function _pause() internal {
        vm.prank(guardian);
        ledger.pause(productId, product);
        product.head.pausedAt = uint64(vm.getBlockTimestamp());
        product.head.pauses += 1;
        _check();
    }

    function _unpause() internal {
        ledger.unpause(productId, product, _decided(0, IReleaseLedger.Action.Unpause, product.head.pauses));
        product.head.pausedTotal += uint64(vm.getBlockTimestamp()) - product.head.pausedAt;
        product.head.pausedAt = 0;
        _check();
    }

    /// @dev A change that waits; the record shows it as pending.
    function _propose(IReleaseLedger.Governance memory next) internal {
        ledger.amend(productId, product, next, _agreed(next));
        product.other = _hash(next);
        product.effectiveAt = uint64(vm.getBlockTimestamp()) + product.governance.governanceDelay;
        _check();
    }

    /// @dev The record as it is once the pending change, `next`, has taken effect by time.
    function _takeEffect(IReleaseLedger.Governance memory next) internal {
        vm.warp(product.effectiveAt);
        product.other = _hash(product.governance);
        product.governance = next;
        _check();
    }

    /// @dev A change that took effect at once.
    function _changed(IReleaseLedger.Governance memory next) internal {
        product.governance = next;
        product.other = 0;
        product.effectiveAt = 0;
        _check();
    }

    // -- what storage must hold, written out anew ----------------------------------------------------

    /// @dev Both commitments are those of the records, by `abi.encode` and not by the ledger's own code.
    function _check() internal view {
        bytes32 spelled = _hash(product.governance);
        bool over = product.effectiveAt != 0 && vm.getBlockTimestamp() >= product.effectiveAt;
        bytes32 expected = keccak256(
            abi.encode(
                keccak256("firmledger.product.v1"),
                block.chainid,
                address(ledger),
                productId,
                over ? product.other : spelled,
                over ? spelled : product.other,
                product.effectiveAt,
                product.head
            )
        );
        vm.assertEq(ledger.productSlot(productId), expected, "product commitment");
        if (release.releaseId == 0) return;
        expected = keccak256(
            abi.encode(keccak256("firmledger.release.v1"), block.chainid, address(ledger), productId, release)
        );
        vm.assertEq(ledger.releaseSlot(productId, release.releaseId), expected, "release commitment");
    }

    function _hash(IReleaseLedger.Governance memory g) internal pure returns (bytes32) {
        bytes32[] memory keys = new bytes32[](g.keys.length);
        for (uint256 i = 0; i < keys.length; ++i) {
            keys[i] = keccak256(abi.encode(keccak256("SigningKey(bytes32 keyId,uint32 validThrough)"), g.keys[i]));
        }
        return keccak256(
            abi.encode(
                keccak256(
                    "Governance(address[] approvers,uint8 threshold,uint32 epoch,address[] guardians,address[] auditors,address[] reporters,address enroller,SigningKey[] keys,HaltRule haltRule,uint32 releaseDelay,uint32 governanceDelay)HaltRule(uint32 minFailures,uint16 maxFailureBps)SigningKey(bytes32 keyId,uint32 validThrough)"
                ),
                keccak256(abi.encodePacked(g.approvers)),
                g.threshold,
                g.epoch,
                keccak256(abi.encodePacked(g.guardians)),
                keccak256(abi.encodePacked(g.auditors)),
                keccak256(abi.encodePacked(g.reporters)),
                g.enroller,
                keccak256(abi.encodePacked(keys)),
                keccak256(abi.encode(keccak256("HaltRule(uint32 minFailures,uint16 maxFailureBps)"), g.haltRule)),
                g.releaseDelay,
                g.governanceDelay
            )
        );
    }

    // -- small change --------------------------------------------------------------------------------

    function _word(uint8 status, uint8 halts) internal view returns (uint256) {
        vm.assertEq(release.state.word & 0xf, status, "status");
        vm.assertEq(uint8(release.state.word >> 8), halts, "halts");
        return release.state.word;
    }

    function _within(uint256 x, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + x % (high - low + 1);
    }

    function _refused(bytes memory error) internal {
        vm.expectRevert(error);
    }

    function _unauthorized(address caller, string memory role) internal {
        _refused(abi.encodeWithSelector(IReleaseLedger.NotAuthorized.selector, caller, role));
        vm.prank(caller);
    }
}
