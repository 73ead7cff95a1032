//! What a client is told whose request is not admitted: in OpenAI's shape, and where money is missing in x402's as well.
//!
//! x402 (version 2) has its offer in a header, `PAYMENT-REQUIRED`, as base64 of JSON. Its clients that know only other schemes
//! find in `extra` where to deposit and what to send.

use alloy_primitives::U256;
use axum::http::{HeaderValue, StatusCode};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::{
    counts::UsageCounts,
    ids::StatementDigest,
    units::{Amount, UnixSeconds},
};
use serde_json::{Map, Value, json};

use super::error::{ApiError, Retry};
use crate::{
    admission::{PAYMENT_HEADER, Refusal, VOUCHER_HEADER},
    metering::{Metering, lease::ServedLease, untaken::TooManyUntaken},
};

/// Name of our scheme in x402's offers.
const SCHEME: &str = "hallmark-voucher";

/// A refusal as an answer. `path` is what was asked for.
pub(crate) fn refused(refusal: &Refusal, metering: &Metering, lease: &ServedLease, path: &str) -> ApiError {
    let told = Told::of(refusal, lease);
    let Told { status, kind, code, message, details, retry } = told;
    let mut error = ApiError::refusal(status, kind, code, message).with_details(details).with_retry(retry);
    if let Refusal::Unavailable(source) = refusal {
        error = error.caused_by(Shared(source.clone()));
    }
    if status == StatusCode::PAYMENT_REQUIRED {
        let amount = match refusal {
            Refusal::Ceiling { required, .. } | Refusal::Deposit { required, .. } => *required,
            _ => least(lease),
        };
        let offer = Offer { metering, lease, path, amount };
        error = error.with_payment(offer.members(), offer.header(code));
    }
    error
}

/// A refusal in words.
struct Told {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    message: String,
    details: Map<String, Value>,
    retry: Retry,
}

