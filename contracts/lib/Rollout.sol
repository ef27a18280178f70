// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";
import {StateWord} from "./StateWord.sol";

/// @title Rules of a rollout
/// @notice The product's clock, when a release starts, which share of the fleet has its turn, and whether one
/// device may install. Pure: times are arguments, records are taken as proven. protocol/ledger.py is
/// the same rules in Python, and devices evaluate them with that.
library Rollout {
    using StateWord for uint256;

    uint256 internal constant COHORTS = 10_000;
    uint256 internal constant MAX_PHASES = 4;

    /// @notice The product's clock: `time` less all pauses; it stands still while the product is paused.
    /// @dev Read without range checks: the head has been matched with its commitment.
    function clock(IReleaseLedger.Head calldata head, uint256 time) internal pure returns (uint256 ticks) {
        assembly ("memory-safe") {
            let pausedAt := calldataload(add(head, 0x60))
            if pausedAt { time := pausedAt }
            ticks := sub(time, calldataload(add(head, 0x80))) // less pausedTotal, which has all passed
        }
    }

    /// @notice Start of a release published at `time` (product not paused), on the product's clock.
    /// @dev Its clock shows `notBefore - pausedTotal` when block time is `notBefore`, or later if paused again.
    function startOf(IReleaseLedger.Head calldata head, uint256 time, uint256 delay, uint64 notBefore)
        internal
        pure
        returns (uint64)
    {
        uint256 start = clock(head, time) + delay;
        if (notBefore > head.pausedTotal && notBefore - head.pausedTotal > start) {
            start = notBefore - head.pausedTotal;
        }
        return uint64(start);
    }

    /// @notice The place of a device in a release's rollout, 0 to 9999, for anyone to recompute.
    function cohort(bytes32 productId, uint32 releaseId, bytes32 deviceId) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(productId, releaseId, deviceId))) % COHORTS;
    }

    /// @notice The share of the fleet, in 1/10000, whose turn has come after `running` seconds of rollout.
    /// @dev Phases open in order: the first that is not open ends the walk.
    function openShare(IReleaseLedger.Phase[] calldata phases, uint256 word, uint256 running)
        internal
        pure
        returns (uint256 share)
    {
        for (uint256 i = 0; i < phases.length; ++i) {
            IReleaseLedger.Phase calldata phase = phases[i];
            if (running < phase.delay) break;
            bool lapsed = phase.gateDeadline != 0 && running >= phase.gateDeadline;
            if (!lapsed && word.confirmed() < phase.minConfirmed) break;
            if (word.failureRateAbove(phase.maxFailureBps)) break;
            share = phase.bps;
        }
    }

    /// @notice Whether `device` may install at `time`, and if not, the first reason in the enum's order.
    function eligible(
        IReleaseLedger.Head calldata head,
        IReleaseLedger.Terms calldata terms,
        uint32 releaseId,
        IReleaseLedger.State calldata state,
        IReleaseLedger.Device calldata device,
        uint256 time
    ) internal pure returns (IReleaseLedger.Reason) {
        uint256 word = state.word;
        if (head.pausedAt != 0) return IReleaseLedger.Reason.ProductPaused;
        if (word.status() == IReleaseLedger.Status.Revoked) return IReleaseLedger.Reason.Revoked;
        if (word.status() == IReleaseLedger.Status.Halted) return IReleaseLedger.Reason.Halted;
        if (device.hardware < terms.hardwareMin || device.hardware > terms.hardwareMax) {
            return IReleaseLedger.Reason.WrongHardware;
        }
        if (terms.requiredAttestations & ~word.attested() != 0) return IReleaseLedger.Reason.AttestationsMissing;
        // Neither paused nor halted from here on: only halts that are over are to be taken out.
        uint256 start = uint256(state.startsAt) + word.haltedTotal();
        uint256 ticks = clock(head, time);
        if (ticks < start || time < terms.notBefore) return IReleaseLedger.Reason.NotStarted;
        if (terms.expiry != 0 && time >= terms.expiry) return IReleaseLedger.Reason.Expired;
        if (device.version >= terms.version) return IReleaseLedger.Reason.NotNewer;
        if (device.version < terms.minVersion) return IReleaseLedger.Reason.StepRequired;
        if (terms.securityCounter < device.securityCounter) return IReleaseLedger.Reason.CounterTooLow;
        if (cohort(terms.productId, releaseId, device.deviceId) >= openShare(terms.rollout, word, ticks - start)) {
            return IReleaseLedger.Reason.CohortWaits;
        }
        return IReleaseLedger.Reason.Eligible;
    }

    /// @notice Refuses terms that no device could ever follow, or that a reader could misread.
    /// @dev Not checked here, because it is no property of the terms alone: that version and counter rise.
    function requireValid(IReleaseLedger.Terms calldata terms, uint256 time) internal pure {
        if (terms.imageDigest == 0) revert IReleaseLedger.InvalidTerms("imageDigest");
        if (terms.manifestDigest == 0) revert IReleaseLedger.InvalidTerms("manifestDigest");
        if (terms.imageSize == 0) revert IReleaseLedger.InvalidTerms("imageSize");
        if (terms.hardwareMin > terms.hardwareMax) revert IReleaseLedger.InvalidTerms("hardwareMax");
        if (terms.minVersion >= terms.version) revert IReleaseLedger.InvalidTerms("minVersion");
        if (terms.expiry != 0 && (terms.expiry <= time || terms.expiry <= terms.notBefore)) {
            revert IReleaseLedger.InvalidTerms("expiry");
        }
        _requireValidPhases(terms.rollout);
    }

    function _requireValidPhases(IReleaseLedger.Phase[] calldata phases) private pure {
        if (phases.length == 0 || phases.length > MAX_PHASES) revert IReleaseLedger.InvalidTerms("rollout");
        uint256 bps = 0;
        uint256 delay = 0;
        for (uint256 i = 0; i < phases.length; ++i) {
            IReleaseLedger.Phase calldata phase = phases[i];
            if (phase.bps <= bps || phase.bps > COHORTS) revert IReleaseLedger.InvalidRollout(i, "bps");
            if (phase.delay < delay) revert IReleaseLedger.InvalidRollout(i, "delay");
            if (phase.maxFailureBps > COHORTS || (i == 0 && phase.maxFailureBps != COHORTS)) {
                revert IReleaseLedger.InvalidRollout(i, "maxFailureBps");
            }
            if (i == 0 && phase.minConfirmed != 0) revert IReleaseLedger.InvalidRollout(i, "minConfirmed");
            if (i == 0 && phase.gateDeadline != 0) revert IReleaseLedger.InvalidRollout(i, "gateDeadline");
            (bps, delay) = (phase.bps, phase.delay);
        }
    }
}
