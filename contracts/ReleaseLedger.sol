// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {IReleaseLedger} from "./IReleaseLedger.sol";
import {Commitments} from "./lib/Commitments.sol";
import {Governing} from "./lib/Governing.sol";
import {Rollout} from "./lib/Rollout.sol";
import {StateWord} from "./lib/StateWord.sol";

/// @title The release ledger
/// @notice What it does is said in {IReleaseLedger}; this is storage, access and events.
///
/// Every act reads in the same order: is the record current, who asks, does the rule allow it, then the
/// new commitment, then the event. Nothing is called from here but the signature precompile.
contract ReleaseLedger is IReleaseLedger {
    using Governing for Governance;
    using Rollout for Head;
    using StateWord for uint256;

    /// @dev A struct, so that a place found once can be handed on; in storage it is the bare 32 bytes.
    struct Commitment {
        bytes32 value;
    }

    struct Fleet {
        bytes32 root;
        uint32 size;
        uint32 epoch;
    }

    uint256 private constant MAX_REASON = 256;
    uint8 private constant MAX_KIND = 7;

    /// @dev Devices prove slots of the first two mappings: their places are part of the format
    /// (docs/spec/commitments.md) and never move.
    mapping(bytes32 productId => bytes32) private _products;
    mapping(bytes32 productId => mapping(uint32 releaseId => Commitment)) private _releases;
    mapping(bytes32 productId => mapping(bytes32 imageDigest => uint32)) private _images;
    mapping(bytes32 productId => Fleet) private _fleets;
    mapping(bytes32 digest => mapping(address approver => bool)) private _approved;
    mapping(bytes32 productId => mapping(bytes32 termsHash => bool)) private _withdrawn;

    // -- products ------------------------------------------------------------------------------------

    /// @inheritdoc IReleaseLedger
    function createProduct(bytes32 salt, Governance calldata governance) external returns (bytes32 productId) {
        productId = keccak256(abi.encode(msg.sender, salt));
        if (_products[productId] != 0) revert ProductExists(productId);
        if (governance.epoch != 1) revert EpochMismatch(1, governance.epoch);
        governance.requireValid();
        Head memory head;
        _products[productId] = Commitments.product(productId, Commitments.governance(governance, 0), 0, 0, head);
        emit ProductCreated(productId, msg.sender, salt, Product(governance, 0, 0, head));
    }

    /// @inheritdoc IReleaseLedger
    function amend(bytes32 productId, Product calldata product, Governance calldata next, Approvals calldata approvals)
        external
    {
        (Governance calldata governance, bytes32 current, bytes32 pending) = _requireCurrent(productId, product);
        bytes32 nextHash = _requireSuccessor(governance, next);
        address[] memory signers = _requireApproved(
            Commitments.amendment(productId, nextHash, governance.epoch, approvals.validUntil), governance, approvals
        );
        if (governance.governanceDelay == 0 || governance.isTightening(next)) {
            _replace(productId, product, next, nextHash, signers);
            return;
        }
        if (_isPending(product)) revert AmendmentPending(product.effectiveAt);
        if (product.effectiveAt != 0) current = pending; // its time has come: it is the one in effect
        uint64 effectiveAt = uint64(block.timestamp + governance.governanceDelay);
        _products[productId] = Commitments.product(productId, current, nextHash, effectiveAt, product.head);
        emit AmendmentProposed(productId, Product(governance, nextHash, effectiveAt, product.head), next, signers);
    }

    /// @inheritdoc IReleaseLedger
    function restrict(bytes32 productId, Product calldata product, Governance calldata next) external {
        (Governance calldata governance,,) = _requireCurrent(productId, product);
        _requireWatcher(governance);
        if (_isPending(product)) revert AmendmentPending(product.effectiveAt);
        bytes32 nextHash = _requireSuccessor(governance, next);
        governance.requireRestriction(next, msg.sender, product.head.latestRelease);
        if (nextHash == Commitments.governance(governance, 1)) revert NotATightening("epoch");
        address[] memory signers = new address[](1);
        signers[0] = msg.sender;
        _replace(productId, product, next, nextHash, signers);
    }

    /// @inheritdoc IReleaseLedger
    function cancel(bytes32 productId, Product calldata product, Governance calldata next) external {
        (Governance calldata governance,, bytes32 pending) = _requireCurrent(productId, product);
        _requireWatcher(governance);
        if (!_isPending(product)) revert NothingPending(productId);
        bytes32 given = Commitments.governance(next, 0);
        if (given != pending) revert StaleAmendment(productId, pending, given);
        if (governance.isRemoval(next, msg.sender)) revert OwnRemoval(msg.sender);
        uint32 epoch = governance.epoch + 1;
        bytes32 current = Commitments.governance(governance, 1);
        _products[productId] = Commitments.product(productId, current, 0, 0, product.head);
        Governance memory changed = governance;
        changed.epoch = epoch;
        emit AmendmentCancelled(productId, msg.sender, Product(changed, 0, 0, product.head));
    }

    /// @inheritdoc IReleaseLedger
    function pause(bytes32 productId, Product calldata product) external {
        (Governance calldata governance, bytes32 current, bytes32 pending) = _requireCurrent(productId, product);
        _requireWatcher(governance);
        _requireNotPaused(productId, product);
        Head memory head = product.head;
        head.pausedAt = uint64(block.timestamp);
        head.pauses += 1;
        _products[productId] = Commitments.product(productId, current, pending, product.effectiveAt, head);
        emit ProductPaused(productId, msg.sender, head);
    }

    /// @inheritdoc IReleaseLedger
    function unpause(bytes32 productId, Product calldata product, Approvals calldata approvals) external {
        (Governance calldata governance, bytes32 current, bytes32 pending) = _requireCurrent(productId, product);
        Head memory head = product.head;
        if (head.pausedAt == 0) revert ProductNotPaused(productId);
        address[] memory signers =
            _requireDecided(productId, 0, Action.Unpause, head.pauses, governance, approvals);
        head.pausedTotal += uint64(block.timestamp) - head.pausedAt;
        head.pausedAt = 0;
        _products[productId] = Commitments.product(productId, current, pending, product.effectiveAt, head);
        emit ProductUnpaused(productId, head, signers);
    }

    /// @inheritdoc IReleaseLedger
    function setFleet(bytes32 productId, Product calldata product, bytes32 root, uint32 size) external {
        (Governance calldata governance,,) = _requireCurrent(productId, product);
        if (msg.sender != governance.enroller) revert NotAuthorized(msg.sender, "enroller");
        Fleet storage current = _fleets[productId];
        uint32 epoch = current.epoch + 1;
        (current.root, current.size, current.epoch) = (root, size, epoch);
        emit FleetSet(productId, msg.sender, root, size, epoch);
    }

    /// @inheritdoc IReleaseLedger
    function approve(bytes32 digest) external {
        _approved[digest][msg.sender] = true;
        emit DigestApproved(digest, msg.sender);
    }

    /// @inheritdoc IReleaseLedger
    function withdraw(bytes32 productId, Product calldata product, bytes32 hash) external {
        (Governance calldata governance,,) = _requireCurrent(productId, product);
        if (!governance.isApprover(msg.sender)) revert NotAuthorized(msg.sender, "approver");
        _withdrawn[productId][hash] = true;
        emit TermsWithdrawn(productId, hash, msg.sender);
    }

    // -- releases ------------------------------------------------------------------------------------

    /// @inheritdoc IReleaseLedger
    function publish(Product calldata product, Terms calldata terms, Approvals calldata approvals)
        external
        returns (uint32 releaseId)
    {
        bytes32 productId = terms.productId;
        (Governance calldata governance, bytes32 current, bytes32 pending) = _requireCurrent(productId, product);
        Head calldata old = product.head;
        _requireNotPaused(productId, product);
        if (terms.version <= old.version) revert VersionNotRising(old.version, terms.version);
        if (terms.securityCounter < old.securityCounter) revert CounterFalling(old.securityCounter, terms.securityCounter);
        Rollout.requireValid(terms, block.timestamp);
        bytes32 hash = Commitments.terms(terms);
        if (_withdrawn[productId][hash]) revert TermsAreWithdrawn(productId, hash);
        address[] memory signers = _requireApproved(
            Commitments.approval(hash, governance.epoch, approvals.validUntil), governance, approvals
        );

        releaseId = old.latestRelease + 1;
        Head memory head =
            Head(releaseId, terms.version, terms.securityCounter, 0, old.pausedTotal, old.pauses);
        uint256 delay = governance.delayFor(signers.length);
        State memory state = State(old.startOf(block.timestamp, delay, terms.notBefore), StateWord.BORN, 0);
        _products[productId] = Commitments.product(productId, current, pending, product.effectiveAt, head);
        _releases[productId][releaseId].value =
            Commitments.release(productId, releaseId, hash, state);
        _images[productId][terms.imageDigest] = releaseId;
        emit ReleasePublished(
            productId, releaseId, terms.imageDigest, terms, state, governance.epoch, approvals
        );
    }

    /// @inheritdoc IReleaseLedger
    function halt(bytes32 productId, Product calldata product, Release calldata release, string calldata reason)
        external
    {
        (Governance calldata governance, Commitment storage place) = _requireCurrent(productId, product, release);
        if (!governance.isGuardian(msg.sender)) revert NotAuthorized(msg.sender, "guardian");
        uint256 word = release.state.word;
        _requireStatus(word, Status.Active);
        if (bytes(reason).length > MAX_REASON) revert ReasonTooLong(bytes(reason).length);
        word = word.halted(product.head.clock(block.timestamp));
        State memory state = _update(place, productId, release, word, release.state.logRoot);
        emit ReleaseHalted(productId, release.releaseId, msg.sender, state, reason);
    }

    /// @inheritdoc IReleaseLedger
    function resume(
        bytes32 productId,
        Product calldata product,
        Release calldata release,
        Approvals calldata approvals
    ) external {
        (Governance calldata governance, Commitment storage place) = _requireCurrent(productId, product, release);
        uint256 word = release.state.word;
        _requireStatus(word, Status.Halted);
        uint8 nonce = word.halts();
        if (nonce == StateWord.MAX_HALTS) revert HaltsExhausted(release.releaseId);
        address[] memory signers =
            _requireDecided(productId, release.releaseId, Action.Resume, nonce, governance, approvals);
        word = word.resumed(product.head.clock(block.timestamp));
        State memory state = _update(place, productId, release, word, release.state.logRoot);
        emit ReleaseResumed(productId, release.releaseId, state, signers);
    }

    /// @inheritdoc IReleaseLedger
    function supersede(
        bytes32 productId,
        Product calldata product,
        Release calldata release,
        Approvals calldata approvals
    ) external {
        (Governance calldata governance, Commitment storage place) = _requireCurrent(productId, product, release);
        uint256 word = release.state.word;
        if (word.superseded()) revert AlreadySuperseded(release.releaseId);
        address[] memory signers =
            _requireDecided(productId, release.releaseId, Action.Supersede, 0, governance, approvals);
        State memory state = _update(place, productId, release, word.withSuperseded(), release.state.logRoot);
        emit ReleaseSuperseded(productId, release.releaseId, state, signers);
    }

    /// @inheritdoc IReleaseLedger
    function revoke(
        bytes32 productId,
        Product calldata product,
        Release calldata release,
        Approvals calldata approvals
    ) external {
        (Governance calldata governance, Commitment storage place) = _requireCurrent(productId, product, release);
        uint256 word = release.state.word;
        if (word.status() == Status.Revoked) revert WrongStatus(Status.Revoked);
        address[] memory signers =
            _requireDecided(productId, release.releaseId, Action.Revoke, 0, governance, approvals);
        State memory state = _update(place, productId, release, word.revoked(), release.state.logRoot);
        emit ReleaseRevoked(productId, release.releaseId, state, signers);
    }

    /// @inheritdoc IReleaseLedger
    function attest(
        bytes32 productId,
        Product calldata product,
        Release calldata release,
        uint8 kind,
        bytes32 evidence
    ) external {
        (Governance calldata governance, Commitment storage place) = _requireCurrent(productId, product, release);
        if (!governance.isAuditor(msg.sender)) revert NotAuthorized(msg.sender, "auditor");
        if (kind > MAX_KIND) revert InvalidKind(kind);
        uint256 word = release.state.word.withAttested(kind);
        if (word == release.state.word) revert AlreadyAttested(kind);
        State memory state = _update(place, productId, release, word, release.state.logRoot);
        emit ReleaseAttested(productId, release.releaseId, msg.sender, kind, evidence, state);
    }

    /// @inheritdoc IReleaseLedger
    function anchor(
        bytes32 productId,
        Product calldata product,
        Release calldata release,
        uint32 newSize,
        bytes32 root,
        uint32 confirmedDelta,
        uint32 failedDelta
    ) external {
        (Governance calldata governance, Commitment storage place) = _requireCurrent(productId, product, release);
        if (!governance.isReporter(msg.sender)) revert NotAuthorized(msg.sender, "reporter");
        uint256 word = release.state.word;
        uint32 size = word.logSize();
        if (newSize <= size) revert LogNotGrowing(size, newSize);
        uint256 delta = uint256(confirmedDelta) + failedDelta;
        if (delta > newSize - size) revert DeltaExceedsGrowth(newSize - size, delta);
        word = word.withReceipts(newSize, confirmedDelta, failedDelta);
        State memory state = State(release.state.startsAt, word, root);
        if (word.status() != Status.Active || !word.meets(governance.haltRule)) {
            _update(place, productId, release, word, root);
            emit ReceiptsAnchored(productId, release.releaseId, msg.sender, confirmedDelta, failedDelta, state);
            return;
        }
        State memory halted = _update(place, productId, release, word.halted(product.head.clock(block.timestamp)), root);
        emit ReceiptsAnchored(productId, release.releaseId, msg.sender, confirmedDelta, failedDelta, state);
        emit ReleaseHalted(productId, release.releaseId, address(this), halted, "halting rule met");
    }

    // -- reading -------------------------------------------------------------------------------------

    /// @inheritdoc IReleaseLedger
    function eligible(
        Product calldata product,
        Terms calldata terms,
        uint32 releaseId,
        State calldata state,
        Device calldata device
    ) external view returns (Reason) {
        _requireCurrent(terms.productId, product);
        bytes32 given = Commitments.release(terms.productId, releaseId, Commitments.terms(terms), state);
        _requireStored(terms.productId, releaseId, given);
        return product.head.eligible(terms, releaseId, state, device, block.timestamp);
    }

    /// @inheritdoc IReleaseLedger
    function productSlot(bytes32 productId) external view returns (bytes32) {
        return _products[productId];
    }

    /// @inheritdoc IReleaseLedger
    function releaseSlot(bytes32 productId, uint32 releaseId) external view returns (bytes32) {
        return _releases[productId][releaseId].value;
    }

    /// @inheritdoc IReleaseLedger
    function releaseOf(bytes32 productId, bytes32 imageDigest) external view returns (uint32 releaseId) {
        return _images[productId][imageDigest];
    }

    /// @inheritdoc IReleaseLedger
    function fleet(bytes32 productId) external view returns (bytes32 root, uint32 size, uint32 epoch) {
        Fleet storage current = _fleets[productId];
        return (current.root, current.size, current.epoch);
    }

    /// @inheritdoc IReleaseLedger
    function approved(bytes32 digest, address approver) external view returns (bool) {
        return _approved[digest][approver];
    }

    /// @inheritdoc IReleaseLedger
    function withdrawn(bytes32 productId, bytes32 hash) external view returns (bool) {
        return _withdrawn[productId][hash];
    }

    /// @inheritdoc IReleaseLedger
    function termsHash(Terms calldata terms) external pure returns (bytes32) {
        return Commitments.terms(terms);
    }

    /// @inheritdoc IReleaseLedger
    function approvalDigest(bytes32 hash, uint32 epoch, uint64 validUntil) external view returns (bytes32) {
        return Commitments.approval(hash, epoch, validUntil);
    }

    /// @inheritdoc IReleaseLedger
    function amendmentDigest(bytes32 productId, Governance calldata next, uint32 epoch, uint64 validUntil)
        external
        view
        returns (bytes32)
    {
        return Commitments.amendment(productId, Commitments.governance(next, 0), epoch, validUntil);
    }

    /// @inheritdoc IReleaseLedger
    function decisionDigest(
        bytes32 productId,
        uint32 releaseId,
        Action action,
        uint32 nonce,
        uint32 epoch,
        uint64 validUntil
    ) external view returns (bytes32) {
        return Commitments.decision(productId, releaseId, action, nonce, epoch, validUntil);
    }

    // -- is the record current -----------------------------------------------------------------------

    /// @dev Refuses a product that is not the committed one. Returns the governance in effect, and the two hashes
    /// as the commitment orders them, for acts that change the head only.
    function _requireCurrent(bytes32 productId, Product calldata product)
        private
        view
        returns (Governance calldata governance, bytes32 current, bytes32 pending)
    {
        bytes32 stored = _products[productId];
        bytes32 given;
        (given, governance, current, pending) = Commitments.product(productId, product, block.timestamp);
        if (given != stored) {
            if (stored == 0) revert UnknownProduct(productId);
            revert StaleProduct(productId, stored, given);
        }
    }

    /// @dev The same for a release of it. Returns the governance in effect, and where the commitment is stored.
    function _requireCurrent(bytes32 productId, Product calldata product, Release calldata release)
        private
        view
        returns (Governance calldata governance, Commitment storage place)
    {
        (governance,,) = _requireCurrent(productId, product);
        place = _requireStored(productId, release.releaseId, Commitments.release(productId, release));
    }

    function _requireStored(bytes32 productId, uint32 releaseId, bytes32 given)
        private
        view
        returns (Commitment storage place)
    {
        place = _releases[productId][releaseId];
        bytes32 stored = place.value;
        if (given != stored) {
            if (stored == 0) revert UnknownRelease(productId, releaseId);
            revert StaleRelease(productId, releaseId, stored, given);
        }
    }

    // -- who asks ------------------------------------------------------------------------------------

    function _requireWatcher(Governance calldata governance) private view {
        if (!governance.isWatcher(msg.sender)) revert NotAuthorized(msg.sender, "watcher");
    }

    function _requireDecided(
        bytes32 productId,
        uint32 releaseId,
        Action action,
        uint32 nonce,
        Governance calldata governance,
        Approvals calldata approvals
    ) private view returns (address[] memory signers) {
        bytes32 digest = Commitments.decision(
            productId, releaseId, action, nonce, governance.epoch, approvals.validUntil
        );
        return _requireApproved(digest, governance, approvals);
    }

    /// @dev Refuses fewer than M approvals of `digest` by different approvers of `governance`. Every signature
    /// given must count: a surplus one that does not is refused, not skipped.
    function _requireApproved(bytes32 digest, Governance calldata governance, Approvals calldata approvals)
        private
        view
        returns (address[] memory signers)
    {
        if (block.timestamp > approvals.validUntil) revert ApprovalsExpired(approvals.validUntil, block.timestamp);
        uint256 count = approvals.signatures.length;
        if (count < governance.threshold) revert TooFewApprovals(count, governance.threshold);
        signers = new address[](count);
        address previous = address(0);
        for (uint256 i = 0; i < count; ++i) {
            address signer = _signerOf(digest, approvals.signatures[i]);
            if (!governance.isApprover(signer)) revert NotAnApprover(signer);
            if (signer <= previous) revert SignersNotAscending(previous, signer);
            signers[i] = previous = signer;
        }
    }

    /// @dev Zero, which is never an approver, for a signature that is none or not in its one canonical form.
    function _signerOf(bytes32 digest, Signature calldata signature) private view returns (address signer) {
        if (signature.vs == 0) {
            if (uint256(signature.r) >> 160 != 0) revert NotAnApprover(address(0));
            signer = address(uint160(uint256(signature.r)));
            if (!_approved[digest][signer]) revert NotApprovedOnChain(digest, signer);
        } else {
            (signer,,) = ECDSA.tryRecover(digest, signature.r, signature.vs);
        }
    }

    // -- does the rule allow it ----------------------------------------------------------------------

    function _requireNotPaused(bytes32 productId, Product calldata product) private pure {
        if (product.head.pausedAt != 0) revert ProductIsPaused(productId, product.head.pausedAt);
    }

    function _requireStatus(uint256 word, Status expected) private pure {
        if (word.status() != expected) revert WrongStatus(word.status());
    }

    /// @dev Refuses what can never follow `governance`; returns its hash.
    function _requireSuccessor(Governance calldata governance, Governance calldata next)
        private
        pure
        returns (bytes32)
    {
        if (next.epoch != governance.epoch + 1) revert EpochMismatch(governance.epoch + 1, next.epoch);
        next.requireValid();
        if (next.governanceDelay != governance.governanceDelay) revert InvalidGovernance("governanceDelay");
        return Commitments.governance(next, 0);
    }

    function _isPending(Product calldata product) private view returns (bool) {
        return product.effectiveAt > block.timestamp;
    }

    // -- new commitments -----------------------------------------------------------------------------

    /// @dev `next` takes effect at once; whatever was pending is dropped.
    function _replace(
        bytes32 productId,
        Product calldata product,
        Governance calldata next,
        bytes32 nextHash,
        address[] memory signers
    ) private {
        _products[productId] = Commitments.product(productId, nextHash, 0, 0, product.head);
        emit GovernanceChanged(productId, Product(next, 0, 0, product.head), signers);
    }

    function _update(
        Commitment storage place,
        bytes32 productId,
        Release calldata release,
        uint256 word,
        bytes32 logRoot
    ) private returns (State memory state) {
        (state.startsAt, state.word, state.logRoot) = (release.state.startsAt, word, logRoot);
        place.value = Commitments.release(productId, release, word, logRoot);
    }
}
