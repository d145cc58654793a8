//! What is signed: checkpoints, keys, records, cosignatures, timestamps, proofs and packs. Whatever is
//! changed in one of them, it is accepted only if it says what it said before.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use strongroom_archive::records::clock::ClockRecord;
use strongroom_archive::records::text::{DropRecord, HeldList, HoldRecord, PolicyRecord, Statement, open};
use strongroom_evidence::check_pack;
use strongroom_proof::verify::{Watch, Witnesses};
use strongroom_proof::verify_proof;
use strongroom_schemas::VolumeId;
use strongroom_schemas::record::Sha256Hash;
use strongroom_tlog::checkpoint::check_note;
use strongroom_tlog::keys::KeyRecord;
use strongroom_tlog::note::{Note, PublicKey};
use strongroom_tlog::timestamp::{self, TimestampAuthorities};
use strongroom_tlog::{PrivateKey, WitnessKey};

use super::{Changes, archive, data, files, try_all};
use crate::run::expect_code;

/// Words of notes and records.
const WORDS: &[&str] = &[
    "\n",
    "\n\n",
    "\u{2014} ",
    " ",
    "0",
    "1",
    "00",
    "-1",
    "18446744073709551615",
    "18446744073709551616",
    "events/2026",
    "events/2026-0001",
    "alerts/2019",
    "events/99999",
    "unknown",
    "2026-03-02T10:00:00Z",
    "2026-03-02T23:59:60Z",
    "0000-01-01T00:00:00Z",
    "archive ",
    "time ",
    "root ",
    "reason ",
    "years ",
    "place ",
    "release ",
    "object ",
    "- ",
    "../x",
    "commits ",
    "made ",
    "strongroom clock 1\n",
    "strongroom hold 1\n",
    "log ",
    "key ",
    "previous ",
    "AAAA",
    "AAAA=",
    "====",
    "\r",
    "\t",
    "\u{0}",
    "\u{2028}",
    "\u{feff}",
    "é",
];

fn keys() -> Vec<PublicKey> {
    let key = |name: &str| {
        let text = std::fs::read_to_string(data("format-1/keys").join(name)).expect("a key");
        PrivateKey::parse(text.trim()).expect("a key").public()
    };
    vec![key("audit-1.key"), key("audit-2.key")]
}

fn id(archive: &Path) -> String {
    let manifest = std::fs::read(archive.join("strongroom.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    manifest["archive_id"].as_str().expect("an id").to_owned()
}

/// The text of a note as a reader takes it: what is signed.
fn text(note: &[u8]) -> String {
    Note::parse(note).map_or_else(|| String::from_utf8_lossy(note).into_owned(), |note| note.text.to_owned())
}

#[test]
fn notes() {
    let (_folder, root) = archive();
    let id = id(&root);
    let all: Vec<_> = files(&root).into_iter().filter(|path| is_note(&root, path)).collect();
    let corpus: Vec<Vec<u8>> = all.iter().map(|path| std::fs::read(path).expect("readable")).collect();
    let texts: BTreeSet<String> = corpus.iter().map(|note| text(note)).collect();
    let (keys, mut accepted) = (keys(), 0);
    let chain: Vec<KeyRecord> = all.iter().zip(&corpus).filter(|(path, _)| is_in(&root, path, "_keys")).fold(
        Vec::new(),
        |mut chain, (_, note)| {
            chain.push(KeyRecord::parse(note, &id, &chain).expect("a chain"));
            chain
        },
    );
    let witness = std::fs::read_to_string(data("format-1/keys/witness.key")).expect("a key");
    let witness = WitnessKey::of(&PrivateKey::parse(witness.trim()).expect("a key"));
    let mut check = |note: &[u8], _: usize| {
        let mut signed = |is_accepted: bool| {
            accepted += u64::from(is_accepted);
            assert!(!is_accepted || texts.contains(&text(note)), "another text is accepted as signed");
        };
        let name = Note::parse(note).and_then(|note| note.text.lines().next());
        let log = name.and_then(|origin| VolumeId::parse(origin.strip_prefix(&format!("strongroom/{id}/"))?));
        if let Some(log) = log {
            signed(check_note(note, &log.origin(&id), &keys).is_ok());
            if let Some(parsed) = Note::parse(note) {
                signed(matches!(witness.cosigned(&parsed), Ok(Some(_))));
            }
        }
        for before in 0..=chain.len() {
            signed(KeyRecord::parse(note, &id, &chain[..before]).is_ok());
        }
        // A record is read only in the form in which it is written.
        for statement in [Statement::Retention, Statement::Holds, Statement::Dropped, Statement::Clock] {
            let Ok((text, signer)) = open(note, &statement.signed_as(&id), &keys) else { continue };
            signed(signer.is_some());
            for number in 1..4 {
                let again = [
                    PolicyRecord::parse(text, &id, number, 6).ok().map(|record| record.text(&id)),
                    HoldRecord::parse(text, &id, number).ok().map(|record| record.text(&id)),
                    HeldList::parse(text, &id, number, 1).ok().map(|record| record.text(&id)),
                    ClockRecord::parse(text, &id, number).ok().map(|record| record.text(&id)),
                ];
                assert!(again.iter().flatten().all(|again| again == text), "read in another form");
            }
            for log in ["events/2019", "alerts/2019"].iter().filter_map(|name| VolumeId::parse(name)) {
                let again = DropRecord::parse(text, &id, log).ok().map(|record| record.text(&id));
                assert!(again.is_none_or(|again| again == text), "read in another form");
            }
        }
    };
    try_all("notes", 6_000, &corpus, Changes::Words(WORDS), &mut check);
    try_all("notes-bytes", 6_000, &corpus, Changes::Bytes, &mut check);
    assert!(accepted > 0, "nothing is accepted at all");
}

fn is_in(root: &Path, path: &Path, folder: &str) -> bool {
    path.strip_prefix(root).is_ok_and(|below| below.components().any(|part| part.as_os_str() == folder))
}

fn is_note(root: &Path, path: &Path) -> bool {
    let folders = ["_keys", "_retention", "_holds", "_dropped", "checkpoint", "witness"];
    folders.iter().any(|folder| is_in(root, path, folder)) && path.extension().is_none()
}

#[test]
fn timestamps() {
    let (_folder, root) = archive();
    let authority = std::fs::read(data("format-1/keys/tsa-ca.pem")).expect("a certificate");
    let authorities = TimestampAuthorities::from_pem(&authority).expect("an authority");
    let tokens: Vec<_> = files(&root).into_iter().filter(|path| is_in(&root, path, "timestamp")).collect();
    let corpus: Vec<Vec<u8>> = tokens.iter().map(|path| std::fs::read(path).expect("readable")).collect();
    let imprints: Vec<Sha256Hash> = tokens
        .iter()
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let checkpoint = name.rsplit_once('-').expect("two parts").0;
            let folder = path.parent().and_then(Path::parent).expect("a folder");
            Sha256Hash::of(
                &std::fs::read(folder.join("checkpoint").join(checkpoint)).expect("its checkpoint"),
            )
        })
        .collect();
    let times: Vec<_> = corpus
        .iter()
        .zip(&imprints)
        .map(|(token, imprint)| timestamp::verify(token, imprint, &authorities).expect("a timestamp").time)
        .collect();
    assert!(!times.is_empty());
    let mut check = |token: &[u8], seed: usize| {
        if let Ok(stamp) = timestamp::verify(token, &imprints[seed], &authorities) {
            assert_eq!(
                (stamp.time, stamp.imprint),
                (times[seed], imprints[seed]),
                "another time is accepted"
            );
        }
        let _ = timestamp::verify(token, &imprints[seed], &TimestampAuthorities::default());
        let _ = timestamp::time_of(token);
        let _ = timestamp::token_of_response(token);
        let _ = TimestampAuthorities::from_pem(token);
    };
    try_all("timestamps", 10_000, &corpus, Changes::Bytes, &mut check);
    let pem = [authority];
    let mut check = |pem: &[u8], _: usize| _ = TimestampAuthorities::from_pem(pem);
    try_all("certificates", 2_000, &pem, Changes::Bytes, &mut check);
}

