// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AuditServiceManager} from "../contracts/AuditServiceManager.sol";
import {EvidenceCourt} from "../contracts/EvidenceCourt.sol";
import {LeaseManager} from "../contracts/LeaseManager.sol";
import {ModelRegistry} from "../contracts/ModelRegistry.sol";
import {PaymentEscrow} from "../contracts/PaymentEscrow.sol";
import {UsageLog} from "../contracts/UsageLog.sol";
import {IAuditServiceManager} from "../contracts/interfaces/IAuditServiceManager.sol";
import {IEvidenceCourt} from "../contracts/interfaces/IEvidenceCourt.sol";
import {ILeaseManager} from "../contracts/interfaces/ILeaseManager.sol";
import {IModelRegistry} from "../contracts/interfaces/IModelRegistry.sol";
import {IPaymentEscrow} from "../contracts/interfaces/IPaymentEscrow.sol";
import {IUsageLog} from "../contracts/interfaces/IUsageLog.sol";
import {Fixture} from "./utils/Fixture.sol";

/// Constructors refuse what would break an invariant later.
contract DeployTest is Fixture {
    Deployer internal deployer = new Deployer();

    /// Invariant 5: a bond is held until royalty on the last claim can no longer be demanded.
    function testFuzz_invariant_5_bonds_outlast_claims_and_disputes(uint64 claimDelay, uint64 unbondingDelay) public {
        claimDelay = uint64(bound(claimDelay, 0, 60 days));
        unbondingDelay = uint64(bound(unbondingDelay, 0, 120 days));
        bool sound = claimDelay != 0 && unbondingDelay >= claimDelay + registry.MAX_DISPUTE_WINDOW();
        if (!sound) vm.expectRevert(ILeaseManager.Delays.selector);
        deployer.leaseManager(registry, escrow, audit, claimDelay, unbondingDelay);
    }

    /// Terms that could give less time than the shortest or more than the longest dispute window could not be published.
    function testFuzz_dispute_windows_have_room_for_one(uint64 minDisputeWindow) public {
        minDisputeWindow = uint64(bound(minDisputeWindow, 1, 30 days));
        uint64 longest = registry.MAX_DISPUTE_WINDOW();
        if (minDisputeWindow > longest) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    IModelRegistry.DisputeWindow.selector, minDisputeWindow, longest, minDisputeWindow
                )
            );
        }
        deployer.modelRegistry(audit, 1, minDisputeWindow);
    }

    /// Invariant 4: use can be reported and claimed within two claim intervals, however early in its epoch it was.
    function testFuzz_invariant_4_an_epoch_takes_no_longer_than_a_claim_interval(uint64 epochLength) public {
        epochLength = uint64(bound(epochLength, 1, 10 days));
        if (epochLength > CLAIM_INTERVAL) {
            vm.expectRevert(abi.encodeWithSelector(IUsageLog.EpochTooLong.selector, CLAIM_INTERVAL, epochLength));
        }
        deployer.usageLog(leases, epochLength);
    }

    /// Invariant 5: whoever leaves when a case is opened can still be slashed when it ends.
    function testFuzz_invariant_5_cases_end_within_the_deallocation_delay(uint64 verdict, uint64 resolve, uint64 answer)
        public
    {
        uint256 deallocation = uint256(DEALLOCATION_DELAY_BLOCKS) * SECONDS_PER_BLOCK;
        AuditServiceManager.Setup memory setup = defaultSetup(address(court));
        setup.verdictWindow = uint64(bound(verdict, 1, 10 days));
        setup.resolveWindow = uint64(bound(resolve, 1, 10 days));
        uint256 both = uint256(setup.verdictWindow) + setup.resolveWindow;
        if (both >= deallocation) {
            vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.Windows.selector, both, deallocation));
        }
        deployer.auditServiceManager(setup);

        answer = uint64(bound(answer, 1, 20 days));
        vm.mockCall(address(audit), abi.encodeCall(audit.COURT, ()), abi.encode(deployer.next()));
        if (answer >= deallocation) {
            vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.Windows.selector, answer, deallocation));
        }
        deployer.evidenceCourt(audit, usage, answer);
    }

    function test_a_court_is_the_one_that_its_audit_knows() public {
        vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.NotThisCourt.selector, address(court)));
        deployer.evidenceCourt(audit, usage, ANSWER_WINDOW);
    }

    /// Invariant 4: a withdrawal takes two claim intervals at least, and no more than the longest delay; so does the end of a
    /// lease, and whoever enforces royalty.
    function testFuzz_invariant_4_withdrawals_leases_and_royalty_leave_time_for_two_claims(
        uint64 claimInterval,
        uint64 claimDelay,
        uint64 minDisputeWindow
    ) public {
        claimInterval = uint64(bound(claimInterval, 0, 20 days));
        claimDelay = uint64(bound(claimDelay, 1, 20 days));
        minDisputeWindow = uint64(bound(minDisputeWindow, 1, registry.MAX_DISPUTE_WINDOW()));
        ModelRegistry terms = deployer.modelRegistry(audit, 1, minDisputeWindow);
        LeaseManager leases = deployer.leaseManager(terms, escrow, audit, claimDelay, claimDelay + 7 days);
        uint64 both = 2 * claimInterval;
        bool sound = both != 0 && both <= escrow.MAX_WITHDRAW_DELAY() && both <= claimDelay && both <= minDisputeWindow;
        if (!sound) vm.expectRevert(IPaymentEscrow.Delays.selector);
        PaymentEscrow made = deployer.paymentEscrow(leases, usage, address(audit), claimInterval);
        if (sound) {
            assertEq(made.MIN_WITHDRAW_DELAY(), 2 * claimInterval, "withdrawals");
            assertEq(made.GRANT_THAW(), 2 * claimInterval, "revocations");
        }
    }

    function test_nothing_is_deployed_without_what_it_needs() public {
        vm.expectRevert(IModelRegistry.Zero.selector);
        deployer.modelRegistry(IAuditServiceManager(address(0)), 1, 1 days);
        vm.expectRevert(IModelRegistry.Zero.selector);
        deployer.modelRegistry(audit, 0, 1 days);
        vm.expectRevert(IModelRegistry.Zero.selector);
        deployer.modelRegistry(audit, 1, 0);
        vm.expectRevert(ILeaseManager.Zero.selector);
        deployer.leaseManager(IModelRegistry(address(0)), escrow, audit, 1 days, 30 days);
        vm.expectRevert(IUsageLog.Zero.selector);
        deployer.usageLog(ILeaseManager(address(0)), 1);
        vm.expectRevert(IUsageLog.Zero.selector);
        deployer.usageLog(leases, 0);
        vm.expectRevert(IPaymentEscrow.Zero.selector);
        deployer.paymentEscrow(leases, usage, address(0), 1 days);
        vm.expectRevert(IEvidenceCourt.Zero.selector);
        deployer.evidenceCourt(audit, usage, 0);
    }

    function test_an_audit_is_not_deployed_without_what_it_needs() public {
        for (uint256 what = 0; what < 8; ++what) {
            AuditServiceManager.Setup memory setup = defaultSetup(address(court));
            if (what == 0) setup.registry = IModelRegistry(address(0));
            else if (what == 1) setup.leases = ILeaseManager(address(0));
            else if (what == 2) setup.escrow = IPaymentEscrow(address(0));
            else if (what == 3) setup.court = address(0);
            else if (what == 4) setup.verdictWindow = 0;
            else if (what == 5) setup.resolveWindow = 0;
            else if (what == 6) setup.minWeight = 0;
            else setup.strategies = new address[](0);
            vm.expectRevert(IAuditServiceManager.Zero.selector);
            deployer.auditServiceManager(setup);
        }
    }

    /// EIP-170: what is larger than this no chain takes.
    function test_every_contract_fits_a_block() public view {
        address[6] memory deployed =
            [address(registry), address(leases), address(usage), address(escrow), address(audit), address(court)];
        for (uint256 i = 0; i < deployed.length; ++i) {
            assertLe(deployed[i].code.length, 24_576, vm.toString(deployed[i]));
        }
    }

    /// Immutable contracts: nothing in them calls itself an owner or a proxy.
    function test_nobody_owns_anything() public {
        address[6] memory deployed =
            [address(registry), address(leases), address(usage), address(escrow), address(audit), address(court)];
        string[6] memory handles =
            ["owner()", "admin()", "implementation()", "pause()", "upgradeTo(address)", "transferOwnership(address)"];
        for (uint256 i = 0; i < deployed.length; ++i) {
            for (uint256 j = 0; j < handles.length; ++j) {
                (bool answered,) = deployed[i].call(abi.encodeWithSignature(handles[j], address(this)));
                assertFalse(answered, handles[j]);
            }
        }
    }
}

