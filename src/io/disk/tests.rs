//! The tree, what is found in it, and the thread that writes into it.

use super::*;
use crate::core::disk::tests::service as builtin;
use crate::core::service::Service;
use crate::core::{Micros, SECOND};
use crate::io::clock;
use std::fs;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

/// A directory that goes when this does.
struct Root(PathBuf);

impl Root {
    fn new() -> Root {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("enrichment-disk-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Root(path)
    }

    fn put(&self, path: &str, body: &str, at: i64) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, body).unwrap();
        fs::File::open(&path).unwrap().set_modified(UNIX_EPOCH + Duration::from_micros(at as u64)).unwrap();
    }

    fn tree(&self) -> Tree {
        Tree::open(&self.0).unwrap()
    }

    fn names(&self) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => walk(&entry.path(), found),
                    false => found.push(entry.file_name().to_string_lossy().into_owned()),
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.0, &mut found);
        found
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const BODY: &str = r#"{"ip":{"number":"1.2.3.4","count":3}}"#;
const MAY_2024: i64 = 1_715_000_000_123_456;

fn look(root: &Path, service: &Service, key: &str, now: Micros) -> Result<Look, Trouble> {
    Ok(judge(contents(root, &service.name, key, service.max_bytes)?, service, key, now))
}

#[test]
fn a_file_is_written_with_its_time_and_the_rights_of_its_folder_and_read_back() {
    let root = Root::new();
    fs::set_permissions(&root.0, fs::Permissions::from_mode(0o2775)).unwrap();
    let tree = root.tree();
    tree.write("dshield/1/2/3/4.json", b"{}", MAY_2024, Flush::Now).unwrap();
    assert_eq!(tree.read("dshield/1/2/3/4.json", 100).unwrap(), Some((b"{}".to_vec(), MAY_2024)));
    assert_eq!(fs::metadata(root.0.join("dshield/1/2")).unwrap().mode() & 0o777, 0o775);
    assert_eq!(fs::metadata(root.0.join("dshield/1/2/3/4.json")).unwrap().mode() & 0o7777, 0o664);
    // the second writing replaces the first, and nothing temporary stays
    tree.write("dshield/1/2/3/4.json", b"{\"a\":1}", MAY_2024 + 1, Flush::Later).unwrap();
    tree.flush().unwrap();
    assert_eq!(tree.read("dshield/1/2/3/4.json", 100).unwrap(), Some((b"{\"a\":1}".to_vec(), MAY_2024 + 1)));
    assert_eq!(root.names(), ["4.json"]);
}

#[test]
fn what_a_killed_process_of_the_same_number_left_is_in_nobodys_way() {
    let root = Root::new();
    fs::create_dir(root.0.join("spur")).unwrap();
    fs::write(root.0.join(format!("spur/.a.json.{}.tmp", std::process::id())), "half").unwrap();
    root.tree().write("spur/a.json", b"{}", MAY_2024, Flush::Now).unwrap();
    assert_eq!(root.names(), ["a.json"]);
}

#[test]
fn no_symbolic_link_is_followed_neither_to_read_nor_to_write() {
    let (root, outside) = (Root::new(), Root::new());
    fs::write(outside.0.join("4.json"), BODY).unwrap();
    fs::create_dir_all(root.0.join("dshield/1/2")).unwrap();
    symlink(&outside.0, root.0.join("dshield/1/2/3")).unwrap();
    symlink(outside.0.join("4.json"), root.0.join("dshield/one.json")).unwrap();
    let tree = root.tree();
    for path in ["dshield/1/2/3/4.json", "dshield/one.json", "../4.json"] {
        assert!(matches!(tree.read(path, 1000), Err(Trouble::File(_))), "{path}");
    }
    assert!(matches!(tree.write("dshield/1/2/3/5.json", b"{}", 0, Flush::Now), Err(Trouble::File(_))));
    assert_eq!(outside.names(), ["4.json"]);
    // a link in the place of the file itself is replaced, not written through
    tree.write("dshield/one.json", b"{}", MAY_2024, Flush::Now).unwrap();
    assert_eq!(fs::read_to_string(outside.0.join("4.json")).unwrap(), BODY);
}