/// Words of proofs and of the JSON files of a pack.
const JSON_WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "18446744073709551616",
    "\"\"",
    "\"AAAA\"",
    "\"..\"",
    "\"/etc/passwd\"",
    "\"proofs/events-1.json\"",
    "\"format\":",
    "\"strongroom-proof-1\"",
    "\"keys\":[]",
    "\"path\":",
    "\"index\":",
    "\"size\":",
    "\"root\":",
    "\"leaf\":",
    "\"redaction\":null",
    "\"redaction\":\"1 drop\"",
    "\\u0000",
    "\\ud800",
    "[[[[[[[[[[[[[[[[",
];

#[test]
fn proofs() {
    let whole = std::fs::read(data("format-1/proof.json")).expect("a proof");
    let (keys, corpus) = (keys(), [whole]);
    let records = |proof: &[u8]| -> BTreeSet<String> {
        let proven = verify_proof(proof, &keys[1..]).map(|proven| proven.records).unwrap_or_default();
        proven.iter().map(|record| format!("{record:?}")).collect()
    };
    let expected = records(&corpus[0]);
    assert!(!expected.is_empty(), "the proof is valid");
    let mut check = |proof: &[u8], _: usize| {
        assert!(records(proof).is_subset(&expected), "another record is proven");
    };
    try_all("proofs", 150, &corpus, Changes::Words(JSON_WORDS), &mut check);
    try_all("proofs-bytes", 250, &corpus, Changes::Bytes, &mut check);
}

struct Silent;

impl Watch for Silent {}

#[test]
fn packs() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = folder.path().join("pack");
    expect_code(Command::new("cp").arg("-r").arg(data("format-1/pack")).arg(&pack), 0);
    let names = files(&pack);
    let corpus: Vec<Vec<u8>> = names.iter().map(|path| std::fs::read(path).expect("readable")).collect();
    let trusted = keys();
    let findings = || {
        let report = check_pack(&pack, &trusted[1..], &Witnesses::default(), &Silent).expect("a report");
        report.findings.len()
    };
    assert_eq!(findings(), 0);
    let mut check = |input: &[u8], seed: usize| {
        std::fs::write(&names[seed], input).expect("written");
        let found = findings();
        std::fs::write(&names[seed], &corpus[seed]).expect("written");
        assert_eq!(found == 0, input == corpus[seed], "{}", names[seed].display());
    };
    try_all("packs", 60, &corpus, Changes::Words(JSON_WORDS), &mut check);
    try_all("packs-bytes", 60, &corpus, Changes::Bytes, &mut check);
}
