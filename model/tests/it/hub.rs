//! The Hub's HTTP interface, as far as a download needs it, on a local port.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use model::hub::{HubError, HubOptions, resolve_with};
use serde_json::json;

use crate::support::{message, stored_tensors, tiny_config, write_sharded, write_single};

const NAME: &str = "acme/tiny";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server does besides answering properly.
#[derive(Clone, Default)]
struct Behaviour {
    /// Status for every request of the list of files.
    list_status: Option<u16>,
    /// Status for every file.
    file_status: Option<u16>,
    /// A download of this file breaks off halfway, this many times.
    break_off: Option<(&'static str, usize)>,
}

struct Server {
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(files: BTreeMap<String, Vec<u8>>, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::new((files, behaviour, AtomicUsize::new(0), Arc::clone(&requests)));
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || answer(stream.unwrap(), &shared.0, &shared.1, &shared.2, &shared.3));
            }
        });
        Self { endpoint, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn answer(
    stream: TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    behaviour: &Behaviour,
    broken: &AtomicUsize,
    requests: &Mutex<Vec<String>>,
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(path) = lines.next().and_then(|line| line.split(' ').nth(1).map(str::to_owned)) else { return };
    let headers: BTreeMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(key, value)| (key.to_lowercase(), value.to_owned())))
        .collect();
    let token = headers.get("authorization").map(|token| format!(" with {token}")).unwrap_or_default();
    let start = headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    let start: usize = start.unwrap_or(0);
    let probe = headers.get("range").is_some_and(|range| range == "bytes=0-0");
    if !probe {
        requests.lock().unwrap().push(format!("{path} from {start}{token}"));
    }
    if path == format!("/api/models/{NAME}/revision/main") {
        let siblings: Vec<_> = files.keys().map(|name| json!({"rfilename": name})).collect();
        let body = json!({"sha": COMMIT, "siblings": siblings}).to_string();
        return respond(stream, behaviour.list_status.unwrap_or(200), "", body.as_bytes(), None);
    }
    let name = path.strip_prefix(&format!("/{NAME}/resolve/{COMMIT}/")).unwrap_or_default();
    let Some(contents) = files.get(name) else { return respond(stream, 404, "", b"", None) };
    if let Some(status) = behaviour.file_status {
        return respond(stream, status, "", b"", None);
    }
    let end = if probe { 1 } else { contents.len() };
    let extra = format!(
        "ETag: \"{name}-etag\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {start}-{}/{}\r\n",
        end - 1,
        contents.len()
    );
    let cut = behaviour
        .break_off
        .filter(|(file, times)| !probe && *file == name && broken.fetch_add(1, Ordering::SeqCst) < *times);
    respond(stream, 206, &extra, &contents[start..end], cut.map(|_| (end - start) / 2));
}

/// Promises the whole body; sends only its first `cut` bytes if there is a cut.
fn respond(mut stream: TcpStream, status: u16, extra: &str, body: &[u8], cut: Option<usize>) {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{extra}Connection: close\r\n\r\n", body.len());
    // The client may hang up first.
    let written = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..cut.unwrap_or(body.len())]));
    drop(written);
}

/// A model's files as a repository offers them, with much that is not needed.
fn repository(sharded: bool) -> BTreeMap<String, Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let config = tiny_config(false);
    write_sharded(directory.path(), &config, &stored_tensors(&config, "BF16"));
    if !sharded {
        write_single(directory.path(), &config, &stored_tensors(&config, "BF16"));
    }
    let mut files: BTreeMap<_, _> = crate::support::contents(directory.path()).into_iter().collect();
    files.insert("onnx/model.onnx".to_owned(), b"onnx".to_vec());
    files.insert("model.gguf".to_owned(), b"GGUF".to_vec());
    files
}

fn options(server: &Server, cache: &Path) -> HubOptions {
    HubOptions {
        endpoint: Some(server.endpoint.clone()),
        cache: Some(cache.to_owned()),
        first_pause: Duration::from_millis(1),
        ..HubOptions::default()
    }
}

fn refusal(behaviour: Behaviour) -> String {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(repository(false), behaviour);
    message(&resolve_with(NAME, &options(&server, cache.path())).unwrap_err())
}

