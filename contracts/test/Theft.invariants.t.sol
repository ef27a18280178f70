// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {BarredGuardian, Thief} from "./Thief.sol";

/// @title No single key, whatever sequence it plays for any time, publishes, resumes or widens who may
contract TheftInvariants {
    Thief private _thief;

    function setUp() public {
        _thief = new Thief();
        _thief.setUp();
    }

    function targetContracts() external view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(_thief);
    }

    /// @dev Were every act refused, the invariants would say nothing.
    function test_the_thief_gets_as_far_as_its_keys_reach() external {
        _thief.attest(2, 0);
        _thief.anchor(3, 9, 1, 1, "root");
        _thief.restrict(0, 5 << 8);
        _thief.setFleet(4, "root");
        _thief.withdraw(0, "terms");
        _thief.halt(1);
        _thief.pause(0);
        require(_thief.acts() == 7, "refused");
        _thief.checkNothingResumed();
        _thief.checkNothingWidened();
    }

    function invariant_one_key_publishes_nothing() external view {
        _thief.checkNothingPublished();
    }

    function invariant_one_key_resumes_nothing() external view {
        _thief.checkNothingResumed();
    }

    function invariant_one_key_widens_nothing() external view {
        _thief.checkNothingWidened();
    }
}

/// @title No stolen guardian keeps its seat, whatever sequence it plays
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
        while (!_thief.isOver()) {
            _thief.wait(12 hours - 1);
            _thief.checkNothingWidened();
        }
        _thief.restrict(0, 5 << 8);
        require(_thief.acts() == 2, "out");
        _thief.checkNothingWidened();
    }

    function invariant_a_stolen_guardian_cannot_prevent_its_removal() external view {
        _thief.checkNothingWidened();
    }
}
