//! Insertions of many rows at a time.

use sqlx::{Any, AnyConnection, AssertSqlSafe, any::AnyArguments, query::Query};

/// Rows of one insertion, the largest that fit first: so there are a few statements to prepare, and not one for every size. Not
/// many: SQLite looks for a parameter by going through all of them.
const ROWS: [usize; 3] = [16, 4, 1];

pub(super) type AnyQuery<'q> = Query<'q, Any, AnyArguments>;

/// The texts that insert into one table.
pub(super) struct Insertion([(usize, String); 3]);

impl Insertion {
    /// `conflict`: what to do about a row whose place is taken; empty: fail.
    pub(super) fn new(table: &str, columns: &[&str], conflict: &str) -> Self {
        Self(ROWS.map(|rows| (rows, text(table, columns, rows, conflict))))
    }

    /// Inserts all rows. `bind` adds the values of one row to a query, in the order of the columns.
    pub(super) async fn execute<T>(
        &self,
        connection: &mut AnyConnection,
        rows: &[T],
        bind: impl for<'q> Fn(AnyQuery<'q>, &T) -> AnyQuery<'q>,
    ) -> Result<(), sqlx::Error> {
        let mut rest = rows;
        for (size, text) in &self.0 {
            while let Some((piece, others)) = rest.split_at_checked(*size) {
                let query = sqlx::query(AssertSqlSafe(text.as_str()));
                piece.iter().fold(query, &bind).execute(&mut *connection).await?;
                rest = others;
            }
        }
        Ok(())
    }
}

fn text(table: &str, columns: &[&str], rows: usize, conflict: &str) -> String {
    let mut parameters = (1_u32..).map(|number| format!("${number}"));
    let rows: Vec<String> = (0..rows)
        .map(|_| format!("({})", parameters.by_ref().take(columns.len()).collect::<Vec<_>>().join(", ")))
        .collect();
    format!("insert into {table} ({}) values {} {conflict}", columns.join(", "), rows.join(", "))
}
