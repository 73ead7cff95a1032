//! Why a contract refused, in its own words and with a sentence that says what to do.

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use alloy::{
    dyn_abi::{DynSolValue, ErrorExt},
    json_abi::{Error as AbiError, JsonAbi},
    primitives::{Bytes, Selector, hex},
    sol_types::{Panic, Revert as RevertString, SolError},
    transports::TransportError,
};

use crate::{advice::advice, bindings::ARTIFACTS};

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
        // Code 3 is a revert by convention (geth); a revert without data has none to spell out.
        let data = payload.as_revert_data();
        (data.is_some() || payload.code == 3).then(|| Self::decode(data.unwrap_or_default()))
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
        let known = data.first_chunk::<4>().and_then(|selector| ERRORS.get(&Selector::from(*selector)));
        let decoded = known.and_then(|error| Some((error, error.decode_error(&data).ok()?)));
        let Some((error, decoded)) = decoded else { return Self { name: String::new(), arguments: Vec::new(), data } };
        let names = error.inputs.iter().map(|input| input.name.clone());
        let arguments = names.zip(decoded.body.iter().map(shown)).collect();
        Self { name: error.name.clone(), arguments, data }
    }

    /// What to do about it, if there is anything to say.
    pub fn advice(&self) -> Option<&'static str> {
        advice(&self.name)
    }

    /// Names of all errors that can be told apart.
    pub fn known() -> impl Iterator<Item = &'static str> {
        ERRORS.values().map(|error| error.name.as_str())
    }
}

/// A value as a person writes it.
fn shown(value: &DynSolValue) -> String {
    match value {
        DynSolValue::Bool(value) => value.to_string(),
        DynSolValue::Uint(value, _) => value.to_string(),
        DynSolValue::Int(value, _) => value.to_string(),
        DynSolValue::Address(value) => value.to_string(),
        DynSolValue::FixedBytes(word, size) => hex::encode_prefixed(word.get(..*size).unwrap_or_default()),
        DynSolValue::Bytes(bytes) => hex::encode_prefixed(bytes),
        DynSolValue::String(text) => format!("{text:?}"),
        DynSolValue::Array(values) | DynSolValue::FixedArray(values) | DynSolValue::Tuple(values) => {
            format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(", "))
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
        let arguments: Vec<String> = self.arguments.iter().map(|(name, value)| format!("{name} {value}")).collect();
        write!(f, "{}({})", self.name, arguments.join(", "))?;
        self.advice().map_or(Ok(()), |advice| write!(f, ": {advice}"))
    }
}

impl fmt::Debug for Revert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revert({self})")
    }
}