impl Told {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code, message: message.into(), details: Map::new(), retry: Retry::Never }
    }

    fn with(mut self, name: &str, value: impl serde::Serialize) -> Self {
        self.details.insert(name.to_owned(), json!(value));
        self
    }

    fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    fn of(refusal: &Refusal, lease: &ServedLease) -> Self {
        match refusal {
            Refusal::Storage | Refusal::Stale(_) | Refusal::LeaseOver { .. } | Refusal::Unavailable(_) => {
                Self::closed(refusal)
            }
            Refusal::Unpaid
            | Refusal::Ceiling { .. }
            | Refusal::NoDeposit
            | Refusal::Deposit { .. }
            | Refusal::Cap { .. }
            | Refusal::Budget { .. } => Self::money(refusal),
            Refusal::LaneBusy
            | Refusal::TooManyLanes
            | Refusal::LaneUsed
            | Refusal::LaneLease { .. }
            | Refusal::LaneSigner { .. }
            | Refusal::LaneBehind { .. }
            | Refusal::LaneAhead { .. }
            | Refusal::LaneHead { .. } => Self::lane(refusal),
            _ => Self::voucher(refusal, lease),
        }
    }

    /// The host admits nobody.
    fn closed(refusal: &Refusal) -> Self {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match refusal {
            Refusal::Storage => Self::new(
                unavailable,
                "server_error",
                "storage_unavailable",
                "This host cannot write its journal and takes no requests until it can. Send the request to another one.",
            ),
            Refusal::Stale(stale) => Self::new(
                unavailable,
                "server_error",
                "stale_chain",
                format!(
                    "This host has not heard from the chain for {} s, and may not serve after {} s. Send the request to \
                     another one.",
                    stale.age_s, stale.limit_s
                ),
            )
            .with("age_s", stale.age_s)
            .with("block", stale.block),
            Refusal::LeaseOver { lease } => Self::new(
                StatusCode::FORBIDDEN,
                "permission_error",
                "lease_over",
                format!("The lease {lease} under which this model is served is not active. Send the request to another host."),
            )
            .with("lease", lease),
            _ => Self::new(
                unavailable,
                "server_error",
                "unavailable",
                "This host could not look up the payment. Try again later.",
            )
            .retry(Retry::Later),
        }
    }

    /// There is not enough money.
    fn money(refusal: &Refusal) -> Self {
        let short = |code, message: String, required: &Amount, name: &str, available: &Amount| {
            Self::new(StatusCode::PAYMENT_REQUIRED, "payment_required", code, message)
                .with("required", required)
                .with(name, available)
        };
        match refusal {
            Refusal::Ceiling { required, ceiling } => short(
                "ceiling_too_low",
                format!(
                    "The request may cost {required} and the voucher's ceiling is {ceiling}. Raise it, or ask for fewer tokens."
                ),
                required,
                "ceiling",
                ceiling,
            ),
            Refusal::NoDeposit => Self::new(
                StatusCode::PAYMENT_REQUIRED,
                "payment_required",
                "insufficient_deposit",
                "Nothing was ever deposited into this channel. Deposit into it, or check its members.",
            ),
            Refusal::Deposit { required, available } => short(
                "insufficient_deposit",
                format!(
                    "The request may cost {required} and {available} of the channel's deposit is free. Deposit more."
                ),
                required,
                "available",
                available,
            ),
            Refusal::Cap { required, available } => short(
                "session_cap_reached",
                format!(
                    "The request may cost {required} and {available} is left of what the session key may spend. Grant it more."
                ),
                required,
                "available",
                available,
            ),
            Refusal::Budget { required, available } => short(
                "budget_exceeded",
                format!(
                    "The request may cost {required} and {available} is left of this API key's budget. Ask the host for a larger one."
                ),
                required,
                "available",
                available,
            ),
            _ => Self::new(
                StatusCode::PAYMENT_REQUIRED,
                "payment_required",
                "payment_required",
                format!(
                    "This model is paid for. Send a voucher in the header {VOUCHER_HEADER}, or an API key of this host. The offer \
                     in 'accepts' says where to deposit and what a voucher must say."
                ),
            ),
        }
    }

    /// The voucher is not the lane's next one.
    fn lane(refusal: &Refusal) -> Self {
        let conflict = |code, message: String| Self::new(StatusCode::CONFLICT, "invalid_request_error", code, message);
        match refusal {
            Refusal::LaneBusy => conflict(
                "lane_busy",
                "A request is running on this lane. Use another lane for requests at the same time.".to_owned(),
            )
            .retry(Retry::Later),
            Refusal::TooManyLanes => {
                conflict("too_many_lanes", "The channel has as many lanes as it may have. Use one of them again.".to_owned())
            }
            Refusal::LaneUsed => conflict(
                "lane_used_elsewhere",
                "This lane was claimed and this host has no record of it. Use another lane.".to_owned(),
            ),
            Refusal::LaneLease { lease } => conflict(
                "lane_of_other_lease",
                format!("This lane belongs to lease {lease}. Use another lane."),
            ),
            Refusal::LaneSigner { signer } => conflict(
                "lane_of_other_key",
                format!("The vouchers of this lane are signed by {signer}. Use another lane for another key."),
            ),
            Refusal::LaneBehind { counts, head } => conflict(
                "statement_not_accepted",
                "The voucher does not accept the newest statement of its lane. Accept the counts and the statement that are \
                 given here; GET /v1/statements/{digest} shows it."
                    .to_owned(),
            )
            .with_lane(*counts, *head),
            Refusal::LaneAhead { counts, head } => conflict(
                "nothing_stated",
                "The voucher accepts more than this host has stated. Use the counts that are given here, or another lane."
                    .to_owned(),
            )
            .with_lane(*counts, *head),
            Refusal::LaneHead { head } => conflict(
                "other_statement",
                "The voucher accepts another statement than the newest one of its lane, which is given here.".to_owned(),
            )
            .with("statements_head", head),
            _ => conflict("lane_conflict", "The voucher is not the next one of its lane.".to_owned()),
        }
    }

    fn with_lane(self, counts: UsageCounts, head: Option<StatementDigest>) -> Self {
        let counts = json!({
            "requests": counts.requests(),
            "promptTokens": counts.prompt(),
            "cachedTokens": counts.cached(),
            "completionTokens": counts.completion(),
        });
        self.with("counts", counts).with("statements_head", head)
    }

    /// The voucher or the key is not good here.
    fn voucher(refusal: &Refusal, lease: &ServedLease) -> Self {
        let invalid =
            |code, message: String| Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message);
        match refusal {
            Refusal::NotAVoucher { reason } => {
                invalid("invalid_voucher", format!("The payment is not a voucher that can be read: {reason}."))
            }
            Refusal::UnknownKey => Self::new(
                StatusCode::UNAUTHORIZED,
                "authentication_error",
                "invalid_api_key",
                "This host does not know the API key, or it was revoked. Ask the host for another one.",
            ),
            Refusal::OtherHost { expected } => {
                invalid("wrong_host", format!("The channel pays another host. Deposit into a channel with {expected}."))
            }
            Refusal::OtherToken { expected } => {
                invalid("wrong_token", format!("The channel is in another token. This lease is paid in {expected}."))
            }
            Refusal::OtherChannel { channel } => invalid(
                "wrong_channel",
                format!("The voucher is for another channel than {channel}, which is sent with it."),
            ),
            Refusal::OtherLease { expected, found } => invalid(
                "wrong_lease",
                format!("The voucher pays under lease {found}. This model is served under lease {expected}."),
            ),
            Refusal::NotGranted { signer } => Self::new(
                StatusCode::UNAUTHORIZED,
                "authentication_error",
                "key_not_granted",
                format!(
                    "The voucher is signed by {signer}, which is not the payer and has no grant that stands. Grant it, or use another key."
                ),
            ),
            Refusal::ExpiresTooSoon { what, needed } => invalid(
                "expires_too_soon",
                format!("This host could not claim in time: {what} must be good until {} at least.", time(*needed)),
            )
            .with("needed", needed),
            Refusal::RequestCap { ceiling, cap } => Self::new(
                StatusCode::FORBIDDEN,
                "permission_error",
                "request_cap_exceeded",
                format!(
                    "The voucher promises up to {ceiling} for a request, and its key may promise {cap}. Lower the ceiling."
                ),
            ),
            Refusal::Rate { retry_after_s } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_error",
                "rate_limit_exceeded",
                "This API key has had its requests of this minute. Try again after the time in the Retry-After header.",
            )
            .retry(Retry::After { seconds: *retry_after_s }),
            Refusal::Untaken(TooManyUntaken { answers, retry_after_s }) => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_error",
                "answers_not_taken",
                format!(
                    "{answers} answers were made for this payer, who hung up before anything of them arrived. Until more than that is \
                     paid for, one request a minute is admitted. Wait longer for answers, or stream them."
                ),
            )
            .retry(Retry::After { seconds: *retry_after_s }),
            _ => invalid(
                "counts_too_large",
                format!(
                    "The counts of this lane leave no room for the request under lease {}. Use another lane.",
                    lease.id
                ),
            ),
        }
    }
}

