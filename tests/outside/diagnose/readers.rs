//! Who reads a path of JSON that no payload has is found, who reads one that is there or rare is left alone.

use super::{answer, base, base_with, diagnosis, wait_quiet_but_for_the_queue, DSHIELD, SESSIONS};
use crate::support::{run, Base};

/// The readers that are accused.
fn accused(base: &Base) -> Vec<String> {
    let found = diagnosis(base);
    found.keys().filter_map(|cause| cause.strip_prefix("wrong_json_path ")).map(str::to_string).collect()
}

const SPUR: &str = r#"jsonb_build_object('ip', '8.8.0.' || k, 'as', '{"number": 64512, "organization": "X"}'::jsonb, 'infrastructure', 'DATACENTER')"#;

#[test]
fn readers_of_an_attached_column_are_held_against_its_shape() {
    let base = base("shapes");
    base.run(SESSIONS);
    base.run("CREATE TABLE visits (ip text, answers jsonb);
        SELECT enrich_attach('session_summaries', 'source_ip', '{spur,urlhaus}', 'enrichment', shape => 'cowrieprocessor'),
            enrich_attach('visits', 'ip', '{spur}', 'answers')");
    wait_quiet_but_for_the_queue(&base);
    answer(&base, "spur", 1, 100, SPUR, "1 hour", "7 days");
    answer(&base, "urlhaus", 1, 100, r#"'{"urls": [{"tags": ["elf"]}]}'"#, "1 hour", "7 days");
    wait_quiet_but_for_the_queue(&base);
    let item = "SELECT count(*) FROM session_summaries WHERE enrichment -> 'spur' ->> 10 = 'DATACENTER' AND enrichment ->> 'urlhaus' = 'elf'";
    assert_eq!(base.one::<i64>(item), 1000);
    base.run(
        "CREATE VIEW by_item AS SELECT enrichment -> 'spur' ->> 10 AS infrastructure, enrichment #>> '{spur,0}' AS organization, enrichment ->> 'urlhaus' AS tags
            FROM session_summaries;
        CREATE VIEW as_received AS SELECT answers -> 'spur' ->> 'infrastructure' AS infrastructure FROM visits;
        CREATE VIEW of_the_cache AS SELECT payload ->> 'infrastructure' AS infrastructure FROM enrichment_cache WHERE service = 'spur';
        CREATE VIEW by_alias AS SELECT s.spur ->> 10 AS item, s.spur ->> 'infrastructure' AS name FROM (SELECT enrichment -> 'spur' AS spur FROM session_summaries) s",
    );
    assert_eq!(accused(&base), Vec::<String>::new());
    base.run(
        "CREATE VIEW wrong_by_name AS SELECT enrichment -> 'spur' ->> 'infrastructure' AS infrastructure FROM session_summaries;
        CREATE VIEW wrong_by_item AS SELECT answers -> 'spur' ->> 10 AS infrastructure FROM visits;
        CREATE VIEW wrong_of_the_cache AS SELECT payload ->> 10 AS infrastructure FROM enrichment_cache WHERE service = 'spur';
        CREATE VIEW wrong_by_alias AS SELECT s.spur ->> 'infra' AS name FROM (SELECT enrichment -> 'spur' AS spur FROM session_summaries) s;
        CREATE VIEW wrong_tags AS SELECT enrichment -> 'urlhaus' -> 'urls' AS urls FROM session_summaries",
    );
    assert_eq!(
        accused(&base),
        [
            "spur view public.wrong_by_alias reads infra",
            "spur view public.wrong_by_item reads 10",
            "spur view public.wrong_by_name reads infrastructure",
            "spur view public.wrong_of_the_cache reads 10",
            "urlhaus view public.wrong_tags reads urls",
        ]
    );
}

#[test]
fn a_member_that_few_payloads_have_is_no_wrong_path() {
    let base = base("rare");
    base.run(SESSIONS);
    base.run("SELECT enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment');
        CREATE VIEW rare AS SELECT enrichment -> 'dshield' -> 'ip' ->> 'threatfeeds' AS feeds, enrichment -> 'dshield' -> 'ip' ->> 'number' AS ip FROM session_summaries;
        CREATE VIEW never AS SELECT enrichment -> 'dshield' -> 'ip' ->> 'feeds' AS feeds FROM session_summaries");
    wait_quiet_but_for_the_queue(&base);
    // one of 1,200 has it, and it lies behind all others
    base.run("SELECT enrich_store_many('dshield', array_agg('9.9.' || k / 200 || '.' || k % 200), array_agg(jsonb_build_object('ip', jsonb_build_object('number', k))))
            FROM generate_series(1, 1199) k;
        SELECT enrich_store('dshield', '9.9.99.1', '{\"ip\": {\"number\": 1, \"threatfeeds\": {}}}')");
    let found = diagnosis(&base);
    let accused: Vec<&String> = found.keys().filter(|cause| cause.starts_with("wrong_json_path")).collect();
    assert_eq!(accused, ["wrong_json_path dshield view public.never reads ip.feeds"]);
    let hint = &found[accused[0]].4;
    assert!(
        hint.contains("No payload of dshield has this path (1200 were looked at), so it is always NULL."),
        "{hint}"
    );
}

#[test]
fn statements_that_run_and_that_have_run_are_read_too() {
    let base = base_with("statements", "enrichment_cache,pg_stat_statements");
    base.run(SESSIONS);
    base.run("CREATE EXTENSION pg_stat_statements; SELECT enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment')");
    wait_quiet_but_for_the_queue(&base);
    answer(&base, "dshield", 1, 100, DSHIELD, "1 hour", "7 days");
    wait_quiet_but_for_the_queue(&base);
    let mut holder = base.client();
    run(&mut holder, "SELECT pg_advisory_lock(1)");
    let (cluster, name) = (base.cluster.clone(), base.name.clone());
    let dashboard = std::thread::spawn(move || {
        let mut client = cluster.client(&name);
        run(&mut client, "SET application_name = 'dashboard'");
        run(&mut client, "SELECT pg_advisory_lock(1), count(enrichment -> 'dshield' ->> 'asn'), count(enrichment #>> '{dshield,ip,as}') FROM session_summaries");
    });
    base.wait_for(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dashboard' AND wait_event = 'advisory'",
        1i64,
    );
    assert_eq!(accused(&base), ["dshield a statement of dashboard reads asn"]);
    // what others run is for who may see it
    let mut client = base.client();
    run(&mut client, "CREATE ROLE statements_reader; SELECT enrich_grant('statements_reader', 'reader'); SET SESSION AUTHORIZATION statements_reader");
    assert_eq!(
        crate::support::one::<i64>(
            &mut client,
            "SELECT count(*) FROM enrich_diagnose() WHERE cause = 'wrong_json_path'"
        ),
        0
    );
    run(&mut client, "RESET SESSION AUTHORIZATION; DROP OWNED BY statements_reader; DROP ROLE statements_reader");
    drop(holder);
    dashboard.join().expect("the statement ends");
    base.wait_for("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dashboard'", 0i64);
    assert_eq!(accused(&base), Vec::<String>::new());

    base.run("EXPLAIN SELECT enrichment -> 'dshield' ->> 'country' FROM session_summaries");
    assert_eq!(accused(&base), ["dshield a statement in pg_stat_statements reads country"]);
    base.run("SELECT pg_stat_statements_reset()");
    assert_eq!(accused(&base), Vec::<String>::new());
}
