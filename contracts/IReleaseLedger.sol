// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title The release ledger
/// @notice Records which firmware may be installed on the devices of a product, who agreed to it, under
/// which conditions, and what became of it. Everything a caller can do or read is described here.
///
/// The ledger has no owner, no proxy and no upgrade path. Products do not know of each other.
///
/// Records and commitments. Storage holds one 32-byte commitment per product and one per release, and
/// the newest release of each image digest; nothing else. The records themselves ({Product}, {Terms},
/// {State}) travel in calldata and in events: whoever acts on one passes it along, and the ledger checks
/// it against the commitment before anything else. A record that is not current is refused with
/// {StaleProduct} or {StaleRelease}; take it from the newest event and try again. Because a commitment
/// covers a whole record, one storage proof shows a device everything there is to know about it.
///
///   productSlot = keccak256(abi.encode(TAG_PRODUCT, chainid, this, productId,
///                     hash of the current governance, hash of the pending one or 0, effectiveAt, head))
///   releaseSlot = keccak256(abi.encode(TAG_RELEASE, chainid, this, productId, releaseId,
///                     termsHash, state))
///
/// where a governance hash and a terms hash are EIP-712 `hashStruct` values, so that what an approver's
/// wallet shows is what is stored.
///
/// Who may act:
///   approvers   M of N of them publish, amend, resume, unpause, supersede, revoke (EIP-712 signatures in
///               one transaction, sent by anyone; a contract wallet calls {approve} instead).
///   guardians   one of them halts. Approvers are the guardians unless others are named.
///   watchers    approvers and guardians together: one of them pauses, cancels a pending change (but a
///               guardian not its own removal), or restricts (removes keys, reporters, auditors, the
///               enroller, or itself as an approver) while no change is pending.
///   auditors    attest. reporters anchor receipts. the enroller sets the fleet.
/// Loosening waits `governanceDelay`, tightening is immediate.
interface IReleaseLedger {
    // ------------------------------------------------------------------------------------------------
    // Records
    // ------------------------------------------------------------------------------------------------

    /// @notice A key that signs manifests.
    /// @param keyId RFC 9679 thumbprint (SHA-256) of the COSE key.
    /// @param validThrough Highest release id this key may sign: `type(uint32).max` = active; a release id =
    /// retired, it still verifies what was published up to then; 0 = revoked, it verifies nothing.
    struct SigningKey {
        bytes32 keyId;
        uint32 validThrough;
    }

    /// @notice When receipts halt a release by themselves: `failed >= minFailures` and
    /// `failed / (failed + confirmed) > maxFailureBps / 10000`, both counted since the last resume.
    /// @param minFailures 0 switches the rule off.
    struct HaltRule {
        uint32 minFailures;
        uint16 maxFailureBps;
    }

    /// @notice Who may do what for a product.
    /// @param approvers Strictly ascending, 1 to 16.
    /// @param threshold M of the N approvers, 1 to N.
    /// @param epoch Rises by one with every change of governance; approvals are bound to it.
    /// @param guardians Strictly ascending, at most 16; if none, the approvers are the guardians.
    /// @param auditors Strictly ascending, at most 16.
    /// @param reporters Strictly ascending, at most 16.
    /// @param enroller May be zero: then the fleet cannot change.
    /// @param keys Signing keys, strictly ascending by id, at most 16, revoked ones included.
    /// @param releaseDelay Seconds between publication and start. None pass if all N approved and N is above the
    /// threshold: where M are all, whoever holds M keys would never have to wait.
    /// @param governanceDelay Seconds a loosening change waits; fixed when the product is created.
    struct Governance {
        address[] approvers;
        uint8 threshold;
        uint32 epoch;
        address[] guardians;
        address[] auditors;
        address[] reporters;
        address enroller;
        SigningKey[] keys;
        HaltRule haltRule;
        uint32 releaseDelay;
        uint32 governanceDelay;
    }

    /// @notice The newest of a product, and its pauses.
    /// @param latestRelease Id of the newest release; 0 before the first.
    /// @param version Version of the newest release.
    /// @param securityCounter Security counter of the newest release.
    /// @param pausedAt Time the pause in force began; 0 when not paused.
    /// @param pausedTotal Seconds spent in pauses that are over.
    /// @param pauses Number of pauses so far.
    struct Head {
        uint32 latestRelease;
        uint64 version;
        uint32 securityCounter;
        uint64 pausedAt;
        uint64 pausedTotal;
        uint32 pauses;
    }

