// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IModelRegistry} from "../../contracts/interfaces/IModelRegistry.sol";
import {ModelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../utils/Fixture.sol";

contract RegisterTest is Fixture {
    function none() internal pure returns (ModelId[] memory) {
        return new ModelId[](0);
    }

    function idFor(address account, bytes32 manifest) internal view returns (ModelId) {
        return ModelId.wrap(uint256(keccak256(abi.encode(block.chainid, address(registry), account, manifest))));
    }

    function testFuzz_a_model_is_registered_to_the_caller(bytes32 manifest, string calldata uri) public {
        vm.assume(manifest != 0 && manifest != keccak256("model"));
        ModelId expected = idFor(stranger.addr, manifest);
        ModelId[] memory parents = new ModelId[](1);
        parents[0] = modelId;
        vm.expectEmit(address(registry));
        emit IModelRegistry.ModelRegistered(expected, stranger.addr, manifest, parents, uri);
        vm.prank(stranger.addr);
        ModelId registered = registry.register(manifest, parents, uri);
        assertEq(ModelId.unwrap(registered), ModelId.unwrap(expected), "the id");
        assertEq(registry.ownerOf(ModelId.unwrap(registered)), stranger.addr, "the token's owner");
        assertEq(registry.creatorOf(registered), stranger.addr, "the creator");
        assertEq(registry.tokenURI(ModelId.unwrap(registered)), uri, "the manifest's place");
        assertEq(ModelId.unwrap(registry.modelOf(manifest)), ModelId.unwrap(registered), "found by its manifest");
        IModelRegistry.Model memory model = registry.model(registered);
        assertEq(model.manifestDigest, manifest, "manifest");
        assertEq(model.registeredAt, START, "time");
        assertEq(model.publishedAt, START, "time of the version");
        assertEq(model.manifestVersion, 1, "version");
        assertEq(model.termsVersion, 0, "no terms");
    }

    function test_a_manifest_is_registered_once() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ManifestTaken.selector, modelId));
        vm.prank(stranger.addr);
        registry.register(keccak256("model"), none(), "");
        vm.expectRevert(IModelRegistry.Zero.selector);
        registry.register(0, none(), "");
    }

    function test_parents_must_be_registered() public {
        ModelId[] memory parents = new ModelId[](1);
        parents[0] = ModelId.wrap(12345);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, 12345));
        registry.register(keccak256("child"), parents, "");
    }

    function test_a_newer_version_keeps_the_model() public {
        vm.expectEmit(address(registry));
        emit IModelRegistry.ManifestPublished(modelId, 2, keccak256("model v2"), "https://models.example/v2");
        vm.prank(creator.addr);
        registry.publishManifest(modelId, keccak256("model v2"), "https://models.example/v2");
        assertEq(registry.model(modelId).manifestDigest, keccak256("model v2"), "the newest");
        assertEq(
            ModelId.unwrap(registry.modelOf(keccak256("model"))), ModelId.unwrap(modelId), "the older one is still his"
        );
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ManifestTaken.selector, modelId));
        vm.prank(creator.addr);
        registry.publishManifest(modelId, keccak256("model"), "");
    }

    function test_only_the_creator_publishes_versions() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NotCreator.selector, stranger.addr));
        vm.prank(stranger.addr);
        registry.publishManifest(modelId, keccak256("model v2"), "");
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, 9));
        registry.publishManifest(ModelId.wrap(9), keccak256("model v2"), "");
    }

    function test_whoever_buys_the_token_is_the_creator() public {
        vm.prank(creator.addr);
        registry.transferFrom(creator.addr, stranger.addr, ModelId.unwrap(modelId));
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NotCreator.selector, creator.addr));
        vm.prank(creator.addr);
        registry.publishManifest(modelId, keccak256("model v2"), "");
        vm.prank(stranger.addr);
        registry.publishManifest(modelId, keccak256("model v2"), "");
    }

    function test_what_is_unknown_has_no_creator_and_no_place() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, 9));
        registry.creatorOf(ModelId.wrap(9));
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, 9));
        registry.tokenURI(9);
    }
}
