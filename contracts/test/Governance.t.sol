// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";
import {Fixture} from "./Fixture.sol";

/// @title Products, and every change of who may
contract GovernanceTest is Fixture {
    // -- creation ------------------------------------------------------------------------------------

    function test_create_names_the_product_after_its_creator() public {
        vm.assertEq(productId, keccak256(abi.encode(address(this), bytes32("salt"))), "id");
        _check();
        vm.prank(outsider);
        bytes32 other = ledger.createProduct("salt", product.governance);
        vm.assertEq(other, keccak256(abi.encode(outsider, bytes32("salt"))), "nobody can squat");
    }

    function test_create_twice_is_refused() public {
        _refused(abi.encodeWithSelector(IReleaseLedger.ProductExists.selector, productId));
        ledger.createProduct("salt", product.governance);
    }

    function test_create_starts_with_epoch_1() public {
        IReleaseLedger.Governance memory g = _governance();
        g.epoch = 2;
        _refused(abi.encodeWithSelector(IReleaseLedger.EpochMismatch.selector, 1, 2));
        ledger.createProduct("other", g);
    }

    function test_create_refuses_what_is_not_well_formed() public {
        IReleaseLedger.Governance memory g = _governance();
        g.approvers = new address[](0);
        _invalid(g, "approvers");
        g.approvers = _one(address(0));
        _invalid(g, "approvers");
        g.approvers = new address[](2);
        (g.approvers[0], g.approvers[1]) = (approvers[1], approvers[0]);
        _invalid(g, "approvers");
        g.approvers[0] = approvers[0];
        g.approvers[1] = approvers[0];
        _invalid(g, "approvers");
        g.approvers = _many(17);
        _invalid(g, "approvers");

        g = _governance();
        g.threshold = 0;
        _invalid(g, "threshold");
        g.threshold = 4;
        _invalid(g, "threshold");

        g = _governance();
        g.guardians = _many(17);
        _invalid(g, "guardians");
        g = _governance();
        g.auditors = _one(address(0));
        _invalid(g, "auditors");
        g = _governance();
        g.reporters = _two(reporter, guardian);
        (g.reporters[0], g.reporters[1]) = (g.reporters[1], g.reporters[0]);
        _invalid(g, "reporters");

        g = _governance();
        (g.keys[0], g.keys[1]) = (g.keys[1], g.keys[0]);
        _invalid(g, "keys");
        g = _governance();
        g.keys[0].keyId = 0;
        _invalid(g, "keys");
        g.keys = new IReleaseLedger.SigningKey[](17);
        for (uint256 i = 0; i < 17; ++i) {
            g.keys[i].keyId = bytes32(i + 1);
        }
        _invalid(g, "keys");

        g = _governance();
        g.haltRule.maxFailureBps = 10_001;
        _invalid(g, "haltRule");
    }

    function test_create_takes_the_largest_and_the_smallest() public {
        IReleaseLedger.Governance memory g = _governance();
        g.approvers = _many(16);
        g.threshold = 16;
        g.guardians = _many(16);
        g.auditors = _many(16);
        g.reporters = _many(16);
        g.haltRule.maxFailureBps = 10_000;
        ledger.createProduct("large", g);
        g.approvers = _one(address(1));
        g.threshold = 1;
        (g.guardians, g.auditors, g.reporters) = (new address[](0), new address[](0), new address[](0));
        g.keys = new IReleaseLedger.SigningKey[](0);
        g.enroller = address(0);
        ledger.createProduct("small", g);
    }

    /// @dev Calldata is hashed as it came; what is out of its type's range must not become a commitment.
    function testFuzz_create_refuses_values_out_of_range(uint256 seed) public {
        bytes memory data = abi.encodeCall(ledger.createProduct, ("dirty", _governance()));
        uint256[8] memory narrow = [uint256(1), 2, 6, 8, 9, 10, 11, 13]; // scalars, and the first approver
        uint256 at = 4 + 0x40 + narrow[seed % 8] * 32;
        data[at] = bytes1(uint8(_within(seed >> 8, 1, 255)));
        (bool done,) = address(ledger).call(data);
        vm.assertTrue(!done, "taken");
    }

    function test_unknown_product() public {
        _refused(abi.encodeWithSelector(IReleaseLedger.UnknownProduct.selector, bytes32("none")));
        vm.prank(guardian);
        ledger.pause("none", product);
    }

    function testFuzz_any_other_record_is_stale(uint8 which) public {
        IReleaseLedger.Product memory p = product;
        which = uint8(_within(which, 0, 13));
        if (which == 0) p.governance.threshold = 1;
        if (which == 1) p.governance.epoch = 2;
        if (which == 2) p.governance.approvers = _one(outsider);
        if (which == 3) p.governance.guardians = _one(outsider);
        if (which == 4) p.governance.auditors = _one(outsider);
        if (which == 5) p.governance.reporters = _one(outsider);
        if (which == 6) p.governance.enroller = outsider;
        if (which == 7) p.governance.keys[1].validThrough = 9;
        if (which == 8) p.governance.haltRule.minFailures = 0;
        if (which == 9) p.governance.releaseDelay = 0;
        if (which == 10) p.other = bytes32(uint256(1));
        if (which == 11) p.effectiveAt = 1;
        if (which == 12) p.head.pausedTotal = 1;
        if (which == 13) p.governance.governanceDelay = 0;
        vm.prank(guardian);
        (bool done, bytes memory answer) = address(ledger).call(abi.encodeCall(ledger.pause, (productId, p)));
        vm.assertTrue(!done && bytes4(answer) == IReleaseLedger.StaleProduct.selector, "not stale");
    }

    // -- loosening waits -----------------------------------------------------------------------------

    function test_loosening_takes_effect_by_time_alone() public {
        _publish();
        IReleaseLedger.Governance memory next = _loosened();
        _propose(next);
        vm.warp(product.effectiveAt - 1);
        _check();
        _unauthorized(outsider, "reporter");
        ledger.anchor(productId, product, release, 1, "r", 1, 0);
        _takeEffect(next);
        vm.prank(outsider);
        ledger.anchor(productId, product, release, 1, "r", 1, 0);
    }

    function test_the_record_from_before_is_stale_afterwards() public {
        IReleaseLedger.Governance memory next = _loosened();
        _propose(next);
        vm.warp(product.effectiveAt);
        vm.expectRevert();
        vm.prank(guardian);
        ledger.pause(productId, product);
    }

    function test_every_loosening_waits() public {
        for (uint256 i = 0; i < 17; ++i) {
            IReleaseLedger.Governance memory next = _next();
            _loosen(next, i);
            IReleaseLedger.Approvals memory approvals = _agreed(next);
            bytes32 before = ledger.productSlot(productId);
            IReleaseLedger.Product memory p = product;
            ledger.amend(productId, product, next, approvals);
            p.other = _hash(next);
            p.effectiveAt = START + DELAY;
            product.other = p.other;
            product.effectiveAt = p.effectiveAt;
            _check();
            vm.assertTrue(before != ledger.productSlot(productId), "nothing happened");
            _cancel(approvers[0], next);
        }
    }

    function test_every_tightening_is_immediate() public {
        for (uint256 i = 0; i < 12; ++i) {
            IReleaseLedger.Governance memory old = product.governance;
            IReleaseLedger.Governance memory next = _next();
            _tighten(next, i);
            ledger.amend(productId, product, next, _agreed(next));
            _changed(next);
            if (i < 2) continue; // the same but for its epoch; or fewer approvers, who go on
            old.epoch = next.epoch + 1;
            _propose(old);
            _takeEffect(old);
        }
    }

    function test_a_higher_threshold_is_immediate() public {
        IReleaseLedger.Governance memory next = _next();
        next.threshold = 3;
        ledger.amend(productId, product, next, _agreed(next));
        _changed(next);
        IReleaseLedger.Approvals memory two = _signed("whatever", 2);
        _refused(abi.encodeWithSelector(IReleaseLedger.TooFewApprovals.selector, 2, 3));
        ledger.publish(product, _terms(), two);
    }

    /// @dev Naming guardians where none were: at once only if every approver keeps the right to halt.
    function test_naming_guardians() public {
        IReleaseLedger.Governance memory g = _governance();
        g.guardians = new address[](0);
        productId = ledger.createProduct("unnamed", g);
        product.governance = g;
        IReleaseLedger.Governance memory next = _next();
        next.guardians = _one(guardian);
        _propose(next);
        _cancel(approvers[0], next);
        next = _next();
        next.approvers = _two(approvers[0], approvers[1]);
        next.guardians = next.approvers; // whoever stays
        ledger.amend(productId, product, next, _agreed(next));
        _changed(next);
    }

    function test_one_change_at_a_time() public {
        _propose(_loosened());
        IReleaseLedger.Governance memory next = _next();
        next.threshold = 1;
        IReleaseLedger.Approvals memory approvals = _agreed(next);
        _refused(abi.encodeWithSelector(IReleaseLedger.AmendmentPending.selector, product.effectiveAt));
        ledger.amend(productId, product, next, approvals);
    }

    function test_a_tightening_drops_the_pending_change() public {
        _propose(_loosened());
        IReleaseLedger.Governance memory next = _next();
        next.threshold = 3;
        ledger.amend(productId, product, next, _agreed(next));
        _changed(next);
        vm.warp(START + 2 * DELAY);
        _check();
    }

    function test_a_change_after_an_effective_one_normalises_the_record() public {
        IReleaseLedger.Governance memory next = _loosened();
        _propose(next);
        _takeEffect(next);
        next = _next();
        next.threshold = 1;
        _propose(next);
        _takeEffect(next);
    }

    function test_head_acts_keep_what_is_pending() public {
        IReleaseLedger.Governance memory next = _loosened();
        _propose(next);
        _publish();
        _pause();
        vm.warp(vm.getBlockTimestamp() + 10);
        _unpause();
        _takeEffect(next);
        _pause();
        _unpause();
    }

    function test_no_delay_no_wait() public {
        IReleaseLedger.Governance memory g = _governance();
        g.governanceDelay = 0;
        productId = ledger.createProduct("hasty", g);
        product.governance = g;
        IReleaseLedger.Governance memory next = _loosened();
        ledger.amend(productId, product, next, _agreed(next));
        _changed(next);
    }

    function test_amend_refusals() public {
        IReleaseLedger.Governance memory next = _next();
        next.epoch = 1;
        IReleaseLedger.Approvals memory approvals = _agreed(next);
        _refused(abi.encodeWithSelector(IReleaseLedger.EpochMismatch.selector, 2, 1));
        ledger.amend(productId, product, next, approvals);

        next = _next();
        next.governanceDelay = 0;
        approvals = _agreed(next);
        _refused(abi.encodeWithSelector(IReleaseLedger.InvalidGovernance.selector, "governanceDelay"));
        ledger.amend(productId, product, next, approvals);

        next = _next();
        next.threshold = 4;
        approvals = _agreed(next);
        _refused(abi.encodeWithSelector(IReleaseLedger.InvalidGovernance.selector, "threshold"));
        ledger.amend(productId, product, next, approvals);

        next = _next();
        approvals = _agreed(next);
        next.threshold = 3; // not what was signed
        vm.expectRevert();
        ledger.amend(productId, product, next, approvals);
    }

    // -- cancelling ----------------------------------------------------------------------------------

    function test_any_watcher_cancels_and_the_approvals_are_void() public {
        address[4] memory watchers = [approvers[0], approvers[1], approvers[2], guardian];
        for (uint256 i = 0; i < 4; ++i) {
            IReleaseLedger.Governance memory next = _loosened();
            IReleaseLedger.Approvals memory approvals = _agreed(next);
            _propose(next);
            _cancel(watchers[i], next);
            _refused(abi.encodeWithSelector(IReleaseLedger.EpochMismatch.selector, next.epoch + 1, next.epoch));
            ledger.amend(productId, product, next, approvals);
        }
    }

    function test_only_watchers_cancel_and_only_what_is_pending() public {
        IReleaseLedger.Governance memory next = _loosened();
        _refused(abi.encodeWithSelector(IReleaseLedger.NothingPending.selector, productId));
        vm.prank(guardian);
        ledger.cancel(productId, product, next);
        _propose(next);
        address[4] memory others = [auditor, reporter, enroller, outsider];
        for (uint256 i = 0; i < 4; ++i) {
            _unauthorized(others[i], "watcher");
            ledger.cancel(productId, product, next);
        }
        _takeEffect(next);
        _refused(abi.encodeWithSelector(IReleaseLedger.NothingPending.selector, productId));
        vm.prank(guardian);
        ledger.cancel(productId, product, next);
    }

    function test_cancelling_takes_the_pending_governance_and_no_other() public {
        IReleaseLedger.Governance memory next = _loosened();
        _propose(next);
        IReleaseLedger.Governance memory other = _loosened();
        other.releaseDelay += 1;
        _refused(
            abi.encodeWithSelector(IReleaseLedger.StaleAmendment.selector, productId, _hash(next), _hash(other))
        );
        vm.prank(guardian);
        ledger.cancel(productId, product, other);
        _cancel(guardian, next);
    }

    // -- a guardian and its own removal --------------------------------------------------------------

    /// @dev Whatever else the change tightens; the twin that loosens anything besides can be cancelled.
    function test_a_guardian_cannot_cancel_its_own_removal() public {
        for (uint256 i = 0; i < 9; ++i) {
            if (i == 2) continue; // guardians, which the removal sets
            IReleaseLedger.Governance memory next = _next();
            _tighten(next, i);
            next.guardians = new address[](0);
            _propose(next);
            _refused(abi.encodeWithSelector(IReleaseLedger.OwnRemoval.selector, guardian));
            vm.prank(guardian);
            ledger.cancel(productId, product, next);
            _cancel(approvers[i % 3], next); // every other watcher can
        }
        for (uint256 i = 0; i < 17; ++i) {
            if (i == 2 || i == 3 || i == 16) continue; // guardians
            IReleaseLedger.Governance memory next = _next();
            _loosen(next, i);
            next.guardians = new address[](0);
            _propose(next);
            _cancel(guardian, next);
        }
    }

    function test_its_removal_takes_effect_and_it_is_out() public {
        IReleaseLedger.Governance memory next = _next();
        next.guardians = new address[](0);
        _publish();
        _propose(next);
        _pause(); // by the guardian: it changes nothing about what is pending
        _takeEffect(next);
        _unpause();
        _unauthorized(guardian, "watcher");
        ledger.pause(productId, product);
        _unauthorized(guardian, "guardian");
        ledger.halt(productId, product, release, "");
        _halt(approvers[0]); // the approvers are the guardians again
    }

    /// @dev Of two guardians, each keeps the other, and each keeps both.
    function test_guardians_keep_each_other() public {
        IReleaseLedger.Governance memory next = _next();
        next.guardians = _two(guardian, outsider);
        ledger.amend(productId, product, next, _agreed(next));
        _changed(next);
        next = _next();
        next.guardians = _one(guardian);
        _propose(next);
        _refused(abi.encodeWithSelector(IReleaseLedger.OwnRemoval.selector, outsider));
        vm.prank(outsider);
        ledger.cancel(productId, product, next);
        _cancel(guardian, next);
        next = _next();
        next.guardians = new address[](0);
        _propose(next);
        _cancel(outsider, next);
        next = _next();
        next.guardians = _one(approvers[0]); // exchanged, not removed
        _propose(next);
        _cancel(guardian, next);
    }

    /// @dev An approver who is a guardian by name: its seat among the guardians is what counts.
    function test_a_guardian_who_approves_cannot_cancel_either() public {
        IReleaseLedger.Governance memory next = _next();
        next.guardians = _two(guardian, approvers[0]);
        ledger.amend(productId, product, next, _agreed(next));
        _changed(next);
        next = _next();
        next.guardians = _one(guardian);
        next.approvers = _two(approvers[1], approvers[2]);
        _propose(next);
        _refused(abi.encodeWithSelector(IReleaseLedger.OwnRemoval.selector, approvers[0]));
        vm.prank(approvers[0]);
        ledger.cancel(productId, product, next);
        _cancel(approvers[1], next);
    }

    // -- restricting ---------------------------------------------------------------------------------

    function test_a_watcher_restricts_at_once() public {
        _publish();
        IReleaseLedger.Governance memory next = _next();
        next.auditors = new address[](0);
        _restrict(guardian, next);
        next = _next();
        next.reporters = new address[](0);
        _restrict(approvers[2], next);
        next = _next();
        next.enroller = address(0);
        _restrict(guardian, next);
        next = _next();
        next.keys[0].validThrough = 1; // retired as of the newest release
        _restrict(guardian, next);
        next = _next();
        next.keys[0].validThrough = 0;
        next.keys[1].validThrough = 0;
        _restrict(approvers[0], next);
        next = _next();
        next.approvers = _two(approvers[0], approvers[1]);
        _restrict(approvers[2], next);
    }

    /// @dev It would be a way round: a restriction drops what is pending.
    function test_nobody_restricts_while_a_change_is_pending() public {
        IReleaseLedger.Governance memory pending = _loosened();
        _propose(pending);
        IReleaseLedger.Governance memory next = _next();
        next.auditors = new address[](0);
        vm.warp(product.effectiveAt - 1);
        _refused(abi.encodeWithSelector(IReleaseLedger.AmendmentPending.selector, product.effectiveAt));
        vm.prank(guardian);
        ledger.restrict(productId, product, next);
        _takeEffect(pending);
        next = _next();
        next.auditors = new address[](0);
        _restrict(guardian, next);
    }

    function test_what_a_watcher_may_not_do_alone() public {
        for (uint256 i = 0; i < 17; ++i) {
            IReleaseLedger.Governance memory next = _next();
            _loosen(next, i);
            _notATightening(approvers[0], next);
        }
        IReleaseLedger.Governance memory g = _next();
        g.threshold = 3;
        _notATightening(approvers[0], g, "threshold");
        g = _next();
        g.releaseDelay += 1;
        _notATightening(approvers[0], g, "releaseDelay");
        g = _next();
        g.guardians = _two(guardian, outsider);
        _notATightening(approvers[0], g, "guardians");
        g = _next();
        g.guardians = new address[](0);
        _notATightening(approvers[0], g, "guardians");
        g = _next();
        g.approvers = _two(approvers[0], approvers[1]);
        _notATightening(approvers[0], g, "approvers"); // another one
        _notATightening(guardian, g, "approvers");
        g = _next();
        g.keys[0].validThrough = 77; // neither revoked nor retired now
        _notATightening(approvers[0], g, "keys");
        _notATightening(approvers[0], _next(), "epoch"); // nothing at all
    }

    function test_restricting_needs_a_watcher_and_enough_approvers() public {
        IReleaseLedger.Governance memory next = _next();
        next.auditors = new address[](0);
        address[4] memory others = [auditor, reporter, enroller, outsider];
        for (uint256 i = 0; i < 4; ++i) {
            _unauthorized(others[i], "watcher");
            ledger.restrict(productId, product, next);
        }
        next = _next();
        next.threshold = 3;
        ledger.amend(productId, product, next, _agreed(next));
        _changed(next);
        next = _next();
        next.approvers = _two(approvers[0], approvers[1]);
        _refused(abi.encodeWithSelector(IReleaseLedger.InvalidGovernance.selector, "threshold"));
        vm.prank(approvers[2]);
        ledger.restrict(productId, product, next);
    }

    /// @dev However a thief of one key plays its restrictions, they come to an end.
    function test_restrictions_are_finite() public {
        uint256 acts = 0;
        for (uint256 round = 0; round < 3; ++round) {
            for (uint256 i = 0; i < 6; ++i) {
                IReleaseLedger.Governance memory next = _next();
                if (i == 0) next.auditors = new address[](0);
                if (i == 1) next.reporters = new address[](0);
                if (i == 2) next.enroller = address(0);
                if (i == 3) next.keys[0].validThrough = 0;
                if (i == 4) next.keys[1].validThrough = 0;
                if (i == 5) next.approvers = _two(approvers[1], approvers[2]);
                vm.prank(approvers[0]);
                try ledger.restrict(productId, product, next) {
                    ++acts;
                    _changed(next);
                } catch {}
            }
        }
        vm.assertEq(acts, 6, "restrictions");
    }

    /// @dev Lowered little by little, a key would last a thief for restrictions without end.
    function test_a_watcher_retires_a_key_as_of_the_newest_release_only() public {
        _publish();
        IReleaseLedger.Terms memory t = _terms();
        t.version += 1;
        _publish(t, 2);
        IReleaseLedger.Governance memory next = _next();
        next.keys[0].validThrough = 1;
        _notATightening(guardian, next, "keys");
        next.keys[0].validThrough = 3;
        _notATightening(guardian, next, "keys");
        next.keys[0].validThrough = 2;
        _restrict(guardian, next);
    }

    // -- pausing, the fleet, approvals on chain, withdrawals -----------------------------------------

    function test_any_watcher_pauses_and_two_approvers_unpause() public {
        address[4] memory others = [auditor, reporter, enroller, outsider];
        for (uint256 i = 0; i < 4; ++i) {
            _unauthorized(others[i], "watcher");
            ledger.pause(productId, product);
        }
        _pause();
        _refused(abi.encodeWithSelector(IReleaseLedger.ProductIsPaused.selector, productId, START));
        vm.prank(approvers[0]);
        ledger.pause(productId, product);
        vm.warp(START + 100);
        _unpause();
        vm.assertEq(product.head.pausedTotal, 100, "paused seconds");
        _refused(abi.encodeWithSelector(IReleaseLedger.ProductNotPaused.selector, productId));
        ledger.unpause(productId, product, _nobody());
    }

    function test_an_unpause_counts_once() public {
        IReleaseLedger.Approvals memory approvals = _decided(0, IReleaseLedger.Action.Unpause, 1);
        _pause();
        _unpause();
        _pause();
        vm.expectRevert();
        ledger.unpause(productId, product, approvals);
    }

    function test_the_enroller_sets_the_fleet() public {
        vm.prank(enroller);
        ledger.setFleet(productId, product, "root", 7);
        vm.prank(enroller);
        ledger.setFleet(productId, product, "next", 8);
        (bytes32 root, uint32 size, uint32 epoch) = ledger.fleet(productId);
        vm.assertEq(root, "next", "root");
        vm.assertEq(size, 8, "size");
        vm.assertEq(epoch, 2, "epoch");
        address[5] memory others = [auditor, reporter, guardian, outsider, approvers[0]];
        for (uint256 i = 0; i < 5; ++i) {
            _unauthorized(others[i], "enroller");
            ledger.setFleet(productId, product, "root", 7);
        }
    }

    function test_approvers_withdraw_terms() public {
        IReleaseLedger.Terms memory t = _terms();
        bytes32 hash = ledger.termsHash(t);
        address[5] memory others = [auditor, reporter, guardian, outsider, enroller];
        for (uint256 i = 0; i < 5; ++i) {
            _unauthorized(others[i], "approver");
            ledger.withdraw(productId, product, hash);
        }
        vm.prank(approvers[2]);
        ledger.withdraw(productId, product, hash);
        vm.assertTrue(ledger.withdrawn(productId, hash), "withdrawn");
        IReleaseLedger.Approvals memory approvals = _agreed(t, 3);
        _refused(abi.encodeWithSelector(IReleaseLedger.TermsAreWithdrawn.selector, productId, hash));
        ledger.publish(product, t, approvals);
    }

    // -- what these tests share ----------------------------------------------------------------------

    function _invalid(IReleaseLedger.Governance memory g, string memory field) private {
        _refused(abi.encodeWithSelector(IReleaseLedger.InvalidGovernance.selector, field));
        ledger.createProduct("bad", g);
    }

    function _many(uint256 count) private pure returns (address[] memory list) {
        list = new address[](count);
        for (uint256 i = 0; i < count; ++i) {
            list[i] = address(uint160(i + 1));
        }
    }

    function _nobody() private pure returns (IReleaseLedger.Approvals memory a) {
        a.validUntil = FOREVER;
    }

    function _loosened() private view returns (IReleaseLedger.Governance memory next) {
        next = _next();
        next.reporters = _two(reporter, outsider);
    }

    function _restrict(address watcher, IReleaseLedger.Governance memory next) private {
        vm.prank(watcher);
        ledger.restrict(productId, product, next);
        _changed(next);
    }

    function _cancel(address watcher, IReleaseLedger.Governance memory next) private {
        vm.prank(watcher);
        ledger.cancel(productId, product, next);
        IReleaseLedger.Governance memory restored = product.governance;
        restored.epoch += 1;
        _changed(restored);
    }

    function _notATightening(address watcher, IReleaseLedger.Governance memory next) private {
        vm.prank(watcher);
        (bool done, bytes memory answer) =
            address(ledger).call(abi.encodeCall(ledger.restrict, (productId, product, next)));
        vm.assertTrue(!done && bytes4(answer) == IReleaseLedger.NotATightening.selector, "restricted");
    }

    function _notATightening(address watcher, IReleaseLedger.Governance memory next, string memory field) private {
        _refused(abi.encodeWithSelector(IReleaseLedger.NotATightening.selector, field));
        vm.prank(watcher);
        ledger.restrict(productId, product, next);
    }

    function _loosen(IReleaseLedger.Governance memory g, uint256 how) private view {
        if (how == 0) g.approvers[0] = address(1); // exchanged
        if (how == 1) g.threshold -= 1;
        if (how == 2) g.guardians = _one(outsider);
        if (how == 3) g.guardians = new address[](0);
        if (how == 4) g.auditors = _two(auditor, outsider);
        if (how == 5) g.auditors = _one(outsider);
        if (how == 6) g.reporters = _two(reporter, outsider);
        if (how == 7) g.enroller = outsider;
        if (how == 8) g.keys[0].keyId = bytes32(uint256(0xa0));
        if (how == 9) g.keys = new IReleaseLedger.SigningKey[](1);
        if (how == 9) g.keys[0] = IReleaseLedger.SigningKey(bytes32(uint256(0xa1)), 0);
        if (how == 10) g.haltRule.minFailures += 1;
        if (how == 11) g.haltRule.maxFailureBps -= 1;
        if (how == 12) g.haltRule.minFailures = 0;
        if (how == 13) g.releaseDelay -= 1;
        if (how == 14) g.approvers = _inserted(g.approvers);
        if (how == 15) (g.threshold, g.reporters) = (3, _one(outsider)); // tightens and loosens
        if (how == 16) (g.guardians, g.enroller) = (_two(guardian, outsider), outsider);
    }

    function _inserted(address[] memory list) private pure returns (address[] memory longer) {
        longer = new address[](list.length + 1);
        longer[0] = address(1);
        for (uint256 i = 0; i < list.length; ++i) {
            longer[i + 1] = list[i];
        }
    }

    function _tighten(IReleaseLedger.Governance memory g, uint256 how) private view {
        if (how == 0) g.epoch = g.epoch; // nothing: voids the approvals given so far
        if (how == 1) g.approvers = _two(approvers[0], approvers[1]);
        if (how == 2) g.guardians = _two(guardian, outsider);
        if (how == 3) g.auditors = new address[](0);
        if (how == 4) g.reporters = new address[](0);
        if (how == 5) g.enroller = address(0);
        if (how == 6) g.keys[0].validThrough = 5;
        if (how == 7) g.keys[1].validThrough = 0;
        if (how == 8) g.releaseDelay += 1;
        if (how == 9) (g.releaseDelay, g.reporters) = (700, new address[](0));
        if (how == 10) (g.guardians, g.enroller) = (_two(guardian, outsider), address(0));
        if (how == 11) (g.keys[0].validThrough, g.keys[1].validThrough) = (0, 0);
    }
}
