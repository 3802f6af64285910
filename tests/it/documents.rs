//! The documents say what is true: their configurations load, their commands exist, their tables are complete.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use mintgate::admin::exposition::{Exposition, Format};
use mintgate::clock::Wall;
use mintgate::config::validate::{self, Environment, Secrets};
use mintgate::emulator::seed::file::Seed;
use mintgate::metrics::{Metrics, Names};
use mintgate::proxy::error::Code;

use crate::support::tls::{Authority, Identity};

/// How to test an application.
const GUIDE: &str = include_str!("../../docs/testing-your-application.md");

/// What is promised, and the tests that hold it.
const SECURITY: &str = include_str!("../../SECURITY.md");

/// Every document, with what it contains that a test has to find.
const DOCUMENTS: [(&str, &str); 14] = [
    ("README.md", include_str!("../../README.md")),
    ("deploy/README.md", include_str!("../../deploy/README.md")),
    ("CHANGELOG.md", include_str!("../../CHANGELOG.md")),
    ("SECURITY.md", SECURITY),
    ("docs/testing-your-application.md", GUIDE),
    ("docs/architecture.md", include_str!("../../docs/architecture.md")),
    ("docs/integrations.md", include_str!("../../docs/integrations.md")),
    ("docs/operations.md", include_str!("../../docs/operations.md")),
    ("deploy/kubernetes/README.md", include_str!("../../deploy/kubernetes/README.md")),
    ("deploy/examples/postgraphile/README.md", include_str!("../../deploy/examples/postgraphile/README.md")),
    ("deploy/fleet/README.md", include_str!("../../deploy/fleet/README.md")),
    ("deploy/authz/README.md", include_str!("../../deploy/authz/README.md")),
    ("docs/status.md", include_str!("../../docs/status.md")),
    ("docs/configuration.md", include_str!("../../docs/configuration.md")),
];

/// The first line of a configuration that is complete, and of one that adds to the first complete one before it.
const WHOLE: &str = "# mintgate.toml\n";
const PART: &str = "# part of mintgate.toml\n";
/// The first line of a seed of the emulator.
const SEED: &str = "# seed.toml\n";

/// Every variable is set, so that nothing is left to warn about.
struct AllSet;

impl Environment for AllSet {
    fn var(&self, name: &str) -> Option<String> {
        let value = match name {
            "MINTGATE_CACHE_KEY" => "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "MINTGATE_CACHE_KEY_PREVIOUS" => "BBECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            _ if name.starts_with("MINTGATE_") => return None,
            _ if name.ends_with("SIGNING_SECRET") => "whsec_ZG9jdW1lbnRz",
            _ => "sk_live_documents",
        };
        Some(value.to_owned())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Authority::new().identity(&["a.test"]));
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        Ok(match file {
            "key.pem" => IDENTITY.key.clone().into(),
            "ca.pem" | "cert.pem" | "clients.pem" => IDENTITY.cert.clone().into(),
            // No two callers show the same.
            "app.token" | "billing.token" => file.into(),
            "mintgate-cache-key" => b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n".to_vec(),
            _ => b"sk_live_documents\n".to_vec(),
        })
    }

    fn exists(&self, _: &Path) -> bool {
        true
    }
}

/// The texts of the fenced blocks of a language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), None::<(bool, String)>);
    for line in document.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(name)) => open = Some((name == language, String::new())),
            (Some((wanted, text)), Some("")) => {
                if *wanted {
                    found.push(std::mem::take(text));
                }
                open = None;
            }
            (Some((_, text)), _) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// The arguments of every call of mintgate in the blocks of a shell.
fn calls(document: &str) -> Vec<Vec<String>> {
    let lines = blocks(document, "sh").concat().replace("\\\n", " ");
    let calls = lines.lines().filter_map(|line| {
        let line = line.split(" #").next().unwrap_or_default().replace("cargo run --release --", "mintgate");
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let at = words.iter().position(|word| word == "mintgate" || word.ends_with("/bin/mintgate"))?;
        // What is only named, as in `install target/release/mintgate`, is not called.
        let called = words[..at].iter().all(|word| word == "sudo" || word.contains('='));
        called.then(|| words[at + 1..].to_vec())
    });
    calls.collect()
}

