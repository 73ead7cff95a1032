// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @title Taking in tokens, to the unit
library ExactTransfer {
    using SafeERC20 for IERC20;

    /// @notice The token kept something for itself, or gave too much: it cannot be accounted for here.
    error TokenTookFee(uint256 expected, uint256 received);

    /// @dev Pulls `amount` from `from` and requires that exactly as much arrived. Call it under a reentrancy lock.
    function receiveExactly(IERC20 token, address from, uint256 amount) internal {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(from, address(this), amount);
        requireArrived(token, before, amount);
    }

    /// @dev Requires that the balance grew by exactly `amount` since it was `before`.
    function requireArrived(IERC20 token, uint256 before, uint256 amount) internal view {
        uint256 balance = token.balanceOf(address(this));
        uint256 received = balance > before ? balance - before : 0;
        require(received == amount, TokenTookFee(amount, received));
    }
}
