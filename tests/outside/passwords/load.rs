//! A downloaded corpus of HIBP, loaded into the cache.

use super::{base, insert, sha1_hex, shown, ATTACH};
use crate::sources_support::wait_quiet;
use crate::support::{one, refused, run, same, SOON};
use std::path::{Path, PathBuf};
use testbed::wait_until;

/// A directory the server can read, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let place = std::env::temp_dir().join(format!("enrichment-hibp-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir_all(&place).expect("a directory");
        Place(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// 400 rows of a range, one of them this password's.
fn rows_of(prefix: &str, password: &str, count: u32) -> Vec<(String, u32)> {
    let mut rows: Vec<(String, u32)> =
        (0..400u32).map(|n| (format!("{:040X}", u128::from(n) * 7919)[5..].to_string(), n + 1)).collect();
    let hash = sha1_hex(password);
    if hash.starts_with(prefix) {
        rows.push((hash[5..].to_string(), count));
    }
    rows.sort();
    rows
}

/// 1,200 ranges of some 18 kB: more than one step reads.
fn large_corpus() -> String {
    (0..1200u32)
        .map(|n| if n == 1199 { 0xFFFFF } else { n })
        .flat_map(|n| rows_of("", "", 0).into_iter().map(move |(suffix, count)| format!("{n:05X}{suffix}:{count}\n")))
        .collect()
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file");
}

#[test]
fn a_downloaded_corpus_answers_without_a_call() {
    let base = base("corpus");
    let place = Place::new("corpus");
    insert(&base, &["password", "surely novel", "in no range"]);
    let (known, novel) = (sha1_hex("password")[..5].to_string(), sha1_hex("surely novel")[..5].to_string());
    base.run("UPDATE enrichment_service SET enabled = false WHERE name = 'hibp'");
    base.run(ATTACH);
    wait_quiet(&base);
    base.run(&format!(
        "INSERT INTO enrichment_queue (service, cache_key) VALUES ('hibp', '{known}'), ('hibp', '00000')"
    ));
    // the single file, with padding, a spoiled range and CRLF
    let mut ranges: Vec<String> = vec![known.clone(), novel.clone(), "00010".into(), "FFFFF".into()];
    ranges.sort();
    let text: String = ranges
        .iter()
        .flat_map(|prefix| {
            rows_of(prefix, "password", 77)
                .into_iter()
                .map(move |(suffix, count)| format!("{prefix}{suffix}:{count}\r\n"))
        })
        .collect();
    let spoiled = format!("00010{}:x\r\n", "B".repeat(35));
    let padding = format!("{novel}{}:0\r\n", "F".repeat(35));
    let at = text.find(&format!("{novel}0")).expect("the range");
    let file = place.path("pwned-passwords-sha1-ordered-by-hash.txt");
    write(&file, &format!("{spoiled}{}{padding}{}", &text[..at], &text[at..]));
    let mut client = base.client();
    let load = format!("CALL enrich_hibp_load('{}', fetched_at => now() - interval '2 days')", file.display());
    run(&mut client, &load);
    base.wait_for("SELECT count(last_hibp_check) FROM password_tracking", 2i64);
    assert_eq!(shown(&base), "1:true:77 2:false:0 3:-:-");
    assert_eq!(base.asked("hibp"), 0, "HIBP was asked");
    let kept = "SELECT string_agg(concat_ws(' ', cache_key, octet_length(ranges) / 22, payload ->> 'suffixes'), ', ' ORDER BY cache_key) FROM enrichment_cache";
    let mut expected: Vec<String> = [(&known, 401), (&novel, 400), (&"FFFFF".to_string(), 400)]
        .iter()
        .map(|(prefix, n)| format!("{prefix} {n} {n}"))
        .collect();
    expected.sort();
    assert_eq!(one::<String>(&mut client, kept), expected.join(", "));
    assert!(one::<bool>(&mut client, "SELECT bool_and(fetched_at::date = (now() - interval '2 days')::date AND expires_at > now() + interval '340 days') FROM enrichment_cache"));
    assert_eq!(one::<String>(&mut client, "SELECT string_agg(cache_key, ' ') FROM enrichment_queue"), "00000");
    let told = "SELECT concat_ws(' ', ranges, hashes, padding, left_out, problems[1], finished_at IS NOT NULL) FROM enrichment_hibp_load";
    assert_eq!(one::<String>(&mut client, told), "3 1201 1 1 00010: a line is not HASH:COUNT t");
    // an older corpus replaces nothing, a newer one does
    run(&mut client, &load.replace("2 days", "9 days"));
    assert!(one::<bool>(&mut client, "SELECT bool_and(fetched_at > now() - interval '3 days') FROM enrichment_cache"));

    // the same as a directory of ranges, whose files say when they are of
    let directory = place.path("ranges");
    std::fs::create_dir(&directory).expect("a directory");
    let body: String =
        rows_of(&known, "password", 99).iter().map(|(suffix, count)| format!("{suffix}:{count}\n")).collect();
    write(&directory.join(format!("{known}.txt")), &body);
    write(&directory.join("0ABCD.txt"), "<html>502 Bad Gateway</html>");
    run(&mut client, &format!("CALL enrich_hibp_load('{}')", directory.display()));
    base.wait_for("SELECT breach_prevalence FROM password_tracking WHERE id = 1", Some(99));
    let told = "SELECT concat_ws(' ', ranges, left_out, problems[1]) FROM enrichment_hibp_load WHERE directory";
    assert_eq!(one::<String>(&mut client, told), "1 1 0ABCD: a page in place of a hash range");
    assert_eq!(base.asked("hibp"), 0, "HIBP was asked");
}

/// HIBP is there to be asked, and nothing of what was loaded is asked for.
#[test]
fn with_a_corpus_no_call_is_made() {
    let base = base("offline");
    let place = Place::new("offline");
    insert(&base, &["password", "surely novel"]);
    let mut ranges: Vec<String> = ["password", "surely novel"].map(|word| sha1_hex(word)[..5].to_string()).into();
    ranges.extend(["00010".to_string(), "FFFFF".to_string()]);
    ranges.sort();
    let rows = |prefix: &String| {
        let prefix = prefix.clone();
        rows_of(&prefix, "password", 77).into_iter().map(move |(suffix, count)| format!("{prefix}{suffix}:{count}\n"))
    };
    let file = place.path("corpus.txt");
    write(&file, &ranges.iter().flat_map(rows).collect::<String>());
    base.run(&format!("CALL enrich_hibp_load('{}')", file.display()));
    base.run(ATTACH);
    base.run("CALL enrich_refresh()");
    assert_eq!(shown(&base), "1:true:77 2:false:0");
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_queue"), 0);
    assert_eq!(base.asked("hibp"), 0, "HIBP was asked");
    // it would have been: a prefix that was not loaded is
    base.run("INSERT INTO password_tracking (id, password_text) VALUES (3, 'in no range')");
    base.wait_for("SELECT count(last_hibp_check) FROM password_tracking WHERE id = 3", 1i64);
    assert_eq!(base.asked("hibp"), 1);
}

#[test]
fn a_load_that_was_cancelled_goes_on_where_it_ended() {
    let base = base("resumed");
    let place = Place::new("resumed");
    let file = place.path("corpus.txt");
    let text = large_corpus();
    write(&file, &text);
    let mut client = base.client();
    let path = file.display();
    // one step and no more, as of a call that was cancelled after it
    run(&mut client, &format!("SELECT enrichment_hibp_load_next('{path}', NULL, NULL, false)"));
    let first: i64 = one(&mut client, "SELECT ranges FROM enrichment_hibp_load WHERE finished_at IS NULL");
    assert!(first > 0 && first < 1200, "{first}");
    run(&mut client, "UPDATE enrichment_cache SET hit_count = 7");
    run(&mut client, &format!("CALL enrich_hibp_load('{path}')"));
    assert_eq!(one::<i64>(&mut client, "SELECT ranges FROM enrichment_hibp_load WHERE finished_at IS NOT NULL"), 1200);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), 1200);
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache WHERE version > 1"),
        0,
        "read from the beginning"
    );
    // another file under the same path is another corpus
    write(&file, &text[..text.len() / 3]);
    run(&mut client, &format!("CALL enrich_hibp_load('{path}')"));
    let told: String = one(&mut client, "SELECT left_out || problems[1] FROM enrichment_hibp_load");
    assert!(told.starts_with('1') && told.ends_with("the file ends here, so this range may not be whole"), "{told}");
}

