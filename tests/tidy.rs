//! The limits of CONTRIBUTING.md and the direction of imports, checked over the sources as text.
//!
//! Line by line, and with little knowledge of the language: the checks lean on the form that `cargo fmt` gives every file
//! (an item ends at the first closing brace of its own indentation), and on modules being named in full, `crate::unit`.
//! Each rule has a test that shows it at work on a bad snippet; a rule that catches nothing would look like tidy sources.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the engine by rows. A module imports from the rows below its own, and from no other.
const ORDER: &str = "executor -> schedule -> retire, commit -> resolver -> unit -> pool, arena -> app -> reply, state -> raw \
                     -> error, metrics -> batch, sync";

/// Lines of a file, and of a function. Tests do not count.
const FILE: usize = 400;
const FUNCTION: usize = 70;

/// What only one place of the engine may name.
const RESERVED: [(&str, &str); 12] = [
    ("unsafe", "src/raw/"),
    ("atomic", "src/sync.rs"),
    ("cell::", "src/sync.rs"),
    ("thread::spawn", "src/sync.rs"),
    ("thread::Builder", "src/sync.rs"),
    ("loom::", "src/sync.rs"),
    ("shuttle::", "src/sync.rs"),
    ("crossbeam_deque", "src/pool/queue.rs"),
    ("crossbeam::channel", "src/executor/seam.rs"),
    ("rayon", "nowhere"),
    ("SystemTime", "nowhere"),
    ("#![feature", "nowhere"),
];

struct Source {
    /// From the root of the repository.
    path: String,
    text: String,
}

impl Source {
    /// The lines without their comments, numbered from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines().map(|line| line.split("//").next().unwrap_or_default()))
    }

    /// The lines that have a limit, each with its number: those of a module `tests` have none.
    fn limited(&self) -> Vec<(usize, &str)> {
        if self.path.ends_with("/tests.rs") {
            return Vec::new();
        }
        let mut in_tests = false;
        let counts = |&(_, line): &(usize, &str)| {
            in_tests |= line == "mod tests {";
            let counts = !in_tests;
            in_tests &= line != "}";
            counts
        };
        (1..).zip(self.text.lines()).filter(counts).collect()
    }

    /// The modules around this file's items, from the root of the crate; nothing for the root itself.
    fn modules(&self) -> Vec<&str> {
        let inside = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        inside.split('/').filter(|&name| name != "mod" && name != "lib").collect()
    }
}

/// Every file of Rust below `folder`.
fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(root, &path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            let path = path.strip_prefix(root).expect("below the root").to_str().expect("text").to_owned();
            sources.push(Source { path, text });
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).expect(name)
}

/// The sources of the engine, and those of the workspace's other members.
fn sources() -> (Vec<Source>, Vec<Source>) {
    let root = root();
    let (mut engine, mut others) = (Vec::new(), Vec::new());
    collect(&root, &root.join("src"), &mut engine);
    for entry in fs::read_dir(&root).expect("a folder") {
        let member = entry.expect("an entry").path();
        if member.join("Cargo.toml").is_file() && member.join("src").is_dir() {
            collect(&root, &member.join("src"), &mut others);
        }
    }
    (engine, others)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// True if `code` contains `name`, and not as a piece of a longer word.
fn mentions(code: &str, name: &str) -> bool {
    let joined = |a: Option<char>, b: Option<char>| a.is_some_and(is_word) && b.is_some_and(is_word);
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        !joined(before.chars().next_back(), name.chars().next())
            && !joined(name.chars().next_back(), after.chars().next())
    })
}

/// The row of a module; the highest is 0.
fn row(module: &str) -> Option<usize> {
    ORDER.split("->").position(|row| row.split(',').any(|name| name.trim() == module))
}

