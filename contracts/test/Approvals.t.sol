// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";
import {ReleaseLedger} from "../ReleaseLedger.sol";
import {Fixture} from "./Fixture.sol";

/// @title What counts as M of N, tried on every act that asks for it
contract ApprovalsTest is Fixture {
    function test_two_of_three_in_any_combination() public {
        for (uint256 left = 0; left < 3; ++left) {
            IReleaseLedger.Terms memory t = _terms();
            t.version += uint64(left) + 1;
            bytes32 digest = _digest(t);
            IReleaseLedger.Approvals memory a = _signed(digest, 2);
            uint256 n = 0;
            for (uint256 i = 0; i < 3; ++i) {
                if (i != left) a.signatures[n++] = _sign(approverKeys[i], digest);
            }
            product.head.latestRelease = ledger.publish(product, t, a);
            product.head.version = t.version;
            product.head.securityCounter = 1;
            _check();
        }
    }

    function test_too_few() public {
        IReleaseLedger.Terms memory t = _terms();
        for (uint256 count = 0; count < 2; ++count) {
            IReleaseLedger.Approvals memory a = _agreed(t, count);
            _refused(abi.encodeWithSelector(IReleaseLedger.TooFewApprovals.selector, count, 2));
            ledger.publish(product, t, a);
        }
    }

    function test_twice_the_same_signer() public {
        IReleaseLedger.Approvals memory a = _agreed(_terms(), 2);
        a.signatures[1] = a.signatures[0];
        _refusedFor(a, IReleaseLedger.SignersNotAscending.selector);
        a = _agreed(_terms(), 3);
        a.signatures[2] = a.signatures[1]; // even where enough others signed
        _refusedFor(a, IReleaseLedger.SignersNotAscending.selector);
    }

    function test_descending() public {
        IReleaseLedger.Approvals memory a = _agreed(_terms(), 2);
        (a.signatures[0], a.signatures[1]) = (a.signatures[1], a.signatures[0]);
        _refusedFor(a, IReleaseLedger.SignersNotAscending.selector);
    }

    function test_a_stranger_among_them() public {
        bytes32 digest = _digest(_terms());
        IReleaseLedger.Approvals memory a = _signed(digest, 3);
        a.signatures[2] = _sign(105, digest);
        _refusedFor(a, IReleaseLedger.NotAnApprover.selector);
    }

    function test_others_of_the_product_are_no_approvers() public {
        bytes32 digest = _digest(_terms());
        for (uint256 key = 101; key < 105; ++key) {
            IReleaseLedger.Approvals memory a = _signed(digest, 2);
            a.signatures[1] = _sign(key, digest);
            _refusedFor(a, IReleaseLedger.NotAnApprover.selector);
        }
    }

    /// @dev The other signature that recovers to the same signer, s' = n - s, does not count.
    function test_a_signature_has_one_form() public {
        IReleaseLedger.Approvals memory a = _agreed(_terms(), 2);
        uint256 vs = uint256(a.signatures[0].vs);
        uint256 s = CURVE_ORDER - (vs & (type(uint256).max >> 1));
        // s' has its top bit set, which is where EIP-2098 keeps the parity: it cannot even be written.
        a.signatures[0].vs = bytes32(s);
        _refusedFor(a, IReleaseLedger.NotAnApprover.selector);
    }

    function testFuzz_a_garbled_signature(uint256 which, bytes32 r, bytes32 vs) public {
        IReleaseLedger.Approvals memory a = _agreed(_terms(), 2);
        if (which % 3 == 0) a.signatures[0].r = r;
        if (which % 3 == 1) a.signatures[0].vs = vs;
        if (which % 3 == 2) a.signatures[0] = IReleaseLedger.Signature(r, vs);
        IReleaseLedger.Approvals memory genuine = _agreed(_terms(), 2);
        vm.assume(
            a.signatures[0].r != genuine.signatures[0].r || a.signatures[0].vs != genuine.signatures[0].vs
        );
        vm.expectRevert();
        ledger.publish(product, _terms(), a);
    }

    /// @dev Signatures that recover nothing must not stand for the zero address.
    function test_a_signature_that_recovers_nothing() public {
        IReleaseLedger.Approvals memory a = _agreed(_terms(), 2);
        a.signatures[0] = IReleaseLedger.Signature(0, bytes32(uint256(1)));
        _refused(abi.encodeWithSelector(IReleaseLedger.NotAnApprover.selector, address(0)));
        ledger.publish(product, _terms(), a);
    }

    function test_expiry_to_the_second() public {
        IReleaseLedger.Terms memory t = _terms();
        IReleaseLedger.Approvals memory a = _signed(ledger.approvalDigest(ledger.termsHash(t), 1, START + 50), 2);
        a.validUntil = START + 50;
        vm.warp(START + 51);
        _refused(abi.encodeWithSelector(IReleaseLedger.ApprovalsExpired.selector, START + 50, START + 51));
        ledger.publish(product, t, a);
        vm.warp(START + 50);
        ledger.publish(product, t, a);
    }

    function test_the_expiry_is_signed() public {
        IReleaseLedger.Approvals memory a = _agreed(_terms(), 2);
        a.validUntil -= 1;
        vm.expectRevert();
        ledger.publish(product, _terms(), a);
    }

    // -- approvals on chain --------------------------------------------------------------------------

    function test_a_contract_wallet_approves_on_chain() public {
        IReleaseLedger.Terms memory t = _terms();
        bytes32 digest = _digest(t);
        IReleaseLedger.Approvals memory a = _signed(digest, 2);
        a.signatures[1] = IReleaseLedger.Signature(bytes32(uint256(uint160(approvers[1]))), 0);
        _refused(abi.encodeWithSelector(IReleaseLedger.NotApprovedOnChain.selector, digest, approvers[1]));
        ledger.publish(product, t, a);
        vm.prank(approvers[1]);
        ledger.approve(digest);
        vm.assertTrue(ledger.approved(digest, approvers[1]), "approved");
        ledger.publish(product, t, a);
    }

    function test_an_approval_on_chain_has_one_form() public {
        IReleaseLedger.Terms memory t = _terms();
        bytes32 digest = _digest(t);
        vm.prank(approvers[1]);
        ledger.approve(digest);
        IReleaseLedger.Approvals memory a = _signed(digest, 2);
        a.signatures[1] = IReleaseLedger.Signature(bytes32(uint256(uint160(approvers[1])) | 1 << 160), 0);
        _refused(abi.encodeWithSelector(IReleaseLedger.NotAnApprover.selector, address(0)));
        ledger.publish(product, t, a);
    }

    function test_an_approval_on_chain_is_for_one_digest_and_one_account() public {
        IReleaseLedger.Terms memory t = _terms();
        bytes32 digest = _digest(t);
        vm.prank(approvers[1]);
        ledger.approve(digest);
        IReleaseLedger.Approvals memory a = _signed(digest, 2);
        a.signatures[1] = IReleaseLedger.Signature(bytes32(uint256(uint160(approvers[2]))), 0);
        _refused(abi.encodeWithSelector(IReleaseLedger.NotApprovedOnChain.selector, digest, approvers[2]));
        ledger.publish(product, t, a);
        t.imageSize += 1;
        a = _agreed(t, 2);
        a.signatures[1] = IReleaseLedger.Signature(bytes32(uint256(uint160(approvers[1]))), 0);
        vm.expectRevert();
        ledger.publish(product, t, a);
    }

    function test_an_outsiders_approval_on_chain_is_worth_nothing() public {
        bytes32 digest = _digest(_terms());
        vm.prank(outsider);
        ledger.approve(digest);
        vm.prank(address(0));
        ledger.approve(digest);
        IReleaseLedger.Approvals memory a = _signed(digest, 3);
        a.signatures[0] = IReleaseLedger.Signature(0, 0);
        _refusedFor(a, IReleaseLedger.NotAnApprover.selector);
        a = _signed(digest, 3);
        a.signatures[2] = IReleaseLedger.Signature(bytes32(uint256(uint160(outsider))), 0);
        _refusedFor(a, IReleaseLedger.NotAnApprover.selector);
    }

    function test_one_account_signing_and_approving_counts_once() public {
        bytes32 digest = _digest(_terms());
        vm.prank(approvers[0]);
        ledger.approve(digest);
        IReleaseLedger.Approvals memory a = _signed(digest, 2);
        a.signatures[1] = IReleaseLedger.Signature(bytes32(uint256(uint160(approvers[0]))), 0);
        _refusedFor(a, IReleaseLedger.SignersNotAscending.selector);
    }

    // -- replay --------------------------------------------------------------------------------------

    function test_replay_for_another_product() public {
        IReleaseLedger.Approvals memory a = _agreed(_terms(), 2);
        bytes32 other = ledger.createProduct("other", product.governance);
        IReleaseLedger.Terms memory t = _terms();
        t.productId = other;
        vm.expectRevert();
        ledger.publish(product, t, a);
    }

    function test_replay_on_another_chain() public {
        IReleaseLedger.Approvals memory a = _agreed(_terms(), 2);
        vm.chainId(1);
        // The record itself proves nothing there, even if the storage were copied.
        vm.expectRevert();
        ledger.publish(product, _terms(), a);
        bytes32 there = ledger.createProduct("other", product.governance);
        IReleaseLedger.Terms memory t = _terms();
        t.productId = there;
        vm.chainId(31337);
        a = _agreed(t, 2);
        vm.chainId(1);
        vm.expectRevert();
        ledger.publish(product, t, a);
    }

    function test_replay_at_another_contract() public {
        IReleaseLedger.Approvals memory a = _agreed(_terms(), 2);
        ReleaseLedger twin = _deployed();
        vm.assertEq(twin.createProduct("salt", product.governance), productId, "the same id");
        vm.expectRevert();
        twin.publish(product, _terms(), a);
        vm.assertEq(keccak256(address(twin).code), keccak256(address(ledger).code), "one code hash");
    }

    function test_replay_in_another_epoch() public {
        IReleaseLedger.Approvals memory a = _agreed(_terms(), 2);
        IReleaseLedger.Governance memory next = _next();
        ledger.amend(productId, product, next, _agreed(next));
        _changed(next);
        vm.expectRevert();
        ledger.publish(product, _terms(), a);
    }

    function test_a_publication_happens_once() public {
        IReleaseLedger.Approvals memory a = _agreed(_terms(), 2);
        _publish();
        _refused(abi.encodeWithSelector(IReleaseLedger.VersionNotRising.selector, 1 << 48, 1 << 48));
        ledger.publish(product, _terms(), a);
    }

    function test_a_decision_is_for_one_action_on_one_release() public {
        _publish();
        IReleaseLedger.Approvals memory resume = _decided(1, IReleaseLedger.Action.Resume, 1);
        IReleaseLedger.Approvals memory supersede = _decided(1, IReleaseLedger.Action.Supersede, 0);
        IReleaseLedger.Approvals memory other = _decided(2, IReleaseLedger.Action.Revoke, 0);
        vm.expectRevert();
        ledger.revoke(productId, product, release, supersede);
        vm.expectRevert();
        ledger.revoke(productId, product, release, other);
        vm.expectRevert();
        ledger.supersede(productId, product, release, resume);
        _halt();
        vm.expectRevert();
        ledger.resume(productId, product, release, supersede);
        ledger.resume(productId, product, release, resume);
    }

    function test_a_resume_counts_once() public {
        _publish();
        _halt();
        IReleaseLedger.Approvals memory a = _decided(1, IReleaseLedger.Action.Resume, 1);
        _resume();
        _halt();
        vm.expectRevert();
        ledger.resume(productId, product, release, a);
        _resume();
    }

    function test_every_decision_asks_for_m_of_n() public {
        _publish();
        IReleaseLedger.Approvals memory one = _signed("whatever", 1);
        bytes memory few = abi.encodeWithSelector(IReleaseLedger.TooFewApprovals.selector, 1, 2);
        _refused(few);
        ledger.supersede(productId, product, release, one);
        _refused(few);
        ledger.revoke(productId, product, release, one);
        _halt();
        _refused(few);
        ledger.resume(productId, product, release, one);
        _pause();
        _refused(few);
        ledger.unpause(productId, product, one);
        IReleaseLedger.Governance memory next = _next();
        _refused(few);
        ledger.amend(productId, product, next, one);
    }

    function _digest(IReleaseLedger.Terms memory t) private view returns (bytes32) {
        return ledger.approvalDigest(ledger.termsHash(t), 1, FOREVER);
    }

    function _refusedFor(IReleaseLedger.Approvals memory a, bytes4 error) private {
        (bool done, bytes memory answer) =
            address(ledger).call(abi.encodeCall(ledger.publish, (product, _terms(), a)));
        vm.assertTrue(!done, "published");
        vm.assertEq(bytes32(bytes4(answer)), bytes32(error), "error");
    }
}
