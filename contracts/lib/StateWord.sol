// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IReleaseLedger} from "../IReleaseLedger.sol";

/// @title The packed state of a release
/// @notice Reads and moves the word that {IReleaseLedger.State} describes. Pure; it never judges who may.
/// A word is only ever made here, so its members fit: `confirmed + failed <= logSize < 2^32` always holds.
library StateWord {
    uint256 private constant FLAGS = 4;
    uint256 private constant HALTS = 8;
    uint256 private constant ATTESTED = 16;
    uint256 private constant HALTED_AT = 24;
    uint256 private constant CONFIRMED = 64;
    uint256 private constant FAILED = 96;
    uint256 private constant BASE_CONFIRMED = 128;
    uint256 private constant BASE_FAILED = 160;
    uint256 private constant HALTED_TOTAL = 192;
    uint256 private constant LOG_SIZE = 224;

    uint256 private constant U4 = 0xf;
    uint256 private constant U40 = 0xff_ffff_ffff;
    uint256 private constant SUPERSEDED = 1 << FLAGS;

    /// @notice Times a release may be halted; the last of them cannot be resumed.
    uint256 internal constant MAX_HALTS = type(uint8).max;

    /// @notice The word a release is born with: active, everything else 0.
    uint256 internal constant BORN = uint256(IReleaseLedger.Status.Active);

    // -- reading -------------------------------------------------------------------------------------

    function status(uint256 word) internal pure returns (IReleaseLedger.Status) {
        return IReleaseLedger.Status(word & U4);
    }

    function superseded(uint256 word) internal pure returns (bool) {
        return word & SUPERSEDED != 0;
    }

    function halts(uint256 word) internal pure returns (uint8) {
        return uint8(word >> HALTS);
    }

    function attested(uint256 word) internal pure returns (uint8) {
        return uint8(word >> ATTESTED);
    }

    function haltedAt(uint256 word) internal pure returns (uint256) {
        return (word >> HALTED_AT) & U40;
    }

    function confirmed(uint256 word) internal pure returns (uint256) {
        return uint32(word >> CONFIRMED);
    }

    function failed(uint256 word) internal pure returns (uint256) {
        return uint32(word >> FAILED);
    }

    function haltedTotal(uint256 word) internal pure returns (uint256) {
        return uint32(word >> HALTED_TOTAL);
    }

    function logSize(uint256 word) internal pure returns (uint32) {
        return uint32(word >> LOG_SIZE);
    }

    /// @notice Whether more than `bps`/10000 of the receipts since the last resume are failures.
    function failureRateAbove(uint256 word, uint256 bps) internal pure returns (bool) {
        uint256 bad = failed(word) - uint32(word >> BASE_FAILED);
        uint256 good = confirmed(word) - uint32(word >> BASE_CONFIRMED);
        return bad * 10_000 > bps * (good + bad);
    }

    /// @notice Whether the receipts since the last resume meet a halting rule.
    function meets(uint256 word, IReleaseLedger.HaltRule calldata rule) internal pure returns (bool) {
        uint256 bad = failed(word) - uint32(word >> BASE_FAILED);
        return rule.minFailures != 0 && bad >= rule.minFailures && failureRateAbove(word, rule.maxFailureBps);
    }

    // -- moving --------------------------------------------------------------------------------------

    /// @notice Active to halted at `clock`; the number of halts stays at {MAX_HALTS} once there.
    function halted(uint256 word, uint256 clock) internal pure returns (uint256) {
        unchecked {
            if (halts(word) < MAX_HALTS) word += 1 << HALTS;
        }
        return _withStatus(word, IReleaseLedger.Status.Halted) | (clock & U40) << HALTED_AT;
    }

    /// @notice Halted to active at `clock`: the halted time is taken out, the halting rule counts afresh.
    function resumed(uint256 word, uint256 clock) internal pure returns (uint256) {
        uint256 total = haltedTotal(word) + clock - haltedAt(word);
        // 136 years of halts: stay halted rather than start early
        if (total > type(uint32).max) revert IReleaseLedger.HaltedTooLong(total);
        uint256 kept = U4 << FLAGS | uint256(type(uint8).max) << HALTS | uint256(type(uint8).max) << ATTESTED
            | uint256(type(uint64).max) << CONFIRMED | uint256(type(uint32).max) << LOG_SIZE;
        word &= kept;
        return word | confirmed(word) << BASE_CONFIRMED | failed(word) << BASE_FAILED | total << HALTED_TOTAL
            | uint256(IReleaseLedger.Status.Active);
    }

    /// @notice To revoked, from any other status, for good.
    function revoked(uint256 word) internal pure returns (uint256) {
        return _withStatus(word, IReleaseLedger.Status.Revoked);
    }

    /// @notice With the superseded flag.
    function withSuperseded(uint256 word) internal pure returns (uint256) {
        return word | SUPERSEDED;
    }

    /// @notice With one more kind of attestation, 0 to 7.
    function withAttested(uint256 word, uint8 kind) internal pure returns (uint256) {
        return word | 1 << (ATTESTED + kind);
    }

    /// @notice With a batch of receipts counted and the log grown to `size`.
    /// @dev The caller has checked that the deltas are at most the growth, so the sums fit 32 bits.
    function withReceipts(uint256 word, uint32 size, uint32 good, uint32 bad) internal pure returns (uint256) {
        word = word & (type(uint256).max >> 32) | uint256(size) << LOG_SIZE;
        return word + (uint256(good) << CONFIRMED) + (uint256(bad) << FAILED);
    }

    function _withStatus(uint256 word, IReleaseLedger.Status to) private pure returns (uint256) {
        return word & ~U4 | uint256(to);
    }
}
