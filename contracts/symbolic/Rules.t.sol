// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";
import {Governing} from "../lib/Governing.sol";
import {Rollout} from "../lib/Rollout.sol";
import {StateWord} from "../lib/StateWord.sol";

/// @title What the packed word of a release can become
/// @notice For every word there can be, not for words that were drawn. halmos proves `check_` functions; forge
/// compiles them and runs none.
contract SymbolicWord {
    using StateWord for uint256;

    uint256 private constant STATUS = 0xf;
    uint256 private constant FLAGS = 0xf0;
    uint256 private constant HALTS = 0xff << 8;
    uint256 private constant ATTESTED = 0xff << 16;
    uint256 private constant HALTED_AT = 0xff_ffff_ffff << 24;
    uint256 private constant COUNTS = uint256(type(uint64).max) << 64;
    uint256 private constant BASES = uint256(type(uint64).max) << 128;
    uint256 private constant HALTED_TOTAL = uint256(type(uint32).max) << 192;
    uint256 private constant LOG_SIZE = uint256(type(uint32).max) << 224;

    function _require(bool condition) private pure {
        if (!condition) revert(); // halmos drops the path
    }

    /// @dev What holds of every word that the ledger makes; each check below shows it again of what follows.
    function _sound(uint256 word) private pure returns (bool) {
        uint256 baseConfirmed = uint32(word >> 128);
        uint256 baseFailed = uint32(word >> 160);
        return word & STATUS != 0 && word & STATUS <= 3 && word.confirmed() + word.failed() <= word.logSize()
            && baseConfirmed <= word.confirmed() && baseFailed <= word.failed();
    }

    function _onlyChanged(uint256 before, uint256 later, uint256 mask) private pure {
        assert((before ^ later) & ~mask == 0);
    }

    /// @custom:halmos --solver z3
    /// @dev The log grows, counts grow by what is given and never exceed the log; nothing else moves.
    function check_receipts_only_grow(uint256 word, uint32 size, uint32 good, uint32 bad) external pure {
        _require(_sound(word) && size > word.logSize() && uint256(good) + bad <= size - word.logSize());
        uint256 later = word.withReceipts(size, good, bad);
        _onlyChanged(word, later, COUNTS | LOG_SIZE);
        assert(later.logSize() == size && size > word.logSize());
        assert(later.confirmed() == word.confirmed() + good && later.failed() == word.failed() + bad);
        assert(_sound(later));
    }

    /// @dev Halting stops the clock once: the halts rise up to their limit; counts and log stay.
    function check_halt_changes_status_halts_and_time(uint256 word, uint256 clock) external pure {
        _require(_sound(word) && word.status() == IReleaseLedger.Status.Active && word.haltedAt() == 0);
        _require(clock <= 0xff_ffff_ffff);
        uint256 later = word.halted(clock);
        _onlyChanged(word, later, STATUS | HALTS | HALTED_AT);
        assert(later.status() == IReleaseLedger.Status.Halted && later.haltedAt() == clock);
        assert(later.halts() == (word.halts() == 255 ? 255 : word.halts() + 1));
        assert(_sound(later));
    }

    /// @dev Resuming takes out the halted time and sets the baseline; halts, attestations, counts and log stay.
    function check_resume_sets_the_baseline(uint256 word, uint256 clock) external pure {
        _require(_sound(word) && word.status() == IReleaseLedger.Status.Halted);
        _require(clock >= word.haltedAt() && clock <= 0xff_ffff_ffff);
        uint256 later = word.resumed(clock); // reverts where the halted time no longer fits
        _onlyChanged(word, later, STATUS | HALTED_AT | BASES | HALTED_TOTAL);
        assert(later.status() == IReleaseLedger.Status.Active && later.haltedAt() == 0);
        assert(later.haltedTotal() == word.haltedTotal() + clock - word.haltedAt());
        assert(uint32(later >> 128) == later.confirmed() && uint32(later >> 160) == later.failed());
        assert(_sound(later));
    }

    /// @dev The three that set one thing each.
    function check_marks_set_one_thing(uint256 word, uint8 kind) external pure {
        _require(_sound(word) && kind < 8);
        _onlyChanged(word, word.revoked(), STATUS);
        assert(word.revoked().status() == IReleaseLedger.Status.Revoked);
        _onlyChanged(word, word.withSuperseded(), 0x10);
        assert(word.withSuperseded().superseded());
        _onlyChanged(word, word.withAttested(kind), 1 << (16 + kind));
        assert(word.withAttested(kind).attested() == word.attested() | uint8(1 << kind));
    }

    /// @dev The halting rule is what the interface says, in whole numbers.
    function check_the_halting_rule(uint256 word, IReleaseLedger.HaltRule calldata rule) external pure {
        _require(_sound(word) && rule.maxFailureBps <= 10_000);
        uint256 bad = word.failed() - uint32(word >> 160);
        uint256 good = word.confirmed() - uint32(word >> 128);
        bool wanted = rule.minFailures != 0 && bad >= rule.minFailures
            && bad * 10_000 > rule.maxFailureBps * (bad + good);
        assert(word.meets(rule) == wanted);
    }
}

