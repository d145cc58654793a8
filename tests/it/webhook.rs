//! Events that an API server posts to the daemon's webhook: every batch that was answered with 200
//! is in the archive once, despite kills.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::daemon::{Daemon, config, wait_until};
use crate::run::{expect_code, export, is_long, log, number, strongroom};

const TOKEN: &str = "a-token-of-the-test-that-is-long";

/// Returns `count` batches of `size` events. Each batch is the body of an `EventList`, as an API
/// server posts it, and the items in it.
pub fn batches(count: usize, size: usize, seed: u64) -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
    let text = log((count * size) as u64, seed);
    let items: Vec<Vec<u8>> = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        // The items of a list have no `kind` of their own.
        .map(|line| line.strip_prefix(br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#.as_slice()))
        .map(|rest| [b"{", rest.expect("a generated line")].concat())
        .collect();
    let body = |items: &[Vec<u8>]| {
        let head = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
        [&head[..], &items.join(&b","[..]), b"]}\n"].concat()
    };
    items.chunks(size).map(|items| (body(items), items.to_vec())).collect()
}

/// Posts a body, and returns the status of the answer, or 0 if none came.
pub fn post(address: &str, path: &str, token: &str, body: &[u8]) -> u16 {
    let send = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let head = format!(
            "POST {path}?timeout=30s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = send().unwrap_or_default();
    answer.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// Waits until the daemon has logged the address of its listener, and returns the address.
pub fn listener(daemon: &Daemon) -> String {
    let mut address = None;
    wait_until("the webhook listens", || {
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains("webhook listens")).map(str::to_owned);
        address = line.and_then(|line| {
            line.split("address=")
                .nth(1)
                .map(|rest| rest.split_whitespace().next().unwrap_or(rest).to_owned())
        });
        address.is_some()
    });
    address.expect("waited for")
}

fn multiset(bytes: &[u8]) -> BTreeMap<&[u8], usize> {
    let mut lines = BTreeMap::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        *lines.entry(line).or_insert(0) += 1;
    }
    lines
}

#[test]
fn every_batch_answered_with_200_is_in_the_archive_once_whatever_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let archive = folder.path().join("archive");
    let token = crate::run::write_secret(folder.path(), "token", TOKEN.as_bytes());
    let rest = format!(
        "[seal]\ninterval = '200ms'\n[alerts]\nstdout = false\n[[webhook]]\nname = 'api'\nlisten = '127.0.0.1:0'\n\
         token_file = '{}'\nwal = '{}'\n[[webhook.route]]\npath = '/prod'\ncluster = 'prod'\n",
        token.display(),
        folder.path().join("wal").display()
    );
    let config = config(folder.path(), &archive.display().to_string(), &rest);
    let batches = Arc::new(batches(if is_long() { 2_000 } else { 120 }, 40, 81));
    let kills_wanted = if is_long() { 50 } else { 4 };

    // Senders retry each batch until it is answered with 200, as an API server does, and note that
    // it was.
    let address = Arc::new(Mutex::new(String::new()));
    let (next, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut daemon = Daemon::start(&config);
    *address.lock().expect("no panic holds it") = listener(&daemon);
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let (batches, address) = (Arc::clone(&batches), Arc::clone(&address));
            let (next, done) = (Arc::clone(&next), Arc::clone(&done));
            let sender = std::thread::Builder::new().name("sender".to_owned());
            let send = move || {
                let mut tries = 0_u64;
                while let Some((body, _)) = batches
                    .get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("a small number"))
                {
                    loop {
                        let to = address.lock().expect("no panic holds it").clone();
                        tries += 1;
                        match post(&to, "/prod", TOKEN, body) {
                            200 => break,
                            0 | 429 | 503 => std::thread::sleep(Duration::from_millis(20)),
                            status => panic!("{status}"),
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(15));
                }
                tries
            };
            sender.spawn(send).expect("a thread")
        })
        .collect();
    let mut kills = 0;
    while kills < kills_wanted && done.load(Ordering::Relaxed) < batches.len() as u64 {
        std::thread::sleep(Duration::from_millis(90 + 37 * (kills % 5)));
        daemon.kill();
        kills += 1;
        daemon = Daemon::start(&config);
        *address.lock().expect("no panic holds it") = listener(&daemon);
    }
    let tries: u64 = senders.into_iter().map(|sender| sender.join().expect("every batch is taken")).sum();
    let events = (batches.len() * 40) as i64;
    wait_until("everything is sealed", || {
        daemon.metric("unsealed_records") == 0.0
            && daemon.metric("source_lag{source=\"api\"}") == 0.0
            && number(&archive, "SELECT count(*) FROM events") == events
    });
    println!("{} batches in {tries} posts, {kills} kills", batches.len());

    // The same batch, sent again, is answered and counted, but not stored.
    let to = listener(&daemon);
    let before = daemon.metric("source_duplicates_total{source=\"api\"}");
    assert_eq!(post(&to, "/prod", TOKEN, &batches[0].0), 200);
    wait_until("the repetition is counted", || {
        daemon.metric("source_duplicates_total{source=\"api\"}") == before + 40.0
    });
    // Another event with the same auditID is stored, because a client can choose the auditID.
    let other = batches[0].1[0].clone();
    let other = String::from_utf8(other).expect("text").replacen("\"verb\":\"", "\"verb\":\"x-", 1);
    let list =
        format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{other}]}}"#);
    assert_eq!(post(&to, "/prod", TOKEN, list.as_bytes()), 200);
    // Requests without a token, with a wrong token, or to an unknown path are refused.
    assert_eq!(post(&to, "/prod", "a-token-of-the-test-that-is-lonh", b"{}"), 401);
    assert_eq!(post(&to, "/staging", TOKEN, b"{}"), 404);
    // Each of them is counted, and is in the log once.
    let refused = |kind: &str| format!("webhook_refusals_total{{source=\"api\",kind=\"{kind}\"}}");
    for kind in ["credentials", "path"] {
        assert_eq!(daemon.metric(&refused(kind)), 1.0);
        // The log is read by a thread.
        let logged = || daemon.log().matches(&format!("refused=\"{kind}\"")).count();
        wait_until("the refusal is logged", || logged() > 0);
        assert_eq!(logged(), 1, "{}", daemon.log());
    }
    wait_until("the other one is sealed", || number(&archive, "SELECT count(*) FROM events") == events + 1);
    assert_eq!(daemon.metric("conservation_failures_total"), 0.0);
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
    assert!(!log.contains(TOKEN));

    let mut wanted: Vec<u8> =
        batches.iter().flat_map(|(_, items)| items).flat_map(|item| [&item[..], b"\n"].concat()).collect();
    wanted.extend_from_slice(other.as_bytes());
    assert!(multiset(&export(&archive)) == multiset(&wanted));
    assert_eq!(number(&archive, "SELECT count(*) FROM rejects"), 0);
    assert_eq!(number(&archive, "SELECT count(DISTINCT cluster) FROM events WHERE cluster = 'prod'"), 1);
}

#[test]
fn a_webhook_without_authentication_or_tls_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let refused = |listen: &str, rest: &str| {
        let text = format!(
            "[[webhook]]\nname = 'api'\nlisten = '{listen}'\nwal = '{}'\n{rest}[[webhook.route]]\npath = '/p'\ncluster = 'c'\n",
            folder.path().join("wal").display()
        );
        let path = config(folder.path(), "/nowhere/archive", &text);
        expect_code(strongroom().args(["config", "check"]).arg(path), 1).1
    };
    assert!(refused("127.0.0.1:0", "").contains("neither client certificates nor a token"));
    let token = crate::run::write_secret(folder.path(), "token", TOKEN.as_bytes());
    let with_token = format!("token_file = '{}'\n", token.display());
    assert!(refused("0.0.0.0:0", &with_token).contains("without TLS it listens on loopback only"));
}
