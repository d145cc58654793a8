//! The manifests and policies that are shipped with the binary are checked by independent tools.
//! These tests cannot apply them, because that would need a cluster.

use std::path::Path;
use std::process::Command;

use crate::run::{expect_code, output, strongroom, write, write_secret};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a program of the tests' Python environment, and requires that it succeeds. Does nothing
/// without such an environment.
fn judge(program: &str, arguments: &[&str]) {
    let Some(python) = std::env::var_os("STRONGROOM_PYTHON") else { return };
    let program = Path::new(&python).with_file_name(program);
    let judged = output(Command::new(&program).args(arguments).current_dir(root()));
    let said = [judged.stdout, judged.stderr].concat();
    assert!(judged.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&said));
}

#[test]
fn kubernetes_knows_every_field_of_the_manifests() {
    let manifests = ["deploy/kubernetes/namespace.yaml", "deploy/kubernetes/strongroom.yaml"];
    judge("kubernetes-validate", &[&["--strict"], &manifests[..]].concat());
}

#[test]
fn the_image_and_the_composition_are_well_formed() {
    judge("hadolint", &["Dockerfile"]);
    judge("check-jsonschema", &["--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]);
}

/// Every pod obeys the restricted Pod Security profile, field by field:
/// <https://kubernetes.io/docs/concepts/security/pod-security-standards/>.
#[test]
fn pods_are_restricted() {
    let text =
        std::fs::read_to_string(root().join("deploy/kubernetes/strongroom.yaml")).expect("the file is there");
    let mut pods = 0;
    for document in text.split("\n---\n") {
        let value: serde_json::Value = yaml_serde::from_str(document).expect("YAML");
        let pod = &value["spec"]["template"]["spec"];
        if pod.is_null() {
            continue;
        }
        pods += 1;
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        for forbidden in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod[forbidden].is_null(), "{forbidden}");
        }
        let allowed = ["configMap", "emptyDir", "name", "persistentVolumeClaim", "projected", "secret"];
        for volume in pod["volumes"].as_array().expect("volumes") {
            for kind in volume.as_object().expect("a volume").keys() {
                assert!(allowed.contains(&kind.as_str()), "{kind}");
            }
        }
        for container in pod["containers"].as_array().expect("containers") {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]));
            assert!(context["capabilities"]["add"].is_null() && context["privileged"].is_null());
        }
    }
    assert_eq!(pods, 1);
}

/// The configurations inside the manifests have no mistake. The files with secrets that they name
/// do not exist here, so the test replaces them.
#[test]
fn shipped_configurations_are_checked_by_the_binary() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let secret = write_secret(folder.path(), "token", b"0123456789abcdef0123456789abcdee\n");
    let manifest =
        std::fs::read_to_string(root().join("deploy/kubernetes/strongroom.yaml")).expect("the file is there");
    let map: serde_json::Value = manifest
        .split("\n---\n")
        .map(|document| yaml_serde::from_str::<serde_json::Value>(document).expect("YAML"))
        .find(|value| value["kind"] == "ConfigMap")
        .expect("a config map");
    let in_manifest = map["data"]["strongroom.toml"].as_str().expect("a configuration").to_owned();
    let composed =
        std::fs::read_to_string(root().join("deploy/compose/strongroom.toml")).expect("the file is there");
    for text in [in_manifest, composed] {
        let secret = secret.display().to_string();
        let text = text.replace("/etc/strongroom/secrets/metrics.token", &secret);
        let path = write(folder.path(), "strongroom.toml", text.as_bytes());
        let mut check = strongroom();
        check.env("STRONGROOM_METRICS_TOKEN", "compose-metrics-on-loopback-only");
        let (out, _) = expect_code(check.args(["config", "check"]).arg(&path), 0);
        assert!(out.contains("no mistakes; 1 source"), "{out}");
    }
}

