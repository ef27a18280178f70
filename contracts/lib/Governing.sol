// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";

/// @title Rules of governance
/// @notice Which governance is well formed, who holds which role under it, and which change of it only
/// tightens. Pure: signatures, commitments and times are the ledger's business.
///
/// Account lists are strictly ascending, so a set comparison is one walk along both lists.
library Governing {
    uint256 internal constant MAX_MEMBERS = 16;

    // -- roles ---------------------------------------------------------------------------------------

    // Places of the account lists among the members of a governance.
    uint256 private constant APPROVERS = 0x00;
    uint256 private constant GUARDIANS = 0x60;
    uint256 private constant AUDITORS = 0x80;
    uint256 private constant REPORTERS = 0xa0;

    function isApprover(IReleaseLedger.Governance calldata g, address account) internal pure returns (bool) {
        return _holds(g, APPROVERS, account);
    }

    /// @notice Whether `account` may halt: a named guardian, or any approver if none is named.
    function isGuardian(IReleaseLedger.Governance calldata g, address account) internal pure returns (bool) {
        return _holds(g, _isEmpty(g, GUARDIANS) ? APPROVERS : GUARDIANS, account);
    }

    /// @notice Whether `account` may pause, cancel and restrict: an approver or a guardian.
    function isWatcher(IReleaseLedger.Governance calldata g, address account) internal pure returns (bool) {
        return _holds(g, APPROVERS, account) || _holds(g, GUARDIANS, account);
    }

    function isAuditor(IReleaseLedger.Governance calldata g, address account) internal pure returns (bool) {
        return _holds(g, AUDITORS, account);
    }

    function isReporter(IReleaseLedger.Governance calldata g, address account) internal pure returns (bool) {
        return _holds(g, REPORTERS, account);
    }

    /// @dev Finds the list as {Commitments-governance} does, so what is read here is what was hashed there.
    function _holds(IReleaseLedger.Governance calldata g, uint256 role, address account)
        private
        pure
        returns (bool found)
    {
        assembly ("memory-safe") {
            let wanted := shr(96, shl(96, account))
            let from := add(g, calldataload(add(g, role)))
            let last := add(from, shl(5, calldataload(from)))
            for {} lt(from, last) {} {
                from := add(from, 0x20)
                if eq(calldataload(from), wanted) {
                    found := 1
                    break
                }
            }
        }
    }

    function _isEmpty(IReleaseLedger.Governance calldata g, uint256 role) private pure returns (bool empty) {
        assembly ("memory-safe") {
            empty := iszero(calldataload(add(g, calldataload(add(g, role)))))
        }
    }

    // -- well formed ---------------------------------------------------------------------------------

    /// @notice Refuses a governance that is out of its documented limits, naming the field.
    function requireValid(IReleaseLedger.Governance calldata g) internal pure {
        if (g.approvers.length == 0 || !_wellFormed(g.approvers)) _refuse("approvers");
        if (g.threshold == 0 || g.threshold > g.approvers.length) _refuse("threshold");
        if (!_wellFormed(g.guardians)) _refuse("guardians");
        if (!_wellFormed(g.auditors)) _refuse("auditors");
        if (!_wellFormed(g.reporters)) _refuse("reporters");
        if (!_wellFormed(g.keys)) _refuse("keys");
        if (g.haltRule.maxFailureBps > 10_000) _refuse("haltRule");
    }

    /// @dev At most {MAX_MEMBERS}, strictly ascending, so without duplicates and without the zero address.
    function _wellFormed(address[] calldata members) private pure returns (bool) {
        if (members.length > MAX_MEMBERS) return false;
        address previous = address(0);
        for (uint256 i = 0; i < members.length; ++i) {
            if (members[i] <= previous) return false;
            previous = members[i];
        }
        return true;
    }

    function _wellFormed(IReleaseLedger.SigningKey[] calldata keys) private pure returns (bool) {
        if (keys.length > MAX_MEMBERS) return false;
        bytes32 previous = 0;
        for (uint256 i = 0; i < keys.length; ++i) {
            if (keys[i].keyId <= previous) return false;
            previous = keys[i].keyId;
        }
        return true;
    }

    function _refuse(string memory field) private pure {
        revert IReleaseLedger.InvalidGovernance(field);
    }

    // -- what a rule asks for ------------------------------------------------------------------------

    /// @notice Seconds that a release waits which so many approvers agreed to publish.
    /// @dev Only above the threshold are all of them more than enough. Otherwise removing approvers, which is
    /// immediate, would take the delay away, and lowering it has to wait.
    function delayFor(IReleaseLedger.Governance calldata g, uint256 signers) internal pure returns (uint256) {
        return signers == g.approvers.length && signers > g.threshold ? 0 : g.releaseDelay;
    }

    // -- what a change does --------------------------------------------------------------------------

    /// @notice Whether M of N may make this change at once. Both are well formed.
    function isTightening(IReleaseLedger.Governance calldata from, IReleaseLedger.Governance calldata to)
        internal
        pure
        returns (bool)
    {
        return _tightensBesides(from, to) && _keepsGuardians(from, to);
    }

    /// @notice Whether this change takes `guardian` from the guardians and else only tightens. Both are well formed.
    /// @dev For changes that wait. Exactly one seat: of two guardians or more, M stolen approvers cannot take one
    /// without leaving another who may cancel that. A guardian who is the only one has the delay, no more.
    function isRemoval(
        IReleaseLedger.Governance calldata from,
        IReleaseLedger.Governance calldata to,
        address guardian
    ) internal pure returns (bool) {
        return to.guardians.length < from.guardians.length && _onlyWithout(to.guardians, from.guardians, guardian)
            && _tightensBesides(from, to);
    }

    /// @notice Refuses what one watcher may not do alone, naming the field. Both are well formed.
    /// @dev Raising a threshold or a delay is not among it: a stolen key could put them out of reach. Nor is a
    /// key lowered little by little: a watcher has a few dozen restrictions in all, so that one with a stolen
    /// key cannot outrun another's pause by changing the record for ever.
    function requireRestriction(
        IReleaseLedger.Governance calldata from,
        IReleaseLedger.Governance calldata to,
        address watcher,
        uint32 latestRelease
    ) internal pure {
        string memory field = _loosened(from, to);
        if (bytes(field).length == 0 && !_keysOnlyClosed(from.keys, to.keys, latestRelease)) field = "keys";
        if (!_onlyWithout(to.approvers, from.approvers, watcher)) field = "approvers";
        else if (to.threshold != from.threshold) field = "threshold";
        else if (!_same(to.guardians, from.guardians)) field = "guardians";
        else if (to.releaseDelay != from.releaseDelay) field = "releaseDelay";
        if (bytes(field).length != 0) revert IReleaseLedger.NotATightening(field);
    }

    /// @dev Whether all members but the guardians stay or are tightened.
    function _tightensBesides(IReleaseLedger.Governance calldata from, IReleaseLedger.Governance calldata to)
        private
        pure
        returns (bool)
    {
        return bytes(_loosened(from, to)).length == 0 && _within(to.approvers, from.approvers)
            && to.threshold >= from.threshold && to.releaseDelay >= from.releaseDelay;
    }

    /// @dev What both kinds of tightening ask for; the name of the first field that fails, or "".
    function _loosened(IReleaseLedger.Governance calldata from, IReleaseLedger.Governance calldata to)
        private
        pure
        returns (string memory)
    {
        if (!_within(to.auditors, from.auditors)) return "auditors";
        if (!_within(to.reporters, from.reporters)) return "reporters";
        if (to.enroller != from.enroller && to.enroller != address(0)) return "enroller";
        if (!_keysOnlyLowered(from.keys, to.keys)) return "keys";
        if (
            to.haltRule.minFailures != from.haltRule.minFailures
                || to.haltRule.maxFailureBps != from.haltRule.maxFailureBps
        ) return "haltRule";
        return "";
    }

    /// @dev Those who may halt stay. Naming guardians where the approvers were it keeps them only if every
    /// remaining approver is named; going back to unnamed guardians is never taken for a tightening.
    function _keepsGuardians(IReleaseLedger.Governance calldata from, IReleaseLedger.Governance calldata to)
        private
        pure
        returns (bool)
    {
        if (to.guardians.length == 0) return from.guardians.length == 0;
        return _within(from.guardians.length == 0 ? to.approvers : from.guardians, to.guardians);
    }

    function _within(address[] calldata some, address[] calldata all) private pure returns (bool) {
        uint256 j = 0;
        for (uint256 i = 0; i < some.length; ++i) {
            while (j < all.length && all[j] < some[i]) ++j;
            if (j == all.length || all[j] != some[i]) return false;
        }
        return true;
    }

    function _same(address[] calldata a, address[] calldata b) private pure returns (bool) {
        return a.length == b.length && _within(a, b);
    }

    function _contains(address[] calldata all, address account) private pure returns (bool) {
        for (uint256 i = 0; i < all.length; ++i) {
            if (all[i] == account) return true;
        }
        return false;
    }

    /// @dev `some` is `all`, or `all` without `account`.
    function _onlyWithout(address[] calldata some, address[] calldata all, address account)
        private
        pure
        returns (bool)
    {
        if (!_within(some, all)) return false;
        if (some.length == all.length) return true;
        return some.length + 1 == all.length && _contains(all, account) && !_contains(some, account);
    }

    function _keysOnlyLowered(IReleaseLedger.SigningKey[] calldata from, IReleaseLedger.SigningKey[] calldata to)
        private
        pure
        returns (bool)
    {
        if (from.length != to.length) return false;
        for (uint256 i = 0; i < from.length; ++i) {
            if (to[i].keyId != from[i].keyId || to[i].validThrough > from[i].validThrough) return false;
        }
        return true;
    }

    /// @dev Every key as it was, revoked, or retired as of the newest release. The lists have the same ids.
    function _keysOnlyClosed(
        IReleaseLedger.SigningKey[] calldata from,
        IReleaseLedger.SigningKey[] calldata to,
        uint32 latestRelease
    ) private pure returns (bool) {
        for (uint256 i = 0; i < from.length; ++i) {
            uint32 through = to[i].validThrough;
            if (through != from[i].validThrough && through != 0 && through != latestRelease) return false;
        }
        return true;
    }
}
