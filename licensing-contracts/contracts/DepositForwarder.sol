// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @title A channel's own address
/// @notice Tokens that are simply transferred to it can be booked for its channel, and for nothing else.
contract DepositForwarder {
    using SafeERC20 for IERC20;

    error NotEscrow(address caller);

    address public immutable ESCROW = msg.sender;

    /// @notice Sends everything it holds of a token to the escrow, which calls it.
    function forward(IERC20 token) external returns (uint256 amount) {
        require(msg.sender == ESCROW, NotEscrow(msg.sender));
        amount = token.balanceOf(address(this));
        token.safeTransfer(ESCROW, amount);
    }
}