#[test]
fn a_load_can_be_cancelled_at_any_time_and_loses_nothing_that_was_committed() {
    let base = base("cancelled");
    let place = Place::new("cancelled");
    let file = place.path("corpus.txt");
    write(&file, &large_corpus());
    // somebody holds one of the last ranges, so the load waits in the middle of a step
    let mut holder = base.client();
    run(&mut holder, "BEGIN; SELECT enrich_store('hibp', '004A0', jsonb_build_object(repeat('A', 35), 3))");
    let mut loader = base.client();
    let pid: i32 = one(&mut loader, "SELECT pg_backend_pid()");
    let call = format!("CALL enrich_hibp_load('{}')", file.display());
    let loading = {
        let call = call.clone();
        std::thread::spawn(move || loader.batch_execute(&call))
    };
    let mut client = base.client();
    let waits = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'");
    wait_until("the load to wait for the range", SOON, || same(one::<i64>(&mut client, &waits), &1));
    let before: i64 = one(&mut client, "SELECT ranges FROM enrichment_hibp_load WHERE finished_at IS NULL");
    assert!(before > 0 && before < 1200, "{before}");
    assert!(one::<bool>(&mut client, &format!("SELECT pg_cancel_backend({pid})")));
    let ended = loading.join().expect("a session").expect_err("a cancelled statement");
    assert_eq!(ended.code().map(|code| code.code()), Some("57014"), "{ended}");
    run(&mut holder, "ROLLBACK");
    assert_eq!(one::<i64>(&mut client, "SELECT ranges FROM enrichment_hibp_load WHERE finished_at IS NULL"), before);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), before);
    run(&mut client, &call);
    assert_eq!(one::<i64>(&mut client, "SELECT ranges FROM enrichment_hibp_load WHERE finished_at IS NOT NULL"), 1200);
    let twice = "SELECT count(*) FILTER (WHERE version > 1) || ' of ' || count(*) FROM enrichment_cache";
    assert_eq!(one::<String>(&mut client, twice), "0 of 1200");
}

#[test]
fn only_who_may_read_files_of_the_server_loads_a_corpus() {
    let base = base("rights");
    let mut client = base.client();
    run(&mut client, "CREATE ROLE passwords_loader; SELECT enrich_grant('passwords_loader', 'admin')");
    run(&mut client, "SET SESSION AUTHORIZATION passwords_loader");
    refused(&mut client, "CALL enrich_hibp_load('/etc/passwd')", "42501", "pg_read_server_files");
    run(&mut client, "RESET SESSION AUTHORIZATION; GRANT pg_read_server_files TO passwords_loader; SET SESSION AUTHORIZATION passwords_loader");
    let said = refused(&mut client, "CALL enrich_hibp_load('/etc/passwd')", "22P04", "HASH:COUNT");
    assert!(!said.contains("root:"), "{said}");
    refused(&mut client, "CALL enrich_hibp_load('/nowhere/at/all')", "58P01", "HASH:COUNT");
    refused(&mut client, "CALL enrich_hibp_load('etc/passwd')", "22023", "slash");
    refused(&mut client, "CALL enrich_hibp_load(NULL)", "22023", "path");
    run(&mut client, "RESET SESSION AUTHORIZATION; DROP OWNED BY passwords_loader; DROP ROLE passwords_loader");
}
