// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";
import {Fixture} from "./Fixture.sol";
import {Vm} from "./Vm.sol";

/// @title Somebody who acts at random and follows the ledger as everybody can: by its events
/// @notice After {_play}, `product` and `release` are what the events of the act say they are. What was refused
/// leaves them as they were.
abstract contract Player is Fixture {
    /// @dev The pending governance, or the one that was pending last.
    IReleaseLedger.Governance internal coming;

    /// @dev Whether the ledger took the act.
    function _play(address sender, bytes memory act) internal returns (bool taken) {
        vm.recordLogs();
        vm.prank(sender);
        (taken,) = address(ledger).call(act);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            _follow(logs[i]);
        }
    }

    /// @dev Lets time pass; a change whose time has come is spelled out from then on.
    function _pass(uint256 time) internal {
        vm.warp(vm.getBlockTimestamp() + time);
        bool over = product.effectiveAt != 0 && vm.getBlockTimestamp() >= product.effectiveAt;
        if (!over || product.governance.epoch == coming.epoch) return;
        product.other = _hash(product.governance);
        product.governance = coming;
    }

    function _follow(Vm.Log memory log) private {
        bytes32 topic = log.topics[0];
        if (topic == IReleaseLedger.ReleasePublished.selector) {
            _followPublication(log);
        } else if (topic == IReleaseLedger.AmendmentProposed.selector) {
            (product, coming,) =
                abi.decode(log.data, (IReleaseLedger.Product, IReleaseLedger.Governance, address[]));
        } else if (topic == IReleaseLedger.AmendmentCancelled.selector) {
            product = abi.decode(log.data, (IReleaseLedger.Product));
        } else if (topic == IReleaseLedger.GovernanceChanged.selector) {
            (product,) = abi.decode(log.data, (IReleaseLedger.Product, address[]));
        } else if (topic == IReleaseLedger.ProductPaused.selector) {
            product.head = abi.decode(log.data, (IReleaseLedger.Head));
        } else if (topic == IReleaseLedger.ProductUnpaused.selector) {
            (product.head,) = abi.decode(log.data, (IReleaseLedger.Head, address[]));
        } else if (topic == IReleaseLedger.ReceiptsAnchored.selector) {
            (,, release.state) = abi.decode(log.data, (uint32, uint32, IReleaseLedger.State));
        } else if (topic == IReleaseLedger.ReleaseAttested.selector) {
            (,, release.state) = abi.decode(log.data, (uint8, bytes32, IReleaseLedger.State));
        } else if (
            topic == IReleaseLedger.ReleaseHalted.selector || topic == IReleaseLedger.ReleaseResumed.selector
                || topic == IReleaseLedger.ReleaseSuperseded.selector
                || topic == IReleaseLedger.ReleaseRevoked.selector
        ) {
            release.state = abi.decode(log.data, (IReleaseLedger.State)); // whatever follows it
        }
    }

    function _followPublication(Vm.Log memory log) private {
        (IReleaseLedger.Terms memory t, IReleaseLedger.State memory state,,) = abi.decode(
            log.data, (IReleaseLedger.Terms, IReleaseLedger.State, uint32, IReleaseLedger.Approvals)
        );
        release = IReleaseLedger.Release(uint32(uint256(log.topics[2])), ledger.termsHash(t), state);
        (product.head.latestRelease, product.head.version, product.head.securityCounter) =
            (release.releaseId, t.version, t.securityCounter);
    }

    // -- lists of accounts ---------------------------------------------------------------------------

    function _in(address[] memory list, address account) internal pure returns (bool) {
        for (uint256 i = 0; i < list.length; ++i) {
            if (list[i] == account) return true;
        }
        return false;
    }

    function _inside(address[] memory some, address[] memory all) internal pure returns (bool) {
        for (uint256 i = 0; i < some.length; ++i) {
            if (!_in(all, some[i])) return false;
        }
        return true;
    }

    /// @dev All but one place that `account` has, if it has any.
    function _without(address[] memory list, address account) internal pure returns (address[] memory rest) {
        if (!_in(list, account)) return list;
        rest = new address[](list.length - 1);
        uint256 at = 0;
        bool found = false;
        for (uint256 i = 0; i < list.length; ++i) {
            if (!found && list[i] == account) found = true;
            else rest[at++] = list[i];
        }
    }
}