#[test]
fn devices_pipes_and_files_that_are_too_large_are_refused_without_waiting() {
    let root = Root::new();
    fs::create_dir(root.0.join("spur")).unwrap();
    nix_fifo(&root.0.join("spur/pipe.json"));
    fs::write(root.0.join("spur/large.json"), vec![b' '; 2000]).unwrap();
    fs::create_dir(root.0.join("spur/folder.json")).unwrap();
    for name in ["pipe", "large", "folder"] {
        let read = root.tree().read(&format!("spur/{name}.json"), 1000);
        assert!(matches!(read, Err(Trouble::File(_))), "{name}: {read:?}");
    }
}

fn nix_fifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[test]
fn a_file_in_the_place_of_a_folder_troubles_one_key_and_no_root_all_of_them() {
    let root = Root::new();
    fs::write(root.0.join("dshield"), "").unwrap();
    let tree = root.tree();
    assert!(matches!(tree.write("dshield/1/2/3/4.json", b"{}", 0, Flush::Now), Err(Trouble::File(_))));
    tree.write("spur/aa/b.json", b"{}", 0, Flush::Now).unwrap();
    assert!(matches!(Tree::open(&root.0.join("none")), Err(Trouble::Tree(_))));
    assert!(matches!(Tree::open(Path::new("relative")), Err(Trouble::Tree(_))));
}

