//! Who pays for a request, out of what, and what the host says about it afterwards.
//!
//! Nothing is generated before the most that it can cost is set aside ([`purse`]); nothing is told to be finished before the
//! statement about it is on the disk.

mod accounts;
pub(crate) mod channel;
pub(crate) mod customer;
pub(crate) mod lease;
mod meter;
mod once;
pub(crate) mod purse;
pub(crate) mod untaken;

pub(crate) use self::{
    accounts::{AccountError, Accounts},
    meter::{Bill, BillError, Metering, Paid},
    once::{Once, Running},
};