/// Deploys in a call of its own, so that a constructor's revert can be expected.
contract Deployer {
    uint256 private _deployed;

    function next() external view returns (address) {
        // The nonce of a contract starts at 1; a deployment that reverts takes its nonce back.
        uint256 nonce = _deployed + 1;
        require(nonce < 0x80, "a longer encoding");
        return address(uint160(uint256(keccak256(abi.encodePacked(hex"d694", address(this), uint8(nonce))))));
    }

    function modelRegistry(IAuditServiceManager audit, uint64 drawDelay, uint64 minDisputeWindow)
        external
        returns (ModelRegistry)
    {
        ++_deployed;
        return new ModelRegistry(audit, drawDelay, 30 days, minDisputeWindow);
    }

    function leaseManager(
        IModelRegistry registry,
        IPaymentEscrow escrow,
        IAuditServiceManager audit,
        uint64 claimDelay,
        uint64 unbondingDelay
    ) external returns (LeaseManager) {
        ++_deployed;
        return new LeaseManager(registry, escrow, audit, 3 days, claimDelay, unbondingDelay);
    }

    function usageLog(ILeaseManager leases, uint64 epochLength) external returns (UsageLog) {
        ++_deployed;
        return new UsageLog(leases, epochLength, 10 minutes);
    }

    function paymentEscrow(ILeaseManager leases, IUsageLog usage, address audit, uint64 claimInterval)
        external
        returns (PaymentEscrow)
    {
        ++_deployed;
        return new PaymentEscrow(leases, usage, audit, claimInterval);
    }

    function auditServiceManager(AuditServiceManager.Setup memory setup) external returns (AuditServiceManager) {
        ++_deployed;
        return new AuditServiceManager(setup);
    }

    function evidenceCourt(IAuditServiceManager audit, IUsageLog usage, uint64 answerWindow)
        external
        returns (EvidenceCourt)
    {
        ++_deployed;
        return new EvidenceCourt(audit, usage, answerWindow, 0.01 ether);
    }
}
