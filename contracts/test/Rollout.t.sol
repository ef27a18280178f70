// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";
import {StateWord} from "../lib/StateWord.sol";
import {Fixture} from "./Fixture.sol";

/// @title Which device, when; and the packed state
contract RolloutTest is Fixture {
    IReleaseLedger.Terms private _published;

    // -- every reason, and their order ---------------------------------------------------------------

    function test_each_reason_when_it_alone_applies() public {
        _publish(_fast(), 3);
        _expect(_device(), IReleaseLedger.Reason.Eligible);
        IReleaseLedger.Device memory d = _device();
        d.hardware = 1;
        _expect(d, IReleaseLedger.Reason.WrongHardware);
        d.hardware = 5;
        _expect(d, IReleaseLedger.Reason.WrongHardware);
        d = _device();
        d.version = 2 << 48;
        _expect(d, IReleaseLedger.Reason.NotNewer);
        d.version = (1 << 48) - 1;
        _expect(d, IReleaseLedger.Reason.StepRequired);
        d = _device();
        d.securityCounter = 6;
        _expect(d, IReleaseLedger.Reason.CounterTooLow);
        d.securityCounter = 5;
        _expect(d, IReleaseLedger.Reason.Eligible);
        vm.warp(START + 1 days);
        _expect(_device(), IReleaseLedger.Reason.Expired);
        vm.warp(START + 1 days - 1);
        _expect(_device(), IReleaseLedger.Reason.Eligible);
        _pause();
        _expect(_device(), IReleaseLedger.Reason.ProductPaused);
        _unpause();
        _halt();
        _expect(_device(), IReleaseLedger.Reason.Halted);
        _resume();
        _revoke();
        _expect(_device(), IReleaseLedger.Reason.Revoked);
    }

    function test_the_first_reason_wins() public {
        IReleaseLedger.Terms memory t = _fast();
        t.requiredAttestations = 3;
        t.notBefore = START + 100;
        _publish(t, 2);
        IReleaseLedger.Device memory d = IReleaseLedger.Device("device", 9 << 48, 9, 9);
        _expect(d, IReleaseLedger.Reason.WrongHardware);
        d.hardware = 3;
        _expect(d, IReleaseLedger.Reason.AttestationsMissing);
        for (uint8 kind = 0; kind < 2; ++kind) {
            vm.prank(auditor);
            ledger.attest(productId, product, release, kind, "evidence");
            release.state.word |= 1 << (16 + kind);
            _check();
            if (kind == 0) _expect(d, IReleaseLedger.Reason.AttestationsMissing);
        }
        _expect(d, IReleaseLedger.Reason.NotStarted);
        vm.warp(START + 2 days);
        _expect(d, IReleaseLedger.Reason.Expired);
        vm.warp(START + 1_000);
        _expect(d, IReleaseLedger.Reason.NotNewer);
        d.version = 0;
        _expect(d, IReleaseLedger.Reason.StepRequired);
        d.version = 1 << 48;
        _expect(d, IReleaseLedger.Reason.CounterTooLow);
        _halt();
        _expect(d, IReleaseLedger.Reason.Halted);
        _revoke();
        _expect(d, IReleaseLedger.Reason.Revoked);
        _pause();
        _expect(d, IReleaseLedger.Reason.ProductPaused);
    }

    function test_the_start_to_the_second() public {
        _publish(_fast(), 2);
        vm.warp(START + 599);
        _expect(_device(), IReleaseLedger.Reason.NotStarted);
        vm.warp(START + 600);
        _expect(_device(), IReleaseLedger.Reason.Eligible);
    }

    function test_halts_and_pauses_take_their_time_out() public {
        _publish(_fast(), 2);
        vm.warp(START + 100);
        _halt();
        vm.warp(START + 300);
        _pause(); // both at once: counted once
        vm.warp(START + 400);
        _unpause();
        vm.warp(START + 1_000);
        _resume();
        // Of 1,000 seconds, 100 paused and 800 halted while the clock ran: 100 have run.
        vm.warp(START + 1_499);
        _expect(_device(), IReleaseLedger.Reason.NotStarted);
        vm.warp(START + 1_500);
        _expect(_device(), IReleaseLedger.Reason.Eligible);
    }

    function test_records_that_are_not_current_get_no_answer() public {
        _publish(_fast(), 2);
        IReleaseLedger.Terms memory t = _fast();
        t.critical = true;
        vm.expectRevert();
        ledger.eligible(product, t, 1, release.state, _device());
        vm.expectRevert();
        ledger.eligible(product, _fast(), 2, release.state, _device());
        IReleaseLedger.State memory s = release.state;
        s.word ^= 1 << 16;
        vm.expectRevert();
        ledger.eligible(product, _fast(), 1, s, _device());
        IReleaseLedger.Product memory p = product;
        p.head.pausedAt = START;
        vm.expectRevert();
        ledger.eligible(p, _fast(), 1, release.state, _device());
    }

    // -- phases --------------------------------------------------------------------------------------

    function test_cohorts_can_be_recomputed() public {
        IReleaseLedger.Terms memory t = _fast();
        t.rollout = new IReleaseLedger.Phase[](1);
        t.rollout[0] = IReleaseLedger.Phase(5_000, 0, 0, 10_000, 0);
        _publish(t, 3);
        uint256 turns = 0;
        for (uint256 i = 0; i < 200; ++i) {
            IReleaseLedger.Device memory d = _device();
            d.deviceId = keccak256(abi.encode(i));
            uint256 cohort = uint256(keccak256(abi.encode(productId, uint256(1), d.deviceId))) % 10_000;
            bool open = ledger.eligible(product, t, 1, release.state, d) == IReleaseLedger.Reason.Eligible;
            vm.assertTrue(open == (cohort < 5_000), "cohort");
            if (open) ++turns;
        }
        vm.assertTrue(turns > 60 && turns < 140, "about half");
    }

    /// @dev Phases of any shape, against the rule written the other way round.
    function testFuzz_open_phases(uint256 seed, uint32 running, uint32 good, uint32 bad, uint8 baseline) public {
        IReleaseLedger.Terms memory t = _fast();
        t.expiry = 0;
        t.rollout = _phases(seed);
        _publish(t, 3);
        uint32 baseGood = uint32(_within(baseline, 0, 3));
        uint32 baseBad = uint32(_within(baseline >> 4, 0, 2));
        if (baseGood + baseBad > 0) {
            _anchor(10, baseGood, baseBad);
            _halt();
            _resume();
        }
        good = uint32(_within(good, 0, 12));
        bad = uint32(_within(bad, 0, 2)); // below the halting rule's least number
        if (good + bad > 0) _anchor(100, good, bad);
        vm.warp(START + _within(running, 0, 4_000));
        uint256 share = _share(t.rollout, vm.getBlockTimestamp() - START, baseGood + good, good, bad);
        for (uint256 i = 0; i < 8; ++i) {
            IReleaseLedger.Device memory d = _device();
            d.deviceId = keccak256(abi.encode(seed, i));
            uint256 cohort = uint256(keccak256(abi.encode(productId, uint256(1), d.deviceId))) % 10_000;
            bool open = ledger.eligible(product, t, 1, release.state, d) == IReleaseLedger.Reason.Eligible;
            vm.assertTrue(open == (cohort < share), "share");
        }
    }

    function test_a_gate_waits_for_its_count_or_its_deadline_but_never_lets_failures_pass() public {
        IReleaseLedger.Terms memory t = _fast();
        t.rollout = new IReleaseLedger.Phase[](2);
        t.rollout[0] = IReleaseLedger.Phase(1, 0, 0, 10_000, 0);
        t.rollout[1] = IReleaseLedger.Phase(10_000, 100, 4, 1_000, 500);
        _publish(t, 3);
        vm.warp(START + 100);
        _opens(t, false); // too few
        _anchor(4, 4, 0);
        _opens(t, true);
        _anchor(5, 0, 1); // 1 of 5 is 20 %
        _opens(t, false);
        _anchor(10, 5, 0); // 1 of 10 is 10 %, not above it
        _opens(t, true);
        _halt();
        _resume(); // a new baseline: the count stays, the rate starts anew
        _opens(t, true);
        _anchor(11, 0, 1);
        _opens(t, false);
        vm.warp(START + 500); // the deadline waives the count only
        _opens(t, false);
    }

    function test_a_deadline_waives_the_count() public {
        IReleaseLedger.Terms memory t = _fast();
        t.rollout = new IReleaseLedger.Phase[](2);
        t.rollout[0] = IReleaseLedger.Phase(1, 0, 0, 10_000, 0);
        t.rollout[1] = IReleaseLedger.Phase(10_000, 100, 4, 1_000, 500);
        _publish(t, 3);
        vm.warp(START + 499);
        _opens(t, false);
        vm.warp(START + 500);
        _opens(t, true);
    }

    // -- the packed word -----------------------------------------------------------------------------

    /// @dev Each move changes its own members and no other, whatever the others are.
    function testFuzz_moves_touch_only_what_they_say(uint256 word, uint40 clock, uint8 kind) public pure {
        word &= ~uint256(0xff) & ~(uint256(type(uint32).max) << 192);
        uint256 active = word | 1;
        uint256 halted = StateWord.halted(active & ~(uint256(type(uint40).max) << 24), clock);
        vm.assertEq(halted >> 64, active >> 64, "counts");
        vm.assertEq(uint8(halted >> 16), uint8(active >> 16), "attested");
        vm.assertEq(halted & 0xff, 2, "status");
        vm.assertEq(uint40(halted >> 24), clock, "haltedAt");
        uint256 halts = uint8(active >> 8);
        vm.assertEq(uint8(halted >> 8), halts == 255 ? 255 : halts + 1, "halts");
        vm.assertEq(StateWord.revoked(halted), (halted & ~uint256(0xf)) | 3, "revoked");
        vm.assertEq(StateWord.withSuperseded(active), active | 0x10, "superseded");
        uint256 attested = StateWord.withAttested(active, kind % 8);
        vm.assertEq(attested, active | uint256(1) << (16 + kind % 8), "attested");
    }

    function testFuzz_resuming(uint256 word, uint32 at, uint32 pause) public pure {
        word = (word & ~uint256(0xff) & ~(uint256(type(uint40).max) << 24)) | 2 | uint256(at) << 24;
        uint256 total = uint32(word >> 192);
        vm.assume(total + pause <= type(uint32).max);
        uint256 back = StateWord.resumed(word, uint256(at) + pause);
        vm.assertEq(back & 0xff, 1, "active");
        vm.assertEq(uint16(back >> 8), uint16(word >> 8), "halts and attested");
        vm.assertEq(uint40(back >> 24), 0, "haltedAt");
        vm.assertEq(uint64(back >> 64), uint64(word >> 64), "counts");
        vm.assertEq(uint64(back >> 128), uint64(word >> 64), "baseline");
        vm.assertEq(uint32(back >> 192), total + pause, "haltedTotal");
        vm.assertEq(back >> 224, word >> 224, "logSize");
    }

    function testFuzz_counting(uint32 size, uint32 confirmed, uint32 failed, uint256 rest) public pure {
        uint256 before = (rest & type(uint64).max) | (rest & (uint256(type(uint96).max) << 128));
        size = uint32(_within(size, 1, type(uint32).max));
        confirmed = uint32(_within(confirmed, 0, size));
        failed = uint32(_within(failed, 0, size - confirmed));
        uint256 w = StateWord.withReceipts(before, size, confirmed, failed);
        vm.assertEq(w >> 224, size, "logSize");
        vm.assertEq(uint32(w >> 64), confirmed, "confirmed");
        vm.assertEq(uint32(w >> 96), failed, "failed");
        vm.assertEq(uint64(w), uint64(before), "below");
        vm.assertEq(uint96(w >> 128), uint96(before >> 128), "above");
    }

    // -- what these tests share ----------------------------------------------------------------------

    function _fast() private view returns (IReleaseLedger.Terms memory t) {
        t = _terms();
        t.version = 2 << 48;
        t.minVersion = 1 << 48;
        t.securityCounter = 5;
        t.expiry = START + 1 days;
        t.rollout = new IReleaseLedger.Phase[](1);
        t.rollout[0] = IReleaseLedger.Phase(10_000, 0, 0, 10_000, 0);
    }

    function _device() private pure returns (IReleaseLedger.Device memory) {
        return IReleaseLedger.Device("device", 1 << 48, 1, 3);
    }

    function _publish(IReleaseLedger.Terms memory t, uint256 count) internal override {
        super._publish(t, count);
        _published = t;
    }

    function _expect(IReleaseLedger.Device memory d, IReleaseLedger.Reason reason) private view {
        IReleaseLedger.Reason given = ledger.eligible(product, _published, 1, release.state, d);
        vm.assertEq(uint256(given), uint256(reason), "reason");
    }

    function _opens(IReleaseLedger.Terms memory t, bool open) private view {
        IReleaseLedger.Reason reason = ledger.eligible(product, t, 1, release.state, _device());
        vm.assertTrue((reason == IReleaseLedger.Reason.Eligible) == open, open ? "closed" : "open");
    }

    function _phases(uint256 seed) private pure returns (IReleaseLedger.Phase[] memory p) {
        p = new IReleaseLedger.Phase[](_within(seed, 1, 4));
        uint16 bps = 0;
        uint32 delay = 0;
        for (uint256 i = 0; i < p.length; ++i) {
            uint256 r = uint256(keccak256(abi.encode(seed, i)));
            bps += uint16(_within(r, 1, 2_400));
            delay += uint32(_within(r >> 16, 0, 900));
            p[i] = IReleaseLedger.Phase(bps, delay, 0, 10_000, 0);
            if (i == 0) continue;
            p[i].minConfirmed = uint32(_within(r >> 48, 0, 8));
            p[i].maxFailureBps = uint16(_within(r >> 80, 0, 10_000));
            p[i].gateDeadline = uint32(_within(r >> 96, 0, 1) * _within(r >> 112, 1, 3_000));
        }
    }

    /// @dev Phase k counts if no phase up to it is shut: each looked at by itself.
    function _share(IReleaseLedger.Phase[] memory p, uint256 running, uint256 all, uint256 good, uint256 bad)
        private
        pure
        returns (uint256 share)
    {
        bool shut = false;
        for (uint256 i = 0; i < p.length; ++i) {
            bool early = running < p[i].delay;
            bool few = all < p[i].minConfirmed && (p[i].gateDeadline == 0 || running < p[i].gateDeadline);
            bool failing = bad > 0 && bad * 10_000 / (good + bad) >= p[i].maxFailureBps
                && bad * 10_000 != uint256(p[i].maxFailureBps) * (good + bad);
            shut = shut || early || few || failing;
            if (!shut) share = p[i].bps;
        }
    }
}
