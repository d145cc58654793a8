//! Writes `VERIFY.md` of a pack, which says how to check the pack with Python and without this
//! program.
//!
//! Invariant: the text depends only on the manifest and the verifier's hash. It asks readers to get
//! the verifier and the key from another place than the pack, because a verifier that was supplied
//! with the pack could accept a forged pack.

use super::manifest::Manifest;

/// Returns the text of `VERIFY.md`.
pub(crate) fn verify_md(manifest: &Manifest, verifier_sha256: &str) -> String {
    let complete = if manifest.question.complete {
        "The pack is complete: it has every commit up to the checkpoints, and every record of every file whose signed\n\
         times overlap the period. The verifier notices if a file or a record of them is missing. It also means that\n\
         the pack has records that the question did not ask for.\n"
    } else {
        "Proofs show that the records in this pack were sealed and not changed. They do not show that nothing was left\n\
         out. Anyone with read access to the archive can confirm that by asking it again:\n\n\
         \x20   strongroom evidence check . --archive LOCATION --public-key KEY\n\n\
         or by making a pack with `--complete`, which holds whole files.\n"
    };
    let signed = match &manifest.signed_by {
        Some(key) => format!(
            "The manifest is signed (`manifest.note`) with the key `{key}`, which the verifier finds among the archive's\n\
             keys. So report, counts and gaps are as the holder of that key wrote them. That does not make them true:\n\
             they are that holder's word.\n"
        ),
        None => "The manifest is not signed. Records prove themselves; report, counts and gaps are only the word of whoever\n\
                 gave you the pack, and anyone could have changed them since.\n"
            .to_owned(),
    };
    format!(
        "# How to check this pack\n\n\
         You need Python 3.9 or later and one file, `verify.py`; no network, no installation. The file is not in this pack, on\n\
         purpose: a checker that comes with what it checks proves nothing. Get it from the Strongroom project (`tools/verify.py`\n\
         of a release) or from someone you trust, read it, or write your own: `docs/proof.md` of the project describes every\n\
         byte. The `verify.py` that this program was built with has the SHA-256\n\n\
         \x20   {verifier_sha256}\n\n\
         You also need the public key of the archive, from its holder, by a path other than this pack.\n\n\
         ## 1. The whole pack\n\n\
         In the folder of this file:\n\n\
         \x20   python3 -I /path/to/verify.py pack . --public-key KEY\n\n\
         Exit code 0: no finding. 1: findings, each with a kind that docs/proof.md explains. 2: the check could not be done. Read\n\
         the lines `not checked:` as well. If a third party runs a witness of this archive, ask them for its key and add\n\
         `--witness VKEY`: then a second history, signed with the right key for you alone, is found too.\n\n\
         The check shows that every file is as the manifest says and none is missing or added; that the keys and checkpoints are\n\
         those of the archive whose key you gave; that every record of `records.jsonl` and `alerts.jsonl` is in a file of the\n\
         archive, under a commit, under a checkpoint that was signed, in the stated place, once; and that the numbers agree.\n\n\
         It does not show that an event happened: the API server's word was taken. It does not show what the API server did not\n\
         write, or what never reached the archive; `gaps.json` has what is known of that.\n\n\
         ## 2. Is this all?\n\n\
         {complete}\n\
         ## 3. Who says so?\n\n\
         {signed}\n\
         ## 4. By hand\n\n\
         Any file's hash, against `manifest.json`:\n\n\
         \x20   sha256sum records.jsonl report.html\n\n\
         A single proof file, with nothing else at hand:\n\n\
         \x20   python3 -I /path/to/verify.py proof proofs/00000001.json --public-key KEY --print\n\n\
         (A pack without records has no proof file.)\n\n\
         If the archive is in a bucket that you may read, the same `verify.py` asks the store itself and needs no `store.json`.\n\
         With your own credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY it reads the whole archive, and every version,\n\
         deletion, lock and legal hold that the store has of it:\n\n\
         \x20   python3 -I /path/to/verify.py archive s3://BUCKET/PREFIX --public-key KEY\n\n\
         ## What is here\n\n\
         | file | content |\n|---|---|\n\
         | `manifest.json` | the question, the counts, keys and checkpoints, every file with its SHA-256 |\n\
         | `manifest.note` | the signature over it, in a signed pack |\n\
         | `records.jsonl` | the original bytes of the events, in the order of commits, files and rows; a newline after each |\n\
         | `alerts.jsonl` | the alerts about the period, OCSF, likewise |\n\
         | `proofs/` | the same records, each with its inclusion proof up to a signed checkpoint |\n\
         | `commits/` | every commit, in a complete pack |\n\
         | `archive-files.json` | the archive's files that may hold records of the period, and how many of their records are here |\n\
         | `gaps.json` | silences, jumps, late seals, rejects, and what cannot be known |\n\
         | `store.json` | what the store said of versions, locks and holds, and when it was asked |\n\
         | `verification.json` | the report of `strongroom verify` at that time |\n\
         | `report.html` | all of this, to read or print |\n"
    )
}