#[test]
fn only_the_needed_files_are_fetched_and_only_once() {
    let cache = tempfile::tempdir().unwrap();
    for sharded in [false, true] {
        let cache = cache.path().join(sharded.to_string());
        let files = repository(sharded);
        let server = Server::start(files.clone(), Behaviour::default());
        let folder = resolve_with(NAME, &options(&server, &cache)).unwrap();
        let mut expected = vec!["LICENSE.txt", "chat_template.jinja", "config.json", "generation_config.json"];
        if sharded {
            expected.extend(["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
            expected.push("model.safetensors.index.json");
        } else {
            expected.push("model.safetensors");
        }
        expected.extend(["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]);
        let fetched = crate::support::contents(&folder);
        assert_eq!(fetched.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), expected);
        assert!(fetched.iter().all(|(name, contents)| files[name] == *contents));
        assert!(model::Checkpoint::open(&folder).is_ok());

        let before = server.requests().len();
        assert_eq!(before, expected.len() + 1, "{:?}", server.requests());
        assert_eq!(resolve_with(NAME, &options(&server, &cache)).unwrap(), folder);
        assert_eq!(server.requests().len(), before + 1, "only the list is asked for again");
    }
}

#[test]
fn a_download_that_breaks_off_is_continued_where_it_stopped() {
    let cache = tempfile::tempdir().unwrap();
    let files = repository(false);
    let half = files["model.safetensors"].len() / 2;
    let server =
        Server::start(files.clone(), Behaviour { break_off: Some(("model.safetensors", 1)), ..Behaviour::default() });
    let folder = resolve_with(NAME, &options(&server, cache.path())).unwrap();
    assert!(fs::read(folder.join("model.safetensors")).unwrap() == files["model.safetensors"]);
    let continued = format!("model.safetensors from {half}");
    assert!(server.requests().iter().any(|request| request.ends_with(&continued)), "{:?}", server.requests());
}

#[test]
fn a_later_call_continues_what_an_earlier_one_left() {
    let cache = tempfile::tempdir().unwrap();
    let files = repository(false);
    let server =
        Server::start(files.clone(), Behaviour { break_off: Some(("model.safetensors", 4)), ..Behaviour::default() });
    let error = resolve_with(NAME, &options(&server, cache.path())).unwrap_err();
    assert!(error.is_retryable() && message(&error).contains("trying again continues"), "{}", message(&error));
    let offline = HubOptions { offline: true, ..options(&server, cache.path()) };
    assert!(
        matches!(resolve_with(NAME, &offline), Err(HubError::Offline { .. })),
        "half a model is not offered offline"
    );
    let folder = resolve_with(NAME, &options(&server, cache.path())).unwrap();
    assert!(fs::read(folder.join("model.safetensors")).unwrap() == files["model.safetensors"]);
    assert!(!server.requests().last().unwrap().ends_with("from 0"));
}

#[test]
fn a_cached_model_loads_offline() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(repository(true), Behaviour::default());
    let online = options(&server, cache.path());
    let folder = resolve_with(NAME, &online).unwrap();
    // A port that nobody listens on any more.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = HubOptions { endpoint: Some(format!("http://{closed}")), ..online.clone() };
    assert_eq!(resolve_with(NAME, &unreachable).unwrap(), folder);
    let before = server.requests().len();
    assert_eq!(resolve_with(NAME, &HubOptions { offline: true, ..online }).unwrap(), folder);
    assert_eq!(server.requests().len(), before);
    let text = message(&resolve_with("acme/other", &unreachable).unwrap_err());
    assert!(
        text.starts_with("the Hub cannot be reached and the cache does not hold all of acme/other; connect"),
        "{text}"
    );
    fs::remove_file(folder.join("model-00002-of-00002.safetensors")).unwrap();
    assert!(matches!(resolve_with(NAME, &unreachable), Err(HubError::Offline { .. })));
}

#[test]
fn refusals_say_what_to_do() {
    for status in [401, 403, 404] {
        let text = refusal(Behaviour { list_status: Some(status), ..Behaviour::default() });
        assert!(
            text.starts_with(
                "there is no folder acme/tiny here, and the Hub has no such model or it is private; check"
            ),
            "{text}"
        );
    }
    for status in [401, 403] {
        let text = refusal(Behaviour { file_status: Some(status), ..Behaviour::default() });
        assert!(
            text.contains("is gated; accept its terms at https://huggingface.co/acme/tiny and set HF_TOKEN"),
            "{text}"
        );
    }
    let text = refusal(Behaviour { list_status: Some(429), ..Behaviour::default() });
    assert!(text.contains("try again in a few minutes"), "{text}");
    let text = refusal(Behaviour { list_status: Some(503), ..Behaviour::default() });
    assert!(text.contains("the Hub cannot be reached") && text.contains("503"), "{text}");
    let text = refusal(Behaviour { file_status: Some(500), ..Behaviour::default() });
    assert!(text.contains("failed to fetch config.json of acme/tiny") && text.contains("500"), "{text}");
}

#[test]
fn a_cache_that_cannot_be_written_is_named_and_not_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("file");
    fs::write(&cache, "in the way").unwrap();
    let server = Server::start(repository(false), Behaviour::default());
    let error = resolve_with(NAME, &options(&server, &cache)).unwrap_err();
    assert!(matches!(error, HubError::Cache { .. }) && !error.is_retryable(), "{error:?}");
    let text = message(&error);
    assert!(text.contains(&format!("to the cache in {}; make the folder writable", cache.display())), "{text}");
}

#[test]
fn a_token_is_sent_and_never_shown() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(repository(false), Behaviour { file_status: Some(403), ..Behaviour::default() });
    let options = HubOptions { token: Some("hf_secret".to_owned()), ..options(&server, cache.path()) };
    let error = resolve_with(NAME, &options).unwrap_err();
    assert!(server.requests()[0].ends_with("with Bearer hf_secret"));
    assert!(!format!("{error:?} {}", message(&error)).contains("hf_secret"));
}

