//! `hallmark host` in a process of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::Context as _;
use benches::world::World;
use licensing_contracts::{
    devchain,
    devnet::{HOST, LEASE_KEY},
};
use reqwest::Client;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Ends with the value.
#[derive(Debug)]
pub(crate) struct HostProcess {
    process: Child,
    /// Where customers connect, `/v1` included.
    pub(crate) url: String,
    operator: Operator,
    /// The chain that it follows.
    _chain: devchain::Server,
}

/// Where the operator looks.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    url: String,
    client: Client,
}

/// What a process holds, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    resident: u64,
    peak: u64,
}

impl HostProcess {
    /// Serves the model of the world's lease, with `places` for requests of which `streams` generate at once.
    pub(crate) async fn start(
        binary: &Path,
        world: &World,
        model: &Path,
        streams: usize,
        places: usize,
    ) -> anyhow::Result<Self> {
        let failed = || format!("failed to start {}; build it with `cargo build --release`", binary.display());
        let chain = world.devnet().chain().serve(([127, 0, 0, 1], 0).into(), &CancellationToken::new()).await?;
        let folder = world.folder();
        world.devnet().deployment().write(&folder.join("deployment.json"))?;
        let operator = free_address()?;
        let config = folder.join("host.toml");
        let (rpc, lease, queue) = (chain.url(), world.lease(), places - streams);
        let model = model.canonicalize()?;
        fs::write(
            &config,
            format!(
                "listen = \"127.0.0.1:0\"\noperator = \"{operator}\"\n\n[chain]\nrpc = [\"{rpc}\"]\n\n\
                 [limits]\nopen_requests = {places}\n\n\
                 [[model]]\nname = \"model\"\nlease = {lease}\nmodel = {model:?}\nstreams = {streams}\nqueue = {queue}\n"
            ),
        )?;
        let mut command = Command::new(binary.canonicalize().with_context(failed)?);
        command.args(["host", "--json", "--config"]).arg(&config).current_dir(folder);
        command.env("HALLMARK_PRIVATE_KEY", HOST.key.to_string()).env("HALLMARK_LEASE_KEY", LEASE_KEY.key.to_string());
        command.env("HALLMARK_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().with_context(failed)?;
        let stdout = process.stdout.take().context("its standard output")?;
        let operator = Operator { url: format!("http://{operator}"), client: Client::builder().no_proxy().build()? };
        let mut host = Self { process, url: String::new(), operator, _chain: chain };
        host.url = ready(stdout).await?["url"].as_str().context("the host's address")?.to_owned();
        Ok(host)
    }

    /// What it holds now, and held at most since [`forget_peak`](Self::forget_peak).
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
            Ok::<u64, anyhow::Error>(line.trim_end_matches("kB").trim().parse()?)
        };
        Ok(Memory { resident: kib("VmRSS:")?, peak: kib("VmHWM:")? })
    }

    /// Makes the peak what is resident now.
    pub(crate) fn forget_peak(&self) -> anyhow::Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.process.id()), "5")?)
    }

    /// What its operator sees.
    pub(crate) fn operator(&self) -> &Operator {
        &self.operator
    }
}

impl Operator {
    /// Requests that the host has open, by its own count.
    pub(crate) async fn open_requests(&self) -> anyhow::Result<u64> {
        let text = self.client.get(format!("{}/metrics", self.url)).send().await?.text().await?;
        let value = text.lines().find_map(|line| line.strip_prefix("hallmark_open_requests "));
        Ok(value.context("hallmark_open_requests")?.trim().parse::<f64>()? as u64)
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        // It has ended already if either fails.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Memory {
    pub(crate) fn resident_mib(self) -> u64 {
        self.resident / 1024
    }

    pub(crate) fn peak_mib(self) -> u64 {
        self.peak / 1024
    }
}

/// What it prints when its port is open.
async fn ready(stdout: ChildStdout) -> anyhow::Result<Value> {
    let mut lines = BufReader::new(stdout);
    let read = move || {
        let mut text = String::new();
        loop {
            anyhow::ensure!(lines.read_line(&mut text)? > 0, "the host ended before it listened");
            if let Ok(ready) = serde_json::from_str(&text) {
                return Ok(ready);
            }
        }
    };
    tokio::task::spawn_blocking(read).await?
}

/// For the operator's port, which the host does not print as JSON.
fn free_address() -> anyhow::Result<std::net::SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
