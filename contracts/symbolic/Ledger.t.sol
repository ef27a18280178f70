// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";
import {ReleaseLedger} from "../ReleaseLedger.sol";
import {Commitments} from "../lib/Commitments.sol";
import {StateWord} from "../lib/StateWord.sol";
import {Vm} from "../test/Vm.sol";

/// @title One act on the ledger, whoever sends it and whatever it says
/// @notice A product of three approvers, two of whom suffice, with a release whose word may be any. Signatures
/// are symbolic: `ecrecover` may give any account for each, the same for the same. halmos proves `check_`
/// functions; forge compiles them and runs none.
/// @custom:halmos --default-array-lengths 0,1,2,3 --loop 16
contract SymbolicLedger {
    using StateWord for uint256;

    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint64 private constant START = 1_700_000_000;
    uint256 private constant NOW = START + 1 days;
    address private constant GUARDIAN = address(0x2001);
    address private constant AUDITOR = address(0x2002);
    address private constant REPORTER = address(0x2003);

    ReleaseLedger private _ledger;
    bytes32 private _productId;
    IReleaseLedger.Product private _product;
    bytes32 private _governed;

    function setUp() external {
        vm.warp(START);
        _ledger = new ReleaseLedger();
        IReleaseLedger.Governance memory g;
        g.approvers = new address[](3);
        for (uint160 i = 0; i < 3; ++i) {
            g.approvers[i] = address(0x1001 + i);
        }
        (g.threshold, g.epoch) = (2, 1);
        g.guardians = _one(GUARDIAN);
        g.auditors = _one(AUDITOR);
        g.reporters = _one(REPORTER);
        g.haltRule = IReleaseLedger.HaltRule(3, 2_500);
        g.governanceDelay = 3 days;
        _product.governance = g;
        _productId = _ledger.createProduct("salt", g);
        _governed = this.hashed(g);
        vm.warp(NOW);
    }

    function hashed(IReleaseLedger.Governance calldata g) external pure returns (bytes32) {
        return Commitments.governance(g, 0);
    }

    // -- threshold -----------------------------------------------------------------------------------

    /// @dev What is published was approved by two different approvers, by signature or on the ledger.
    function check_publish_takes_two_approvers(
        IReleaseLedger.Signature[] calldata signatures,
        uint64 validUntil,
        uint64 version,
        bytes32 image,
        address sender
    ) external {
        IReleaseLedger.Terms memory t = _terms(version, image);
        bytes32 digest = _ledger.approvalDigest(_ledger.termsHash(t), 1, validUntil);
        IReleaseLedger.Approvals memory a = IReleaseLedger.Approvals(validUntil, signatures);
        vm.prank(sender);
        uint32 id = _ledger.publish(_product, t, a);
        assert(id == 1 && validUntil >= NOW);
        _assertTwoApprovers(digest, signatures);
    }

    /// @dev The same of a change of governance; and one that lowers the threshold waits, and changes nothing yet.
    function check_an_amendment_takes_two_approvers_and_waits(
        IReleaseLedger.Signature[] calldata signatures,
        uint64 validUntil,
        uint8 threshold,
        address sender
    ) external {
        IReleaseLedger.Governance memory next = _product.governance;
        (next.epoch, next.threshold) = (2, threshold);
        bytes32 digest = _ledger.amendmentDigest(_productId, next, 1, validUntil);
        vm.prank(sender);
        _ledger.amend(_productId, _product, next, IReleaseLedger.Approvals(validUntil, signatures));
        assert(validUntil >= NOW && threshold >= 1 && threshold <= 3);
        _assertTwoApprovers(digest, signatures);
        IReleaseLedger.Head memory head;
        bytes32 hash = this.hashed(next);
        bytes32 waiting = _commitment(_governed, hash, uint64(NOW + 3 days), head);
        bytes32 atOnce = _commitment(hash, 0, 0, head);
        assert(_ledger.productSlot(_productId) == (threshold < 2 ? waiting : atOnce));
    }

    function _assertTwoApprovers(bytes32 digest, IReleaseLedger.Signature[] calldata signatures) private view {
        assert(signatures.length >= 2);
        address previous = address(0);
        for (uint256 i = 0; i < signatures.length; ++i) {
            (bytes32 r, bytes32 vs) = (signatures[i].r, signatures[i].vs);
            address signer = address(uint160(uint256(r)));
            if (vs == 0) {
                assert(_ledger.approved(digest, signer));
            } else {
                bytes32 s = vs & bytes32(type(uint256).max >> 1);
                signer = ecrecover(digest, uint8(uint256(vs) >> 255) + 27, r, s);
            }
            assert(signer > previous && uint160(signer) >= 0x1001 && uint160(signer) <= 0x1003);
            previous = signer;
        }
    }

    // -- each act by its role, and nothing of a release but what it is there to change -----------------

    function check_halt_is_its_transition(uint256 word, bytes32 root, address sender) external {
        IReleaseLedger.Release memory r = _release(word, root);
        bytes32 product = _ledger.productSlot(_productId);
        vm.prank(sender);
        _ledger.halt(_productId, _product, r, "");
        assert(sender == GUARDIAN && word & 0xf == 1);
        _assertBecame(r, word.halted(NOW), root, product);
    }

    function check_attest_is_its_transition(uint256 word, bytes32 root, uint8 kind, address sender) external {
        IReleaseLedger.Release memory r = _release(word, root);
        bytes32 product = _ledger.productSlot(_productId);
        vm.prank(sender);
        _ledger.attest(_productId, _product, r, kind, "evidence");
        assert(sender == AUDITOR && kind < 8 && word >> (16 + kind) & 1 == 0);
        _assertBecame(r, word.withAttested(kind), root, product);
    }

    function check_anchor_is_its_transition(
        uint256 word,
        bytes32 root,
        bytes32 newRoot,
        uint32 size,
        uint32 good,
        uint32 bad,
        address sender
    ) external {
        IReleaseLedger.Release memory r = _release(word, root);
        bytes32 product = _ledger.productSlot(_productId);
        vm.prank(sender);
        _ledger.anchor(_productId, _product, r, size, newRoot, good, bad);
        assert(sender == REPORTER && size > word.logSize() && uint256(good) + bad <= size - word.logSize());
        uint256 later = word.withReceipts(size, good, bad);
        bytes32 slot = _ledger.releaseSlot(_productId, 1);
        bool halts = word & 0xf == 1 && slot == _commitment(r, later.halted(NOW), newRoot);
        assert(halts || slot == _commitment(r, later, newRoot));
        assert(_ledger.productSlot(_productId) == product);
    }

    /// @dev A pause comes from a watcher and leaves everything else of the product, and its releases, as they were.
    function check_pause_is_its_transition(IReleaseLedger.Head calldata head, uint256 word, address sender) external {
        _lived(head);
        IReleaseLedger.Release memory r = _release(word, 0);
        IReleaseLedger.Head memory later = head;
        vm.prank(sender);
        _ledger.pause(_productId, _product);
        assert(sender == GUARDIAN || (uint160(sender) >= 0x1001 && uint160(sender) <= 0x1003));
        assert(head.pausedAt == 0);
        (later.pausedAt, later.pauses) = (uint64(NOW), head.pauses + 1);
        assert(_ledger.productSlot(_productId) == _commitment(_governed, 0, 0, later));
        assert(_ledger.releaseSlot(_productId, 1) == _commitment(r, word, 0));
    }

    // -- monotony ------------------------------------------------------------------------------------

    /// @dev Id and version rise, the counter does not fall, pauses stay; releases there were are left alone.
    function check_publish_only_rises(
        IReleaseLedger.Head calldata head,
        IReleaseLedger.Signature[] calldata signatures,
        uint64 version,
        uint32 counter,
        uint256 word
    ) external {
        _lived(head);
        IReleaseLedger.Release memory r = _release(word, 0);
        vm.assume(head.latestRelease >= 1);
        IReleaseLedger.Terms memory t = _terms(version, "image");
        t.securityCounter = counter;
        uint32 id = _ledger.publish(_product, t, IReleaseLedger.Approvals(uint64(NOW), signatures));
        assert(id == head.latestRelease + 1 && version > head.version && counter >= head.securityCounter);
        IReleaseLedger.Head memory later = head;
        (later.latestRelease, later.version, later.securityCounter) = (id, version, counter);
        assert(head.pausedAt == 0 && _ledger.productSlot(_productId) == _commitment(_governed, 0, 0, later));
        assert(_ledger.releaseSlot(_productId, 1) == _commitment(r, word, 0));
    }

    /// @dev Resuming needs two approvers and gives the word of its transition; nothing else moves.
    function check_resume_is_its_transition(
        uint256 word,
        IReleaseLedger.Signature[] calldata signatures,
        uint64 validUntil
    ) external {
        IReleaseLedger.Release memory r = _release(word, 0);
        bytes32 product = _ledger.productSlot(_productId);
        bytes32 digest = _ledger.decisionDigest(_productId, 1, IReleaseLedger.Action.Resume, word.halts(), 1, validUntil);
        _ledger.resume(_productId, _product, r, IReleaseLedger.Approvals(validUntil, signatures));
        assert(word & 0xf == 2 && word.halts() < 255);
        _assertTwoApprovers(digest, signatures);
        _assertBecame(r, word.resumed(NOW), 0, product);
    }

    function check_revoke_is_its_transition(
        uint256 word,
        IReleaseLedger.Signature[] calldata signatures,
        uint64 validUntil
    ) external {
        IReleaseLedger.Release memory r = _release(word, 0);
        bytes32 product = _ledger.productSlot(_productId);
        bytes32 digest = _ledger.decisionDigest(_productId, 1, IReleaseLedger.Action.Revoke, 0, 1, validUntil);
        _ledger.revoke(_productId, _product, r, IReleaseLedger.Approvals(validUntil, signatures));
        assert(word & 0xf != 3);
        _assertTwoApprovers(digest, signatures);
        _assertBecame(r, word.revoked(), 0, product);
    }

    function check_supersede_is_its_transition(
        uint256 word,
        IReleaseLedger.Signature[] calldata signatures,
        uint64 validUntil
    ) external {
        IReleaseLedger.Release memory r = _release(word, 0);
        bytes32 product = _ledger.productSlot(_productId);
        bytes32 digest = _ledger.decisionDigest(_productId, 1, IReleaseLedger.Action.Supersede, 0, 1, validUntil);
        _ledger.supersede(_productId, _product, r, IReleaseLedger.Approvals(validUntil, signatures));
        assert(!word.superseded());
        _assertTwoApprovers(digest, signatures);
        _assertBecame(r, word.withSuperseded(), 0, product);
    }

    // -- tools ---------------------------------------------------------------------------------------

    function _one(address account) private pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = account;
    }

    function _terms(uint64 version, bytes32 image) private view returns (IReleaseLedger.Terms memory t) {
        t.productId = _productId;
        (t.version, t.imageDigest, t.manifestDigest, t.imageSize) = (version, image, "manifest", 1);
        t.rollout = new IReleaseLedger.Phase[](1);
        t.rollout[0] = IReleaseLedger.Phase(10_000, 0, 0, 10_000, 0);
    }

    /// @dev Puts a release with this word into storage: any with a known status and counts within the log.
    function _release(uint256 word, bytes32 root) private returns (IReleaseLedger.Release memory r) {
        vm.assume(word & 0xf >= 1 && word & 0xf <= 3 && word.haltedAt() <= NOW);
        vm.assume(word.confirmed() + word.failed() <= word.logSize());
        vm.assume(uint32(word >> 128) <= word.confirmed() && uint32(word >> 160) <= word.failed());
        r = IReleaseLedger.Release(1, "terms", IReleaseLedger.State(START, word, root));
        bytes32 place = keccak256(abi.encode(uint32(1), keccak256(abi.encode(_productId, uint256(1)))));
        vm.store(address(_ledger), place, _commitment(r, word, root));
    }

    function _commitment(IReleaseLedger.Release memory r, uint256 word, bytes32 root) private view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("firmledger.release.v1"), block.chainid, address(_ledger), _productId,
                r.releaseId, r.termsHash, r.state.startsAt, word, root
            )
        );
    }

    /// @dev Puts this head into storage and into the record, as one that the ledger can have made.
    function _lived(IReleaseLedger.Head calldata head) private {
        vm.assume(head.pausedAt <= NOW && head.pausedTotal <= 365 days && head.latestRelease < type(uint32).max);
        vm.assume(head.pauses < type(uint32).max);
        _product.head = head;
        vm.store(address(_ledger), keccak256(abi.encode(_productId, uint256(0))), _commitment(_governed, 0, 0, head));
    }

    function _commitment(bytes32 current, bytes32 pending, uint64 effectiveAt, IReleaseLedger.Head memory head)
        private
        view
        returns (bytes32)
    {
        return keccak256(
            abi.encode(
                keccak256("firmledger.product.v1"), block.chainid, address(_ledger), _productId,
                current, pending, effectiveAt, head
            )
        );
    }

    /// @dev The release kept its id, terms and start; its word is the one given; the product is untouched.
    function _assertBecame(IReleaseLedger.Release memory r, uint256 word, bytes32 root, bytes32 product) private view {
        assert(_ledger.releaseSlot(_productId, 1) == _commitment(r, word, root));
        assert(_ledger.productSlot(_productId) == product);
    }
}