#[test]
fn of_several_files_of_a_key_the_newest_observation_counts() {
    let root = Root::new();
    let dshield = Service { ttl: 86_400 * SECOND, ..builtin("dshield") };
    let now = clock::now();
    root.put("dshield/1/2/3/4.json", BODY, now - 5000 * SECOND);
    // the time inside counts, not that of the file
    let at = now / SECOND - 100;
    root.put("dshield_1.2.3.4.json", &format!(r#"{{"timestamp":{at},"data":{BODY}}}"#), now - 9000 * SECOND);
    let found = look(&root.0, &dshield, "1.2.3.4", now).unwrap().newest.unwrap();
    assert_eq!(found.fetched_at, at * SECOND);
    assert_eq!(found.body.payload.as_deref(), Some(BODY));
    assert!(found.expires_at > now);
}

#[test]
fn a_malformed_or_future_file_is_passed_over_and_said_so() {
    let root = Root::new();
    let (dshield, now) = (builtin("dshield"), clock::now());
    for (body, at) in [("{\"ip\":", now), (BODY, now + 3600 * SECOND), ("{}", now)] {
        root.put("dshield/1/2/3/4.json", body, at);
        let look = look(&root.0, &dshield, "1.2.3.4", now).unwrap();
        assert!(look.newest.is_none() && look.passed_over.is_some(), "{body}: {look:?}");
    }
    assert_eq!(look(&root.0, &dshield, "4.3.2.1", now).unwrap(), Look::default());
}

#[test]
fn that_nothing_is_known_reads_back_as_that_for_each_service_that_keeps_it() {
    let root = Root::new();
    let now = clock::now();
    let sha = "ab".repeat(32);
    for (service, key) in
        [("virustotal", sha.as_str()), ("dshield", "1.2.3.4"), ("urlhaus", "1.2.3.4"), ("spur", "1.2.3.4")]
    {
        let (path, body) = crate::core::disk::layout::written_nothing(service, key).unwrap();
        root.put(&path, &body, now);
        let found = look(&root.0, &builtin(service), key, now).unwrap().newest.unwrap();
        assert_eq!(found.body.status(), "not_found", "{service}");
    }
}

#[test]
fn a_file_that_an_older_program_is_just_writing_answers_whole_or_not_at_all() {
    let root = Root::new();
    let dshield = Service { max_bytes: 1 << 20, ..builtin("dshield") };
    let long = format!(r#"{{"ip":{{"number":"1.2.3.4","count":4,"note":"{}"}}}}"#, "x".repeat(200_000));
    let bodies = [BODY.to_owned(), long];
    root.put("dshield/1/2/3/4.json", &bodies[0], MAY_2024);
    let path = root.0.join("dshield/1/2/3/4.json");
    let answers = std::thread::scope(|threads| {
        // not atomic: truncated first, then filled
        let writer = threads.spawn(|| (0..300).for_each(|n| fs::write(&path, &bodies[n % 2]).unwrap()));
        let mut answers = 0;
        while !writer.is_finished() {
            if let Some(found) = look(&root.0, &dshield, "1.2.3.4", clock::now()).unwrap().newest {
                let payload = found.body.payload.unwrap();
                assert!(bodies.contains(&payload), "{} bytes", payload.len());
                answers += 1;
            }
        }
        answers
    });
    let last = look(&root.0, &dshield, "1.2.3.4", clock::now()).unwrap().newest.unwrap();
    assert_eq!(last.body.payload.as_deref(), Some(bodies[1].as_str()), "after {answers} answers");
}

#[test]
fn whoever_reads_while_we_write_finds_one_of_our_files_whole_and_with_its_time() {
    let root = Root::new();
    let long = format!(r#"{{"ip":{{"number":"1.2.3.4","count":4,"note":"{}"}}}}"#, "x".repeat(300_000));
    let (bodies, path) = ([BODY.to_owned(), long], "dshield/1/2/3/4.json");
    let write = |n: usize| {
        let at = MAY_2024 + n as i64 % 2;
        root.tree().write(path, bodies[n % 2].as_bytes(), at, Flush::Now).unwrap();
    };
    write(0);
    let (mut seen, file, stop) = ([0, 0, 0], root.0.join(path), AtomicBool::new(false));
    std::thread::scope(|threads| {
        let writer = threads.spawn(|| (1..).take_while(|_| !stop.load(Ordering::Relaxed)).for_each(write));
        // an older program reads without any care
        while seen[..2].iter().any(|times| *times < 200) && !writer.is_finished() {
            let found = fs::read_to_string(&file).unwrap_or_default();
            match bodies.iter().position(|body| *body == found) {
                Some(which) => seen[which] += 1,
                None => break,
            }
            if let Some((bytes, at)) = root.tree().read(path, 1 << 20).unwrap() {
                seen[2] += i32::from(bytes != bodies[(at - MAY_2024) as usize].as_bytes());
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(seen[..2].iter().all(|times| *times >= 200) && seen[2] == 0, "whole, whole, with a wrong time: {seen:?}");
    assert_eq!(root.names(), ["4.json"]);
}

fn task(id: i64, path: &str, at: i64) -> Task {
    Task { id, deleted: None, file: Some((path.to_owned(), b"{}".to_vec())), at, away: Vec::new() }
}

fn report_of(scribe: &mut Scribe) -> Report {
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while std::time::Instant::now() < until {
        if let Some(report) = scribe.report() {
            return report;
        }
        scribe.wait(Duration::from_millis(100));
    }
    panic!("no report");
}

#[test]
fn a_batch_is_written_and_reported_task_by_task() {
    let root = Root::new();
    root.put("spur/newer.json", BODY, MAY_2024 + 1);
    root.put("virustotal_unknown/x.json", "{}", MAY_2024 - 1);
    fs::write(root.0.join("file"), "").unwrap();
    let mut scribe = Scribe::new().unwrap();
    let mut contrary = task(4, "spur/b.json", MAY_2024);
    contrary.away = vec!["virustotal_unknown/x.json".to_owned(), "spur/newer.json".to_owned()];
    let batch = vec![
        task(1, "spur/a.json", MAY_2024),
        task(2, "spur/newer.json", MAY_2024),
        task(3, "file/c.json", 0),
        contrary,
    ];
    scribe.write(&root.0, batch).unwrap();
    assert!(scribe.busy());
    let report = report_of(&mut scribe);
    assert!(!scribe.busy() && report.trouble.is_none());
    assert_eq!(report.tasks[0], (1, Written::Done));
    assert_eq!(report.tasks[1], (2, Written::Newer));
    assert!(matches!(report.tasks[2], (3, Written::Failed(_))));
    assert_eq!(report.tasks[3], (4, Written::Done));
    assert_eq!(fs::read_to_string(root.0.join("spur/newer.json")).unwrap(), BODY);
    assert!(!root.0.join("virustotal_unknown/x.json").exists());
}

#[test]
fn without_its_directory_nothing_of_a_batch_is_begun() {
    let mut scribe = Scribe::new().unwrap();
    scribe.write(Path::new("/nonexistent/enrichment"), vec![task(1, "spur/a.json", 0)]).unwrap();
    let report = report_of(&mut scribe);
    assert!(report.tasks.is_empty() && report.trouble.is_some(), "{report:?}");
}