fn imports(source: &Source) -> Vec<String> {
    let modules = source.modules();
    let Some(&module) = modules.first() else { return Vec::new() };
    let Some(own) = row(module) else { return vec![format!("{}: `{module}` has no row", source.path)] };
    let mut faults = Vec::new();
    for (number, code) in source.code() {
        let at = format!("{}:{number}", source.path);
        for path in code.split("crate::").skip(1) {
            let name: String = path.chars().take_while(|&character| is_word(character)).collect();
            match row(&name) {
                None => faults.push(format!("{at}: `crate::{name}` has no row; name one module at a time")),
                Some(other) if other <= own && name != module => {
                    faults.push(format!("{at}: `{module}` must not import `{name}`"));
                }
                Some(_) => {}
            }
        }
        // Modules inside a file are indented, and climb from where they are.
        let climbs = code.split_once("super::").map_or(0, |(_, path)| 1 + path.matches("super::").count());
        if code.starts_with("use super::") && climbs >= modules.len() {
            faults.push(format!("{at}: say `crate::` for what is outside of `{module}`"));
        }
    }
    faults
}

fn names(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, place) in RESERVED {
        let reserved =
            source.code().filter(|(_, code)| !source.path.starts_with(place) && mentions(code, name));
        faults.extend(
            reserved.map(|(number, _)| format!("{}:{number}: `{name}` belongs to {place}", source.path)),
        );
    }
    faults
}

fn begins_function(line: &str) -> bool {
    let qualifies =
        |word: &&str| word.starts_with("pub") || ["const", "unsafe", "extern", "\"C\""].contains(word);
    line.split_whitespace().find(|word| !qualifies(word)) == Some("fn")
}

/// How many lines the function takes that begins with the first of `lines`.
fn length(lines: &[(usize, &str)]) -> usize {
    let indentation = lines[0].1.len() - lines[0].1.trim_start().len();
    let ends = |line: &str, ends: [char; 3]| line.trim_end().ends_with(ends);
    let signature = lines.iter().position(|(_, line)| ends(line, ['{', '}', ';'])).unwrap_or(lines.len() - 1);
    if !ends(lines[signature].1, ['{'; 3]) {
        return signature + 1;
    }
    let closing = |(_, line): &(usize, &str)| line.len() == indentation + 1 && line.trim_start() == "}";
    lines.iter().position(closing).map_or(lines.len(), |last| last + 1)
}

fn limits(source: &Source) -> Vec<String> {
    let lines = source.limited();
    let mut faults = Vec::new();
    if lines.len() > FILE {
        faults.push(format!("{}: {} lines, at most {FILE}", source.path, lines.len()));
    }
    for (index, (number, _)) in lines.iter().enumerate().filter(|(_, (_, line))| begins_function(line)) {
        let length = length(&lines[index..]);
        if length > FUNCTION {
            faults
                .push(format!("{}:{number}: a function of {length} lines, at most {FUNCTION}", source.path));
        }
    }
    faults
}

/// Where the engine itself would depend on `name`; benches and tests may.
fn dependencies(manifest: &str, name: &str) -> Vec<String> {
    let mut section = "";
    let mut faults = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let counts = section.contains("dependencies")
            && !section.contains("dev-dependencies")
            && !section.starts_with("[workspace.");
        let key = line.split(['=', '.', ' ']).next().unwrap_or_default();
        if counts && (key == name || line == section && mentions(line, name)) {
            faults.push(format!("Cargo.toml: the engine depends on {name}: {line}"));
        }
    }
    faults
}

fn assert_none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_engine_is_tidy() {
    let (engine, _) = sources();
    assert!(engine.len() > 30 && engine.iter().any(|source| source.path == "src/pool/queue.rs"));
    assert_none(engine.iter().flat_map(imports).collect());
    assert_none(engine.iter().flat_map(names).collect());
    assert_none(dependencies(&read("Cargo.toml"), "rayon"));
}

/// No feature of the language that is not stable (see [`RESERVED`]), and nothing that asks for another compiler.
#[test]
fn a_stable_compiler_is_enough() {
    let manifest = read("Cargo.toml");
    let declared =
        manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")).expect("a version");
    assert!(declared.trim_end_matches('"').split('.').all(|part| part.parse::<u32>().is_ok()), "{declared}");
    for file in ["rust-toolchain", "rust-toolchain.toml", ".cargo/config.toml", "rustfmt.toml", ".ci/run"] {
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        for word in ["nightly", "RUSTC_BOOTSTRAP", "unstable"] {
            assert!(!text.contains(word), "{file} asks for {word}");
        }
    }
    assert_none(sources().0.iter().flat_map(names).collect());
}

