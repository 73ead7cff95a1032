//! What must hold before a metered request is worked on, one small check after the other:
//!
//! 1. [`open`]: the journal can be written, what is known of the chain is fresh, the lease is active.
//! 2. The model is known and the body valid (`openai`).
//! 3. [`payer`]: who pays, by a voucher or an API key.
//! 4. [`voucher`]: the voucher is for this host, lease and key, and lasts long enough.
//! 5. [`amount`]: the lane is where the voucher says, and ceiling, deposit, cap or budget cover the most that the request can
//!    cost.
//! 6. The customer's rate (in `payer`), whether the payer takes what is made for him (in `amount`), and whether the engine has
//!    room (`engine`).
//!
//! Each refusal has a status, a code and a sentence that says what to do.

mod amount;
mod open;
mod payer;
mod refusal;
mod voucher;

pub(crate) use self::{
    amount::{Wanted, admit},
    open::check_open,
    payer::{PAYMENT_HEADER, Payer, VOUCHER_HEADER, identify},
    refusal::Refusal,
};
