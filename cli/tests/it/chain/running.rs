//! A development chain that runs beside the test, and commands against it.

use std::{
    io::{BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Ran, folder, hallmark};

/// Accounts of every development chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub(super) address: &'static str,
    pub(super) key: &'static str,
}

pub(super) const CREATOR: Account = Account {
    address: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    key: "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
};
pub(super) const HOST: Account = Account {
    address: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    key: "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
};
pub(super) const PAYER: Account = Account {
    address: "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
    key: "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
};
pub(super) const VALIDATOR: Account = Account {
    address: "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
    key: "0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
};
pub(super) const CONTRIBUTOR: Account = Account {
    address: "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
    key: "0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
};
pub(super) const LEASE_KEY: Account = Account {
    address: "0x976EA74026E726554dB657fA54763abd0C3a0aa9",
    key: "0x92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e",
};
pub(super) const SESSION_KEY: Account = Account {
    address: "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955",
    key: "0x4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356",
};

/// `hallmark devnet` in a process of its own; it ends with the test.
pub(super) struct Devnet {
    child: Option<Child>,
    /// What it printed when it was ready.
    pub(super) ready: Value,
    /// From the start of the process until then.
    pub(super) took: Duration,
}

impl Devnet {
    /// Starts one without a market and waits until it is ready.
    pub(super) fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_with(folder, &[&["--bare"], arguments].concat())
    }

    /// Starts one and waits until it is ready.
    pub(super) fn start_with(folder: &Path, arguments: &[&str]) -> Self {
        let began = Instant::now();
        let mut child = hallmark(folder, &[&["devnet", "--json"], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let first = serde_json::Deserializer::from_reader(out).into_iter::<Value>().next();
            // Nobody waits any more when the test is over.
            sender.send(first).unwrap_or_default();
        });
        // Three seconds are promised; a machine that builds something meanwhile gets more.
        let ready = receiver.recv_timeout(Duration::from_secs(60));
        let took = began.elapsed();
        let Ok(Some(Ok(ready))) = ready else {
            child.kill().unwrap();
            let ended = child.wait_with_output().unwrap();
            panic!("the chain is not there: {}", String::from_utf8_lossy(&ended.stderr));
        };
        Self { child: Some(child), ready, took }
    }

    pub(super) fn url(&self) -> &str {
        self.ready["rpc"].as_str().unwrap()
    }

    /// Sends a signal, and returns how the process ended and what it said.
    pub(super) fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let child = self.child.take().unwrap();
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let ended = child.wait_with_output().unwrap();
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    }

    /// Asks its JSON-RPC.
    pub(super) fn rpc(&self, method: &str, parameters: Value) -> Value {
        rpc(self.url(), method, &parameters)
    }

    /// Moves the chain's clock, and mines.
    pub(super) fn wait(&self, seconds: u64) {
        self.rpc("evm_increaseTime", json!([seconds]));
        self.rpc("evm_mine", json!([]));
    }

    pub(super) fn mine(&self, blocks: u64) {
        self.rpc("anvil_mine", json!([blocks]));
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself; there is nothing to do about either.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// One JSON-RPC request over HTTP, as any program would send it.
fn rpc(url: &str, method: &str, parameters: &Value) -> Value {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": parameters }).to_string();
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(stream, "POST / HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (_, answer) = text.split_once("\r\n\r\n").unwrap();
    let answer: Value = serde_json::from_str(answer).unwrap();
    assert!(answer.get("error").is_none(), "{method}: {answer}");
    answer["result"].clone()
}

/// A folder with a chain's deployment file, where commands run.
pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) devnet: Devnet,
}

impl World {
    pub(super) fn new() -> Self {
        let folder = folder();
        let devnet = Devnet::start(folder.path(), &["--port", "0"]);
        Self { folder, devnet }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A command with the chain and an account in its environment.
    pub(super) fn command(&self, account: Option<Account>, arguments: &[&str]) -> Command {
        let mut command = hallmark(self.path(), arguments);
        command.env("HALLMARK_RPC", self.devnet.url()).env("HALLMARK_STATE", self.path().join("state"));
        if let Some(account) = account {
            command.env("HALLMARK_PRIVATE_KEY", account.key);
        }
        command
    }

    /// Runs a command as an account.
    pub(super) fn run(&self, account: Account, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(Some(account), arguments))
    }

    /// Runs a command that must succeed, and returns its object.
    pub(super) fn json(&self, account: Account, arguments: &[&str]) -> Value {
        self.run(account, &[arguments, &["--json"]].concat()).succeeded().json()
    }

    /// First tries the command out, which changes nothing, and then runs it.
    pub(super) fn tried(&self, account: Account, arguments: &[&str]) -> Value {
        let before = self.transactions(account);
        let tried = self.json(account, &[arguments, &["--dry-run"]].concat());
        assert_eq!(tried["dry_run"], true);
        assert_eq!(self.transactions(account), before, "a dry run sends nothing: {arguments:?}");
        let done = self.json(account, arguments);
        assert_eq!(done["dry_run"], false);
        let sent = done["transactions"].as_array().unwrap();
        let hashes = sent.iter().filter(|sent| sent["transaction"].as_str().unwrap().len() == 66).count();
        assert_eq!(self.transactions(account), before + hashes, "{arguments:?}: {done}");
        assert!(hashes > 0);
        assert_eq!(
            sent.iter().map(|sent| &sent["action"]).collect::<Vec<_>>(),
            tried["transactions"].as_array().unwrap().iter().map(|tried| &tried["action"]).collect::<Vec<_>>(),
            "the same actions are tried and done"
        );
        done
    }

    /// How many transactions the account has sent.
    pub(super) fn transactions(&self, account: Account) -> usize {
        number(&self.devnet.rpc("eth_getTransactionCount", json!([account.address, "latest"])))
    }

    /// How many transactions wait to be mined.
    pub(super) fn pooled(&self) -> usize {
        number(&self.devnet.rpc("txpool_status", json!([]))["pending"])
    }

    /// Waits until something has come true.
    pub(super) fn until(&self, mut come_true: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !come_true(self) {
            assert!(Instant::now() < deadline, "it never came true");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn status(&self, arguments: &[&str]) -> Value {
        Ran::of(&mut self.command(None, &[&["status", "--json"], arguments].concat())).succeeded().json()
    }
}

pub(super) fn number(quantity: &Value) -> usize {
    usize::from_str_radix(quantity.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
}
