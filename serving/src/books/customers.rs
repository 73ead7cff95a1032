//! Customers who pay in money and show an API key.

use std::fmt;

use alloy_primitives::{B256, keccak256};
use protocol::{
    ids::Lane,
    units::{Amount, UnixSeconds},
};

use super::{
    Books, BooksError,
    columns::{self, Columns, signed},
};

/// A customer's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CustomerId(String);

/// Longest name.
const LONGEST: usize = 64;

impl CustomerId {
    /// Letters, digits, `-`, `_` and `.`, 64 at most; `None` for anything else.
    pub fn new(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        ((1..=LONGEST).contains(&text.len()) && text.bytes().all(plain)).then(|| Self(text.to_owned()))
    }

    /// What a row says; it was checked when it was written.
    pub(super) fn from_row(text: String) -> Self {
        Self(text)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CustomerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    /// The name.
    pub id: CustomerId,
    /// Its lane on channel 0 of every lease.
    pub lane: Lane,
    /// The most that may be charged in all; none: no limit.
    pub budget: Option<Amount>,
    /// The most requests in a minute; none: no limit.
    pub requests_per_minute: Option<u64>,
    /// Since when.
    pub created_at: UnixSeconds,
    /// From when on its key is refused.
    pub revoked_at: Option<UnixSeconds>,
}

/// What is needed to make one.
#[derive(Clone, Debug)]
pub struct NewCustomer {
    /// The name.
    pub id: CustomerId,
    /// Digest of the key: [`Books::key_digest`].
    pub key_digest: B256,
    /// The most that may be charged in all.
    pub budget: Option<Amount>,
    /// The most requests in a minute.
    pub requests_per_minute: Option<u64>,
    /// Now.
    pub created_at: UnixSeconds,
}

/// A limit as it is to be from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit<T> {
    /// So much and no more.
    Most(T),
    /// None.
    Lifted,
}

impl<T> Limit<T> {
    fn most(self) -> Option<T> {
        match self {
            Self::Most(most) => Some(most),
            Self::Lifted => None,
        }
    }
}

/// What is to change about a customer's limits; what is not named stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewLimits {
    /// The most that may be charged in all.
    pub budget: Option<Limit<Amount>>,
    /// The most requests in a minute.
    pub requests_per_minute: Option<Limit<u64>>,
}

impl Books {
    /// Under what a key is looked up.
    pub fn key_digest(key: &str) -> B256 {
        keccak256(key)
    }

    /// Adds a customer. `false` if the name is taken.
    pub async fn add_customer(&self, new: &NewCustomer) -> Result<bool, BooksError> {
        let query = sqlx::query(INSERT)
            .bind(new.id.as_str().to_owned())
            .bind(new.key_digest.to_vec())
            .bind(new.budget.map(columns::amount))
            .bind(new.requests_per_minute.map(signed))
            .bind(signed(new.created_at.get()));
        let done = query.execute(&self.pool).await.map_err(BooksError::database("add a customer to"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Changes a customer's limits. The customer as it is then; `None` if there is none, or its key is refused.
    pub async fn limit_customer(&self, id: &CustomerId, new: &NewLimits) -> Result<Option<Customer>, BooksError> {
        let failed = || BooksError::database("change a customer in");
        let mut transaction = self.pool.begin().await.map_err(failed())?;
        if let Some(budget) = new.budget {
            let query = sqlx::query("update customer set budget = $2 where customer_id = $1 and revoked_at_s is null")
                .bind(id.as_str().to_owned())
                .bind(budget.most().map(columns::amount));
            query.execute(&mut *transaction).await.map_err(failed())?;
        }
        if let Some(most) = new.requests_per_minute {
            let query = sqlx::query(SET_RATE).bind(id.as_str().to_owned()).bind(most.most().map(signed));
            query.execute(&mut *transaction).await.map_err(failed())?;
        }
        let query = sqlx::query("select * from customer where customer_id = $1 and revoked_at_s is null")
            .bind(id.as_str().to_owned());
        let row = query.fetch_optional(&mut *transaction).await.map_err(failed())?;
        let customer = row.as_ref().map(|row| parse(&Columns(row))).transpose()?;
        transaction.commit().await.map_err(failed())?;
        Ok(customer)
    }

    /// Refuses a customer's key from now on. `false` if there is no such customer, or its key was refused before.
    pub async fn revoke_customer(&self, id: &CustomerId, now: UnixSeconds) -> Result<bool, BooksError> {
        let query =
            sqlx::query("update customer set revoked_at_s = $2 where customer_id = $1 and revoked_at_s is null")
                .bind(id.as_str().to_owned())
                .bind(signed(now.get()));
        let done = query.execute(&self.pool).await.map_err(BooksError::database("revoke a customer in"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Whose key this is.
    pub async fn customer_of(&self, key_digest: B256) -> Result<Option<Customer>, BooksError> {
        let query = sqlx::query("select * from customer where key_digest = $1").bind(key_digest.to_vec());
        let row = query.fetch_optional(&self.pool).await.map_err(BooksError::database("look up a customer in"))?;
        row.as_ref().map(|row| parse(&Columns(row))).transpose()
    }

    /// All customers by name.
    pub async fn customers(&self) -> Result<Vec<Customer>, BooksError> {
        let query = sqlx::query("select * from customer order by customer_id");
        let rows = query.fetch_all(&self.pool).await.map_err(BooksError::database("list the customers of"))?;
        rows.iter().map(|row| parse(&Columns(row))).collect()
    }
}

// The lane is the next free one; two at once meet in the unique key, and one of them is refused.
const INSERT: &str = "insert into customer (customer_id, key_digest, lane, budget, requests_per_minute, created_at_s) \
     select $1, $2, coalesce(max(lane), 0) + 1, $3, $4, $5 from customer where true on conflict (customer_id) do nothing";

const SET_RATE: &str = "update customer set requests_per_minute = $2 where customer_id = $1 and revoked_at_s is null";

fn parse(row: &Columns<'_>) -> Result<Customer, BooksError> {
    Ok(Customer {
        id: CustomerId::from_row(row.text("customer_id")?),
        lane: row.lane("lane")?,
        budget: row.optional_amount("budget")?,
        requests_per_minute: row.optional_number("requests_per_minute")?,
        created_at: UnixSeconds::new(row.number("created_at_s")?),
        revoked_at: row.optional_number("revoked_at_s")?.map(UnixSeconds::new),
    })
}