/// @title What a rollout lets pass
/// @custom:halmos --default-array-lengths 0,1,2 --loop 4
contract SymbolicRollout {
    using Rollout for IReleaseLedger.Head;
    using StateWord for uint256;

    function _require(bool condition) private pure {
        if (!condition) revert();
    }

    /// @dev A head that the ledger can have made by `time`.
    function _lived(IReleaseLedger.Head calldata head, uint256 time) private pure returns (bool) {
        return time < 1 << 40 && head.pausedAt <= time && head.pausedTotal <= time
            && (head.pausedAt == 0 || head.pausedTotal <= head.pausedAt);
    }

    /// @dev The product's clock never falls, never outruns time, and stands still in a pause.
    function check_the_clock_never_falls(IReleaseLedger.Head calldata head, uint256 time, uint256 later) external pure {
        _require(_lived(head, time) && later >= time && later < 1 << 40);
        uint256 ticks = head.clock(time);
        assert(ticks <= head.clock(later) && head.clock(later) - ticks <= later - time);
        if (head.pausedAt != 0) assert(ticks == head.clock(later));
    }

    /// @dev Nobody starts before `notBefore` or before the delay has passed.
    function check_nothing_starts_early(IReleaseLedger.Head calldata head, uint256 time, uint32 delay, uint64 notBefore)
        external
        pure
    {
        _require(_lived(head, time) && head.pausedAt == 0 && notBefore < 1 << 40);
        uint256 start = head.startOf(time, delay, notBefore);
        assert(start >= head.clock(time) + delay);
        assert(start + head.pausedTotal >= notBefore);
    }

    /// @dev Whoever may install meets every condition, taken one by one.
    function check_who_is_eligible(
        IReleaseLedger.Head calldata head,
        IReleaseLedger.Terms calldata terms,
        uint32 releaseId,
        IReleaseLedger.State calldata state,
        IReleaseLedger.Device calldata device,
        uint256 time
    ) external pure {
        _require(_lived(head, time) && state.word & 0xf <= 3 && state.startsAt < 1 << 40);
        if (head.eligible(terms, releaseId, state, device, time) != IReleaseLedger.Reason.Eligible) return;
        assert(head.pausedAt == 0);
        assert(state.word & 0xf == 1 || state.word & 0xf == 0);
        assert(terms.hardwareMin <= device.hardware && device.hardware <= terms.hardwareMax);
        assert(uint8(state.word >> 16) & terms.requiredAttestations == terms.requiredAttestations);
        assert(head.clock(time) >= uint256(state.startsAt) + state.word.haltedTotal());
        assert(time >= terms.notBefore && (terms.expiry == 0 || time < terms.expiry));
        assert(device.version < terms.version && device.version >= terms.minVersion);
        assert(device.securityCounter <= terms.securityCounter);
        assert(terms.rollout.length != 0);
    }

    /// @dev No phase opens before its delay, whatever counts say; an open share is that of a phase.
    function check_no_phase_opens_early(IReleaseLedger.Phase[] calldata phases, uint256 word, uint256 running)
        external
        pure
    {
        uint256 share = Rollout.openShare(phases, word, running);
        if (share == 0) return;
        bool found = false;
        for (uint256 i = 0; i < phases.length; ++i) {
            found = found || (phases[i].bps == share && running >= phases[i].delay);
        }
        assert(found);
    }
}