#[test]
fn files_and_functions_are_short() {
    let (engine, others) = sources();
    assert!(others.iter().any(|source| source.path.starts_with("workloads/src/")));
    assert_none(engine.iter().chain(&others).flat_map(limits).collect());
}

#[test]
fn the_documents_say_the_same() {
    let words = |text: &str| text.replace("//!", " ").split_whitespace().collect::<Vec<_>>().join(" ");
    for document in ["ARCHITECTURE.md", "src/lib.rs"] {
        assert!(words(&read(document)).contains(ORDER), "{document} gives another order of imports");
    }
    let page = read("src/lib.rs");
    let declared = page.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    for module in declared.filter_map(|rest| rest.strip_suffix(';')) {
        let named = page.lines().any(|line| line.starts_with("//! |") && mentions(line, module));
        assert!(named, "the page of the crate leaves out `{module}`");
    }
}

/// The atomics that a file declares, each with its line.
fn atomics(source: &Source) -> Vec<(usize, String)> {
    let declared = |line: &str| -> Option<String> {
        let (before, _) = line.split_once("Atomic")?;
        let before = before.trim_start();
        let word = |text: &str| text.chars().take_while(|&character| is_word(character)).collect::<String>();
        // A reference is no atomic of its own, nor is an import or an argument.
        if before.contains('&') || ["use ", "fn "].iter().any(|start| before.starts_with(start)) {
            return None;
        }
        let unqualified = match before.strip_prefix("pub") {
            Some(rest) => {
                rest.strip_prefix('(').and_then(|rest| rest.split_once(") ")).map_or(rest, |it| it.1)
            }
            None => before,
        };
        let unqualified = unqualified.trim_start();
        if let Some(local) = before.strip_prefix("let ") {
            return local.contains(" = ").then(|| word(local)).filter(|_| !local.contains('|'));
        }
        if let Some(tuple) = unqualified.strip_prefix("struct ") {
            return Some(word(tuple).to_lowercase());
        }
        let name = word(unqualified);
        let rest = &unqualified[name.len()..];
        (!name.is_empty() && rest.starts_with(": ") && !line.contains("::new(")).then_some(name)
    };
    let line = |(number, line): (usize, &str)| {
        Some((number, declared(line.split("//").next().unwrap_or_default())?))
    };
    source.limited().into_iter().filter_map(line).collect()
}

/// The atomics of `source` that `document` has no row for: in the section whose heading names the file, or in a row that
/// does.
fn undocumented(source: &Source, document: &str) -> Vec<String> {
    let file = format!("`{}`", source.path);
    let is_about = |section: &&str| section.lines().next().is_some_and(|heading| heading.contains(&file));
    let sections: Vec<&str> = document.split("\n## ").filter(is_about).collect();
    let rows = document.lines().filter(|line| line.starts_with("| ") && line.contains(&file));
    let places: Vec<&str> = sections.into_iter().chain(rows).collect();
    let known = |name: &str| places.iter().any(|place| mentions(place, name));
    let missing = atomics(source).into_iter().filter(|(_, name)| !known(name));
    missing.map(|(number, name)| format!("{}:{number}: `{name}` has no row", source.path)).collect()
}

#[test]
fn every_atomic_has_a_row_and_every_model_is_there() {
    let document = read("docs/memory-ordering.md");
    let (engine, others) = sources();
    let engine: Vec<Source> = engine.into_iter().filter(|source| source.path != "src/sync.rs").collect();
    let found: usize = engine.iter().map(|source| atomics(source).len()).sum();
    assert!(found >= 17, "{found} atomics were found");
    assert_none(engine.iter().flat_map(|source| undocumented(source, &document)).collect());

    let model = |token: &str| -> Option<String> {
        let (module, name) = token.split_once("::")?;
        let file = format!("loom-tests/src/{module}.rs");
        let source = others.iter().find(|source| source.path == file)?;
        let there = name == "*" || source.text.contains(&format!("\nfn {}(", name.trim_end_matches('*')));
        let begins =
            name.ends_with("_*") && source.text.contains(&format!("\nfn {}", name.trim_end_matches('*')));
        (!there && !begins).then(|| format!("there is no model `{token}`"))
    };
    let tokens: Vec<&str> =
        document.split('`').skip(1).step_by(2).filter(|token| token.contains("::")).collect();
    assert!(tokens.len() > 50, "{} models are named", tokens.len());
    assert_none(tokens.into_iter().filter_map(model).collect());
}

