//! Who may depend on whom, as a test over the manifests. A new edge is a change of this table, and a conversation.
//!
//! ```text
//! protocol ◄── licensing-contracts ◄── registry-api
//!    ▲  ▲              ▲  ▲
//!    │  └── model ◄──┐ │  └── validator
//!    │        ▲      │ │
//!    └── fingerprint └─┴── serving            cli ──► all
//! ```

use std::{collections::BTreeSet, process::Command};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

struct Row {
    package: &'static str,
    /// Packages of this workspace that it may use, also in its tests.
    ours: &'static [&'static str],
    /// Crates that it must not reach, neither directly nor through others; `candle` stands for `candle-core` too.
    never: &'static [&'static str],
    /// If given, all that it may use beyond `ours`.
    only: Option<&'static [&'static str]>,
}

/// Packages that do not exist yet have their row already.
const TABLE: &[Row] = &[
    Row {
        package: "protocol",
        ours: &[],
        never: &["tokio", "axum", "sqlx", "candle", "reqwest"],
        only: Some(&[
            "serde",
            "thiserror",
            "alloy-primitives",
            "alloy-sol-types",
            "sha3",
            "hmac",
            "ark-bn254",
            "ark-ec",
            "ark-ff",
            // Recovery is a pure function, on the hot path of hosts and validators, and k256 takes five times as long.
            "secp256k1",
            // Keys for both kinds of signature are wiped.
            "zeroize",
        ]),
    },
    Row { package: "model", ours: &["protocol"], never: &["tokio", "axum", "sqlx", "alloy-provider"], only: None },
    Row { package: "fingerprint", ours: &["protocol", "model"], never: &["axum", "sqlx"], only: None },
    Row { package: "licensing-contracts", ours: &["protocol"], never: &["axum", "sqlx", "candle"], only: None },
    Row {
        package: "serving",
        ours: &["protocol", "model", "licensing-contracts"],
        never: &["registry-api", "validator", "fingerprint"],
        only: None,
    },
    Row {
        package: "registry-api",
        ours: &["protocol", "licensing-contracts"],
        never: &["candle", "model", "fingerprint"],
        only: None,
    },
    Row {
        package: "validator",
        ours: &["protocol", "model", "licensing-contracts", "fingerprint"],
        never: &["serving", "registry-api"],
        only: None,
    },
    Row {
        package: "cli",
        ours: &["protocol", "model", "fingerprint", "licensing-contracts", "serving", "registry-api", "validator"],
        never: &[],
        only: None,
    },
];

/// Packages outside the product: nothing may depend on them, and they may depend on everything.
const TOOLS: &[&str] = &["benches"];

fn row(package: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.package == package)
}

fn command() -> MetadataCommand {
    let mut command = MetadataCommand::new();
    command.manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    command
}

/// Packages of the workspace with their rows.
fn members(metadata: &Metadata) -> Vec<(&Package, &'static Row)> {
    metadata
        .workspace_packages()
        .into_iter()
        .filter(|package| !TOOLS.contains(&package.name.as_str()))
        .map(|package| {
            (package, row(&package.name).unwrap_or_else(|| panic!("{} has no row in the table", package.name)))
        })
        .collect()
}

fn is(name: &str, banned: &str) -> bool {
    name == banned || name.strip_prefix(banned).is_some_and(|rest| rest.starts_with('-'))
}

#[test]
fn packages_use_what_the_table_allows() {
    let metadata = command().no_deps().exec().unwrap();
    let ours: BTreeSet<&str> = metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    let mut wrong = Vec::new();
    for (package, row) in members(&metadata) {
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            let development = dependency.kind == DependencyKind::Development;
            let allowed = if ours.contains(name) {
                // A package may use itself, with other features, in its tests.
                row.ours.contains(&name) || (development && name == row.package)
            } else if development {
                true
            } else {
                !row.never.iter().any(|banned| is(name, banned)) && row.only.is_none_or(|only| only.contains(&name))
            };
            if !allowed {
                wrong.push(format!("{} → {name}", row.package));
            }
        }
    }
    assert!(wrong.is_empty(), "the table in protocol/tests/it/architecture.rs does not allow: {wrong:?}");
}

#[test]
fn packages_reach_nothing_that_the_table_bans() {
    // Not from the metadata: there an optional dependency counts as soon as a feature mentions it (`reqwest?/..`).
    let metadata = command().no_deps().exec().unwrap();
    let mut wrong = Vec::new();
    for (_, row) in members(&metadata) {
        let arguments = ["tree", "--edges", "normal,build", "--prefix", "none", "--format", "{p}", "--package"];
        let tree = Command::new(env!("CARGO")).args(arguments).arg(row.package).output().unwrap();
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let tree = String::from_utf8(tree.stdout).unwrap();
        let reached: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
        // The tree is complete: every package of ours ends at serde's parts.
        assert!(reached.contains(row.package) && reached.contains("serde_core"), "{}", row.package);
        let banned = reached.iter().filter(|name| row.never.iter().any(|banned| is(name, banned)));
        wrong.extend(banned.map(|name| format!("{} ⇝ {name}", row.package)));
    }
    assert!(wrong.is_empty(), "the table in protocol/tests/it/architecture.rs does not allow: {wrong:?}");
}

#[test]
fn the_table_has_no_cycle_and_names_only_itself() {
    fn visit(package: &str, open: &mut Vec<String>) {
        assert!(!open.iter().any(|name| name == package), "cycle: {open:?} → {package}");
        open.push(package.to_owned());
        let row = row(package).unwrap_or_else(|| panic!("{package} is used but has no row"));
        assert!(!row.ours.iter().any(|name| row.never.contains(name)), "{package} may and must not use the same");
        for name in row.ours {
            visit(name, open);
        }
        open.pop();
    }
    for row in TABLE {
        visit(row.package, &mut Vec::new());
    }
}