/// The address of the webhook is an IP address, because the node of an API server cannot resolve
/// the names of Services. The route lists who may post, because the certificate authority of the
/// cluster also issues certificates to others than API servers.
#[test]
fn an_api_server_reaches_the_webhook_and_nobody_else_may_post() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect("the file is there");
    let kubeconfig: serde_json::Value =
        yaml_serde::from_str(&read("deploy/kubernetes/audit-webhook-kubeconfig.yaml")).expect("YAML");
    let cluster = &kubeconfig["clusters"][0]["cluster"];
    let server = cluster["server"].as_str().expect("a URL").strip_prefix("https://").expect("https");
    let (address, path) = server.split_once('/').expect("a path");
    assert!(address.parse::<std::net::SocketAddr>().is_ok(), "{address}");
    assert_eq!(cluster["tls-server-name"], "strongroom-webhook.strongroom.svc");
    let manifest = read("deploy/kubernetes/strongroom.yaml");
    assert!(manifest.contains(&format!("path = \"/{path}\"")));
    let names = manifest
        .lines()
        .find(|line| line.trim().starts_with("client_names = [\""))
        .expect("the line with the names");
    assert!(!names.contains("[]"), "{names}");
}

/// The audit policy keeps bodies of secrets out. An API server reads a policy from the top, and the
/// first matching rule counts.
#[test]
fn the_audit_policy_keeps_bodies_of_secrets_out() {
    let text = std::fs::read_to_string(root().join("deploy/kubernetes/audit-policy.yaml"))
        .expect("the file is there");
    let policy: serde_json::Value = yaml_serde::from_str(&text).expect("YAML");
    assert_eq!((&policy["apiVersion"], &policy["kind"]), (&"audit.k8s.io/v1".into(), &"Policy".into()));
    let rules = policy["rules"].as_array().expect("rules");
    let level = |resource: &str| -> &str {
        let names = |rule: &&serde_json::Value| {
            let everything = rule["resources"].is_null() && rule["nonResourceURLs"].is_null();
            let resources = rule["resources"].as_array().into_iter().flatten();
            let named = resources.flat_map(|entry| entry["resources"].as_array().into_iter().flatten());
            (everything || named.into_iter().any(|name| name == resource)) && rule["users"].is_null()
        };
        rules.iter().find(names).expect("a last rule that fits all")["level"].as_str().expect("a level")
    };
    for secret in ["secrets", "configmaps", "tokenreviews", "serviceaccounts/token"] {
        assert_eq!(level(secret), "Metadata", "{secret}");
    }
    assert_eq!(level("pods/exec"), "Request");
    assert_eq!(rules.last().expect("rules")["level"], "Metadata");
}

/// API servers up to 1.34 drop the later events of some patches whose request body is logged. So
/// the policy keeps the stage RequestReceived of patches with a body, and of nothing else.
#[test]
fn the_audit_policy_keeps_the_arrival_of_patches_with_a_body() {
    let text = std::fs::read_to_string(root().join("deploy/kubernetes/audit-policy.yaml"))
        .expect("the file is there");
    let policy: serde_json::Value = yaml_serde::from_str(&text).expect("YAML");
    assert!(policy["omitStages"].is_null(), "stages are left out rule by rule");
    let rules = policy["rules"].as_array().expect("rules");
    let named = |rule: &serde_json::Value| -> Vec<(String, String)> {
        let entries = rule["resources"].as_array().into_iter().flatten();
        let pairs = entries.flat_map(|entry| {
            let group = entry["group"].as_str().expect("a group").to_owned();
            let resources = entry["resources"].as_array().cloned().unwrap_or_else(|| vec!["*".into()]);
            let resources = resources.into_iter().map(|name| name.as_str().expect("a name").to_owned());
            resources.map(move |name| (group.clone(), name)).collect::<Vec<_>>()
        });
        pairs.collect()
    };
    let mut kept = Vec::new();
    for rule in rules {
        if rule["level"] == "None" {
            continue;
        }
        let patches = rule["verbs"] == serde_json::json!(["patch"]);
        assert_eq!(rule["omitStages"].is_null(), patches, "{rule}");
        match (rule["level"].as_str(), patches) {
            (Some("Request"), true) => kept.extend(named(rule)),
            (Some("Request"), false) if rule["verbs"].is_null() => {
                // This rule is about ways into containers. Of its resources, only ephemeral
                // containers can be patched.
                let debug = ("".to_owned(), "pods/ephemeralcontainers".to_owned());
                assert!(!named(rule).contains(&debug) || kept.contains(&debug), "{rule}");
            }
            (Some("Request"), false) => {
                for resource in named(rule) {
                    assert!(
                        kept.contains(&resource),
                        "the policy leaves out RequestReceived of patches of {resource:?}"
                    );
                }
            }
            (level, _) => assert_eq!(level, Some("Metadata"), "{rule}"),
        }
    }
    assert!(!kept.is_empty());
}
