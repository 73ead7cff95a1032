// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {ICoinBonds} from "./interfaces/ICoinBonds.sol";

/// @title CoinBonds
/// @dev Described in `ICoinBonds`.
abstract contract CoinBonds is ICoinBonds, ReentrancyGuardTransient {
    /// @inheritdoc ICoinBonds
    mapping(address account => uint256) public owed;

    /// @inheritdoc ICoinBonds
    function withdrawOwed(address payable account) external nonReentrant {
        uint256 amount = owed[account];
        require(amount != 0, NothingOwed(account));
        owed[account] = 0;
        Address.sendValue(account, amount);
    }

    /// @dev Takes a bond that came with the call.
    function _requireBond(uint256 bond) internal view {
        require(msg.value == bond, WrongBond(bond, msg.value));
    }

    /// @dev Gives a bond away. Pull payment: an account that cannot receive coins must not keep a case from being closed.
    function _owe(address account, uint256 amount) internal {
        if (amount == 0) return;
        owed[account] += amount;
        emit Owed(account, amount);
    }
}
