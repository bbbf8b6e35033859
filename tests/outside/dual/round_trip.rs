//! From files into the table, out again and in again: what comes out at the end is what went in.

use super::export::{call, export};
use super::support::{base, dshield_path, Tree, DAY, HOUR};
use crate::support::{create_database, one, run, Base};
use enrichment_cache::core::disk::digest;

fn by_digest(service: &str, key: &str) -> String {
    let name: String = digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{service}/{}/{name}.json", &name[..2])
}

/// All that the table says of answers. Lives are counted from the observation, by the ttl that the service has.
const SAYS: &str =
    "SELECT string_agg(concat_ws(' ', service, cache_key, response_status, extract(epoch FROM fetched_at), extract(epoch FROM expires_at),
        altered, coalesce(enrich_hibp_range(ranges), payload)), E'\n' ORDER BY service, cache_key)
    FROM enrichment_cache WHERE response_status IN ('success', 'not_found')";

/// The same of answers whose key nobody knows.
const SAYS_OF_UNKNOWN: &str =
    "SELECT string_agg(concat_ws(' ', service, digest, response_status, extract(epoch FROM fetched_at), extract(epoch FROM expires_at),
        altered, ranges, payload), E'\n' ORDER BY service, digest) FROM enrichment_orphan";

/// Answers of every service, in layouts of every age; keys that only a digest names are named by another service's file.
fn fill(tree: &Tree) {
    for n in 1..=60 {
        let key = format!("8.7.0.{n}");
        let body =
            format!(r#"{{"ip":{{"number":"{key}","count":{n},"asname":"caf\u00e9 \ud83d\ude00","as":{n}.50}}}}"#);
        tree.put(&dshield_path(&key), &body, n * HOUR + n);
        tree.put(
            &by_digest("spur", &key),
            &format!(r#"{{"ip":"{key}","infrastructure":"VPN","n":{n}}}"#),
            n * HOUR + 7,
        );
        tree.put(&by_digest("urlhaus", &key), r#"{"tags":"elf, mirai"}"#, HOUR + n);
    }
    tree.put(&by_digest("urlhaus", "8.7.0.61"), r#"{"tags":""}"#, HOUR);
    tree.put("dshield_8.7.0.61.json", r#"{"timestamp":1,"data":{"ip":{"number":"8.7.0.61","count":1}}}"#, HOUR);
    let list = r#"{"spur_data":["ORG","","","DATACENTER","","","","","","","","","","City, State, NL","","","",""]}"#;
    tree.put("dshield/8.7.1.1/8.7.1.1.json", r#"{"ip":{"number":"8.7.1.1","count":1}}"#, 2 * HOUR);
    tree.put(&by_digest("spur", "8.7.1.1"), list, 3 * HOUR);
    tree.put(
        &by_digest("dshield", "2600::1"),
        r#"{"ip":{"number":"2600::1","count":12345678901234567890.5}}"#,
        2 * HOUR,
    );
    tree.put("spur_2600__1.json", r#"{"ip":"2600::1","infrastructure":"VPN"}"#, HOUR);
    tree.put("uh_8.7.1.1", r#"{"query_status":"ok","urls":[{"tags":["x y",null],"url":"http://a"}]}"#, HOUR);
    tree.put(
        &format!("virustotal/ab/ab/ab/ab/{}.json", "ab".repeat(32)),
        r#"{"last_analysis_stats":{"malicious":3}}"#,
        DAY,
    );
    tree.put(&format!("vt_{}.json", "ba".repeat(32)), r#"{"data":{"attributes":{"a":[1,{"b":null}]}}}"#, 2 * DAY);
    tree.put(&format!("virustotal_unknown/cd/cd/cd/cd/{}.json", "cd".repeat(32)), r#"{"response_code":0}"#, HOUR);
    let suffix = |n: u32| format!("\"{n:035X}\":{n}");
    let range = format!("{{{}}}", (1..=300).map(suffix).collect::<Vec<_>>().join(","));
    tree.put("hibp/AB/CD/E/ABCDE.json", &range, 3 * DAY);
}

fn import(base: &Base, tree: &Tree) -> serde_json::Value {
    let sql = format!("CALL enrich_migrate_disk('{}', keep_expired => true, batch_size => 50)", tree.root.display());
    let report = call(&mut base.client(), &sql);
    assert_eq!((report["malformed"].as_i64(), report["unknown_key"].as_i64()), (Some(0), Some(0)), "{report}");
    report
}

#[test]
fn import_export_import_is_the_identity() {
    let (first, second, third) = (Tree::new("round_first"), Tree::new("round_second"), Tree::new("round_third"));
    let none = Tree::new("round_none");
    fill(&first);
    let base = base("dual_round_trip", &none, "off");
    let files = first.files().len() as i64;
    assert_eq!(import(&base, &first)["imported"].as_i64(), Some(files));
    let before: String = base.one(SAYS);
    assert_eq!(before.lines().count() as i64, files);
    assert_eq!(export(&base, &second)["failed"].as_i64(), Some(0));
    base.run("DELETE FROM enrichment_cache");
    let report = import(&base, &second);
    assert_eq!((report["files"].as_i64(), report["imported"].as_i64()), (Some(files), Some(files)), "{report}");
    let after: String = base.one(SAYS);
    for (one, other) in before.lines().zip(after.lines()) {
        assert_eq!(one, other);
    }
    assert_eq!(before, after, "payloads and times of observation");
    // and the files of the second export are those of the first
    export(&base, &third);
    assert_eq!(second.files(), third.files());
    for path in second.files() {
        assert_eq!((second.body(&path), second.changed(&path)), (third.body(&path), third.changed(&path)), "{path}");
    }
}

/// Files that nothing names: of every service, known to the provider and not.
fn fill_unknown(tree: &Tree) {
    let answers = [
        ("spur", r#"{"infrastructure":"VPN","ip":"2600::5"}"#),
        ("urlhaus", r#"{"tags":"elf, mirai"}"#),
        ("dshield", r#"{"ip":{"count":12345678901234567890.5,"number":"2600::5"}}"#),
        ("virustotal", r#"{"last_analysis_stats":{"malicious":3}}"#),
        ("hibp", r#"{"0123456789ABCDEF0123456789ABCDEF012":7}"#),
    ];
    for (n, (service, body)) in answers.into_iter().enumerate() {
        tree.put(&by_digest(service, "2600:0::5"), body, HOUR + n as u64);
    }
    let nothing = [
        ("spur", r#"{"ip":"2600::6"}"#),
        ("urlhaus", r#"{"tags":""}"#),
        ("dshield", r#"{"ip":{"number":"2600::6"}}"#),
        ("virustotal_unknown", r#"{"response_code":0}"#),
    ];
    for (n, (service, body)) in nothing.into_iter().enumerate() {
        tree.put(&by_digest(service, "2600:0::6"), body, 2 * HOUR + n as u64);
    }
    tree.put(&dshield_path("8.7.2.1"), r#"{"ip":{"count":1,"number":"8.7.2.1"}}"#, HOUR);
}

#[test]
fn answers_of_unknown_keys_come_out_with_the_others_and_in_again_as_they_were() {
    let (first, second, none) = (Tree::new("unknown_first"), Tree::new("unknown_second"), Tree::new("unknown_none"));
    fill_unknown(&first);
    let base = base("dual_unknown", &none, "off");
    let mut client = base.client();
    let take = |client: &mut postgres::Client, tree: &Tree| {
        let report = call(client, &format!("CALL enrich_migrate_disk('{}', batch_size => 2)", tree.root.display()));
        assert_eq!((report["imported"].as_i64(), report["unknown_key"].as_i64()), (Some(1), Some(9)), "{report}");
    };
    take(&mut client, &first);
    let before: String = one(&mut client, SAYS_OF_UNKNOWN);
    assert_eq!(before.lines().count(), 9);
    let report = export(&base, &second);
    assert_eq!((report["written"].as_i64(), report["unknown_key"].as_i64()), (Some(10), Some(9)), "{report}");
    assert_eq!(second.files(), first.files());
    for path in first.files() {
        assert_eq!(second.changed(&path), first.changed(&path), "{path}");
    }
    assert_eq!(export(&base, &second)["already_there"].as_i64(), Some(10));
    let some = call(&mut client, &format!("CALL enrich_export_disk('{}', '{{spur}}', 1)", second.root.display()));
    assert_eq!((some["entries"].as_i64(), some["unknown_key"].as_i64()), (Some(2), Some(2)), "{some}");
    create_database(&base.cluster, "anew");
    let mut anew = base.cluster.client("anew");
    run(&mut anew, "CREATE EXTENSION enrichment_cache");
    take(&mut anew, &second);
    assert_eq!(one::<String>(&mut anew, SAYS_OF_UNKNOWN), before);
    // of two runs the newer answer comes out
    first.put(&by_digest("spur", "2600:0::5"), r#"{"ip":"2600::5","infrastructure":"NONE"}"#, 60);
    call(&mut client, &format!("CALL enrich_migrate_disk('{}')", first.root.display()));
    assert_eq!(export(&base, &second)["written"].as_i64(), Some(1));
    let path = by_digest("spur", "2600:0::5");
    assert_eq!((second.body(&path), second.changed(&path)), (first.body(&path), first.changed(&path)));
}
