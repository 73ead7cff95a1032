// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// @title Who signed a digest
/// @dev Strict: 65 bytes, low s (EIP-2), v of 27 or 28. Each failure has an error of its own.
library Signatures {
    /// @notice A signature has 65 bytes: r, s, v.
    error SignatureLength(uint256 length);
    /// @notice `s` lies in the upper half of the group order: a second form of another signature.
    error SignatureHighS(bytes32 s);
    /// @notice Nobody's signature: `r`, `s` or `v` is out of range.
    error SignatureMalformed();
    /// @notice Signed by another key.
    error WrongSigner(address expected, address actual);
    /// @notice The wallet contract does not accept the signature (ERC-1271).
    error WalletRefused(address wallet);

    /// First bytes of the code of an account that delegates to a contract (EIP-7702); it still has a key of its own.
    bytes3 private constant DELEGATION = 0xef0100;

    /// @dev The address whose key signed.
    function recover(bytes32 digest, bytes calldata signature) internal pure returns (address signer) {
        ECDSA.RecoverError failure;
        bytes32 detail;
        (signer, failure, detail) = ECDSA.tryRecover(digest, signature);
        if (failure == ECDSA.RecoverError.NoError) return signer;
        if (failure == ECDSA.RecoverError.InvalidSignatureLength) revert SignatureLength(signature.length);
        if (failure == ECDSA.RecoverError.InvalidSignatureS) revert SignatureHighS(detail);
        revert SignatureMalformed();
    }

    /// @dev The address whose key signed, or 0.
    function tryRecover(bytes32 digest, bytes calldata signature) internal pure returns (address signer) {
        (signer,,) = ECDSA.tryRecover(digest, signature);
    }

    /// @dev Requires that `signer`'s own key signed.
    function requireKey(address signer, bytes32 digest, bytes calldata signature) internal pure {
        address actual = recover(digest, signature);
        require(actual == signer, WrongSigner(signer, actual));
    }

    /// @dev Requires that `account`, a key or a wallet contract, signed.
    function requireAccount(address account, bytes32 digest, bytes calldata signature) internal view {
        if (isWallet(account)) {
            // Reads one word of the answer: copying a long one could cost the caller more than the call may.
            require(
                SignatureChecker.isValidERC1271SignatureNowCalldata(account, digest, signature), WalletRefused(account)
            );
        } else {
            requireKey(account, digest, signature);
        }
    }

    /// @dev A contract that is not merely delegated to.
    function isWallet(address account) internal view returns (bool) {
        return account.code.length != 0 && bytes3(account.code) != DELEGATION;
    }
}
