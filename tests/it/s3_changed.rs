//! Somebody who may delete or put objects in a bucket cannot remove what is sealed there, but can
//! hide it. Readers then refuse, instead of showing less than was sealed, and writers add nothing
//! to such a history.

use aws_sdk_s3::primitives::ByteStream;

use crate::run::{expect_code, log, output, strongroom, write};
use crate::s3::{Outsider, append_commit, at, check, findings, ingest, init, number, store, verdict};

const RULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/alerts/rules/rbac-cluster-admin-binding.yml");

/// Returns the key and the id of each delete marker in a bucket.
fn markers(outsider: &Outsider, bucket: &str) -> Vec<(String, String)> {
    let listed = outsider.runtime.block_on(outsider.client.list_object_versions().bucket(bucket).send());
    let of = |text: Option<&str>| text.expect("a listing has it").to_owned();
    let listed = listed.expect("a listing");
    listed.delete_markers().iter().map(|marker| (of(marker.key()), of(marker.version_id()))).collect()
}

fn delete(outsider: &Outsider, bucket: &str, key: &str) {
    let delete = outsider.client.delete_object().bucket(bucket).key(key).send();
    outsider.runtime.block_on(delete).expect("a marker hides it");
}

fn remove(outsider: &Outsider, bucket: &str, key: &str, version: &str) {
    let delete = outsider.client.delete_object().bucket(bucket).key(key).version_id(version).send();
    outsider.runtime.block_on(delete).expect("whoever deletes may take a marker away");
}

