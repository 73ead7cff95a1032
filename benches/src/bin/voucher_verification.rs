//! Vouchers verified per second on one core: EIP-712 digest, recovery of the signer, comparison.
//!
//! Beside ours stands what a program gets that takes alloy as it comes: the same digest, and recovery by k256. Both verify
//! the same vouchers by turns, so what disturbs the machine disturbs both. Each signer made many vouchers, as on a host.

use std::{
    fs,
    hint::black_box,
    io::{self, Write as _},
    path::PathBuf,
    time::Instant,
};

use alloy_primitives::{Address, Signature as K256Signature, keccak256};
use anyhow::{Context as _, ensure};
use benches::median;
use clap::Parser;
use protocol::{
    B256,
    counts::UsageCounts,
    ids::{ChainId, ChannelId, Lane, LeaseId},
    messages::{Domain, Message as _, PaymentEscrow, Signed, Voucher},
    signature::SigningKey,
    units::{Amount, UnixSeconds},
};
use serde_json::json;

/// As the `hallmark` binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Times the verification of signed vouchers on one thread.
#[derive(Debug, Parser)]
struct Arguments {
    /// Vouchers in a round.
    #[arg(long, default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(1..))]
    vouchers: u32,
    /// Keys that sign them.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    signers: u32,
    /// Rounds of each side.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// File for every measurement.
    #[arg(long)]
    json: Option<PathBuf>,
}

struct Work {
    domain: Domain<PaymentEscrow>,
    signed: Vec<(Signed<Voucher>, Address)>,
    /// The same signatures as k256's side holds them: parsed beforehand, as ours are.
    theirs: Vec<K256Signature>,
}

impl Work {
    fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        let domain = Domain::new(ChainId::new(31_337), Address::repeat_byte(0x11));
        let key = |number: u32| SigningKey::from_bytes(&keccak256(number.to_be_bytes()).0);
        let keys = (0..arguments.signers).map(key).collect::<Result<Vec<_>, _>>()?;
        let mut signed = Vec::new();
        for (number, key) in (0..arguments.vouchers).zip(keys.iter().cycle()) {
            let number = u64::from(number);
            let voucher = Voucher {
                channel: ChannelId::from(keccak256(key.address())),
                lease: LeaseId::new(7),
                lane: Lane::new(number % 8),
                counts: UsageCounts::new(number, 900 * number, 300 * number, 250 * number)?,
                ceiling: Amount::new(91_000),
                statements_head: Some(keccak256(number.to_be_bytes()).into()),
                expires_at: UnixSeconds::new(1_767_312_000),
            };
            signed.push((Signed::sign(voucher, &domain, key), key.address()));
        }
        let theirs = signed.iter().map(|(signed, _)| K256Signature::from_raw(signed.signature.as_bytes()));
        let theirs = theirs.collect::<Result<_, _>>()?;
        Ok(Self { domain, signed, theirs })
    }

    /// Vouchers that verified by libsecp256k1.
    fn ours(&self) -> usize {
        self.signed.iter().filter(|(signed, signer)| signed.verify(&self.domain, *signer).is_ok()).count()
    }

    /// Vouchers that verified by k256.
    fn k256(&self) -> usize {
        let verifies = |((signed, signer), signature): &(&(Signed<Voucher>, Address), &K256Signature)| {
            let digest = signed.message.digest(&self.domain).into();
            signature.recover_address_from_prehash(&digest).is_ok_and(|address| address == *signer)
        };
        self.signed.iter().zip(&self.theirs).filter(verifies).count()
    }

    /// The digests alone, which both sides make.
    fn digests(&self) -> usize {
        let digest = |signed: &Signed<Voucher>| -> B256 { signed.message.digest(&self.domain).into() };
        self.signed.iter().filter(|(signed, _)| !black_box(digest(signed)).is_zero()).count()
    }
}

/// Vouchers a second. A round in which not all of them verified measured something else.
fn rate(expected: usize, verify: impl Fn() -> usize) -> anyhow::Result<f64> {
    let start = Instant::now();
    let verified = black_box(verify());
    let seconds = start.elapsed().as_secs_f64();
    ensure!(verified == expected, "{verified} of {expected} vouchers verified");
    Ok(expected as f64 / seconds)
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let work = Work::new(&arguments)?;
    let count = work.signed.len();
    ensure!(count == usize::try_from(arguments.vouchers)?, "{count} vouchers were made");

    let (mut ours, mut k256, mut digests) = (Vec::new(), Vec::new(), Vec::new());
    // One of each first, so that no side pays for waking up the machine.
    rate(count, || work.ours())?;
    rate(count, || work.k256())?;
    for round in 0..arguments.rounds {
        if round % 2 == 0 {
            ours.push(rate(count, || work.ours())?);
            k256.push(rate(count, || work.k256())?);
        } else {
            k256.push(rate(count, || work.k256())?);
            ours.push(rate(count, || work.ours())?);
        }
        digests.push(rate(count, || work.digests())?);
    }
    let ratios: Vec<f64> = ours.iter().zip(&k256).map(|(ours, peer)| ours / peer).collect();

    let mut out = io::stdout().lock();
    writeln!(out, "| figure | what | ours | peer (k256) | ratio | target |")?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    let (rate_of_ours, rate_of_k256) = (median(&ours), median(&k256));
    let met = if rate_of_ours >= TARGET { "met" } else { "missed" };
    writeln!(
        out,
        "| M1 | vouchers verified per second, one core | {rate_of_ours:.0} | {rate_of_k256:.0} | {:.2} | ≥ {TARGET:.0}, {met} |",
        median(&ratios),
    )?;
    writeln!(out, "| | of this, digests per second | {:.0} | {:.0} | | |", median(&digests), median(&digests))?;
    let report = json!({
        "figure": "M1",
        "vouchers": count,
        "signers": arguments.signers,
        "rounds": arguments.rounds,
        "ours_per_s": ours,
        "k256_per_s": k256,
        "digests_per_s": digests,
        "median_ours_per_s": rate_of_ours,
        "median_k256_per_s": rate_of_k256,
        "median_ratio": median(&ratios),
        "target_per_s": TARGET,
    });
    match arguments.json {
        Some(path) => {
            fs::write(&path, format!("{report}\n")).with_context(|| format!("failed to write {}", path.display()))
        }
        None => writeln!(out, "\n{report}").context("failed to write to standard output"),
    }
}

/// Vouchers a second that one core is to verify.
const TARGET: f64 = 12_000.0;
