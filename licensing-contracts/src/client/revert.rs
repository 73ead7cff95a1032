//! Why a contract refused, in its own words and with a sentence that says what to do.

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use alloy::{
    dyn_abi::{DynSolValue, ErrorExt},
    json_abi::{Error as AbiError, JsonAbi},
    primitives::{B256, Bytes, Selector, hex},
    sol_types::{Panic, Revert as RevertString, SolError},
    transports::TransportError,
};

use protocol::units::UnixSeconds;

use crate::{
    advice::advice,
    bindings::ARTIFACTS,
    eigenlayer::interfaces::{
        AllocationManager::AllocationManagerErrors, DelegationManager::DelegationManagerErrors,
        RewardsCoordinator::RewardsCoordinatorErrors, StrategyManager::StrategyManagerErrors,
    },
};

/// A decoded refusal.
#[derive(Clone, PartialEq, Eq)]
pub struct Revert {
    /// Name of the contract's error; `Error` and `Panic` for Solidity's own, empty when it is not known.
    pub name: String,
    /// Names and values of the error's arguments.
    pub arguments: Vec<(String, String)>,
    /// What the contract returned.
    pub data: Bytes,
}

/// Every error that the contracts declare, by the first four bytes of its encoding.
static ERRORS: LazyLock<BTreeMap<Selector, AbiError>> = LazyLock::new(|| {
    let abis = ARTIFACTS.iter().filter_map(|(_, artifact)| artifact_abi(artifact));
    abis.flat_map(|abi| abi.errors.into_values().flatten()).map(|error| (error.selector(), error)).collect()
});

/// The interface in a committed artifact.
fn artifact_abi(artifact: &str) -> Option<JsonAbi> {
    #[derive(serde::Deserialize)]
    struct Artifact {
        abi: JsonAbi,
    }
    serde_json::from_str::<Artifact>(artifact).ok().map(|artifact| artifact.abi)
}

impl Revert {
    /// The refusal in a node's answer, or `None` if the node failed for a reason of its own.
    pub fn of(error: &TransportError) -> Option<Self> {
        let payload = error.as_error_resp()?;
        let data = payload.as_revert_data();
        // Code 3 is a revert by convention (geth). Some nodes have another code, and a revert without data has none to show.
        let is_revert = data.is_some() || payload.code == 3 || payload.message.contains("revert");
        is_revert.then(|| Self::decode(data.unwrap_or_default()))
    }

    /// Decodes what a contract returned.
    pub fn decode(data: Bytes) -> Self {
        if let Ok(text) = RevertString::abi_decode(&data) {
            return Self { name: "Error".to_owned(), arguments: vec![("reason".to_owned(), text.reason)], data };
        }
        if let Ok(panic) = Panic::abi_decode(&data) {
            return Self {
                name: "Panic".to_owned(),
                arguments: vec![("code".to_owned(), panic.code.to_string())],
                data,
            };
        }
        let selector = data.first_chunk::<4>().copied();
        let known = selector.and_then(|selector| ERRORS.get(&Selector::from(selector)));
        if let Some((error, decoded)) = known.and_then(|error| Some((error, error.decode_error(&data).ok()?))) {
            let values = error.inputs.iter().zip(&decoded.body);
            let arguments =
                values.map(|(input, value)| (input.name.clone(), shown(&error.name, &input.name, value))).collect();
            return Self { name: error.name.clone(), arguments, data };
        }
        let name = selector.and_then(eigenlayer_error).unwrap_or_default().to_owned();
        Self { name, arguments: Vec::new(), data }
    }

    /// What to do about it, if there is anything to say.
    pub fn advice(&self) -> Option<&'static str> {
        advice(&self.name)
    }

    /// Names of all errors that can be told apart.
    pub fn known() -> impl Iterator<Item = &'static str> {
        ERRORS.values().map(|error| error.name.as_str()).chain(EIGENLAYER_ERRORS.iter().copied().flatten().copied())
    }
}

/// Names of the errors of EigenLayer's core that calls of ours can meet.
const EIGENLAYER_ERRORS: [&[&str]; 4] = [
    AllocationManagerErrors::VARIANT_NAMES,
    DelegationManagerErrors::VARIANT_NAMES,
    StrategyManagerErrors::VARIANT_NAMES,
    RewardsCoordinatorErrors::VARIANT_NAMES,
];

/// The name of an error of EigenLayer's core. None of them has arguments.
fn eigenlayer_error(selector: [u8; 4]) -> Option<&'static str> {
    AllocationManagerErrors::name_by_selector(selector)
        .or_else(|| DelegationManagerErrors::name_by_selector(selector))
        .or_else(|| StrategyManagerErrors::name_by_selector(selector))
        .or_else(|| RewardsCoordinatorErrors::name_by_selector(selector))
}

/// Arguments that are points in time, in the errors of all contracts.
const TIMES: [&str; 9] =
    ["deadline", "dueAt", "expiredAt", "from", "to", "until", "validFrom", "validTo", "withdrawableAt"];

/// An argument as a person writes it. Solidity's interface files say `uint256` for a model's number and `uint64` for a time, so
/// names must tell.
fn shown(error: &str, argument: &str, value: &DynSolValue) -> String {
    match (error, argument, value) {
        (_, time, DynSolValue::Uint(seconds, 64)) if TIMES.contains(&time) => {
            format!("{} UTC", UnixSeconds::new(seconds.saturating_to()).date_and_time())
        }
        ("NotLater", _, DynSolValue::Uint(seconds, 64)) => {
            format!("{} UTC", UnixSeconds::new(seconds.saturating_to()).date_and_time())
        }
        (_, "modelId", DynSolValue::Uint(number, _)) | ("ManifestTaken", "by", DynSolValue::Uint(number, _)) => {
            B256::from(*number).to_string()
        }
        _ => plain(value),
    }
}

fn plain(value: &DynSolValue) -> String {
    match value {
        DynSolValue::Bool(value) => value.to_string(),
        DynSolValue::Uint(value, _) => value.to_string(),
        DynSolValue::Int(value, _) => value.to_string(),
        DynSolValue::Address(value) => value.to_string(),
        DynSolValue::FixedBytes(word, size) => hex::encode_prefixed(word.get(..*size).unwrap_or_default()),
        DynSolValue::Bytes(bytes) => hex::encode_prefixed(bytes),
        DynSolValue::String(text) => format!("{text:?}"),
        DynSolValue::Array(values) | DynSolValue::FixedArray(values) | DynSolValue::Tuple(values) => {
            format!("[{}]", values.iter().map(plain).collect::<Vec<_>>().join(", "))
        }
        other => format!("{other:?}"),
    }
}

impl fmt::Display for Revert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.data.is_empty() {
            return f.write_str("the contract gave no reason");
        }
        if self.name.is_empty() {
            return write!(f, "a reason that is not one of Hallmark's ({})", self.data);
        }
        f.write_str(&self.name)?;
        if !self.arguments.is_empty() {
            let arguments: Vec<String> = self.arguments.iter().map(|(name, value)| format!("{name} {value}")).collect();
            write!(f, " ({})", arguments.join(", "))?;
        }
        self.advice().map_or(Ok(()), |advice| write!(f, ": {advice}"))
    }
}

impl fmt::Debug for Revert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revert({self})")
    }
}