/// A model that nothing can break says nothing.
#[test]
fn every_model_has_a_mutant() {
    let table = read("loom-tests/mutants.toml");
    let (_, others) = sources();
    let mut models = 0;
    for source in others.iter().filter(|source| source.path.starts_with("loom-tests/src/")) {
        for test in source.text.split("#[test]\nfn ").skip(1) {
            let name: String = test.chars().take_while(|&character| is_word(character)).collect();
            let model = format!("{}::{name}", source.modules().last().expect("a module"));
            assert!(table.contains(&format!("model = \"{model}\"\n")), "{model} has no mutant");
            models += 1;
        }
    }
    assert!(models > 40, "{models} models were found");
}

#[test]
fn atomics_without_a_row_are_caught() {
    let document =
        "# Title\n\n## A part: `src/raw/x.rs`\n\n| `flag` | a |\n\n## The rest\n\n| `src/y.rs` | `sum` |\n";
    let check = |path: &str, text: &str| undocumented(&snippet(path, text), document);
    assert_eq!(check("src/raw/x.rs", "    flag: AtomicBool,\n"), [""; 0]);
    assert_eq!(check("src/y.rs", "    let sum = AtomicU64::new(0);\n"), [""; 0]);
    assert_eq!(check("src/raw/x.rs", "    flag: AtomicBool,\n    other: [AtomicU64; 2],\n").len(), 1);
    assert_eq!(check("src/y.rs", "    flag: CachePadded<AtomicBool>,\n").len(), 1, "of another file");
    assert_eq!(check("src/z.rs", "pub(crate) struct Word(AtomicU64);\n").len(), 1);
    assert_eq!(check("src/z.rs", "    pub(crate) word: AtomicU64,\n").len(), 1);
    let nothing =
        "use crate::sync::AtomicU64;\n    word: &'s AtomicU64,\n        X { word: AtomicU64::new(0) }\n";
    assert_eq!(check("src/z.rs", nothing), [""; 0]);
}

