//! Whether there is money for the most that a request can cost; if so, it is set aside.

use std::{num::NonZeroU64, sync::Arc};

use protocol::units::{Amount, UnixMilliseconds};

use super::{
    Refusal,
    payer::{ChannelPayer, Payer},
};
use crate::metering::{
    Metering, Paid,
    channel::{LaneError, ReserveError},
    lease::ServedLease,
};

/// What a request may use at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Tokens of the templated prompt.
    pub(crate) prompt: u64,
    /// Choices.
    pub(crate) choices: NonZeroU64,
    /// Most completion tokens of a choice.
    pub(crate) completion: NonZeroU64,
    /// Whether the client named that limit. One that it named is kept or refused; the host's own is cut to what the ceiling
    /// pays for.
    pub(crate) is_named: bool,
}

/// A request that is paid for.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) paid: Paid,
    /// Most completion tokens of a choice.
    pub(crate) completion: u64,
}

/// Sets aside what the request can cost.
pub(crate) fn admit(
    metering: &Metering,
    lease: &Arc<ServedLease>,
    payer: Payer,
    wanted: Wanted,
) -> Result<Admitted, Refusal> {
    let started = metering.now();
    let admitted = match payer {
        Payer::Channel(payer) => admit_channel(lease, *payer, wanted, started)?,
        Payer::Customer(account) => {
            let before = account.counts(lease.id);
            let tokens = wanted.completion.get().saturating_mul(wanted.choices.get());
            let worst = lease.worst_case(before, wanted.prompt, tokens).map_err(|_| Refusal::TooLarge)?;
            // Others may use the lane meanwhile, and round up where this request would have rounded down.
            let worst = worst.checked_add(Amount::new(1)).unwrap_or(worst);
            let reservation = account
                .reserve(worst)
                .map_err(|short| Refusal::Budget { required: short.required, available: short.available })?;
            let paid = Paid::customer(lease.clone(), reservation, started);
            Admitted { paid, completion: wanted.completion.get() }
        }
    };
    // Last: what is refused for another reason was not admitted.
    admitted.paid.check_taken(started).map_err(Refusal::Untaken)?;
    Ok(admitted)
}

fn admit_channel(
    lease: &Arc<ServedLease>,
    payer: ChannelPayer,
    wanted: Wanted,
    started: UnixMilliseconds,
) -> Result<Admitted, Refusal> {
    let ChannelPayer { account, voucher, signer } = payer;
    let (before, ceiling) = (voucher.message.counts, voucher.message.ceiling);
    let Wanted { prompt, choices, completion, is_named } = wanted;
    let worst = |completion: u64| {
        let tokens = completion.saturating_mul(choices.get());
        lease.worst_case(before, prompt, tokens).map_err(|_| Refusal::TooLarge)
    };
    let mut completion = completion.get();
    let mut required = worst(completion)?;
    if required > ceiling {
        let tokens = completion.saturating_mul(choices.get());
        let affordable = lease.affordable(before, prompt, tokens, ceiling).unwrap_or(0);
        // Every choice gets the same limit.
        let affordable = affordable.checked_div(choices.get()).unwrap_or(0);
        if is_named || affordable == 0 {
            let required = if is_named { required } else { worst(1)? };
            return Err(Refusal::Ceiling { required, ceiling });
        }
        completion = affordable;
        required = worst(completion)?;
    }
    let reservation = account.reserve(&voucher.message, signer, required).map_err(|error| refusal(&error))?;
    Ok(Admitted { paid: Paid::channel(lease.clone(), reservation, voucher, signer, started), completion })
}

fn refusal(error: &ReserveError) -> Refusal {
    match error {
        ReserveError::Lane(LaneError::Busy) => Refusal::LaneBusy,
        ReserveError::Lane(LaneError::TooMany) => Refusal::TooManyLanes,
        ReserveError::Lane(LaneError::OtherLease { lease }) => Refusal::LaneLease { lease: *lease },
        ReserveError::Lane(LaneError::OtherSigner { signer }) => Refusal::LaneSigner { signer: *signer },
        ReserveError::Lane(LaneError::Behind { counts, head }) => Refusal::LaneBehind { counts: *counts, head: *head },
        ReserveError::Lane(LaneError::Ahead { counts, head }) => Refusal::LaneAhead { counts: *counts, head: *head },
        ReserveError::Lane(LaneError::OtherHead { head }) => Refusal::LaneHead { head: *head },
        ReserveError::Deposit(short) => Refusal::Deposit { required: short.required, available: short.available },
        ReserveError::Cap(short) => Refusal::Cap { required: short.required, available: short.available },
    }
}
