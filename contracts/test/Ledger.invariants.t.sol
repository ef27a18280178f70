// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";
import {Vm} from "./Vm.sol";
import {World} from "./World.sol";

/// @title What holds after every act of a random history, one function for each promise
/// @notice What a single thief cannot do is in Theft.invariants.t.sol.
contract LedgerInvariants {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    World private _world;

    function setUp() public {
        _world = new World();
        _world.setUp();
    }

    function targetContracts() external view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(_world);
    }

    /// @dev Over one long random history, every act is taken many times: the invariants speak of something.
    function test_everything_happens() external {
        uint256 installable = 0;
        for (uint256 i = 0; i < 1_500; ++i) {
            _step(uint256(keccak256(abi.encode(i))));
            if (i % 50 == 0) installable += _installable();
        }
        bytes32[14] memory names = [
            bytes32("publish"), "halt", "resume", "supersede", "revoke", "attest", "anchor", "amend", "restrict",
            "cancel", "pause", "unpause", "setFleet", "withdraw"
        ];
        for (uint256 i = 0; i < names.length; ++i) {
            vm.assertTrue(_world.taken(names[i]) > 4, string(abi.encodePacked(names[i])));
        }
        vm.assertTrue(_world.tookEffect() > 4, "changes that waited");
        vm.assertTrue(installable > 4, "installable");
    }

    function invariant_no_release_without_m_distinct_current_approvers() external view {
        vm.assertEq(_world.withoutApproval(), 0, "acts of M of N that fewer agreed on");
        for (uint32 id = 1; id <= _world.releases(); ++id) {
            (World.Past memory past,) = _world.pastOf(id);
            vm.assertTrue(past.approvers >= past.threshold && past.threshold > 0, "published by too few");
        }
    }

    function invariant_each_act_only_by_its_role() external view {
        vm.assertEq(_world.byStrangers(), 0, "acts of accounts without the role");
    }

    function invariant_loosening_waits() external view {
        vm.assertEq(_world.widenedAtOnce(), 0, "changes that widen who may, at once");
    }

    function invariant_records_are_immutable() external view {
        (IReleaseLedger ledger,,) = _world.known();
        for (uint32 id = 1; id <= _world.releases(); ++id) {
            (World.Past memory past, IReleaseLedger.Terms memory terms) = _world.pastOf(id);
            vm.assertEq(ledger.termsHash(terms), past.termsHash, "terms");
            vm.assertEq(past.state.startsAt, past.startsAt, "start");
        }
        _commitmentsMatch(); // which cover exactly these
    }

    function invariant_version_and_counter_rise() external view {
        uint64 version = 0;
        uint32 counter = 0;
        for (uint32 id = 1; id <= _world.releases(); ++id) {
            (, IReleaseLedger.Terms memory terms) = _world.pastOf(id);
            vm.assertTrue(terms.version > version && terms.securityCounter >= counter, "fell");
            (version, counter) = (terms.version, terms.securityCounter);
        }
        (,, IReleaseLedger.Product memory product) = _world.known();
        vm.assertEq(product.head.latestRelease, _world.releases(), "latest");
        vm.assertTrue(product.head.version == version && product.head.securityCounter == counter, "head");
    }

    function invariant_halted_or_revoked_is_never_eligible() external view {
        (IReleaseLedger ledger,, IReleaseLedger.Product memory product) = _world.known();
        for (uint32 id = 1; id <= _world.releases(); ++id) {
            (World.Past memory past, IReleaseLedger.Terms memory terms) = _world.pastOf(id);
            bool stopped = past.state.word & 0xf != 1 || product.head.pausedAt != 0;
            for (uint256 i = 0; stopped && i < 3; ++i) {
                IReleaseLedger.Device memory d = IReleaseLedger.Device(bytes32(i), 0, 0, 3);
                IReleaseLedger.Reason r = ledger.eligible(product, terms, id, past.state, d);
                vm.assertTrue(
                    r == IReleaseLedger.Reason.ProductPaused || r == IReleaseLedger.Reason.Revoked
                        || r == IReleaseLedger.Reason.Halted,
                    "stopped, yet eligible"
                );
            }
        }
    }

    function invariant_counts_conserve() external view {
        for (uint32 id = 1; id <= _world.releases(); ++id) {
            (World.Past memory past,) = _world.pastOf(id);
            uint256 word = past.state.word;
            vm.assertEq(uint32(word >> 64), past.confirmed, "confirmed");
            vm.assertEq(uint32(word >> 96), past.failed, "failed");
            vm.assertTrue(uint256(past.confirmed) + past.failed <= past.size, "more counted than logged");
            vm.assertTrue(uint32(word >> 128) <= past.confirmed && uint32(word >> 160) <= past.failed, "baseline");
        }
    }

    function invariant_a_log_never_shrinks() external view {
        vm.assertEq(_world.shrunk(), 0, "batches that add nothing");
        for (uint32 id = 1; id <= _world.releases(); ++id) {
            (World.Past memory past,) = _world.pastOf(id);
            vm.assertEq(past.state.word >> 224, past.size, "size");
            vm.assertEq(past.state.logRoot, past.root, "root");
        }
    }

    function invariant_commitments_match() external view {
        _commitmentsMatch();
    }

    // -- what these share ----------------------------------------------------------------------------

    function _commitmentsMatch() private view {
        _world.checkProduct();
        (IReleaseLedger ledger, bytes32 productId,) = _world.known();
        uint32 count = _world.releases();
        for (uint32 id = 1; id <= count; ++id) {
            (World.Past memory past, IReleaseLedger.Terms memory terms) = _world.pastOf(id);
            IReleaseLedger.Release memory r = IReleaseLedger.Release(id, past.termsHash, past.state);
            bytes32 tag = keccak256("firmledger.release.v1");
            bytes32 expected = keccak256(abi.encode(tag, block.chainid, address(ledger), productId, r));
            vm.assertEq(ledger.releaseSlot(productId, id), expected, "release commitment");
            vm.assertTrue(ledger.releaseOf(productId, terms.imageDigest) >= id, "index");
        }
        vm.assertEq(ledger.releaseSlot(productId, count + 1), 0, "a release nobody published");
    }

    function _installable() private view returns (uint256 count) {
        (IReleaseLedger ledger,, IReleaseLedger.Product memory product) = _world.known();
        for (uint32 id = 1; id <= _world.releases(); ++id) {
            (World.Past memory past, IReleaseLedger.Terms memory terms) = _world.pastOf(id);
            IReleaseLedger.Device memory d = IReleaseLedger.Device("device", 0, 0, 3);
            if (ledger.eligible(product, terms, id, past.state, d) == IReleaseLedger.Reason.Eligible) ++count;
        }
    }

    function _step(uint256 seed) private {
        uint256 which = seed % 17;
        seed >>= 8;
        if (which == 0) _world.wait(uint32(seed));
        if (which == 1) _world.waitForTheChange(uint8(seed));
        if (which == 2) _world.amend(seed);
        if (which == 3) _world.restrict(seed);
        if (which == 4) _world.cancel(seed);
        if (which == 5) _world.pause(seed);
        if (which == 6) _world.unpause(seed);
        if (which == 7) _world.setFleet(seed);
        if (which == 8) _world.withdraw(seed);
        if (which == 9) _world.publish(seed);
        if (which == 10) _world.halt(seed);
        if (which == 11) _world.resume(seed);
        if (which == 12) _world.supersede(seed);
        if (which == 13) _world.revoke(seed);
        if (which == 14) _world.attest(seed);
        if (which > 14) _world.anchor(seed, uint8(seed >> 8), uint8(seed >> 16), uint8(seed >> 24));
    }
}
