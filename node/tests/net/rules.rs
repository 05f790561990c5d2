//! docs/peer-rules.md names only tests that there are.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_rule_of_peers_names_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("../docs/peer-rules.md")).unwrap();
    let mut tests = String::new();
    sources(&root.join("tests"), &mut tests);
    let mut named = 0;
    for row in document.lines().filter(|line| line.starts_with("| ")) {
        let Some((_, cell)) = row.trim_end_matches(" |").rsplit_once(" | ") else {
            continue;
        };
        for name in cell.split(", ").filter(|name| name.starts_with('`')) {
            let name = name.trim_matches('`');
            let is_there = tests.contains(&format!("async fn {name}()"));
            assert!(is_there, "{name} of docs/peer-rules.md is no test");
            named += 1;
        }
    }
    assert!(named > 50, "{named}");
}
