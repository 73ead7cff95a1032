//! How values stand in columns.

use alloy_primitives::{Address, B256};
use protocol::{
    ids::{ChannelId, Epoch, Lane, LeaseId},
    signature::Signature,
    units::Amount,
};
use sqlx::{Any, ColumnIndex, Decode, Row as _, Type, any::AnyRow};

use super::BooksError;

/// A number without a sign, in a column with one. All numbers but lanes are far below the sign.
pub(super) const fn signed(value: u64) -> i64 {
    value.cast_signed()
}

pub(super) fn amount(amount: Amount) -> Vec<u8> {
    amount.get().to_be_bytes().to_vec()
}

/// 0 stands for absence where a unique key needs a value.
pub(super) fn channel(channel: Option<ChannelId>) -> Vec<u8> {
    channel.map_or(B256::ZERO, ChannelId::into).to_vec()
}

/// Reads columns by name and says which one makes no sense.
pub(super) struct Columns<'a>(pub(super) &'a AnyRow);

impl<'a> Columns<'a> {
    fn raw<T>(&self, name: &'static str) -> Result<T, BooksError>
    where
        T: Decode<'a, Any> + Type<Any>,
        &'static str: ColumnIndex<AnyRow>,
    {
        self.0.try_get(name).map_err(BooksError::database("read a row of"))
    }

    pub(super) fn text(&self, name: &'static str) -> Result<String, BooksError> {
        self.raw(name)
    }

    pub(super) fn optional_text(&self, name: &'static str) -> Result<Option<String>, BooksError> {
        self.raw(name)
    }

    pub(super) fn number(&self, name: &'static str) -> Result<u64, BooksError> {
        self.raw::<i64>(name).map(i64::cast_unsigned)
    }

    pub(super) fn optional_number(&self, name: &'static str) -> Result<Option<u64>, BooksError> {
        Ok(self.raw::<Option<i64>>(name)?.map(i64::cast_unsigned))
    }

    /// A number of 16 bits. SQLite knows one size of integers only.
    pub(super) fn small(&self, name: &'static str) -> Result<u8, BooksError> {
        let value = match self.raw::<i16>(name) {
            Ok(value) => i64::from(value),
            Err(_) => self.raw::<i64>(name)?,
        };
        u8::try_from(value).map_err(|_| damaged(name, value))
    }

    fn bytes<const N: usize>(&self, name: &'static str) -> Result<[u8; N], BooksError> {
        let bytes: Vec<u8> = self.raw(name)?;
        bytes.try_into().map_err(|bytes: Vec<u8>| damaged(name, format!("{} bytes", bytes.len())))
    }

    fn optional_bytes<const N: usize>(&self, name: &'static str) -> Result<Option<[u8; N]>, BooksError> {
        match self.raw::<Option<Vec<u8>>>(name)? {
            None => Ok(None),
            Some(_) => self.bytes(name).map(Some),
        }
    }

    pub(super) fn word(&self, name: &'static str) -> Result<B256, BooksError> {
        self.bytes(name).map(B256::new)
    }

    pub(super) fn optional_word(&self, name: &'static str) -> Result<Option<B256>, BooksError> {
        Ok(self.optional_bytes(name)?.map(B256::new))
    }

    pub(super) fn address(&self, name: &'static str) -> Result<Address, BooksError> {
        self.bytes(name).map(Address::new)
    }

    pub(super) fn optional_address(&self, name: &'static str) -> Result<Option<Address>, BooksError> {
        Ok(self.optional_bytes(name)?.map(Address::new))
    }

    pub(super) fn amount(&self, name: &'static str) -> Result<Amount, BooksError> {
        self.bytes(name).map(|bytes| Amount::new(u128::from_be_bytes(bytes)))
    }

    pub(super) fn optional_amount(&self, name: &'static str) -> Result<Option<Amount>, BooksError> {
        Ok(self.optional_bytes(name)?.map(|bytes| Amount::new(u128::from_be_bytes(bytes))))
    }

    pub(super) fn signature(&self, name: &'static str) -> Result<Signature, BooksError> {
        let bytes: [u8; 65] = self.bytes(name)?;
        Signature::from_slice(&bytes).map_err(|error| damaged(name, error))
    }

    pub(super) fn optional_signature(&self, name: &'static str) -> Result<Option<Signature>, BooksError> {
        match self.optional_bytes::<65>(name)? {
            None => Ok(None),
            Some(_) => self.signature(name).map(Some),
        }
    }

    /// The channel; none for the zero word.
    pub(super) fn channel(&self, name: &'static str) -> Result<Option<ChannelId>, BooksError> {
        let word = self.word(name)?;
        Ok((!word.is_zero()).then(|| word.into()))
    }

    pub(super) fn lane(&self, name: &'static str) -> Result<Lane, BooksError> {
        self.number(name).map(Lane::new)
    }

    pub(super) fn lease(&self, name: &'static str) -> Result<LeaseId, BooksError> {
        self.number(name).map(LeaseId::new)
    }

    pub(super) fn epoch(&self, name: &'static str) -> Result<Epoch, BooksError> {
        self.number(name).map(Epoch::new)
    }
}

pub(super) fn damaged(what: &'static str, value: impl ToString) -> BooksError {
    BooksError::Damaged { what, value: value.to_string() }
}