fn time(time: UnixSeconds) -> String {
    format!("{} UTC", time.date_and_time())
}

/// What the smallest request costs.
fn least(lease: &ServedLease) -> Amount {
    lease.worst_case(UsageCounts::default(), 1, 1).unwrap_or(Amount::ZERO)
}

/// An x402 offer.
struct Offer<'a> {
    metering: &'a Metering,
    lease: &'a ServedLease,
    path: &'a str,
    amount: Amount,
}

impl Offer<'_> {
    fn members(&self) -> Map<String, Value> {
        let (chain, lease) = (self.metering.chain(), self.lease);
        let deployment = chain.deployment();
        let accepts = json!([{
            "scheme": SCHEME,
            "network": format!("eip155:{}", deployment.chain_id),
            "amount": self.amount.to_string(),
            "asset": lease.token,
            "payTo": lease.host,
            "maxTimeoutSeconds": chain.spans().to_claim(),
            "extra": {
                "name": "Hallmark",
                "version": "1",
                "escrow": deployment.payment_escrow,
                "leaseManager": deployment.lease_manager,
                "leaseId": U256::from(lease.id.get()).to_string(),
                "leaseKey": lease.key.address(),
                "prices": lease.prices,
                "leastWithdrawDelay": chain.spans().claim_interval.get().saturating_mul(2),
                "howTo": format!(
                    "Deposit into a channel {{payer, host, token, withdrawDelay, salt}} with PaymentEscrow.deposit; sign an EIP-712 \
                     Voucher of it for each request; send base64 of {{\"channel\", \"voucher\": {{\"message\", \"signature\"}}}} in the \
                     header {VOUCHER_HEADER}, or as the payload in {PAYMENT_HEADER}."
                ),
            },
        }]);
        let resource = json!({ "url": self.path, "mimeType": "application/json" });
        Map::from_iter([
            ("x402Version".to_owned(), json!(2)),
            ("resource".to_owned(), resource),
            ("accepts".to_owned(), accepts),
        ])
    }

    fn header(&self, error: &str) -> Option<HeaderValue> {
        let mut members = self.members();
        members.insert("error".to_owned(), error.into());
        let text = serde_json::to_vec(&members).ok()?;
        HeaderValue::try_from(STANDARD.encode(text)).ok()
    }
}

/// An error that others hold too.
#[derive(Debug)]
struct Shared(std::sync::Arc<dyn std::error::Error + Send + Sync>);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
