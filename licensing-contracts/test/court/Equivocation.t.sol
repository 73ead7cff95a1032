// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {IEvidenceCourt} from "../../contracts/interfaces/IEvidenceCourt.sol";
import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {ChannelId, LeaseId} from "../../contracts/types/Ids.sol";
import {Statement} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";

/// Statements that cannot both be true.
contract EquivocationTest is Auditing {
    Statement internal first;
    Statement internal second;

    function setUp() public override {
        super.setUp();
        first = serve(1_000, 100, 500);
        second = serve(2_000, 0, 700);
    }

    function prove() internal {
        bytes memory firstSignature = signed(first);
        bytes memory secondSignature = signed(second);
        vm.prank(payer.addr);
        court.proveEquivocation(first, firstSignature, second, secondSignature);
    }

    function expectNoProof(bytes memory error) internal {
        bytes memory firstSignature = signed(first);
        bytes memory secondSignature = signed(second);
        vm.expectRevert(error);
        court.proveEquivocation(first, firstSignature, second, secondSignature);
    }

    function expectHonest() internal {
        expectNoProof(abi.encodeWithSelector(IEvidenceCourt.NoContradiction.selector));
    }

    function test_two_accounts_of_one_request_cost_half() public {
        second = first;
        ++second.completionTokens;
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.HostPunished(
            leaseId, host.addr, IAuditServiceManager.Offence.Equivocation, BOND / 2, 0.5e18
        );
        prove();
        assertEq(balanceOf(payer.addr), uint256(BOND) / 2 * 3_000 / 10_000, "the reporter");
        // A third account of the same request is the same offence.
        ++second.completionTokens;
        bytes32 offence = keccak256(abi.encode("equivocation", leaseId, channelId, uint64(0), uint48(1)));
        expectNoProof(abi.encodeWithSelector(IEvidenceCourt.AlreadyPunished.selector, offence));
    }

    function testFuzz_an_account_that_does_not_go_on_where_the_last_one_ended_is_a_contradiction(uint256 what) public {
        what = bound(what, 0, 3);
        if (what == 0) second.previous = keccak256("elsewhere");
        else if (what == 1) ++second.promptTokensBefore;
        else if (what == 2) ++second.cachedTokensBefore;
        else ++second.completionTokensBefore;
        prove();
        assertEq(leases.lease(leaseId).bond, BOND / 2, "punished");
    }

    /// An honest host's statements, in whatever pair, contradict nothing.
    function testFuzz_an_honest_host_never_contradicts_itself(uint256 a, uint256 b) public {
        Statement[] memory all = new Statement[](8);
        (all[0], all[1]) = (first, second);
        all[2] = serve(0, 0, 0);
        all[3] = serve(5, 5, 5);
        all[4] = serveOn(channelId, 1, 1_000, 100, 500);
        all[5] = serveOn(channelId, 1, 7, 0, 0);
        all[6] = serveOn(ChannelId.wrap(0), 0, 1_000, 100, 500);
        all[7] = serveOn(ChannelId.wrap(0), 0, 9, 0, 9);
        first = all[bound(a, 0, 7)];
        second = all[bound(b, 0, 7)];
        expectHonest();
    }

    function test_accounts_of_two_leases_are_not_compared() public {
        LeaseId other = openLease(termsId);
        second = first;
        second.leaseId = other;
        ++second.completionTokens;
        expectHonest();
    }

    function test_a_forged_account_accuses_nobody() public {
        second = first;
        ++second.completionTokens;
        bytes memory genuine = signed(first);
        bytes memory forged = sign(stranger, leases.statementDigest(second));
        vm.expectRevert(abi.encodeWithSelector(Signatures.WrongSigner.selector, leaseKey.addr, stranger.addr));
        court.proveEquivocation(first, genuine, second, forged);
        vm.expectRevert(abi.encodeWithSelector(Signatures.WrongSigner.selector, leaseKey.addr, stranger.addr));
        court.proveEquivocation(second, forged, first, genuine);
    }
}