/// The configurations in the documents, each with its document; one that is a part stands behind what it is a part of.
pub(crate) fn configurations() -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for (name, document) in DOCUMENTS {
        let mut whole = None;
        for block in blocks(document, "toml").into_iter().filter(|block| !block.starts_with(SEED)) {
            let text = match (&whole, block.starts_with(WHOLE), block.starts_with(PART)) {
                (_, true, _) => block.clone(),
                (Some(whole), _, true) => format!("{whole}\n{block}"),
                _ => panic!("{name}: neither complete nor a part of what is:\n{block}"),
            };
            found.push((name, text));
            if block.starts_with(WHOLE) {
                whole.get_or_insert(block);
            }
        }
    }
    found
}

#[test]
fn every_configuration_in_the_documents_loads_without_a_warning() {
    let configurations = configurations();
    for (name, text) in &configurations {
        let parsed = validate::parse(text, Path::new(name), &AllSet, Secrets::Optional);
        let (_, warnings) = parsed.unwrap_or_else(|problems| panic!("{problems}"));
        // Of this one every configuration with webhooks is told, for as long as replicas cannot hear of each other's.
        let (said, own) = (warnings.to_string(), "warning: webhooks reach this process only");
        assert_eq!(said.matches("warning:").count(), said.matches(own).count(), "{said}");
        assert!(!said.contains(own) || text.contains("[webhooks]"), "{said}");
    }
    assert!(configurations.len() >= 5, "only {} were found", configurations.len());
    for (name, document) in DOCUMENTS {
        for seed in blocks(document, "toml").iter().filter(|block| block.starts_with(SEED)) {
            let parsed = Seed::parse(seed, Path::new(name), &AllSet, Wall::from_seconds(0));
            let (_, warnings) = parsed.unwrap_or_else(|problems| panic!("{problems}"));
            assert!(warnings.is_empty(), "{warnings}");
        }
    }
}

#[test]
fn every_command_in_the_documents_exists() {
    let mut seen = BTreeSet::new();
    for (name, document) in DOCUMENTS {
        for call in calls(document) {
            let command = call.first().filter(|word| !word.starts_with('-'));
            let help = Command::new(env!("CARGO_BIN_EXE_mintgate")).args(command).arg("--help").output().unwrap();
            assert!(help.status.success(), "{name}: mintgate {}", call.join(" "));
            let help = String::from_utf8(help.stdout).unwrap();
            for flag in call.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(flag.as_str()), "{name}: mintgate {}: no {flag}", call.join(" "));
            }
            seen.extend(command.cloned());
        }
    }
    for command in ["dev", "check", "run", "emulator", "explain", "init", "schema", "token", "completions"] {
        assert!(seen.contains(command), "no document shows `mintgate {command}`");
    }
}

/// An emulator that a block of the guide began; it ends with the next one.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Every line of the guide's shells is executed, on a port that the kernel chose. What installs and runs the examples is
/// executed by `tests/run`.
#[test]
fn every_command_of_the_guide_runs() {
    let directory = std::env::temp_dir().join(format!("mintgate-guide-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    for seed in blocks(GUIDE, "toml").iter().filter(|block| block.starts_with(SEED)) {
        std::fs::write(directory.join("seed.toml"), seed).unwrap();
    }
    let examples = include_str!("../run");
    let (mut running, mut executed) = (None::<(Running, String)>, 0);
    for block in blocks(GUIDE, "sh") {
        if let Some(example) = block.lines().next().and_then(|line| line.strip_prefix("cd ")) {
            let test = block.lines().last().unwrap().replace("python3", "python");
            assert!(examples.contains(&format!("example {example} ")) && examples.contains(&*test), "{block}");
            continue;
        }
        for line in block.replace("\\\n", " ").lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            executed += 1;
            // One at a time, as a reader would: the new one ends the one before.
            if let ["mintgate", flags @ ..] = words.as_slice() {
                // The guide's own port is left out: it may be taken.
                let flags = flags.iter().filter(|flag| !["--json", "--listen", "127.0.0.1:0"].contains(flag));
                let mut child = Command::new(env!("CARGO_BIN_EXE_mintgate"))
                    .args(flags)
                    .args(["--json", "--listen", "127.0.0.1:0"])
                    .current_dir(&directory)
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut about = String::new();
                BufReader::new(child.stdout.take().unwrap()).read_line(&mut about).unwrap();
                let about: serde_json::Value = serde_json::from_str(&about).expect(line);
                running = Some((Running(child), about["address"].as_str().unwrap().to_owned()));
                continue;
            }
            let (_, address) = running.as_ref().expect("an emulator is begun first");
            assert!(line.starts_with("curl "), "{line}");
            let line = line.replace("127.0.0.1:6470", address);
            let done = Command::new("sh").args(["-c", &line]).output().unwrap();
            assert!(done.status.success() && !done.stdout.is_empty(), "{line}\n{done:?}");
        }
    }
    drop(running);
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(executed > 15, "only {executed} were found");
}

