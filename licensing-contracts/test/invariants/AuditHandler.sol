// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {IEvidenceCourt} from "../../contracts/interfaces/IEvidenceCourt.sol";
import {BN254} from "../../contracts/libraries/BN254.sol";
import {MerkleSum} from "../../contracts/libraries/MerkleSum.sol";
import {TaskId} from "../../contracts/types/Ids.sol";
import {Statement, Verdict} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";

/// @title A host that hides some of what it serves, accusers that are right or wrong, and validators that disagree
/// @dev Keeps count of what must come of it. What must be refused is tried, and its success reverts.
contract AuditHandler is Auditing {
    struct Served {
        Statement statement;
        bytes32 digest;
        uint64 epoch;
        bool hidden;
        bool asked;
        bool open;
        uint64 askedAt;
        bool convicted;
    }

    Served[] internal served;
    TaskId[] internal tasks;
    uint64 internal pendingEpoch;
    mapping(uint64 epoch => uint256) internal reportOf; // index + 1
    mapping(bytes32 request => bool) internal punishedRequests;

    uint256 public openChallenges;
    uint256 public openTasks;
    uint256 public convictions;
    uint256 public acquittals;
    uint256 public refusedAccusations;
    uint256 public verdictsSubmitted;
    uint256 public verdictsRefused;

    constructor() {
        setUp();
        vm.deal(payer.addr, 1_000_000 ether);
        vm.deal(stranger.addr, 1_000_000 ether);
    }

    // The host

    function doServe(uint256 lane, uint48 tokens, bool hides) external {
        Served storage one = served.push();
        tokens = uint48(bound(tokens, 1, 100_000));
        // What is hidden has a lane of its own, so that the others' histories stay whole.
        uint64 number = hides ? uint64(1_000 + served.length) : uint64(lane % 3);
        Statement memory statement = draft(channelId, number, tokens, tokens / 3, tokens / 2);
        one.statement = statement;
        one.digest = leases.statementDigest(statement);
        one.epoch = currentEpoch();
        one.hidden = hides;
        if (hides) return;
        take(statement);
        pendingEpoch = one.epoch;
    }

    function doPass(uint256 duration) external {
        flush();
        later(bound(duration, 1 hours, 20 hours));
    }

    function doAnswer(uint256 which) external {
        if (served.length == 0) return;
        Served storage one = served[which % served.length];
        if (!one.open || one.hidden) return;
        uint256 index = reportOf[one.epoch] - 1;
        court.answerInclusion(one.digest, index, leafOf(one.statement), pathIn(index, one.digest));
        one.open = false;
        --openChallenges;
        ++acquittals;
    }

    // Accusers

    function doAsk(uint256 which) external {
        if (served.length == 0) return;
        Served storage one = served[which % served.length];
        if (one.asked || block.timestamp < usage.challengeableFrom(one.epoch)) return;
        flush();
        bytes memory signature = signed(one.statement);
        vm.prank(payer.addr);
        court.challengeInclusion{value: CHALLENGE_BOND}(one.statement, signature);
        (one.asked, one.open, one.askedAt) = (true, true, uint64(block.timestamp));
        ++openChallenges;
    }

    /// Ends a challenge by silence. The host is honest about what it reported, and answers that first.
    function doResolveSilence(uint256 which) external {
        if (served.length == 0) return;
        Served storage one = served[which % served.length];
        if (!one.open || !one.hidden || block.timestamp <= one.askedAt + ANSWER_WINDOW) return;
        court.resolveInclusion(one.digest);
        one.open = false;
        --openChallenges;
        if (!one.convicted) ++convictions;
        one.convicted = true;
    }

    /// Tries to prove any statement omitted: succeeds for hidden ones, once, and for no other.
    function doProveOmission(uint256 which) external {
        if (served.length == 0) return;
        Served storage one = served[which % served.length];
        if (block.timestamp < usage.challengeableFrom(one.epoch)) return;
        flush();
        IEvidenceCourt.Absence memory absence = absenceOf(one);
        bytes memory signature = signed(one.statement);
        vm.prank(payer.addr);
        try court.proveOmission(one.statement, signature, absence) {
            require(one.hidden, "an included statement was proven omitted");
            require(!one.convicted, "one omission was punished twice");
            one.convicted = true;
            ++convictions;
        } catch {
            require(!one.hidden || one.convicted, "a hidden statement could not be proven omitted");
            ++refusedAccusations;
        }
    }

    /// Tries to show that two statements contradict each other: they never do.
    function doProveEquivocation(uint256 a, uint256 b) external {
        if (served.length == 0) return;
        Statement memory first = served[a % served.length].statement;
        Statement memory second = served[b % served.length].statement;
        bytes memory firstSignature = signed(first);
        bytes memory secondSignature = signed(second);
        vm.prank(payer.addr);
        try court.proveEquivocation(first, firstSignature, second, secondSignature) {
            revert("an honest history was called a contradiction");
        } catch {
            ++refusedAccusations;
        }
    }

    /// Tries to show that a statement is dated in the future: none is.
    function doProvePostdating(uint256 which) external {
        if (served.length == 0) return;
        Statement memory statement = served[which % served.length].statement;
        bytes memory signature = signed(statement);
        try court.provePostdating(statement, signature) {
            revert("an honest date was called postdated");
        } catch {
            ++refusedAccusations;
        }
    }

    // Validators

    /// A customer accuses the host under a statement, which was punished before or not.
    function doAccuse(uint256 which) external {
        if (served.length == 0 || !taskable()) return;
        tasks.push(accuse(payer.addr, served[which % served.length].statement));
        ++openTasks;
    }

    function doOpenTask() external {
        if (!taskable()) return;
        tasks.push(openTask(IAuditServiceManager.TaskKind.TokenCount));
        ++openTasks;
    }

    /// Some validators sign a verdict: a quorum decides, fewer do not.
    function doVerdict(uint256 which, uint256 signers, bool isGuilty) external {
        if (tasks.length == 0) return;
        TaskId id = tasks[which % tasks.length];
        IAuditServiceManager.Task memory task = audit.task(id);
        Verdict memory verdict = verdictOn(id, isGuilty ? guilty() : notGuilty());
        signers %= 16;
        (BN254.G1Point memory signature, BN254.G2Point memory keyG2) = aggregate(audit.verdictDigest(verdict), signers);
        bool quorum = heads(signers) >= 3;
        bool inTime = task.state != IAuditServiceManager.TaskState.Closed && block.timestamp <= task.deadline;
        bool news = task.state == IAuditServiceManager.TaskState.Open || uint8(task.outcome) != verdict.outcome;
        try audit.submitVerdict(verdict, signature, keyG2, nonSigners(signers)) {
            require(quorum && inTime && news, "a verdict counted that should not");
            ++verdictsSubmitted;
            if (task.state == IAuditServiceManager.TaskState.Decided) --openTasks;
        } catch {
            require(!(quorum && inTime && news), "a verdict did not count that should");
            ++verdictsRefused;
        }
    }

    function doResolve(uint256 which) external {
        if (tasks.length == 0) return;
        TaskId id = tasks[which % tasks.length];
        IAuditServiceManager.Task memory task = audit.task(id);
        if (task.state == IAuditServiceManager.TaskState.Closed || block.timestamp <= task.deadline) return;
        uint128 bond = leases.lease(leaseId).bond;
        audit.resolve(id);
        --openTasks;
        if (task.state != IAuditServiceManager.TaskState.Decided || uint8(task.outcome) != guilty()) return;
        ++convictions;
        bytes32 request = task.bill.request;
        if (request == 0) return;
        require(!punishedRequests[request] || leases.lease(leaseId).bond == bond, "one request was punished twice");
        punishedRequests[request] = true;
    }

    function doWithdrawOwed(uint256 which) external {
        address account = accounts(which % 3);
        if (audit.owed(account) != 0) audit.withdrawOwed(payable(account));
        if (court.owed(account) != 0) court.withdrawOwed(payable(account));
    }

    // Inside

    function flush() internal {
        if (pending.length == 0) return;
        toEndOf(pendingEpoch);
        reportOf[pendingEpoch] = reportEpoch(pendingEpoch) + 1;
    }

    function taskable() internal view returns (bool) {
        return block.timestamp <= leases.account(leaseId).claimableUntil;
    }

    function absenceOf(Served storage one) internal view returns (IEvidenceCourt.Absence memory absence) {
        uint256 index = reportOf[one.epoch];
        if (index != 0) {
            absence.firstReport = index - 1;
            absence.neighbours = new MerkleSum.Neighbour[][](1);
            absence.neighbours[0] = neighboursIn(index - 1, one.digest);
            return absence;
        }
        // Nothing was reported for the epoch: it would stand behind those of earlier ones.
        uint256 count = usage.reports(leaseId);
        while (absence.firstReport < count && usage.report(leaseId, absence.firstReport).epoch < one.epoch) {
            ++absence.firstReport;
        }
    }

    function heads(uint256 signers) internal pure returns (uint256 count) {
        for (; signers != 0; signers >>= 1) {
            count += signers & 1;
        }
    }

    // What the invariants look at

    function accounts(uint256 which) public view returns (address) {
        if (which == 0) return host.addr;
        if (which == 1) return payer.addr;
        return stranger.addr;
    }

    function bondLeft() external view returns (uint256) {
        return leases.lease(leaseId).bond;
    }

    function bondShared() external view returns (uint256) {
        return balanceOf(creator.addr) + balanceOf(payer.addr) + balanceOf(stranger.addr);
    }

    function allocationLeft() external view returns (uint256) {
        return audit.hostStake(host.addr);
    }

    function allocationBurned() external view returns (uint256) {
        return strategies.getBurnableShares(strategy);
    }

    function casesOpen() external view returns (uint256) {
        return audit.openCases(leaseId);
    }

    function coins()
        external
        view
        returns (uint256 atAudit, uint256 owedByAudit, uint256 atCourt, uint256 owedByCourt)
    {
        for (uint256 i = 0; i < 3; ++i) {
            owedByAudit += audit.owed(accounts(i));
            owedByCourt += court.owed(accounts(i));
        }
        return (address(audit).balance, owedByAudit, address(court).balance, owedByCourt);
    }

    function bonds() external pure returns (uint256 collateral, uint256 stake, uint256 task, uint256 challenge) {
        return (BOND, HOST_STAKE, TASK_BOND, CHALLENGE_BOND);
    }
}