/// @title What counts as a tightening
/// @custom:halmos --default-array-lengths 1 --loop 4
contract SymbolicGovernance {
    using Governing for IReleaseLedger.Governance;

    function _require(bool condition) private pure {
        if (!condition) revert();
    }

    function _has(address[] calldata all, address one) private pure returns (bool) {
        for (uint256 i = 0; i < all.length; ++i) {
            if (all[i] == one) return true;
        }
        return false;
    }

    function _inside(address[] calldata some, address[] calldata all) private pure {
        for (uint256 i = 0; i < some.length; ++i) {
            assert(_has(all, some[i]));
        }
    }

    /// @custom:halmos --default-array-lengths 0,2
    /// @dev A role is held by exactly those whom the list names.
    function check_roles_are_the_lists(IReleaseLedger.Governance calldata g, address account) external pure {
        assert(g.isApprover(account) == _has(g.approvers, account));
        assert(g.isAuditor(account) == _has(g.auditors, account));
        assert(g.isReporter(account) == _has(g.reporters, account));
        address[] calldata halters = g.guardians.length == 0 ? g.approvers : g.guardians;
        assert(g.isGuardian(account) == _has(halters, account));
        assert(g.isWatcher(account) == (_has(g.approvers, account) || _has(g.guardians, account)));
    }

    /// @custom:halmos --array-lengths from.approvers={1,2},to.approvers={1,2},from.guardians={0,1},to.guardians={0,1}
    /// @dev Whatever is taken for a tightening adds nobody and lowers nothing.
    function check_a_tightening_widens_nothing(
        IReleaseLedger.Governance calldata from,
        IReleaseLedger.Governance calldata to
    ) external pure {
        from.requireValid();
        to.requireValid();
        _require(from.isTightening(to));
        _inside(to.approvers, from.approvers);
        _inside(to.auditors, from.auditors);
        _inside(to.reporters, from.reporters);
        _inside(from.guardians, to.guardians);
        assert(to.threshold >= from.threshold && to.releaseDelay >= from.releaseDelay);
        assert(to.enroller == from.enroller || to.enroller == address(0));
        _keysNotRaised(from, to);
    }

    /// @custom:halmos --array-lengths from.approvers={1,2},to.approvers={1,2}
    /// @dev What one watcher may do alone takes away, and takes nobody from the approvers but itself.
    function check_a_restriction_only_takes(
        IReleaseLedger.Governance calldata from,
        IReleaseLedger.Governance calldata to,
        address watcher,
        uint32 latest
    ) external pure {
        from.requireValid();
        to.requireValid();
        from.requireRestriction(to, watcher, latest);
        _inside(to.approvers, from.approvers);
        _inside(to.auditors, from.auditors);
        _inside(to.reporters, from.reporters);
        for (uint256 i = 0; i < from.approvers.length; ++i) {
            assert(from.approvers[i] == watcher || _has(to.approvers, from.approvers[i]));
        }
        _inside(to.guardians, from.guardians);
        _inside(from.guardians, to.guardians);
        assert(to.threshold == from.threshold && to.releaseDelay == from.releaseDelay);
        assert(to.enroller == from.enroller || to.enroller == address(0));
        _keysNotRaised(from, to);
    }

    function _keysNotRaised(IReleaseLedger.Governance calldata from, IReleaseLedger.Governance calldata to) private pure {
        assert(from.keys.length == to.keys.length);
        for (uint256 i = 0; i < from.keys.length; ++i) {
            assert(from.keys[i].keyId == to.keys[i].keyId && to.keys[i].validThrough <= from.keys[i].validThrough);
        }
    }
}