    /// @notice A product as callers pass it. The commitment holds a current and a pending governance; which
    /// one is in effect follows from the block time alone, and only that one is spelled out.
    /// @param governance The governance in effect now: the pending one if `effectiveAt` is not 0 and has come,
    /// the current one otherwise.
    /// @param other `hashStruct` of the one not spelled out: of the pending governance (0 if none) before
    /// `effectiveAt`, of the outgoing one from then until the next change.
    /// @param effectiveAt Time the pending governance takes effect; 0 if none is pending.
    struct Product {
        Governance governance;
        bytes32 other;
        uint64 effectiveAt;
        Head head;
    }

    /// @notice One step of a rollout. Steps open in order; one whose gate asks for a failure rate closes again
    /// while that rate is exceeded.
    /// @param bps Share of the fleet in 1/10000, of all phases up to this one together; strictly rising.
    /// @param delay Seconds after the start before this phase may open; not falling.
    /// @param minConfirmed Confirmed installs the gate asks for; 0 = no such gate.
    /// @param maxFailureBps Highest share of failures (of receipts since the last resume) the gate lets
    /// pass, in 1/10000; 10000 = no such gate.
    /// @param gateDeadline Seconds after the start from which `minConfirmed` is asked no more (the failure
    /// rate still is); 0 = never.
    struct Phase {
        uint16 bps;
        uint32 delay;
        uint32 minConfirmed;
        uint16 maxFailureBps;
        uint32 gateDeadline;
    }

    /// @notice What is agreed about a release, once and for all.
    /// @param productId The product it belongs to.
    /// @param version major(16) . minor(16) . patch(32); above the product's newest; the manifest's sequence number.
    /// @param securityCounter Never below the product's newest; a device never installs below its own.
    /// @param imageDigest SHA-256 of the plaintext image.
    /// @param manifestDigest SHA-256 of the SUIT manifest, as the SUIT envelope authenticates it.
    /// @param imageSize Bytes of the plaintext image.
    /// @param hardwareMin Lowest hardware revision it runs on.
    /// @param hardwareMax Highest hardware revision it runs on.
    /// @param minVersion Lowest version it may be installed from; 0 = any.
    /// @param notBefore Unix time before which nobody installs it; 0 = none.
    /// @param expiry Unix time from which nobody installs it; 0 = none.
    /// @param requiredAttestations Bitmap of the kinds of attestation it needs before anybody installs it.
    /// @param critical Asks owners to let it override their inhibitors; each owner decides.
    /// @param keyEpoch Epoch of the device-class key its payload is encrypted for.
    /// @param rollout 1 to 4 phases; the first has no gate.
    struct Terms {
        bytes32 productId;
        uint64 version;
        uint32 securityCounter;
        bytes32 imageDigest;
        bytes32 manifestDigest;
        uint64 imageSize;
        uint32 hardwareMin;
        uint32 hardwareMax;
        uint64 minVersion;
        uint64 notBefore;
        uint64 expiry;
        uint8 requiredAttestations;
        bool critical;
        uint32 keyEpoch;
        Phase[] rollout;
    }

    /// @notice What has become of a release so far.
    /// @param startsAt Start of the rollout, on the product's clock.
    /// @param word The rest, packed from the lowest bit up:
    ///   status 4 (see {Status}) | flags 4 (bit 0 superseded, others 0) | halts 8 | attested kinds 8 |
    ///   haltedAt 40 | confirmed 32 | failed 32 | baseline confirmed 32 | baseline failed 32 |
    ///   haltedTotal 32 | logSize 32
    /// @param logRoot RFC 6962 root (SHA-256) of the receipt log of `logSize` entries; 0 while it is empty.
    ///
    /// Times of a release run on the product's clock, which stands still while the product is paused:
    /// clock = block time - pausedTotal - (paused ? block time - pausedAt : 0).
    struct State {
        uint64 startsAt;
        uint256 word;
        bytes32 logRoot;
    }

    /// @notice A release as callers pass it where its terms need not be read.
    struct Release {
        uint32 releaseId;
        bytes32 termsHash;
        State state;
    }

    /// @notice What {eligible} needs to know of a device.
    struct Device {
        bytes32 deviceId;
        uint64 version;
        uint32 securityCounter;
        uint32 hardware;
    }

    /// @notice An ECDSA signature in the compact form of EIP-2098; or, with `vs` = 0, an account (the low 20
    /// bytes of `r`) that called {approve} for the digest itself.
    struct Signature {
        bytes32 r;
        bytes32 vs;
    }

