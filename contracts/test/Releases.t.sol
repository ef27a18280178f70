// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";
import {Fixture} from "./Fixture.sol";
import {Vm} from "./Vm.sol";

/// @title The life of a release
contract ReleasesTest is Fixture {
    // -- publishing ----------------------------------------------------------------------------------

    function test_publish_carries_everything_and_indexes_the_image() public {
        _publish();
        vm.assertEq(release.releaseId, 1, "id");
        vm.assertEq(ledger.releaseOf(productId, "image"), 1, "index");
        vm.assertEq(release.state.word, 1, "active, nothing else");
        vm.assertEq(release.state.startsAt, START + 600, "after the release delay");
        vm.assertEq(release.state.logRoot, 0, "empty log");
    }

    function test_unanimity_skips_the_release_delay_only() public {
        _publish(_terms(), 3);
        vm.assertEq(release.state.startsAt, START, "at once");
        vm.assertTrue(_reason() == IReleaseLedger.Reason.CohortWaits || _reason() == IReleaseLedger.Reason.Eligible, "open");
    }

    /// @dev Removing approvers is immediate; it must not take away a delay whose lowering waits.
    function test_unanimity_counts_above_the_threshold_only() public {
        IReleaseLedger.Governance memory next = _next();
        next.approvers = _two(approvers[0], approvers[1]);
        vm.prank(approvers[2]);
        ledger.restrict(productId, product, next);
        _changed(next);
        _publish();
        vm.assertEq(release.state.startsAt, START + 600, "both of two are no more than needed");
    }

    function test_not_before_does_not_cut_the_delay_short() public {
        _pause();
        vm.warp(START + 1_000);
        _unpause();
        IReleaseLedger.Terms memory t = _terms();
        t.notBefore = START + 1_100; // START + 100 on the product's clock
        _publish(t, 2);
        vm.assertEq(release.state.startsAt, START + 600, "startsAt");
    }

    function test_not_before_runs_on_the_products_clock() public {
        _pause();
        vm.warp(START + 1_000);
        _unpause();
        IReleaseLedger.Terms memory t = _terms();
        t.notBefore = START + 5_000;
        _publish(t, 2);
        vm.assertEq(release.state.startsAt, START + 4_000, "startsAt");
        t.version += 1;
        t.notBefore = START; // in the past: the delay decides
        _publish(t, 2);
        vm.assertEq(release.state.startsAt, START + 600, "startsAt");
    }

    function test_the_index_shows_the_newest_release_of_an_image() public {
        _publish();
        IReleaseLedger.Terms memory t = _terms();
        t.version += 1;
        _publish(t, 2);
        vm.assertEq(ledger.releaseOf(productId, "image"), 2, "newest");
        t.version += 1;
        t.imageDigest = "other";
        _publish(t, 2);
        vm.assertEq(ledger.releaseOf(productId, "image"), 2, "kept");
        vm.assertEq(ledger.releaseOf(productId, "other"), 3, "other");
        vm.assertEq(ledger.releaseOf("elsewhere", "image"), 0, "per product");
    }

    function test_versions_rise_and_counters_never_fall() public {
        _publish();
        IReleaseLedger.Terms memory t = _terms();
        _refusedTerms(t, abi.encodeWithSelector(IReleaseLedger.VersionNotRising.selector, 1 << 48, 1 << 48));
        t.version = 2 << 48;
        t.securityCounter = 0;
        _refusedTerms(t, abi.encodeWithSelector(IReleaseLedger.CounterFalling.selector, 1, 0));
    }

    function test_a_paused_product_publishes_nothing() public {
        _pause();
        _refusedTerms(_terms(), abi.encodeWithSelector(IReleaseLedger.ProductIsPaused.selector, productId, START));
    }

    function test_terms_that_no_device_could_follow() public {
        IReleaseLedger.Terms memory t = _terms();
        t.imageDigest = 0;
        _invalid(t, "imageDigest");
        t = _terms();
        t.manifestDigest = 0;
        _invalid(t, "manifestDigest");
        t = _terms();
        t.imageSize = 0;
        _invalid(t, "imageSize");
        t = _terms();
        t.hardwareMax = 1;
        _invalid(t, "hardwareMax");
        t = _terms();
        t.minVersion = t.version;
        _invalid(t, "minVersion");
        t = _terms();
        t.expiry = START;
        _invalid(t, "expiry");
        t.expiry = START + 10;
        t.notBefore = START + 10;
        _invalid(t, "expiry");
        t = _terms();
        t.rollout = new IReleaseLedger.Phase[](0);
        _invalid(t, "rollout");
        t.rollout = new IReleaseLedger.Phase[](5);
        _invalid(t, "rollout");
    }

    function test_rollouts_that_are_none() public {
        IReleaseLedger.Terms memory t = _terms();
        t.rollout[0].bps = 0;
        _invalid(t, 0, "bps");
        t = _terms();
        t.rollout[1].bps = 1_000;
        _invalid(t, 1, "bps");
        t.rollout[1].bps = 10_001;
        _invalid(t, 1, "bps");
        t = _terms();
        t.rollout[0].delay = 2 days;
        _invalid(t, 1, "delay");
        t = _terms();
        t.rollout[1].maxFailureBps = 10_001;
        _invalid(t, 1, "maxFailureBps");
        t = _terms();
        t.rollout[0].maxFailureBps = 9_999;
        _invalid(t, 0, "maxFailureBps");
        t = _terms();
        t.rollout[0].minConfirmed = 1;
        _invalid(t, 0, "minConfirmed");
        t = _terms();
        t.rollout[0].gateDeadline = 1;
        _invalid(t, 0, "gateDeadline");
    }

    /// @dev Terms are hashed as they came; what is out of its type's range must not be published.
    function testFuzz_publish_refuses_values_out_of_range(uint256 seed) public {
        bytes memory data = abi.encodeCall(ledger.publish, (product, _terms(), _agreed(_terms(), 2)));
        uint256 terms = 4 + _wordAt(data, 4 + 0x20);
        uint256[10] memory narrow = [uint256(1), 2, 5, 6, 7, 8, 9, 10, 11, 13];
        uint256 at = terms + narrow[seed % 10] * 32;
        if (seed & 0x100 != 0) at = terms + 0x1e0 + 0x20 + ((seed >> 9) % 10) * 32; // within the phases
        data[at] = bytes1(uint8(_within(seed >> 16, 1, 255)));
        (bool done,) = address(ledger).call(data);
        vm.assertTrue(!done, "published");
    }

    // -- halting and resuming ------------------------------------------------------------------------

    function test_guardians_halt_and_nobody_else() public {
        _publish();
        address[5] memory others = [approvers[0], auditor, reporter, enroller, outsider];
        for (uint256 i = 0; i < 5; ++i) {
            _unauthorized(others[i], "guardian");
            ledger.halt(productId, product, release, "");
        }
        vm.warp(START + 700);
        _halt();
        _word(2, 1);
        vm.assertEq(uint40(release.state.word >> 24), START + 700, "haltedAt");
    }

    function test_approvers_are_the_guardians_unless_others_are_named() public {
        IReleaseLedger.Governance memory g = _governance();
        g.guardians = new address[](0);
        productId = ledger.createProduct("unnamed", g);
        product.governance = g;
        _publish();
        for (uint256 i = 0; i < 3; ++i) {
            _halt(approvers[i]);
            _resume();
        }
        _unauthorized(guardian, "guardian");
        ledger.halt(productId, product, release, "");
    }

    function test_reasons_are_bounded() public {
        _publish();
        string memory long = string(new bytes(257));
        _refused(abi.encodeWithSelector(IReleaseLedger.ReasonTooLong.selector, 257));
        vm.prank(guardian);
        ledger.halt(productId, product, release, long);
        vm.prank(guardian);
        ledger.halt(productId, product, release, string(new bytes(256)));
    }

    function test_what_is_not_active_cannot_be_halted() public {
        _publish();
        _halt();
        _refused(abi.encodeWithSelector(IReleaseLedger.WrongStatus.selector, IReleaseLedger.Status.Halted));
        vm.prank(guardian);
        ledger.halt(productId, product, release, "");
        _revoke();
        _refused(abi.encodeWithSelector(IReleaseLedger.WrongStatus.selector, IReleaseLedger.Status.Revoked));
        vm.prank(guardian);
        ledger.halt(productId, product, release, "");
    }

    function test_halted_time_stands_still_and_resuming_sets_a_baseline() public {
        _publish();
        _anchor(9, 6, 2);
        vm.warp(START + 1_000);
        _halt();
        vm.warp(START + 1_700);
        _resume();
        uint256 word = _word(1, 1);
        vm.assertEq(uint40(word >> 24), 0, "haltedAt");
        vm.assertEq(uint32(word >> 128), 6, "baseline confirmed");
        vm.assertEq(uint32(word >> 160), 2, "baseline failed");
        vm.assertEq(uint32(word >> 192), 700, "haltedTotal");
        vm.assertEq(uint32(word >> 224), 9, "logSize");
    }

    function test_a_pause_does_not_count_as_halted_time() public {
        _publish();
        _halt();
        _pause();
        vm.warp(START + 500);
        _unpause();
        vm.warp(START + 600);
        _resume();
        vm.assertEq(uint32(release.state.word >> 192), 100, "haltedTotal");
    }

    function test_only_what_is_halted_resumes() public {
        _publish();
        IReleaseLedger.Approvals memory a = _decided(1, IReleaseLedger.Action.Resume, 0);
        _refused(abi.encodeWithSelector(IReleaseLedger.WrongStatus.selector, IReleaseLedger.Status.Active));
        ledger.resume(productId, product, release, a);
        _revoke();
        _refused(abi.encodeWithSelector(IReleaseLedger.WrongStatus.selector, IReleaseLedger.Status.Revoked));
        ledger.resume(productId, product, release, a);
    }

    function test_the_255th_halt_is_the_last() public {
        _publish();
        for (uint256 i = 0; i < 254; ++i) {
            _halt();
            _resume();
        }
        _halt();
        _word(2, 255);
        IReleaseLedger.Approvals memory a = _decided(1, IReleaseLedger.Action.Resume, 255);
        _refused(abi.encodeWithSelector(IReleaseLedger.HaltsExhausted.selector, 1));
        ledger.resume(productId, product, release, a);
        _revoke();
    }

    /// @dev 136 years of halts do not fit; then it stays halted rather than start early.
    function test_halted_time_does_not_wrap() public {
        _publish();
        _halt();
        vm.warp(START + 2 ** 32);
        IReleaseLedger.Approvals memory a = _decided(1, IReleaseLedger.Action.Resume, 1);
        _refused(abi.encodeWithSelector(IReleaseLedger.HaltedTooLong.selector, 2 ** 32));
        ledger.resume(productId, product, release, a);
        vm.warp(START + 2 ** 32 - 1);
        _resume();
        vm.assertEq(uint32(release.state.word >> 192), type(uint32).max, "haltedTotal");
    }

    // -- superseding, revoking, attesting ------------------------------------------------------------

    function test_superseding_only_sorts() public {
        _publish(_terms(), 3);
        IReleaseLedger.Reason before = _reason();
        IReleaseLedger.Approvals memory a = _decided(1, IReleaseLedger.Action.Supersede, 0);
        vm.recordLogs();
        ledger.supersede(productId, product, release, a);
        (release.state,) = abi.decode(vm.getRecordedLogs()[0].data, (IReleaseLedger.State, address[]));
        vm.assertEq(release.state.word, 1 | 1 << 4, "the flag");
        _check();
        vm.assertTrue(_reason() == before, "installable as before");
        _refused(abi.encodeWithSelector(IReleaseLedger.AlreadySuperseded.selector, 1));
        ledger.supersede(productId, product, release, a);
    }

    function test_revoking_is_for_good() public {
        _publish();
        _revoke();
        _word(3, 0);
        vm.assertTrue(_reason() == IReleaseLedger.Reason.Revoked, "reason");
        IReleaseLedger.Approvals memory a = _decided(1, IReleaseLedger.Action.Revoke, 0);
        _refused(abi.encodeWithSelector(IReleaseLedger.WrongStatus.selector, IReleaseLedger.Status.Revoked));
        ledger.revoke(productId, product, release, a);
    }

    function test_auditors_attest_each_kind_once() public {
        _publish();
        address[5] memory others = [approvers[0], guardian, reporter, enroller, outsider];
        for (uint256 i = 0; i < 5; ++i) {
            _unauthorized(others[i], "auditor");
            ledger.attest(productId, product, release, 0, "evidence");
        }
        for (uint8 kind = 0; kind < 8; ++kind) {
            vm.recordLogs();
            vm.prank(auditor);
            ledger.attest(productId, product, release, kind, "evidence");
            (,, release.state) = abi.decode(vm.getRecordedLogs()[0].data, (uint8, bytes32, IReleaseLedger.State));
            _check();
            _refused(abi.encodeWithSelector(IReleaseLedger.AlreadyAttested.selector, kind));
            vm.prank(auditor);
            ledger.attest(productId, product, release, kind, "evidence");
        }
        vm.assertEq(release.state.word, 1 | 0xff << 16, "all kinds, nothing else");
        _refused(abi.encodeWithSelector(IReleaseLedger.InvalidKind.selector, 8));
        vm.prank(auditor);
        ledger.attest(productId, product, release, 8, "evidence");
    }

    // -- receipts ------------------------------------------------------------------------------------

    function test_reporters_anchor_and_nobody_else() public {
        _publish();
        address[5] memory others = [approvers[0], guardian, auditor, enroller, outsider];
        for (uint256 i = 0; i < 5; ++i) {
            _unauthorized(others[i], "reporter");
            ledger.anchor(productId, product, release, 1, "root", 1, 0);
        }
        _anchor(10, 8, 1);
        _anchor(11, 1, 0);
        vm.assertEq(uint32(release.state.word >> 64), 9, "confirmed");
        vm.assertEq(uint32(release.state.word >> 96), 1, "failed");
    }

    function test_a_log_only_grows_and_counts_no_more_than_it_holds() public {
        _publish();
        _anchor(10, 5, 2);
        _refused(abi.encodeWithSelector(IReleaseLedger.LogNotGrowing.selector, 10, 10));
        vm.prank(reporter);
        ledger.anchor(productId, product, release, 10, "root", 0, 0);
        _refused(abi.encodeWithSelector(IReleaseLedger.LogNotGrowing.selector, 10, 9));
        vm.prank(reporter);
        ledger.anchor(productId, product, release, 9, "root", 0, 0);
        _refused(abi.encodeWithSelector(IReleaseLedger.DeltaExceedsGrowth.selector, 3, 4));
        vm.prank(reporter);
        ledger.anchor(productId, product, release, 13, "root", 2, 2);
        _refused(abi.encodeWithSelector(IReleaseLedger.DeltaExceedsGrowth.selector, 3, 2 * uint256(type(uint32).max)));
        vm.prank(reporter);
        ledger.anchor(productId, product, release, 13, "root", type(uint32).max, type(uint32).max);
        _anchor(13, 2, 1);
    }

    function test_the_largest_log() public {
        _publish();
        _anchor(type(uint32).max, type(uint32).max, 0);
        vm.assertEq(release.state.word >> 64, uint256(type(uint32).max) << 160 | type(uint32).max, "counts");
    }

    function test_the_ledger_halts_by_its_rule() public {
        _publish();
        _anchor(9, 6, 2); // 2 failures are below the least number
        _word(1, 0);
        vm.recordLogs();
        vm.prank(reporter);
        ledger.anchor(productId, product, release, 12, "root", 0, 3); // 5 of 11
        Vm.Log[] memory logs = vm.getRecordedLogs();
        vm.assertEq(logs.length, 2, "events");
        vm.assertEq(logs[1].topics[3], bytes32(uint256(uint160(address(ledger)))), "by itself");
        string memory reason;
        (release.state, reason) = abi.decode(logs[1].data, (IReleaseLedger.State, string));
        vm.assertEq(keccak256(bytes(reason)), keccak256("halting rule met"), "reason");
        _check();
        _word(2, 1);
    }

    function test_the_rule_needs_both_number_and_share() public {
        _publish();
        _anchor(12, 9, 3); // 3 of 12 is 25 %, not above it
        _word(1, 0);
        _anchor(13, 0, 1);
        _word(2, 1);
        _resume(); // the rule counts afresh
        _anchor(15, 0, 2);
        _word(1, 1);
        _anchor(16, 0, 1);
        _word(2, 2);
    }

    function test_a_rule_of_0_is_off() public {
        IReleaseLedger.Governance memory g = _governance();
        g.haltRule.minFailures = 0;
        productId = ledger.createProduct("bold", g);
        product.governance = g;
        _publish();
        _anchor(1_000, 0, 1_000);
        _word(1, 0);
    }

    function test_late_receipts_are_anchored_and_halt_nothing_more() public {
        _publish();
        _halt();
        _anchor(10, 0, 10);
        _word(2, 1);
        _revoke();
        _anchor(20, 0, 10);
        _word(3, 1);
        vm.assertEq(uint32(release.state.word >> 96), 20, "failed");
    }

    // -- stale records -------------------------------------------------------------------------------

    function test_unknown_release() public {
        _publish();
        IReleaseLedger.Release memory r = release;
        r.releaseId = 2;
        _refused(abi.encodeWithSelector(IReleaseLedger.UnknownRelease.selector, productId, 2));
        vm.prank(guardian);
        ledger.halt(productId, product, r, "");
    }

    function testFuzz_any_other_release_record_is_stale(uint256 bit) public {
        _publish();
        IReleaseLedger.Release memory r = release;
        bit = _within(bit, 0, 4 * 64 - 1);
        uint256 flip = 1 << (bit % 64);
        if (bit / 64 == 0) r.termsHash ^= bytes32(flip);
        if (bit / 64 == 1) r.state.startsAt ^= uint64(flip);
        if (bit / 64 == 2) r.state.word ^= flip << (bit % 4 * 64);
        if (bit / 64 == 3) r.state.logRoot ^= bytes32(flip);
        vm.prank(guardian);
        (bool done, bytes memory answer) =
            address(ledger).call(abi.encodeCall(ledger.halt, (productId, product, r, "")));
        vm.assertTrue(!done && bytes4(answer) == IReleaseLedger.StaleRelease.selector, "not stale");
    }

    /// @dev A halt can be outrun by an anchor, which changes the release's record; a pause cannot.
    function test_an_anchor_outruns_a_halt_but_never_a_pause() public {
        _publish();
        IReleaseLedger.Release memory seen = release;
        IReleaseLedger.Product memory known = product;
        _anchor(1, 1, 0);
        vm.expectRevert();
        vm.prank(guardian);
        ledger.halt(productId, known, seen, "");
        vm.prank(guardian);
        ledger.pause(productId, known);
    }

    // -- what these tests share ----------------------------------------------------------------------

    function _reason() private view returns (IReleaseLedger.Reason) {
        IReleaseLedger.Device memory d = IReleaseLedger.Device("device", 0, 0, 3);
        return ledger.eligible(product, _terms(), release.releaseId, release.state, d);
    }

    function _refusedTerms(IReleaseLedger.Terms memory t, bytes memory error) private {
        IReleaseLedger.Approvals memory a = _agreed(t, 2);
        _refused(error);
        ledger.publish(product, t, a);
    }

    function _invalid(IReleaseLedger.Terms memory t, string memory field) private {
        _refusedTerms(t, abi.encodeWithSelector(IReleaseLedger.InvalidTerms.selector, field));
    }

    function _invalid(IReleaseLedger.Terms memory t, uint256 phase, string memory field) private {
        _refusedTerms(t, abi.encodeWithSelector(IReleaseLedger.InvalidRollout.selector, phase, field));
    }

    function _wordAt(bytes memory data, uint256 at) private pure returns (uint256 value) {
        assembly ("memory-safe") {
            value := mload(add(add(data, 0x20), at))
        }
    }
}