#[test]
fn the_readme_has_every_error_code_with_its_status() {
    let (_, readme) = DOCUMENTS[0];
    let rows: BTreeSet<(&str, &str)> = readme
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let code = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            Some((code, cells.next()?))
        })
        .collect();
    let codes: Vec<_> = Code::ALL.iter().map(|code| (code.as_str(), code.status().as_u16().to_string())).collect();
    assert_eq!(rows, codes.iter().map(|(code, status)| (*code, status.as_str())).collect());
}

#[test]
fn every_metric_in_the_documents_exists() {
    let scrape =
        Exposition::new(&Metrics::new(Names::default()), Wall::from_seconds(0), Format::Prometheus).to_string();
    for (name, document) in DOCUMENTS {
        for word in document.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            if word.starts_with("mintgate_") {
                assert!(scrape.contains(&format!("# TYPE {word} ")), "{name}: {word}");
            }
        }
    }
}

/// All source texts below a directory.
fn sources(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

/// Every configuration that lies in deploy/, as whoever installs it gets it.
#[test]
fn every_configuration_to_deploy_loads_without_a_warning() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    for file in [
        "authz/mintgate.toml",
        "debian/mintgate.toml",
        "docker/mintgate.toml",
        "examples/postgraphile/mintgate.toml",
        "fleet/hub/hub.toml",
        "fleet/shared/gateway.toml",
        "fleet/hub/sidecar.toml",
        "kubernetes/example/mintgate.toml",
    ] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let parsed = validate::parse(&text, Path::new(file), &Deployed, Secrets::Required);
        let (_, warnings) = parsed.unwrap_or_else(|problems| panic!("{file}: {problems}"));
        // Where one process is meant to hear the webhooks, that is said, and nothing else.
        let (said, one) = (warnings.render(false), file.starts_with("examples/"));
        assert_eq!(said.matches("warning: ").count(), usize::from(one), "{file}: {warnings}");
        assert_eq!(said.contains("webhooks reach this process only"), one, "{file}: {warnings}");
    }
}

/// Only the variables without a default are set, as compose.yaml sets them.
struct Deployed;

impl Environment for Deployed {
    fn var(&self, name: &str) -> Option<String> {
        let set = [
            ("CLERK_PUBLISHABLE_KEY", "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k"),
            ("APP_ORIGIN", "https://app.example.com"),
            ("CLERK_SECRET_KEY", "sk_live_documents"),
            ("CLERK_WEBHOOK_SIGNING_SECRET", "whsec_ZG9jdW1lbnRz"),
        ];
        set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        AllSet.read(path)
    }

    fn exists(&self, _: &Path) -> bool {
        true
    }
}

#[test]
fn every_hostile_case_has_tests_that_exist() {
    let (root, mut text) = (Path::new(env!("CARGO_MANIFEST_DIR")), String::new());
    sources(&root.join("src"), &mut text);
    sources(&root.join("tests/it"), &mut text);
    // Of these each function is a test, which `tests/run` runs.
    text.push_str(&include_str!("../faketime").replace("\ndef ", "\nfn "));
    let mut cases = Vec::new();
    for row in SECURITY
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| Case") && !line.starts_with("| -"))
    {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [case, _, tests] = cells[..] else { panic!("{row}") };
        cases.push(case.split_once('.').unwrap().0.parse::<usize>().unwrap());
        for test in tests.split(", ") {
            let name = test.trim_matches('`');
            assert!(text.contains(&format!("fn {name}(")), "case {case}: {name}");
        }
    }
    assert!(cases.into_iter().eq(1..=40));
}

#[test]
fn every_local_link_leads_somewhere() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut followed = 0;
    for (name, document) in DOCUMENTS {
        let directory = root.join(name).parent().unwrap().to_owned();
        for link in document.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            followed += 1;
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            assert!(directory.join(file).exists(), "{name}: {link}");
            if let Some(anchor) = anchor {
                let other = (!file.is_empty()).then(|| std::fs::read_to_string(directory.join(file)).unwrap());
                let is_it = |line: &str| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-") == anchor;
                let mut lines = other.as_deref().unwrap_or(document).lines();
                assert!(lines.any(|line| line.starts_with('#') && is_it(line)), "{name}: {link}");
            }
        }
    }
    assert!(followed > 3, "only {followed} were found");
}
