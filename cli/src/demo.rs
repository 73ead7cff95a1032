//! The demo: a model's whole life on one machine, and the report about it.

mod asking;
mod chain;
mod customer;
pub(crate) mod folder;
mod host;
mod journal;
mod licence;
mod page;
mod plot;
pub(crate) mod record;
pub(crate) mod run;
mod stamping;
mod text;
pub(crate) mod utility;

use self::{folder::Folder, record::DemoRecord};

/// The page's file.
const PAGE: &str = "report.html";
/// The text's file.
const TEXT: &str = "report.txt";
/// The same as JSON.
const JSON: &str = "report.json";

/// Writes the report in its three forms and returns the text.
pub(crate) fn write_reports(record: &DemoRecord, folder: &Folder) -> anyhow::Result<String> {
    let text = text::report(record);
    folder.write(JSON, serde_json::to_string_pretty(record)?.as_bytes())?;
    folder.write(TEXT, text.as_bytes())?;
    folder.write(PAGE, page::page(record).as_bytes())?;
    Ok(text)
}
