// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {EIP712} from "solady/utils/EIP712.sol";

/// @title The EIP-712 domain of the protocol's messages
/// @dev `{ name: "Hallmark", version: "1", chainId, verifyingContract }`: no signature counts on another chain or contract.
abstract contract MessageDomain is EIP712 {
    function _domainNameAndVersion() internal pure override returns (string memory name, string memory version) {
        return ("Hallmark", "1");
    }
}