    /// @notice Signatures of approvers over one EIP-712 digest, strictly ascending by signer. The epoch in the
    /// digest must be the one in effect when they are used; they may have been given before it came.
    /// @param validUntil Last second at which they count.
    struct Approvals {
        uint64 validUntil;
        Signature[] signatures;
    }

    enum Status {
        None,
        Active,
        Halted,
        Revoked
    }

    /// @notice What M of N decide about a product or release that exists. See {decisionDigest}.
    enum Action {
        None,
        Resume,
        Supersede,
        Revoke,
        Unpause
    }

    /// @notice Why a device may or may not install a release; the first that applies, in this order.
    enum Reason {
        Eligible,
        ProductPaused,
        Revoked,
        Halted,
        WrongHardware,
        AttestationsMissing,
        NotStarted,
        Expired,
        NotNewer,
        StepRequired,
        CounterTooLow,
        CohortWaits
    }

    // ------------------------------------------------------------------------------------------------
    // Events: each carries the full new state of what changed
    // ------------------------------------------------------------------------------------------------

    event ProductCreated(bytes32 indexed productId, address indexed creator, bytes32 salt, Product product);
    /// @notice A loosening change was agreed; it takes effect at `effectiveAt` without a further transaction.
    event AmendmentProposed(bytes32 indexed productId, Product product, Governance next, address[] signers);
    /// @notice A watcher cancelled the pending change; the epoch rose, so its approvals are void.
    event AmendmentCancelled(bytes32 indexed productId, address indexed by, Product product);
    /// @notice A change took effect at once: agreed by `signers`, or a restriction by the one `signers` names. A
    /// pending change is dropped.
    event GovernanceChanged(bytes32 indexed productId, Product product, address[] signers);
    event ProductPaused(bytes32 indexed productId, address indexed by, Head head);
    event ProductUnpaused(bytes32 indexed productId, Head head, address[] signers);
    event FleetSet(bytes32 indexed productId, address indexed by, bytes32 root, uint32 size, uint32 epoch);

    /// @notice `head` of the product is now (releaseId, terms.version, terms.securityCounter), not paused.
    event ReleasePublished(
        bytes32 indexed productId,
        uint32 indexed releaseId,
        bytes32 indexed imageDigest,
        Terms terms,
        State state,
        uint32 epoch,
        Approvals approvals
    );
    /// @notice `by` is a guardian, or the ledger itself when its halting rule was met.
    event ReleaseHalted(
        bytes32 indexed productId, uint32 indexed releaseId, address indexed by, State state, string reason
    );
    event ReleaseResumed(bytes32 indexed productId, uint32 indexed releaseId, State state, address[] signers);
    event ReleaseSuperseded(bytes32 indexed productId, uint32 indexed releaseId, State state, address[] signers);
    event ReleaseRevoked(bytes32 indexed productId, uint32 indexed releaseId, State state, address[] signers);
    event ReleaseAttested(
        bytes32 indexed productId,
        uint32 indexed releaseId,
        address indexed auditor,
        uint8 kind,
        bytes32 evidence,
        State state
    );
    /// @notice `state` as the receipts make it. If they halt the release, {ReleaseHalted} follows with the state that
    /// is stored.
    event ReceiptsAnchored(
        bytes32 indexed productId,
        uint32 indexed releaseId,
        address indexed reporter,
        uint32 confirmedDelta,
        uint32 failedDelta,
        State state
    );
    event DigestApproved(bytes32 indexed digest, address indexed approver);
    event TermsWithdrawn(bytes32 indexed productId, bytes32 indexed termsHash, address indexed approver);

    // ------------------------------------------------------------------------------------------------
    // Errors: each carries what the caller needs to mend it
    // ------------------------------------------------------------------------------------------------

