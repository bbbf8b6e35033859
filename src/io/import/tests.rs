//! Trees of temporary files, walked and read.

use super::pipeline::{Next, Pipeline, Spec};
use super::tree::{Entry, Walk};
use super::{safe, tree};
use crate::core::disk::item::{Item, What};
use nix::sys::stat::Mode;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

struct Tree(PathBuf);

impl Tree {
    fn new() -> Tree {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("enrichment-tree-{}-{number}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        Tree(root)
    }

    fn with(paths: &[&str]) -> Tree {
        let tree = Tree::new();
        for path in paths {
            tree.write(path.as_bytes(), path.as_bytes());
        }
        tree
    }

    fn path(&self, path: &[u8]) -> PathBuf {
        self.0.join(std::ffi::OsStr::from_bytes(path))
    }

    fn write(&self, path: &[u8], bytes: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn root(&self) -> std::os::fd::OwnedFd {
        safe::open_root(self.0.to_str().unwrap()).unwrap()
    }

    fn files(&self, after: Option<&str>, page: usize) -> Vec<String> {
        let walk = Walk::with_page(&self.root(), after.map(str::as_bytes), None, page).unwrap();
        walk.map(|entry| match entry {
            Entry::File(path) => String::from_utf8(path).unwrap(),
            Entry::Other(path, why) => panic!("{path:?} {why}"),
        })
        .collect()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

const PATHS: [&str; 9] = ["a", "b/1", "b/2/x", "b/2/y", "b/3", "b.json", "c/c/c/c/1.json", "c/c/c/d", "d"];

#[test]
fn a_walk_goes_on_behind_any_path_whatever_the_size_of_a_page() {
    let tree = Tree::with(&PATHS);
    let all = tree.files(None, 100);
    assert_eq!(all.len(), PATHS.len());
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), PATHS.len());
    for page in [1, 2, 3, 100] {
        assert_eq!(tree.files(None, page), all, "pages of {page}");
        for (at, path) in all.iter().enumerate() {
            assert_eq!(tree.files(Some(path), page), all[at + 1..], "behind {path}, pages of {page}");
        }
    }
}

#[test]
fn a_walk_goes_on_behind_what_is_gone() {
    let tree = Tree::with(&PATHS);
    let all = tree.files(None, 100);
    let at = all.iter().position(|path| path == "b/2/y").unwrap();
    fs::remove_dir_all(tree.path(b"b/2")).unwrap();
    assert_eq!(tree.files(Some("b/2/y"), 100), all[at + 1..]);
}

#[test]
fn only_the_named_directories_of_the_root_are_walked() {
    let tree = Tree::with(&PATHS);
    let only = BTreeSet::from(["c".to_owned()]);
    let walk = Walk::new(&tree.root(), None, Some(only)).unwrap();
    let found: Vec<Entry> = walk.filter(|entry| matches!(entry, Entry::File(path) if path.contains(&b'/'))).collect();
    assert_eq!(found, [Entry::File(b"c/c/c/c/1.json".to_vec()), Entry::File(b"c/c/c/d".to_vec())]);
}

#[test]
fn what_is_no_file_is_named_and_never_opened() {
    let tree = Tree::with(&["real/file"]);
    std::os::unix::fs::symlink("/etc", tree.path(b"link")).unwrap();
    std::os::unix::fs::symlink("real/file", tree.path(b"link.json")).unwrap();
    nix::unistd::mkfifo(&tree.path(b"pipe"), Mode::S_IRUSR).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.path(b"sock")).unwrap();
    tree.write(b"odd/\xff\n.json", b"x");
    let walk = Walk::new(&tree.root(), None, None).unwrap();
    let mut others = BTreeMap::new();
    let mut files = Vec::new();
    for entry in walk {
        match entry {
            Entry::File(path) => files.push(path),
            Entry::Other(path, why) => drop(others.insert(String::from_utf8(path).unwrap(), why)),
        }
    }
    assert_eq!(files, [b"odd/\xff\n.json".to_vec(), b"real/file".to_vec()]);
    let expected = [
        ("link", "is a symbolic link"),
        ("link.json", "is a symbolic link"),
        ("pipe", "is a FIFO"),
        ("sock", "is a socket"),
    ];
    assert_eq!(others, expected.map(|(path, why)| (path.to_owned(), why.to_owned())).into());
    // and when the directory lied, the opening tells
    let root = tree.root();
    let read = |path: &[u8]| {
        let mut bytes = b"of another file".to_vec();
        safe::read(&root, path, 10, &mut bytes).map(|_| bytes)
    };
    assert_eq!(read(b"link.json").unwrap_err(), "is a symbolic link, or lies behind one");
    assert_eq!(read(b"link/passwd").unwrap_err(), "is a symbolic link, or lies behind one");
    assert_eq!(read(b"pipe").unwrap_err(), "is a FIFO");
    assert_eq!(read(b"real").unwrap_err(), "is a directory");
    assert_eq!(read(b"real/gone").unwrap_err(), "is gone");
    assert_eq!(read(b"odd/\xff\n.json").unwrap(), b"x");
    assert!(read(b"../etc/passwd").is_err());
    assert_eq!(safe::read(&root, b"real/file", 3, &mut Vec::new()).unwrap_err(), "has 9 bytes, more than 3");
    assert!(safe::step_by_step(&root, b"link/passwd").is_err());
    assert!(safe::step_by_step(&root, b"real/file").is_ok());
}

#[test]
fn a_tree_that_is_too_deep_is_cut_off() {
    let deep = vec!["d"; 40].join("/");
    let tree = Tree::with(&[&format!("{deep}/x")]);
    let found: Vec<Entry> = Walk::new(&tree.root(), None, None).unwrap().collect();
    assert!(matches!(&found[..], [Entry::Other(_, why)] if why.contains("levels deep")), "{found:?}");
}

fn spec(tree: &Tree, after: Option<Vec<u8>>) -> Spec {
    Spec { root: tree.root(), after, only: None, services: BTreeMap::new(), most_bytes: 1 << 20, build: true }
}

fn take_all(pipeline: &mut Pipeline) -> Vec<Item> {
    let mut items = Vec::new();
    loop {
        match pipeline.next(Duration::from_secs(10)) {
            Next::Items(more) => items.extend(more),
            Next::Waiting => panic!("nothing came"),
            Next::End => return items,
        }
    }
}

#[test]
fn files_come_in_the_order_of_the_walk_with_their_bytes_and_are_counted() {
    let tree = Tree::new();
    for n in 0..700 {
        tree.write(format!("spur/{:02x}/{n}.json", n % 16).as_bytes(), &vec![b'x'; n]);
    }
    let order: Vec<Vec<u8>> = tree.files(None, 100).into_iter().map(String::into_bytes).collect();
    let mut pipeline = Pipeline::start(spec(&tree, None), 3).unwrap();
    let items = take_all(&mut pipeline);
    assert!(pipeline.complete());
    assert_eq!(items.iter().map(|item| item.path.clone()).collect::<Vec<_>>(), order);
    assert_eq!(items.iter().map(|item| item.bytes).sum::<u64>(), (0..700_u64).sum::<u64>());
    assert!(items.iter().all(|item| matches!(item.what, What::Malformed(_))));
    let mut rest = Pipeline::start(spec(&tree, Some(order[400].clone())), 2).unwrap();
    assert_eq!(take_all(&mut rest).len(), 299);
    assert_eq!(rest.total(), Some(299));
}

/// The walk stands still: nobody takes what the readers have made.
#[test]
fn what_the_walk_has_not_come_to_is_counted() {
    let tree = Tree::new();
    for n in 0..4000 {
        tree.write(format!("spur/{:02x}/{n}.json", n % 16).as_bytes(), b"x");
    }
    let mut pipeline = Pipeline::start_ahead(spec(&tree, None), 2, 1).unwrap();
    let began = Instant::now();
    while pipeline.total().is_none() {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody counts");
        std::thread::yield_now();
    }
    assert_eq!((pipeline.total(), pipeline.complete()), (Some(4000), false));
    assert_eq!(take_all(&mut pipeline).len(), 4000);
    assert_eq!(pipeline.total(), Some(4000));
}

#[test]
fn dropping_a_pipeline_in_the_middle_ends_it() {
    let tree = Tree::new();
    for n in 0..200 {
        tree.write(format!("{n}").as_bytes(), b"x");
    }
    let mut pipeline = Pipeline::start(spec(&tree, None), 2).unwrap();
    assert!(matches!(pipeline.next(Duration::from_secs(10)), Next::Items(_)));
    drop(pipeline);
}

#[test]
fn what_is_no_directory_is_refused() {
    let tree = Tree::with(&["file"]);
    assert!(safe::open_root(tree.path(b"file").to_str().unwrap()).is_err());
    assert!(safe::open_root("/nowhere/at/all").is_err());
    assert!(tree::Walk::new(&tree.root(), Some(b"zzz"), None).unwrap().next().is_none());
}
