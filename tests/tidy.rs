//! Layout rules of the tree, checked with the standard library alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

mod source {
    //! A Rust file taken apart: its code without comments and texts, and its texts.

    pub struct Source {
        /// Comments and the insides of texts are blank.
        pub code: String,
        /// Line (from 1) and content of each text.
        pub texts: Vec<(usize, String)>,
    }

    pub fn split(source: &str) -> Source {
        let s: Vec<char> = source.chars().collect();
        let (mut code, mut texts, mut at) = (String::new(), Vec::new(), 0);
        let line = |at: usize| s[..at].iter().filter(|c| **c == '\n').count() + 1;
        while at < s.len() {
            let end = if starts(&s, at, "//") {
                until(&s, at, |at| s[at] == '\n')
            } else if starts(&s, at, "/*") {
                block_comment(&s, at)
            } else if let Some((open, hashes)) = raw_text(&s, at) {
                let close: String = std::iter::once('"').chain("#".repeat(hashes).chars()).collect();
                let end = until(&s, open, |at| starts(&s, at, &close));
                texts.push((line(at), s[open..end].iter().collect()));
                end + close.len()
            } else if s[at] == '"' {
                let end = quoted(&s, at + 1, '"');
                texts.push((line(at), s[at + 1..end].iter().collect()));
                end + 1
            } else if s[at] == '\'' && (s.get(at + 1) == Some(&'\\') || s.get(at + 2) == Some(&'\'')) {
                quoted(&s, at + 1, '\'') + 1
            } else {
                code.push(s[at]);
                at += 1;
                continue;
            };
            let end = end.min(s.len());
            code.extend(s[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
        Source { code, texts }
    }

    fn starts(s: &[char], at: usize, what: &str) -> bool {
        what.chars().enumerate().all(|(i, c)| s.get(at + i) == Some(&c))
    }

    fn until(s: &[char], from: usize, stop: impl Fn(usize) -> bool) -> usize {
        (from..s.len()).find(|at| stop(*at)).unwrap_or(s.len())
    }

    fn quoted(s: &[char], mut at: usize, close: char) -> usize {
        while at < s.len() && s[at] != close {
            at += if s[at] == '\\' { 2 } else { 1 };
        }
        at.min(s.len())
    }

    fn block_comment(s: &[char], mut at: usize) -> usize {
        let mut depth = 0;
        while at < s.len() {
            match () {
                () if starts(s, at, "/*") => (depth, at) = (depth + 1, at + 2),
                () if starts(s, at, "*/") => (depth, at) = (depth - 1, at + 2),
                () => at += 1,
            }
            if depth == 0 {
                break;
            }
        }
        at
    }

    /// Where the inside of a raw text begins, and how many `#` it has.
    fn raw_text(s: &[char], at: usize) -> Option<(usize, usize)> {
        let word = |c: &char| c.is_alphanumeric() || *c == '_';
        if s[at] != 'r' || at > 0 && word(&s[at - 1]) && !matches!(s[at - 1], 'b' | 'c') {
            return None;
        }
        let hashes = s[at + 1..].iter().take_while(|c| **c == '#').count();
        (s.get(at + 1 + hashes) == Some(&'"')).then_some((at + 2 + hashes, hashes))
    }

    #[test]
    fn code_and_texts_are_told_apart() {
        let Source { code, texts } = split(
            "a(\"x \\\" unsafe\"); // unsafe\n/* unsafe /* */ */ b('\"', '\\'', r#\"raw \" \\\"#); fn f<'a>(c: &'a str) { br\"y\" }",
        );
        assert_eq!(texts, [(1, "x \\\" unsafe".into()), (2, "raw \" \\".into()), (2, "y".into())]);
        let words: Vec<&str> = code.split_whitespace().collect();
        assert_eq!(words, ["a(", ");", "b(", ",", ",", ");", "fn", "f<'a>(c:", "&'a", "str)", "{", "b", "}"]);
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the tree with its path from the root; build results and hidden folders (but `.ci`) are left out.
fn files() -> Vec<(String, PathBuf)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && name != "target" && (!name.starts_with('.') || name == ".ci") {
                walk(&entry.path(), found);
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort();
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    found.into_iter().map(|path| (name(&path), path)).collect()
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

fn rust_files() -> Vec<(String, String)> {
    let files: Vec<_> =
        files().into_iter().filter(|(name, _)| name.ends_with(".rs")).map(|(n, p)| (n, read(p))).collect();
    assert!(files.len() > 100, "only {} files of Rust were found", files.len());
    files
}

fn none(rule: &str, violations: impl IntoIterator<Item = String>) {
    let violations: Vec<String> = violations.into_iter().collect();
    assert!(violations.is_empty(), "{rule}:\n  {}\n", violations.join("\n  "));
}

/// The lines on which one of these stands as a word.
fn lines_with(code: &str, words: &[&str]) -> Vec<(usize, String)> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let goes_on = |line: &str, word: &str, at: usize| {
        line[..at].chars().next_back().is_some_and(part)
            || word.ends_with(part) && line[at + word.len()..].chars().next().is_some_and(part)
    };
    let holds = |line: &str, word: &str| line.match_indices(word).any(|(at, _)| !goes_on(line, word, at));
    let lines = code.lines().enumerate().filter(|(_, line)| words.iter().any(|word| holds(line, word)));
    lines.map(|(number, line)| (number + 1, line.trim().to_string())).collect()
}

/// Where these words stand in the code of files that may not hold them.
fn misplaced(words: &[&str], allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let files = rust_files().into_iter().filter(|(name, _)| !allowed(name));
    files
        .flat_map(|(name, text)| {
            let lines = lines_with(&source::split(&text).code, words);
            lines.into_iter().map(move |(line, text)| format!("{name}:{line}: {text}")).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn every_file_says_in_its_first_line_what_lives_there() {
    let says = |text: &str| text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > 10);
    none("no //! line", rust_files().into_iter().filter(|(_, text)| !says(text)).map(|(name, _)| name));
}

#[test]
fn no_file_is_past_400_lines() {
    let long = rust_files().into_iter().map(|(name, text)| (name, text.lines().count())).filter(|(_, n)| *n > 400);
    none("too long", long.map(|(name, lines)| format!("{name}: {lines}")));
}

#[test]
fn unsafe_code_is_in_src_pg_only() {
    none("unsafe outside src/pg", misplaced(&["unsafe"], |name| name.starts_with("src/pg/")));
}

#[test]
fn pgrx_is_in_src_pg_and_its_tests_only() {
    let allowed = |name: &str| name.starts_with("src/pg/") || name.starts_with("pgrx-tests/") || name == "src/lib.rs";
    none("pgrx outside src/pg", misplaced(&["pgrx", "pg_sys"], allowed));
}

#[test]
fn core_is_pure() {
    let effects = [
        "std::fs",
        "std::env",
        "std::thread",
        "std::process",
        "std::io",
        "std::os",
        "SystemTime",
        "Instant",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "ToSocketAddrs",
        "env::var",
        "fs::read",
        "Timestamp::now",
        "Zoned::now",
        "println",
        "eprintln",
        "print",
        "eprint",
        "ureq",
        "nix",
        "libc",
    ];
    none("effects in src/core", misplaced(&effects, |name| !name.starts_with("src/core/")));
}

#[test]
fn each_layer_imports_only_those_below() {
    none("core imports", misplaced(&["crate::io", "crate::pg"], |name| !name.starts_with("src/core/")));
    none("io imports", misplaced(&["crate::pg"], |name| !name.starts_with("src/io/")));
    let store = misplaced(&["pg::functions", "pg::worker", "crate::io"], |name| !name.starts_with("src/pg/store/"));
    none("store imports", store);
    none("functions import", misplaced(&["pg::worker"], |name| !name.starts_with("src/pg/functions/")));
}

#[test]
fn sql_text_is_in_src_pg_store_only() {
    let verbs =
        ["SELECT", "INSERT INTO", "UPDATE", "DELETE FROM", "WITH", "TRUNCATE", "COPY", "CREATE", "ALTER", "DROP"];
    // `@extschema@` itself is replaced in spi.rs
    let statement = |text: &str| {
        let first = text.trim_start();
        verbs.iter().any(|verb| first.strip_prefix(verb).is_some_and(|rest| rest.starts_with([' ', '\n'])))
            || text.len() > "@extschema@".len() && text.contains("@extschema@")
    };
    let elsewhere =
        rust_files().into_iter().filter(|(name, _)| name.starts_with("src/") && !name.starts_with("src/pg/store/"));
    let found = elsewhere.flat_map(|(name, text)| {
        let texts = source::split(&text).texts.into_iter().filter(|(_, text)| statement(text));
        texts.map(|(line, text)| format!("{name}:{line}: {:.60}", text)).collect::<Vec<_>>()
    });
    none("SQL outside src/pg/store", found);
}

#[test]
fn nothing_is_left_for_later_and_no_machine_is_named() {
    // put together here, so that this file does not hold them
    let marks = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["todo", "!("],
        ["unimplemented", "!("],
        ["dbg", "!("],
        ["#[ign", "ore"],
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["/tmp", "/w/"],
        ["/ho", "me/"],
    ]
    .map(|parts| parts.concat());
    let text_file = |name: &str| name != "Cargo.lock" && !name.starts_with(".git");
    let found = files().into_iter().filter(|(name, _)| text_file(name)).flat_map(|(name, path)| {
        let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        let held = |line: &str| marks.iter().any(|mark| line.contains(mark.as_str()));
        let lines = text.lines().enumerate().filter(|(_, line)| held(line));
        lines.map(|(number, line)| format!("{name}:{}: {}", number + 1, line.trim())).collect::<Vec<_>>()
    });
    none("left for later, or a path of one machine", found);
}

/// The kind and name of each object that the install scripts and `#[pg_extern]` make.
fn sql_objects() -> BTreeSet<(&'static str, String)> {
    let name = |rest: &str| {
        let rest = rest.strip_prefix("@extschema@.").unwrap_or(rest);
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>()
    };
    let mut objects = BTreeSet::new();
    for (_, path) in files().into_iter().filter(|(name, _)| name.starts_with("sql/install/")) {
        for line in read(path).lines() {
            for kind in ["TABLE", "VIEW", "FUNCTION", "PROCEDURE"] {
                if let Some(rest) = line.strip_prefix("CREATE ").and_then(|rest| rest.strip_prefix(kind)) {
                    objects.insert((kind, name(rest.trim_start())));
                }
            }
        }
    }
    for (file, text) in rust_files().into_iter().filter(|(name, _)| name.starts_with("src/pg/functions/")) {
        for item in text.split("#[pg_extern").skip(1) {
            let attribute = &item[..item.find("\nfn ").unwrap_or_else(|| panic!("{file}: a pg_extern without fn"))];
            let renamed = attribute.split("name = \"").nth(1).map(name);
            objects.insert(("FUNCTION", renamed.unwrap_or_else(|| name(&item[attribute.len() + 4..]))));
        }
    }
    objects
}

#[test]
fn every_table_view_and_function_has_a_comment() {
    let objects = sql_objects();
    assert!(objects.len() > 60 && objects.contains(&("FUNCTION", "enrich_get".to_string())), "{objects:?}");
    let install = files().into_iter().filter(|(name, _)| name.starts_with("sql/install/"));
    let comments: String = install.map(|(_, path)| read(path)).collect();
    let commented = |(kind, name): &(&str, String)| {
        ["", "@extschema@."].iter().any(|schema| {
            let begin = format!("COMMENT ON {kind} {schema}{name}");
            comments.match_indices(&begin).any(|(at, _)| comments[at + begin.len()..].starts_with(['(', ' ', '\n']))
        })
    };
    let missing = objects.iter().filter(|object| !commented(object));
    none("no COMMENT ON in sql/install", missing.map(|(kind, name)| format!("{kind} {name}")));
}

/// Name and version of each dependency in a manifest; those by path have none.
fn dependencies(manifest: &str) -> Vec<(String, Option<String>)> {
    let mut section = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.trim_end_matches(']').ends_with("dependencies");
        } else if let Some((name, value)) = line.split_once('=').filter(|_| section && !line.starts_with('#')) {
            let value = value.trim();
            let version = match value.strip_prefix('{') {
                Some(table) => table.split("version = \"").nth(1),
                None => value.strip_prefix('"'),
            };
            let version = version.map(|rest| rest.split('"').next().unwrap_or_default().to_string());
            found.push((name.trim().to_string(), version));
        }
    }
    found
}

#[test]
fn each_dependency_is_pinned_and_has_its_reason() {
    let reasons = read(root().join("docs/adr/0002-dependencies.md"));
    let mut violations = Vec::new();
    let mut seen = 0;
    for (name, path) in files().into_iter().filter(|(name, _)| name.ends_with("Cargo.toml")) {
        for (dependency, version) in dependencies(&read(path)) {
            seen += 1;
            let Some(version) = version else { continue };
            if !version.starts_with('=') {
                violations.push(format!("{name}: {dependency} = \"{version}\" is not pinned"));
            }
            if lines_with(&reasons, &[&dependency]).is_empty() {
                violations.push(format!("{name}: {dependency} has no line in docs/adr/0002-dependencies.md"));
            }
        }
    }
    assert!(seen > 30, "only {seen} dependencies were found");
    none("dependencies", violations);
}