#[test]
fn readers_and_writers_refuse_a_history_that_hides_something() {
    let Some(seaweed) = store() else { return };
    let endpoint = seaweed.endpoint();
    let (bucket, location) = ("hidden-history", "s3://hidden-history/a");
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    let (public, _) = expect_code(strongroom().args(["key", "new"]).arg(&key), 0);
    let outsider = Outsider::of(&seaweed);
    init(&endpoint, location);
    let logs: Vec<_> =
        (0..4).map(|at| write(folder.path(), &format!("{at}.log"), &log(500, 300 + at))).collect();
    for log in &logs[..3] {
        expect_code(ingest(&endpoint, location, log).env("STRONGROOM_KEY_FILE", &key), 0);
    }
    let all = "SELECT count(*) FROM events";
    assert_eq!(number(&endpoint, location, all), 1_500);
    let refused = |what: &str, why: &str| {
        let readers = [
            vec!["query", "--archive", location, all],
            vec!["export", "--archive", location],
            vec!["hunt", "--archive", location, "--rule", RULE],
        ];
        for words in &readers {
            let run = output(at(&endpoint).args(words));
            let err = String::from_utf8_lossy(&run.stderr).into_owned();
            assert_eq!(run.status.code(), Some(2), "{what}: {words:?}\n{err}");
            assert!(err.contains(why) && err.contains("_delta_log"), "{what}: {words:?}\n{err}");
            assert!(!String::from_utf8_lossy(&run.stdout).contains("000"), "{what}: {words:?}");
        }
        for signs in [false, true] {
            let mut ingest = ingest(&endpoint, location, &logs[3]);
            if signs {
                ingest.env("STRONGROOM_KEY_FILE", &key);
            }
            let (_, err) = expect_code(&mut ingest, 2);
            assert!(err.contains(why), "{what}: {err}");
        }
        let (_, err) = expect_code(
            at(&endpoint).args(["sign-log", "--archive", location]).env("STRONGROOM_KEY_FILE", &key),
            // No commit is unsigned, so there is nothing to sign, and that is no error.
            0,
        );
        assert!(!err.contains("panicked"), "{err}");
    };
    let commits = |outsider: &Outsider| {
        let mut commits: Vec<String> = outsider.versions(bucket).into_iter().map(|(key, _)| key).collect();
        commits.retain(|key| key.contains("/events/") && key.ends_with(".json"));
        commits.sort();
        commits
    };
    let newest = commits(&outsider).pop().expect("a commit");
    let first = commits(&outsider).remove(0);

    for (what, hidden) in [
        ("the newest commit", vec![newest.clone()]),
        ("the first commit", vec![first]),
        (
            "a whole table",
            outsider
                .versions(bucket)
                .into_iter()
                .map(|(key, _)| key)
                .filter(|key| key.contains("/events/"))
                .collect(),
        ),
    ] {
        for key in &hidden {
            delete(&outsider, bucket, key);
        }
        refused(what, "delete marker");
        for (key, version) in markers(&outsider, bucket) {
            remove(&outsider, bucket, &key, &version);
        }
        assert_eq!(number(&endpoint, location, all), 1_500, "{what}: nothing was lost");
    }

    // The manifest is hidden. Both verifiers report that, and no command takes the bucket for one
    // without an archive.
    delete(&outsider, bucket, "a/strongroom.json");
    let (kinds, report) = findings(&endpoint, location, public.trim());
    for kind in ["delete_marker", "manifest_malformed", "manifest_changed"] {
        assert!(kinds.contains(kind), "{kind}: {report:#}");
    }
    for words in [vec!["query", "--archive", location, all], vec!["export", "--archive", location]] {
        let (_, err) = expect_code(at(&endpoint).args(words), 2);
        assert!(err.contains("delete marker") && !err.contains("creates an archive"), "{err}");
    }
    let (_, err) = expect_code(&mut ingest(&endpoint, location, &logs[3]), 2);
    assert!(err.contains("delete marker"), "{err}");
    for (key, version) in markers(&outsider, bucket) {
        remove(&outsider, bucket, &key, &version);
    }
    expect_code(ingest(&endpoint, location, &logs[3]).env("STRONGROOM_KEY_FILE", &key), 0);
    assert_eq!(number(&endpoint, location, all), 2_000);

    // A second version of a commit is locked and cannot be removed, so this part is last. If the
    // second version has the same bytes as the first, nothing changes.
    let put = |bytes: Vec<u8>| {
        let put =
            outsider.client.put_object().bucket(bucket).key(&newest).body(ByteStream::from(bytes)).send();
        outsider.runtime.block_on(put).expect("a lock does not prevent a new version");
    };
    let got = outsider.client.get_object().bucket(bucket).key(&newest).send();
    let bytes = outsider.runtime.block_on(async { got.await.expect("read").body.collect().await });
    put(bytes.expect("read").to_vec());
    assert_eq!(number(&endpoint, location, all), 2_000);
    put(b"{\"commitInfo\":{}}".to_vec());
    refused("a version over a commit", "another version over it");
}

#[test]
fn a_commit_without_a_lock_is_noticed_wherever_it_is() {
    let Some(seaweed) = store() else { return };
    let endpoint = seaweed.endpoint();
    let (bucket, location) = ("unlocked-commit", "s3://unlocked-commit/a");
    let folder = tempfile::tempdir().expect("a folder");
    let outsider = Outsider::of(&seaweed);
    init(&endpoint, location);
    let first = write(folder.path(), "0.log", &log(200, 310));
    expect_code(&mut ingest(&endpoint, location, &first), 0);
    let (_, before) = check(&endpoint, location);
    assert_eq!(verdict(&before, "commits"), "ok", "{before:#}");
    let key = outsider.versions(bucket).into_iter().map(|(key, _)| key);
    let key = key.filter(|key| key.contains("/events/") && key.ends_with(".json")).max().expect("a commit");
    append_commit(&outsider, bucket, &key, None);
    let second = write(folder.path(), "1.log", &log(200, 311));
    expect_code(&mut ingest(&endpoint, location, &second), 0);
    let (code, after) = check(&endpoint, location);
    assert_eq!((code, verdict(&after, "commits")), (Some(1), "fail"), "{after:#}");
    assert!(after.to_string().contains("has no lock"), "{after:#}");
}