    error ProductExists(bytes32 productId);
    error UnknownProduct(bytes32 productId);
    error StaleProduct(bytes32 productId, bytes32 stored, bytes32 given);
    error UnknownRelease(bytes32 productId, uint32 releaseId);
    error StaleRelease(bytes32 productId, uint32 releaseId, bytes32 stored, bytes32 given);
    error NotAuthorized(address caller, string role);
    error ApprovalsExpired(uint64 validUntil, uint256 timestamp);
    error TooFewApprovals(uint256 given, uint256 threshold);
    /// @dev `signer` is zero for a signature that is none, or not in its one canonical form.
    error NotAnApprover(address signer);
    error SignersNotAscending(address previous, address signer);
    error NotApprovedOnChain(bytes32 digest, address approver);
    error TermsAreWithdrawn(bytes32 productId, bytes32 termsHash);
    error ProductIsPaused(bytes32 productId, uint64 pausedAt);
    error ProductNotPaused(bytes32 productId);
    error VersionNotRising(uint64 newest, uint64 given);
    error CounterFalling(uint32 newest, uint32 given);
    error InvalidTerms(string field);
    error InvalidRollout(uint256 phase, string field);
    error InvalidGovernance(string field);
    error EpochMismatch(uint32 expected, uint32 given);
    error AmendmentPending(uint64 effectiveAt);
    error NothingPending(bytes32 productId);
    error StaleAmendment(bytes32 productId, bytes32 pending, bytes32 given);
    error OwnRemoval(address guardian);
    error NotATightening(string field);
    error WrongStatus(Status status);
    error AlreadySuperseded(uint32 releaseId);
    error HaltsExhausted(uint32 releaseId);
    error HaltedTooLong(uint256 haltedTotal);
    error AlreadyAttested(uint8 kind);
    error InvalidKind(uint8 kind);
    error LogNotGrowing(uint32 size, uint32 newSize);
    error DeltaExceedsGrowth(uint32 growth, uint256 delta);
    error ReasonTooLong(uint256 length);

    // ------------------------------------------------------------------------------------------------
    // Products and who may act for them
    // ------------------------------------------------------------------------------------------------

    /// @notice Creates the product `keccak256(abi.encode(msg.sender, salt))`; nobody else can take that id.
    /// @dev `governance.epoch` must be 1.
    function createProduct(bytes32 salt, Governance calldata governance) external returns (bytes32 productId);

    /// @notice Changes the governance with M-of-N approvals over {amendmentDigest}. A tightening change takes
    /// effect at once and drops a pending one; any other waits `governanceDelay` and can be cancelled.
    /// @dev `next.epoch` must be the epoch in effect + 1 and `next.governanceDelay` unchanged. Tightening
    /// means: approvers, auditors and reporters only removed, guardians the same or more (where none were
    /// named: every approver that stays among them), the threshold and `releaseDelay` not lower, no key's
    /// `validThrough` raised and none added or dropped, the halting rule the same, the enroller the same or
    /// zero. With a `governanceDelay` of 0 any change takes effect at once.
    function amend(bytes32 productId, Product calldata product, Governance calldata next, Approvals calldata approvals)
        external;

    /// @notice A tightening by one watcher, at once: keys revoked or retired as of the newest release, reporters,
    /// auditors or the enroller removed, the sender itself removed from the approvers (not below the
    /// threshold). Refused while a change is pending: cancel that first.
    /// @dev `next.epoch` must be the epoch in effect + 1, and something besides it must change.
    function restrict(bytes32 productId, Product calldata product, Governance calldata next) external;

    /// @notice Cancels the pending change before it takes effect; one watcher does. A guardian cannot cancel
    /// its own removal: a change that takes the sender from the guardians and else only tightens.
    /// @param next The pending governance, as {AmendmentProposed} carries it.
    function cancel(bytes32 productId, Product calldata product, Governance calldata next) external;

    /// @notice Stops every release of the product at once; one watcher does. No other role can get in between:
    /// neither receipts nor attestations touch the product's commitment.
    function pause(bytes32 productId, Product calldata product) external;

    /// @notice Ends a pause with M-of-N approvals over {decisionDigest} with nonce `head.pauses`.
    function unpause(bytes32 productId, Product calldata product, Approvals calldata approvals) external;

    /// @notice Replaces the fleet by the RFC 6962 root over its device ids in ascending order; the enroller does.
    function setFleet(bytes32 productId, Product calldata product, bytes32 root, uint32 size) external;

    /// @notice Records that the sender approves an EIP-712 digest: for contract wallets, checkable for ever.
    function approve(bytes32 digest) external;

    /// @notice Stops unpublished terms for good; one approver does. On terms that are published it has no effect.
    function withdraw(bytes32 productId, Product calldata product, bytes32 termsHash) external;

    // ------------------------------------------------------------------------------------------------
    // Releases
    // ------------------------------------------------------------------------------------------------

    /// @notice Publishes a release with M-of-N approvals over {approvalDigest}; its terms never change. Refused
    /// while the product is paused.
    /// @dev Not checked here: who signed the manifest. Devices check that against `Governance.keys`, and against
    /// the digest in the terms.
    /// @return releaseId The product's next release id, from 1.
    function publish(Product calldata product, Terms calldata terms, Approvals calldata approvals)
        external
        returns (uint32 releaseId);