#[test]
fn repositories_without_usable_weights_are_refused_before_anything_is_fetched() {
    let cache = tempfile::tempdir().unwrap();
    let mut files = repository(false);
    files.retain(|name, _| !name.contains("safetensors"));
    let server = Server::start(files.clone(), Behaviour::default());
    let text = message(&resolve_with(NAME, &options(&server, cache.path())).unwrap_err());
    assert!(
        text.contains("acme/tiny has no safetensors weights; fetch model.gguf and turn it into a model folder"),
        "{text}"
    );
    files.remove("tokenizer.json");
    let server = Server::start(files, Behaviour::default());
    let text = message(&resolve_with(NAME, &options(&server, cache.path())).unwrap_err());
    assert!(text.contains("acme/tiny has no tokenizer.json"), "{text}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn an_index_from_the_hub_cannot_name_files_elsewhere() {
    let cache = tempfile::tempdir().unwrap();
    let mut files = repository(true);
    let index = json!({"weight_map": {"model.norm.weight": "../../../evil.safetensors"}});
    files.insert("model.safetensors.index.json".to_owned(), index.to_string().into_bytes());
    files.insert("LICENSE/../../x".to_owned(), b"x".to_vec());
    let server = Server::start(files, Behaviour::default());
    let text = message(&resolve_with(NAME, &options(&server, cache.path())).unwrap_err());
    assert!(text.contains("which is not a safetensors file name"), "{text}");
    assert!(server.requests().iter().all(|request| !request.contains("..")));
}

#[test]
fn references_to_files_and_to_nothing_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let gguf = directory.path().join("model.GGUF");
    fs::write(&gguf, "GGUF").unwrap();
    let resolve = |path: &PathBuf| resolve_with(path.to_str().unwrap(), &HubOptions::default());
    assert_eq!(resolve(&directory.path().to_owned()).unwrap(), directory.path());
    let text = message(&resolve(&gguf).unwrap_err());
    assert!(text.contains("hallmark model import "), "{text}");
    fs::write(directory.path().join("config.json"), "{}").unwrap();
    let text = message(&resolve(&directory.path().join("config.json")).unwrap_err());
    assert!(text.contains("is a file; name the folder"), "{text}");
    let text = message(&resolve(&directory.path().join("absent")).unwrap_err());
    assert!(
        text.contains("is neither a folder, nor org/name on the Hugging Face Hub, nor the word \"bundled\""),
        "{text}"
    );
}
