// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

// Tokens that do not behave, or not as one would think.

/// Keeps one in a hundred for itself.
contract FeeToken is ERC20("Fee", "FEE") {
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function _update(address from, address to, uint256 amount) internal override {
        uint256 fee = from == address(0) ? 0 : amount / 100;
        super._update(from, to, amount - fee);
        if (fee != 0) super._update(from, address(0), fee);
    }
}

/// Every balance is a share that is worth more or less from one moment to the next.
contract RebasingToken {
    uint256 public factor = 1e18;
    mapping(address account => uint256) private _shares;
    mapping(address owner => mapping(address spender => uint256)) public allowance;

    function rebase(uint256 newFactor) external {
        factor = newFactor;
    }

    function mint(address to, uint256 amount) external {
        _shares[to] += amount * 1e18 / factor;
    }

    function balanceOf(address account) public view returns (uint256) {
        return _shares[account] * factor / 1e18;
    }

    function approve(address spender, uint256 amount) external returns (bool) {
        allowance[msg.sender][spender] = amount;
        return true;
    }

    function transfer(address to, uint256 amount) external returns (bool) {
        return move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external returns (bool) {
        allowance[from][msg.sender] -= amount;
        return move(from, to, amount);
    }

    function move(address from, address to, uint256 amount) private returns (bool) {
        uint256 shares = amount * 1e18 / factor;
        _shares[from] -= shares;
        _shares[to] += shares;
        return true;
    }
}

/// Says false where others revert, and moves nothing.
contract FalseToken is ERC20("False", "FALSE") {
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function transfer(address, uint256) public pure override returns (bool) {
        return false;
    }

    function transferFrom(address, address, uint256) public pure override returns (bool) {
        return false;
    }
}

/// Says true and moves nothing.
contract LyingToken is ERC20("Lie", "LIE") {
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function transferFrom(address, address, uint256) public pure override returns (bool) {
        return true;
    }
}

/// Returns nothing, as the first dollar token does.
contract SilentToken {
    mapping(address account => uint256) public balanceOf;
    mapping(address owner => mapping(address spender => uint256)) public allowance;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function approve(address spender, uint256 amount) external {
        // Refuses to change an allowance that is not used up, as the first dollar token does.
        require(amount == 0 || allowance[msg.sender][spender] == 0, "set it to 0 first");
        allowance[msg.sender][spender] = amount;
    }

    function transfer(address to, uint256 amount) external {
        balanceOf[msg.sender] -= amount;
        balanceOf[to] += amount;
    }

    function transferFrom(address from, address to, uint256 amount) external {
        allowance[from][msg.sender] -= amount;
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}

/// Calls whoever is told to before every transfer, as ERC-777 does.
contract CallbackToken is ERC20("Callback", "CALL") {
    address private _target;
    bytes private _call;
    /// What the last callback answered.
    bytes public answer;
    bool public succeeded;
    bool public called;

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function arm(address target, bytes calldata call) external {
        (_target, _call, called) = (target, call, false);
    }

    function _update(address from, address to, uint256 amount) internal override {
        address target = _target;
        if (target != address(0)) {
            _target = address(0);
            called = true;
            (succeeded, answer) = target.call(_call);
        }
        super._update(from, to, amount);
    }
}

/// Refuses to move to or from accounts on a list, and refuses to move nothing.
contract BlocklistToken is ERC20("Block", "BLOCK") {
    mapping(address account => bool) public blocked;

    error Blocked(address account);

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function setBlocked(address account, bool isBlocked) external {
        blocked[account] = isBlocked;
    }

    function _update(address from, address to, uint256 amount) internal override {
        require(!blocked[from], Blocked(from));
        require(!blocked[to], Blocked(to));
        require(amount != 0, "nothing to move");
        super._update(from, to, amount);
    }
}