/// A file of these lines.
fn snippet(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

#[track_caller]
fn caught(rule: fn(&Source) -> Vec<String>, path: &str, text: &str, expected: &str) {
    let faults = rule(&snippet(path, text));
    assert!(faults.len() == 1 && faults[0].contains(expected), "{text}\n{faults:?}");
}

#[track_caller]
fn passed(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) {
    assert_none(rule(&snippet(path, text)));
}

#[test]
fn imports_against_the_order_are_caught() {
    caught(imports, "src/state/mod.rs", "use crate::unit::Fingerprints;", "`state` must not import `unit`");
    caught(imports, "src/commit.rs", "\nuse crate::retire::Tail;", "src/commit.rs:2: `commit` must not");
    caught(imports, "src/raw/gate.rs", "    let x: crate::app::Reply = y;", "`raw` must not import `app`");
    caught(imports, "src/extra.rs", "", "`extra` has no row");
    caught(imports, "src/unit/mod.rs", "use crate::{app::Reply, executor::Engine};", "one module at a time");
    caught(imports, "src/unit/mod.rs", "use super::executor::Engine;", "say `crate::`");
    caught(imports, "src/unit.rs", "use super::executor::Engine;", "say `crate::`");
    caught(imports, "src/unit/reads.rs", "use super::super::retire::Tail;", "say `crate::`");
    passed(imports, "src/unit/reads.rs", "use super::writes::Record;\nuse crate::unit::set::Set;");
    passed(imports, "src/commit.rs", "use crate::resolver::Overlay; // not crate::executor");
    passed(imports, "src/unit/mod.rs", "mod tests {\n    use super::*;\n}");
    passed(imports, "src/lib.rs", "pub use crate::executor::Engine;");
}

#[test]
fn names_out_of_their_place_are_caught() {
    caught(names, "src/unit/mod.rs", "    unsafe { x.get() }", "`unsafe` belongs to src/raw/");
    caught(names, "src/retire.rs", "use std::sync::atomic::AtomicBool;", "`atomic` belongs to src/sync.rs");
    caught(names, "src/retire.rs", "use std::{\n    sync::{Arc, atomic},\n};", "src/retire.rs:2");
    caught(names, "src/arena.rs", "let x = std::cell::Cell::new(1);", "`cell::`");
    caught(names, "src/arena.rs", "use std::{cell::{Cell, RefCell}, fmt};", "`cell::`");
    caught(names, "src/executor/start.rs", "    thread::spawn(|| ());", "`thread::spawn`");
    caught(names, "src/executor/start.rs", "    std::thread::Builder::new()", "`thread::Builder`");
    caught(names, "src/raw/gate.rs", "use loom::sync::Mutex;", "`loom::`");
    caught(names, "src/pool/mod.rs", "use shuttle::thread;", "`shuttle::` belongs to src/sync.rs");
    caught(names, "src/pool/mod.rs", "use crossbeam_deque::Worker;", "belongs to src/pool/queue.rs");
    caught(names, "src/executor/handle.rs", "use crossbeam::channel::Sender;", "src/executor/seam.rs");
    caught(names, "src/pool/mod.rs", "rayon::scope(|_| ());", "`rayon` belongs to nowhere");
    caught(names, "src/lib.rs", "#![feature(allocator_api)]", "`#![feature` belongs to nowhere");
    caught(names, "src/metrics.rs", "SystemTime::now()", "`SystemTime` belongs to nowhere");
    passed(names, "src/lib.rs", "#![deny(unsafe_code)]\n#[cfg(not(loom))]\npub mod executor;");
    passed(names, "src/sync.rs", "pub use std::cell::Cell;\npub use std::sync::atomic::AtomicBool;");
    passed(names, "src/error.rs", "use std::sync::Arc; // no atomic");
    passed(names, "src/raw/slots.rs", "        unsafe { &*self.at }");
}

#[test]
fn what_is_too_long_is_caught() {
    let body = |lines: usize| "        work();\n".repeat(lines);
    let method = |lines: usize| {
        format!(
            "impl X {{\n    pub(super) fn f(\n        &self,\n    ) -> u8 {{\n{}    }}\n}}\n",
            body(lines)
        )
    };
    caught(limits, "src/x.rs", &method(FUNCTION - 3), "src/x.rs:2: a function of 71 lines");
    passed(limits, "src/x.rs", &method(FUNCTION - 4));
    let declared = "    fn f(&self)\n    where\n        Self: Sized;\n";
    passed(limits, "src/x.rs", &format!("trait X {{\n{}}}\n", declared.repeat(FUNCTION)));
    passed(limits, "src/x.rs", &"fn f() {}\n".repeat(FILE));

    caught(limits, "cli/src/x.rs", &"use x;\n".repeat(FILE + 1), "cli/src/x.rs: 401 lines");
    let tests = format!("#[cfg(test)]\nmod tests {{\n    fn f() {{\n{}    }}\n}}\n", body(FILE));
    passed(limits, "src/x.rs", &format!("{}{tests}", "use x;\n".repeat(FILE - 1)));
    caught(limits, "src/x.rs", &format!("{}{tests}use x;\n", "use x;\n".repeat(FILE - 1)), "401 lines");
    passed(limits, "src/state/tests.rs", &"use x;\n".repeat(FILE + 1));
}

#[test]
fn a_dependency_of_the_engine_is_caught() {
    let manifest =
        |section: &str| format!("[package]\nname = \"x\"\n\n[{section}]\nahash = \"1\"\nrayon = \"1\"\n");
    for section in ["dependencies", "target.'cfg(unix)'.dependencies", "build-dependencies"] {
        assert_eq!(dependencies(&manifest(section), "rayon").len(), 1, "{section}");
    }
    assert_eq!(dependencies("[dependencies.rayon]\nversion = \"1\"\n", "rayon").len(), 1);
    assert_eq!(dependencies("[dependencies]\nrayon.workspace = true\n", "rayon").len(), 1);
    for section in ["dev-dependencies", "workspace.dependencies", "features"] {
        assert_none(dependencies(&manifest(section), "rayon"));
    }
}
