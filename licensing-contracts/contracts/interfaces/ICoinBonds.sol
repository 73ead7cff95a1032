// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Bonds in the chain's own coin
/// @notice A stranger needs no token to ask a question or to accuse; whoever loses pays the other side.
interface ICoinBonds {
    event Owed(address indexed account, uint256 amount);

    error WrongBond(uint256 expected, uint256 actual);
    error NothingOwed(address account);

    /// @notice Sends an account the bonds that came back, or fell, to it. Anybody may call it.
    function withdrawOwed(address payable account) external;

    /// @notice Bonds that wait for an account.
    function owed(address account) external view returns (uint256);
}