    /// @notice Halts an active release; one guardian does. Its clock stands still until it is resumed.
    /// @param reason At most 256 bytes, for people.
    function halt(bytes32 productId, Product calldata product, Release calldata release, string calldata reason)
        external;

    /// @notice Resumes a halted release with M-of-N approvals over {decisionDigest} with nonce `halts`; the
    /// halting rule counts afresh from here.
    function resume(
        bytes32 productId,
        Product calldata product,
        Release calldata release,
        Approvals calldata approvals
    ) external;

    /// @notice Marks a release as superseded, which only sorts: it stays installable as a stepping stone.
    function supersede(
        bytes32 productId,
        Product calldata product,
        Release calldata release,
        Approvals calldata approvals
    ) external;

    /// @notice Forbids a release for good.
    function revoke(
        bytes32 productId,
        Product calldata product,
        Release calldata release,
        Approvals calldata approvals
    ) external;

    /// @notice Attests that evidence of one kind exists for a release; an auditor does, once per kind.
    /// @param kind 0 to 7; see docs/spec/commitments.md for the kinds in use.
    /// @param evidence SHA-256 of the evidence.
    function attest(
        bytes32 productId,
        Product calldata product,
        Release calldata release,
        uint8 kind,
        bytes32 evidence
    ) external;

    /// @notice Appends a batch of receipts to the release's log; a reporter does. Halts the release if the
    /// product's halting rule is met. That `root` extends the log before is the reporter's word: whoever has
    /// the receipts recomputes it.
    /// @param newSize Entries of the log after the batch.
    /// @param root RFC 6962 root of the log after the batch.
    /// @param confirmedDelta Receipts in the batch that count as confirmed.
    /// @param failedDelta Receipts in the batch that count as failed.
    function anchor(
        bytes32 productId,
        Product calldata product,
        Release calldata release,
        uint32 newSize,
        bytes32 root,
        uint32 confirmedDelta,
        uint32 failedDelta
    ) external;

    // ------------------------------------------------------------------------------------------------
    // Reading
    // ------------------------------------------------------------------------------------------------

    /// @notice Whether a device may install a release now, by the ledger's rules, and if not, why.
    function eligible(
        Product calldata product,
        Terms calldata terms,
        uint32 releaseId,
        State calldata state,
        Device calldata device
    ) external view returns (Reason);

    /// @notice The commitment to a product; 0 if there is none.
    function productSlot(bytes32 productId) external view returns (bytes32);

    /// @notice The commitment to a release; 0 if there is none.
    function releaseSlot(bytes32 productId, uint32 releaseId) external view returns (bytes32);

    /// @notice The newest release of a product with this image; 0 if there is none.
    function releaseOf(bytes32 productId, bytes32 imageDigest) external view returns (uint32 releaseId);

    /// @notice The fleet whose receipts count.
    function fleet(bytes32 productId) external view returns (bytes32 root, uint32 size, uint32 epoch);

    /// @notice Whether an account called {approve} for a digest.
    function approved(bytes32 digest, address approver) external view returns (bool);

    /// @notice Whether terms were withdrawn.
    function withdrawn(bytes32 productId, bytes32 termsHash) external view returns (bool);

    /// @notice EIP-712 `hashStruct` of terms.
    function termsHash(Terms calldata terms) external pure returns (bytes32);

    /// @notice What approvers sign to publish: Approval(Terms terms,uint32 epoch,uint64 validUntil).
    function approvalDigest(bytes32 termsHash_, uint32 epoch, uint64 validUntil) external view returns (bytes32);

    /// @notice What approvers sign to amend:
    /// Amendment(bytes32 productId,Governance next,uint32 epoch,uint64 validUntil).
    function amendmentDigest(bytes32 productId, Governance calldata next, uint32 epoch, uint64 validUntil)
        external
        view
        returns (bytes32);

    /// @notice What approvers sign to resume, supersede, revoke or unpause:
    /// Decision(bytes32 productId,uint32 releaseId,uint8 action,uint32 nonce,uint32 epoch,uint64 validUntil).
    /// `nonce` is `halts` to resume, `head.pauses` to unpause, 0 otherwise; `releaseId` is 0 to unpause.
    function decisionDigest(
        bytes32 productId,
        uint32 releaseId,
        Action action,
        uint32 nonce,
        uint32 epoch,
        uint64 validUntil
    ) external view returns (bytes32);
}
