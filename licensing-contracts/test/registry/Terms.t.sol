// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IModelRegistry} from "../../contracts/interfaces/IModelRegistry.sol";
import {MessageHash} from "../../contracts/libraries/MessageHash.sol";
import {ModelId, TermsId} from "../../contracts/types/Ids.sol";
import {LicenseTerms, Split} from "../../contracts/types/Messages.sol";
import {Fixture} from "../utils/Fixture.sol";

contract TermsTest is Fixture {
    function publish(LicenseTerms memory terms, Split[] memory splits) internal returns (TermsId) {
        vm.prank(creator.addr);
        return registry.publishTerms(terms, splits);
    }

    function expectRefusal(LicenseTerms memory terms, bytes memory error) internal {
        vm.expectRevert(error);
        publish(terms, noSplits());
    }

    function test_published_terms_can_be_read_back_whole() public {
        LicenseTerms memory terms = defaultTerms(modelId);
        Split[] memory splits = twoSplits();
        terms.splitRoot = MessageHash.splitRoot(splits);
        // The second version: the fixture published the first.
        TermsId expected = TermsId.wrap(digestOf(terms));
        vm.expectEmit(address(registry));
        emit IModelRegistry.TermsPublished(modelId, expected, terms, splits);
        TermsId id = publish(terms, splits);
        assertEq(TermsId.unwrap(id), TermsId.unwrap(expected), "the EIP-712 digest");
        assertEq(abi.encode(registry.terms(id)), abi.encode(terms), "every member");
        assertTrue(registry.termsOpen(id), "open for leases");
        assertEq(registry.model(modelId).termsVersion, 2, "counted");
    }

    function digestOf(LicenseTerms memory terms) internal view returns (bytes32) {
        bytes32 separator = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Hallmark"),
                keccak256("1"),
                block.chainid,
                address(registry)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", separator, MessageHash.hash(terms)));
    }

    function test_versions_follow_one_another() public {
        LicenseTerms memory terms = defaultTerms(modelId);
        terms.version = 3;
        expectRefusal(terms, abi.encodeWithSelector(IModelRegistry.TermsVersion.selector, 2, 3));
        terms.version = 1;
        expectRefusal(terms, abi.encodeWithSelector(IModelRegistry.TermsVersion.selector, 2, 1));
    }

    function test_only_the_creator_publishes() public {
        LicenseTerms memory terms = defaultTerms(modelId);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NotCreator.selector, stranger.addr));
        vm.prank(stranger.addr);
        registry.publishTerms(terms, noSplits());
    }

    function test_terms_that_could_not_be_kept_are_refused_each_by_name() public {
        LicenseTerms memory terms = defaultTerms(modelId);
        terms.paymentToken = makeAddr("no code");
        expectRefusal(terms, abi.encodeWithSelector(IModelRegistry.TokenWithoutCode.selector, terms.paymentToken));

        terms = defaultTerms(modelId);
        (terms.royaltyBps, terms.validatorBps) = (9_999, 2);
        expectRefusal(terms, abi.encodeWithSelector(IModelRegistry.SharesExceedWhole.selector, 10_001));

        terms = defaultTerms(modelId);
        terms.floorCached = terms.floorPrompt + 1;
        expectRefusal(
            terms,
            abi.encodeWithSelector(IModelRegistry.CachedFloorAboveFloor.selector, terms.floorCached, terms.floorPrompt)
        );
    }

    /// Royalty that is enforced takes vouchers their worth, so a host needs the time to claim; and bonds are not held for ever.
    function testFuzz_a_dispute_window_is_neither_short_nor_long(uint64 window) public {
        uint64 longest = registry.MAX_DISPUTE_WINDOW();
        LicenseTerms memory terms = defaultTerms(modelId);
        terms.disputeWindow = uint64(bound(window, 0, 2 * longest));
        if (terms.disputeWindow < MIN_DISPUTE_WINDOW || terms.disputeWindow > longest) {
            expectRefusal(
                terms,
                abi.encodeWithSelector(
                    IModelRegistry.DisputeWindow.selector, MIN_DISPUTE_WINDOW, longest, terms.disputeWindow
                )
            );
        } else {
            assertEq(registry.terms(publishTerms(terms)).disputeWindow, terms.disputeWindow, "published");
        }
    }

    function test_a_period_is_not_empty_not_over_and_not_for_ever() public {
        LicenseTerms memory terms = defaultTerms(modelId);
        terms.validTo = terms.validFrom;
        expectRefusal(terms, abi.encodeWithSelector(IModelRegistry.Period.selector, terms.validFrom, terms.validFrom));
        (terms.validFrom, terms.validTo) = (START - 10, START);
        expectRefusal(terms, abi.encodeWithSelector(IModelRegistry.Period.selector, START - 10, START));
        terms.validTo = uint64(type(uint40).max) + 1;
        expectRefusal(terms, abi.encodeWithSelector(IModelRegistry.Period.selector, START - 10, terms.validTo));
        terms.validTo = type(uint40).max;
        publish(terms, noSplits());
    }

    function test_the_recipients_are_those_of_the_terms() public {
        LicenseTerms memory terms = defaultTerms(modelId);
        Split[] memory splits = twoSplits();
        bytes32 root = MessageHash.splitRoot(splits);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.SplitRoot.selector, bytes32(0), root));
        publish(terms, splits);
        terms.splitRoot = root;
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.SplitRoot.selector, root, bytes32(0)));
        publish(terms, noSplits());
    }

    function test_recipients_that_could_not_be_paid_are_refused() public {
        LicenseTerms memory terms = defaultTerms(modelId);
        Split[] memory splits = twoSplits();
        splits[1].recipient = address(0);
        refuseSplits(
            terms, splits, abi.encodeWithSelector(IModelRegistry.SplitShare.selector, address(0), splits[1].bps)
        );
        splits = twoSplits();
        splits[0].bps = 0;
        refuseSplits(terms, splits, abi.encodeWithSelector(IModelRegistry.SplitShare.selector, splits[0].recipient, 0));
        splits = twoSplits();
        (splits[0].bps, splits[1].bps) = (9_000, 1_001);
        refuseSplits(terms, splits, abi.encodeWithSelector(IModelRegistry.SharesExceedWhole.selector, 10_001));
        splits = new Split[](9);
        for (uint256 i = 0; i < splits.length; ++i) {
            splits[i] = Split(stranger.addr, 1);
        }
        refuseSplits(terms, splits, abi.encodeWithSelector(IModelRegistry.TooManySplits.selector, 9, 8));
    }

    function refuseSplits(LicenseTerms memory terms, Split[] memory splits, bytes memory error) internal {
        terms.splitRoot = MessageHash.splitRoot(splits);
        vm.expectRevert(error);
        publish(terms, splits);
    }

    function test_closed_terms_take_no_leases_and_stay_what_they_were() public {
        bytes memory before = abi.encode(registry.terms(termsId));
        vm.expectEmit(address(registry));
        emit IModelRegistry.TermsClosed(modelId, termsId);
        vm.prank(creator.addr);
        registry.closeTerms(termsId);
        assertFalse(registry.termsOpen(termsId), "closed");
        assertEq(abi.encode(registry.terms(termsId)), before, "not changed");
        assertTrue(leases.isActive(leaseId), "running leases go on");
    }

    function test_only_the_creator_closes_and_only_what_is_known() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NotCreator.selector, stranger.addr));
        vm.prank(stranger.addr);
        registry.closeTerms(termsId);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.UnknownTerms.selector, bytes32("unknown")));
        vm.prank(creator.addr);
        registry.closeTerms(TermsId.wrap("unknown"));
    }

    /// Invariant 3, its root: nothing changes terms that are out.
    function testFuzz_nobody_changes_terms_that_are_published(address caller, uint16 royaltyBps) public {
        bytes memory before = abi.encode(registry.terms(termsId));
        LicenseTerms memory terms = defaultTerms(modelId);
        terms.royaltyBps = royaltyBps;
        vm.prank(caller);
        (bool published,) = address(registry).call(abi.encodeCall(registry.publishTerms, (terms, noSplits())));
        assertEq(published, caller == creator.addr && royaltyBps <= 9_900, "only new versions, by the creator");
        assertEq(abi.encode(registry.terms(termsId)), before, "the first version is what it was");
    }
}
