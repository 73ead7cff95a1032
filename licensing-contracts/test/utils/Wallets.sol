// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

// Wallets that are contracts (ERC-1271): honest ones and others.

/// Accepts the signatures of its owner's key until it is told to accept nothing.
contract KeyWallet is IERC1271 {
    address public immutable OWNER;
    bool public refusing;

    constructor(address owner) {
        OWNER = owner;
    }

    function setRefusing(bool isRefusing) external {
        refusing = isRefusing;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        (address signer,,) = ECDSA.tryRecover(digest, signature);
        return !refusing && signer == OWNER ? IERC1271.isValidSignature.selector : bytes4(0);
    }

    function execute(address target, bytes calldata call) external returns (bytes memory answer) {
        bool success;
        (success, answer) = target.call(call);
        require(success, "the wallet's call failed");
    }
}

/// Answers with any bytes whatsoever.
contract ScriptedWallet {
    bytes private _answer;
    bool private _reverts;

    function script(bytes calldata answer, bool reverts) external {
        (_answer, _reverts) = (answer, reverts);
    }

    fallback() external {
        bytes memory answer = _answer;
        bool reverts = _reverts;
        assembly ("memory-safe") {
            if reverts { revert(add(answer, 0x20), mload(answer)) }
            return(add(answer, 0x20), mload(answer))
        }
    }
}

/// Tries to claim, withdraw or deposit while its signature is asked for.
contract ReenteringWallet {
    address private _target;
    bytes private _call;

    function arm(address target, bytes calldata call) external {
        (_target, _call) = (target, call);
    }

    function isValidSignature(bytes32, bytes calldata) external returns (bytes4) {
        (bool success,) = _target.call(_call);
        require(success, "the wallet could not reenter");
        return IERC1271.isValidSignature.selector;
    }
}

/// Answers yes with a tail of any length, or, with none, burns all gas that it is given.
contract BombWallet {
    uint256 public immutable LENGTH;

    constructor(uint256 length) {
        LENGTH = length;
    }

    function isValidSignature(bytes32, bytes calldata) external view returns (bytes4) {
        uint256 length = LENGTH;
        bytes4 yes = IERC1271.isValidSignature.selector;
        assembly ("memory-safe") {
            if iszero(length) { invalid() }
            mstore(0, yes)
            return(0, length)
        }
    }
}
