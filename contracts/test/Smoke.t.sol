// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;
import {Fixture} from "./Fixture.sol";
contract SmokeTest is Fixture {
    function test_life() public {
        _publish();
        _anchor(10, 9, 1);
        _halt();
        _resume();
        _pause();
        vm.warp(block.timestamp + 10);
        _unpause();
        _revoke();
    }
}
