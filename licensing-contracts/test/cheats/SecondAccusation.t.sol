// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {TaskId} from "../../contracts/types/Ids.sol";
import {Statement} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";

/// A customer accuses the host of one request again and again, and is refunded each time; or a friend of the host accuses it
/// first, with bad evidence, so that nobody else can.
contract SecondAccusationTest is Auditing {
    Statement internal bill;

    function setUp() public override {
        super.setUp();
        serve(1_000, 100, 500);
        bill = serve(2_000_000, 0, 700_000);
        report();
        claimAs(host.addr, batchOf(acceptedClaim()));
    }

    function test_a_request_is_punished_and_refunded_once() public {
        TaskId[3] memory tasks = [accuse(payer.addr, bill), accuse(payer.addr, bill), accuse(stranger.addr, bill)];
        for (uint256 i = 0; i < 3; ++i) {
            submit(verdictOn(tasks[i], guilty()), 15);
        }
        later(RESOLVE_WINDOW + 1);
        audit.resolve(tasks[0]);
        uint256 reward = (BOND / 5 - uint256(bill.charge)) * 3_000 / 10_000;
        assertEq(balanceOf(payer.addr), bill.charge + reward, "refund and reward");
        audit.resolve(tasks[1]);
        audit.resolve(tasks[2]);
        assertEq(balanceOf(payer.addr), bill.charge + reward, "no second refund");
        assertEq(balanceOf(stranger.addr), 0, "no second reward");
        assertEq(leases.lease(leaseId).bond, BOND - BOND / 5, "a fifth, once");
        assertEq(audit.hostStake(host.addr), HOST_STAKE * 9 / 10, "a tenth, once");
        assertEq(audit.owed(payer.addr), 2 * TASK_BOND, "accusers who were right have their bonds back");
        assertEq(audit.openCases(leaseId), 0, "closed");
    }

    /// Another account of the same request, made up by the host or signed twice, is the same request.
    function test_another_account_of_the_request_is_the_same_request() public {
        decide(accuse(payer.addr, bill), guilty());
        uint256 left = leases.lease(leaseId).bond;
        ++bill.completionTokens;
        decide(accuse(payer.addr, bill), guilty());
        assertEq(leases.lease(leaseId).bond, left, "punished before");
    }

    function test_two_requests_are_two_offences() public {
        decide(accuse(payer.addr, bill), guilty());
        uint256 left = leases.lease(leaseId).bond;
        Statement memory another = serve(3_000, 0, 900);
        decide(accuse(payer.addr, another), guilty());
        assertEq(leases.lease(leaseId).bond, left - left / 5, "punished again");
    }

    function test_an_accusation_with_bad_evidence_uses_nothing_up() public {
        // The host's friend is first, and fails.
        decide(accuse(stranger.addr, bill), notGuilty());
        assertEq(audit.owed(host.addr), TASK_BOND, "the host is acquitted, and has the accuser's bond");
        assertEq(leases.lease(leaseId).bond, BOND, "and its own");
        decide(accuse(payer.addr, bill), guilty());
        assertGt(balanceOf(payer.addr), bill.charge, "the customer is refunded all the same");
    }

    function test_an_accusation_that_is_open_stops_no_other() public {
        accuse(stranger.addr, bill);
        decide(accuse(payer.addr, bill), guilty());
        assertGt(balanceOf(payer.addr), bill.charge, "refunded");
    }

    /// An honest host that is accused again and again loses nothing, and has a bond for each time.
    function test_an_honest_host_is_acquitted_every_time() public {
        for (uint256 i = 1; i <= 3; ++i) {
            decide(accuse(payer.addr, bill), notGuilty());
            assertEq(audit.owed(host.addr), i * TASK_BOND, "paid for its trouble");
        }
        assertEq(leases.lease(leaseId).bond, BOND, "the bond");
        assertEq(audit.hostStake(host.addr), HOST_STAKE, "the allocation");
        assertTrue(leases.isActive(leaseId), "the lease");
    }
}
