//! Samples from real installations: each one in the corpus gives the right numbers of events and
//! rejects.

use strongroom_lines::Dialect;

use super::*;

/// A sample, its events, the reasons of its rejects, and the dialects of its events.
type Sample = (&'static str, usize, &'static [&'static str], &'static [(Dialect, u64)]);

const SAMPLES: &[Sample] = &[
    ("01-syslog-prefix.log", 3, &[], &[(Dialect::Syslog, 3)]),
    ("02-cri-stdout.log", 3, &["other_category"], &[(Dialect::Cri, 3)]),
    ("03-docker-json-file.log", 2, &[], &[(Dialect::Docker, 2)]),
    (
        "04-shippers.ndjson",
        6,
        &[],
        &[
            (Dialect::Plain, 1),
            (Dialect::Filebeat, 2),
            (Dialect::FluentBit, 1),
            (Dialect::Vector, 1),
            (Dialect::Loki, 1),
        ],
    ),
    ("06-gcloud-read.json", 2, &[], &[(Dialect::Gke, 2)]),
    ("06b-gcloud-read-compact.json", 2, &[], &[(Dialect::Gke, 2)]),
    ("07-aws-filter-log-events.json", 3, &[], &[(Dialect::CloudWatchCli, 3)]),
    ("07b-aws-filter-log-events-compact.json", 3, &[], &[(Dialect::CloudWatchCli, 3)]),
    ("09-aks-kube-apiserver-category.ndjson", 2, &["other_category"], &[(Dialect::Aks, 2)]),
];

#[test]
fn samples_of_the_field() {
    let folder = corpus_folder().join("field");
    if !folder.is_dir() {
        return eprintln!("samples of the field are absent at {}", folder.display());
    }
    for (name, events, rejected, dialects) in SAMPLES {
        let bytes = std::fs::read(folder.join(name)).expect("a readable sample");
        let decoded = check(&bytes);
        assert_eq!(reasons(&decoded), *rejected, "{name}: {:?}", details(&decoded));
        assert_eq!(decoded.events.num_rows(), *events, "{name}");
        assert_eq!(decoded.dialects.iter().collect::<Vec<_>>(), *dialects, "{name}");
    }
}
