//! What enrich_attach takes beside names: expressions, conditions, flags, weights, sizes of transactions.

use crate::sources_support::{make_sessions, rows, sweeping_cluster, wait_quiet, ATTACH_SESSIONS};
use crate::support::{address, one, run, Base};
use postgres::Client;

const UNWELL: &str = "SELECT coalesce(string_agg(detail, '; '), '') FROM enrich_health() WHERE severity = 'error'";

#[test]
fn keys_made_by_an_expression_are_asked_about_and_written_for_eligible_rows_alone() {
    for (json, kind) in [("json", "text"), ("jsonb", "inet")] {
        let base = Base::new("sources", &format!("expression_{json}"));
        let keys = base.known("dshield", 4);
        base.run(&format!(
            "CREATE TABLE events (id int PRIMARY KEY, key text, payload {json}, answers {json});
             CREATE INDEX ON events (((payload ->> 'src_ip')::{kind}))"
        ));
        let insert = |id: usize, ip: &str, event: &str| {
            base.run(&format!(
                r#"INSERT INTO events VALUES ({id}, 'mine', '{{"src_ip": "{ip}", "event": "{event}"}}', NULL)"#
            ));
        };
        insert(1, &keys[0], "login");
        insert(2, &keys[1], "closed");
        base.run(&format!(
            "SELECT enrich_attach('events', NULL, '{{dshield}}', 'answers', key_expression => '(payload ->> ''src_ip'')::{kind} -- who',
                eligible => 'payload ->> ''event'' = ''login'' AND key = ''mine''')"
        ));
        let filled = |id: usize| format!("SELECT answers #>> '{{dshield,ip,number}}' FROM events WHERE id = {id}");
        base.wait_for(&filled(1), Some(keys[0].clone()));
        wait_quiet(&base);
        insert(3, &keys[2], "login");
        insert(4, &keys[3], "closed");
        base.wait_for(&filled(3), Some(keys[2].clone()));
        // a row that becomes eligible is a new one
        base.run("UPDATE events SET payload = replace(payload::text, 'closed', 'login')::json WHERE id = 4");
        base.wait_for(&filled(4), Some(keys[3].clone()));
        wait_quiet(&base);
        assert_eq!(base.one::<Option<String>>("SELECT answers::text FROM events WHERE id = 2"), None);
        assert_eq!(base.asked_for("dshield", &keys[1]), 0, "a row that is not eligible was asked about");
        assert_eq!(base.one::<String>(UNWELL), "");
    }
}

#[test]
fn expressions_run_with_the_rights_of_the_tables_owner() {
    let base = Base::new("sources", "owners_expression");
    let keys = base.known("dshield", 2);
    let mut client = base.client();
    run(
        &mut client,
        "CREATE ROLE shelf_keeper; GRANT CREATE, USAGE ON SCHEMA public TO shelf_keeper; SET ROLE shelf_keeper",
    );
    run(
        &mut client,
        "CREATE TABLE shelf (ip text, answers jsonb);
         CREATE FUNCTION whose(ip text) RETURNS text LANGUAGE plpgsql AS $$
         BEGIN IF current_user <> 'shelf_keeper' THEN RAISE EXCEPTION 'read by %', current_user; END IF; RETURN ip; END $$;
         RESET ROLE",
    );
    run(&mut client, &format!("INSERT INTO shelf VALUES ('{}')", keys[0]));
    run(
        &mut client,
        "SELECT enrich_attach('shelf', NULL, '{dshield}', 'answers', key_expression => 'public.whose(ip)',
            eligible => 'public.whose(ip) IS NOT NULL', weight => 'length(public.whose(ip))')",
    );
    let filled = "SELECT count(*) FROM shelf WHERE answers #>> '{dshield,ip,number}' = ip";
    base.wait_for(filled, 1i64);
    wait_quiet(&base);
    // by the trigger, in a session of somebody else
    run(&mut client, &format!("INSERT INTO shelf VALUES ('{}')", keys[1]));
    base.wait_for(filled, 2i64);
    assert_eq!(base.one::<String>(UNWELL), "");
    run(&mut client, "SELECT enrich_detach('shelf'); DROP OWNED BY shelf_keeper; DROP ROLE shelf_keeper");
}

#[test]
fn an_expression_that_fails_stops_no_statement_and_says_so() {
    let base = Base::in_cluster(&sweeping_cluster(), "failing_expression", &["--limits", "none"]);
    let keys = base.known("dshield", 2);
    base.run("CREATE TABLE visits (n int, ip text, answers jsonb)");
    base.run("SELECT enrich_attach('visits', 'ip', '{dshield}', 'answers', eligible => '10 / (n - 5) <> 0')");
    wait_quiet(&base);
    base.run(&format!("INSERT INTO visits VALUES (5, '{}')", keys[0]));
    base.wait_for(&format!("SELECT ({UNWELL}) LIKE '%division by zero%'"), true);
    base.run(&format!("UPDATE visits SET n = 6, ip = '{}'", keys[1]));
    base.wait_for("SELECT count(*) FROM visits WHERE answers ? 'dshield'", 1i64);
    base.wait_for(UNWELL, String::new());
    assert_eq!(base.asked_for("dshield", &keys[0]), 0);
}

#[test]
fn flags_follow_the_answers_and_stay_where_none_came() {
    let base = Base::new("sources", "flags");
    base.run(
        "CREATE TABLE hosts (ip text, note text, answers jsonb, dshield_flagged bool, urlhaus_flagged bool, spur_flagged bool, vt_flagged bool DEFAULT true);
         INSERT INTO hosts (ip) VALUES ('9.9.1.1'), ('9.9.1.2'), ('9.9.1.3');
         CREATE TABLE others AS SELECT ip, answers, false AS bad, true AS dshield_flagged FROM hosts;
         UPDATE enrichment_service SET enabled = false",
    );
    base.run(
        r#"SELECT enrich_store('dshield', '9.9.1.1', '{"ip": {"count": null, "attacks": "3"}}'),
            enrich_store('dshield', '9.9.1.2', '{"ip": {"count": 0, "attacks": null}}'),
            enrich_store('urlhaus', '9.9.1.1', '{"query_status": "ok", "urls": [{"tags": ["elf"]}]}'),
            enrich_store('urlhaus', '9.9.1.2', '{"query_status": "ok", "urls": [{"tags": null}]}'),
            enrich_store('spur', '9.9.1.1', '{"infrastructure": "VPN"}'), enrich_store('spur', '9.9.1.2', '{"infrastructure": "MOBILE"}'),
            enrich_store('dshield', '9.9.1.3', NULL, response_status => 'not_found')"#,
    );
    base.run(
        r#"SELECT enrich_attach('hosts', 'ip', '{dshield,urlhaus,spur}', 'answers'),
            enrich_attach('others', 'ip', '{dshield}', 'answers', flag_columns => '{"bad": "dshield"}')"#,
    );
    wait_quiet(&base);
    let flags = |column: &str| {
        base.one::<String>(&format!("SELECT string_agg(coalesce({column}::text, 'none'), ' ' ORDER BY ip) FROM hosts"))
    };
    base.wait_for("SELECT count(*) FROM hosts WHERE answers ? '_meta'", 3i64);
    assert_eq!(flags("dshield_flagged"), "true false none");
    assert_eq!(flags("urlhaus_flagged"), "true false none");
    assert_eq!(flags("spur_flagged"), "true false none");
    assert_eq!(flags("vt_flagged"), "true true true");
    base.wait_for(
        "SELECT string_agg(concat_ws(' ', bad, dshield_flagged), ', ' ORDER BY ip) FROM others",
        "t t, f t, f t".to_string(),
    );
}

#[test]
fn sessions_of_a_malicious_file_are_flagged_whichever_came_first_and_never_unflagged() {
    let base = Base::in_cluster(&sweeping_cluster(), "vt_flagged", &["--limits", "none"]);
    make_sessions(&base, "json", &[address(1), address(2), address(3), address(4)]);
    base.run(
        "UPDATE enrichment_service SET enabled = false;
         UPDATE session_summaries SET vt_flagged = true WHERE session_id = 's3';
         CREATE TABLE files (id serial, session_id varchar(64), shasum varchar(64), vt_malicious bool);
         INSERT INTO files (session_id, shasum) VALUES ('s1', repeat('a', 64)), ('s2', repeat('b', 64)), ('s3', repeat('b', 64)), ('later', repeat('a', 64))",
    );
    let answer = |n: i32| {
        format!(r#"{{"data": {{"attributes": {{"last_analysis_stats": {{"malicious": {n}, "harmless": 9}}}}}}}}"#)
    };
    base.run(&format!(
        "SELECT enrich_store('virustotal', repeat('a', 64), '{}'), enrich_store('virustotal', repeat('b', 64), '{}')",
        answer(4),
        answer(0)
    ));
    base.run("SELECT enrich_attach('files', 'shasum', '{virustotal}')");
    base.wait_for("SELECT count(*) FROM files WHERE vt_malicious", 2i64);
    base.run(ATTACH_SESSIONS);
    let flagged = "SELECT string_agg(session_id, ' ' ORDER BY session_id) FROM session_summaries WHERE vt_flagged";
    base.wait_for(flagged, "s1 s3".to_string());
    base.run("INSERT INTO session_summaries (session_id) VALUES ('later')");
    base.wait_for(flagged, "later s1 s3".to_string());
}

/// Each row of the files has one session, so sessions are flagged in transactions of the interval as well, also where many hold one file.
#[test]
fn many_sessions_of_a_malicious_file_are_flagged_in_transactions_of_the_interval() {
    for index in ["CREATE INDEX ON files (shasum)", "SELECT"] {
        let name = if index == "SELECT" { "flagged_by_slices" } else { "flagged_by_pieces" };
        let base = Base::new("tables", name);
        base.run(&format!(
            "UPDATE enrichment_service SET enabled = false;
             CREATE TABLE session_summaries (session_id varchar(64) PRIMARY KEY, source_ip varchar(45), vt_flagged bool NOT NULL DEFAULT false,
                enrichment jsonb);
             CREATE TABLE files (id serial, session_id varchar(64), shasum varchar(64), vt_malicious bool);
             {index};
             INSERT INTO session_summaries SELECT 's' || n FROM generate_series(1, 500) n;
             INSERT INTO files (session_id, shasum) SELECT 's' || n, repeat(CASE WHEN n > 300 THEN 'b' ELSE 'a' END, 64) FROM generate_series(1, 500) n;
             SELECT enrich_store('virustotal', repeat(x, 64), '{{\"data\": {{\"attributes\": {{\"last_analysis_stats\": {{\"malicious\": 4}}}}}}}}')
                FROM unnest('{{a,b}}'::text[]) x"
        ));
        base.run("SELECT enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment')");
        base.run("SELECT enrich_attach('files', 'shasum', '{virustotal}', commit_interval => 20)");
        base.wait_for("SELECT count(*) FROM session_summaries WHERE vt_flagged", 500i64);
        let largest = "SELECT max(n) FROM (SELECT count(*) AS n FROM session_summaries GROUP BY xmin::text) t";
        assert_eq!(base.one::<i64>(largest), 20, "sessions flagged in one transaction: {index}");
        assert_eq!(base.one::<i64>("SELECT count(*) FROM files WHERE vt_malicious"), 500);
    }
}

#[test]
fn the_queue_has_each_key_once_with_the_worth_of_all_its_rows() {
    let base = Base::new("sources", "worth");
    base.run(
        "UPDATE enrichment_service SET limits = '[{\"max\": 1, \"per\": \"day\"}]';
         CREATE TABLE visits (ip text, seen timestamptz, commands int, answers jsonb);
         INSERT INTO visits SELECT '9.9.2.1', now() - interval '90 days', 0 FROM generate_series(1, 3000);
         INSERT INTO visits SELECT '9.9.2.2', now() - interval '90 days', 0;
         INSERT INTO visits SELECT '9.9.2.3', now() - interval '90 days', 0 FROM generate_series(1, 20);
         INSERT INTO visits SELECT '9.9.2.4', now() - interval '90 days', 40",
    );
    base.run(
        "SELECT enrich_attach('visits', 'ip', '{dshield}', 'answers', time_column => 'seen', weight => '1 + 100 * commands')",
    );
    let order = "SELECT string_agg(cache_key, ' ' ORDER BY priority DESC) FROM enrichment_queue WHERE service = 'dshield' AND priority < 0";
    // one of them is the day's call
    base.wait_for("SELECT count(*) FROM enrichment_queue", 3i64);
    assert_eq!(base.one::<String>(order), "9.9.2.1 9.9.2.3 9.9.2.2");
    // rows that come now are worth more than many old ones
    base.run("INSERT INTO visits VALUES ('9.9.2.5', now(), 0), ('9.9.2.5', now(), 0)");
    base.wait_for(order, "9.9.2.5 9.9.2.1 9.9.2.3 9.9.2.2".to_string());
    let mut client = base.client();
    let counted = rows(&mut client, "SELECT raw_key || ' ' || row_count FROM enrichment_indicator ORDER BY 1");
    assert_eq!(counted, ["9.9.2.1 3000", "9.9.2.2 1", "9.9.2.3 20", "9.9.2.4 1", "9.9.2.5 2"]);
    // what somebody asks for by name comes before all of it
    run(&mut client, "SELECT enrich_request('dshield', '9.9.2.9')");
    let first = "SELECT cache_key FROM enrichment_queue ORDER BY priority DESC LIMIT 1";
    assert_eq!(one::<String>(&mut client, first), "9.9.2.9");
}

#[test]
fn a_key_of_many_rows_is_written_in_transactions_of_the_interval() {
    let base = Base::new("sources", "pieces");
    let key = &base.known("dshield", 1)[0];
    base.run(&format!(
        "CREATE TABLE visits (id int, ip text, answers jsonb);
         CREATE INDEX ON visits (ip);
         INSERT INTO visits SELECT n, '{key}' FROM generate_series(1, 60) n;
         CREATE TABLE writes (transaction xid8, id int);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO public.writes VALUES (pg_current_xact_id(), NEW.id); RETURN NEW; END $$;
         CREATE TRIGGER note BEFORE UPDATE ON visits FOR EACH ROW EXECUTE FUNCTION note();
         SELECT enrich_attach('visits', 'ip', '{{dshield}}', 'answers', commit_interval => 7)"
    ));
    base.wait_for("SELECT count(*) FROM visits WHERE answers ? 'dshield'", 60i64);
    wait_quiet(&base);
    let most = "SELECT max(n) FROM (SELECT count(*) AS n FROM writes GROUP BY transaction) t";
    assert!((1..=7).contains(&base.one::<i64>(most)), "{} rows in one transaction", base.one::<i64>(most));
    assert_eq!(base.one::<i64>("SELECT count(*) FROM writes"), 60, "a row was written twice");
}

/// Rows of two partitions that stand at the same places.
#[test]
fn a_key_of_many_rows_in_partitions_is_written_in_transactions_of_the_interval() {
    let base = Base::new("sources", "pieces_of_parts");
    let key = &base.known("dshield", 1)[0];
    base.run(&format!(
        "CREATE TABLE visits (id int, ip text, answers jsonb) PARTITION BY LIST ((id % 3));
         CREATE TABLE visits_0 PARTITION OF visits FOR VALUES IN (0);
         CREATE TABLE visits_1 PARTITION OF visits FOR VALUES IN (1);
         CREATE TABLE visits_2 PARTITION OF visits FOR VALUES IN (2);
         CREATE INDEX ON visits (ip);
         INSERT INTO visits SELECT n, '{key}' FROM generate_series(1, 60) n;
         CREATE TABLE writes (transaction xid8, id int);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO public.writes VALUES (pg_current_xact_id(), NEW.id); RETURN NEW; END $$;
         CREATE TRIGGER note BEFORE UPDATE ON visits FOR EACH ROW EXECUTE FUNCTION note();
         SELECT enrich_attach('visits', 'ip', '{{dshield}}', 'answers', commit_interval => 7)"
    ));
    base.wait_for("SELECT count(*) FROM visits WHERE answers ? 'dshield'", 60i64);
    wait_quiet(&base);
    let most = "SELECT max(n) FROM (SELECT count(*) AS n FROM writes GROUP BY transaction) t";
    assert!((1..=7).contains(&base.one::<i64>(most)), "{} rows in one transaction", base.one::<i64>(most));
    assert_eq!(base.one::<i64>("SELECT count(*) FROM writes"), 60, "a row was written twice");
}

/// Of the 60 rows of a key all are written but the four of the piece with the row that somebody holds.
fn all_but_a_piece(name: &str) -> (Base, Client) {
    let base = Base::new("tables", name);
    let key = &base.known("dshield", 1)[0];
    base.run(&format!(
        "CREATE TABLE visits (id int, ip text, answers jsonb) WITH (fillfactor = 100);
         CREATE INDEX ON visits (ip);
         INSERT INTO visits SELECT n, '{key}' FROM generate_series(1, 60) n"
    ));
    let mut holder = base.client();
    run(&mut holder, "BEGIN; SELECT FROM visits WHERE id = 1 FOR UPDATE");
    base.run("SELECT enrich_attach('visits', 'ip', '{dshield}', 'answers', commit_interval => 7)");
    base.wait_for("SELECT count(*) FROM visits WHERE answers ? 'dshield'", 56i64);
    (base, holder)
}

#[test]
fn an_answer_that_comes_between_two_pieces_of_a_key_reaches_all_of_its_rows() {
    let (base, mut holder) = all_but_a_piece("between_pieces");
    base.run("UPDATE enrichment_cache SET payload = '{\"newer\": true}'");
    run(&mut holder, "COMMIT");
    base.wait_for("SELECT count(*) FROM visits WHERE answers #> '{dshield,newer}' = 'true'", 60i64);
}

/// The places of a key's rows are read once; what stands elsewhere when its turn comes is found all the same.
#[test]
fn rows_that_move_while_their_key_is_written_piece_by_piece_are_not_left_out() {
    let (base, mut holder) = all_but_a_piece("moved");
    run(
        &mut holder,
        "UPDATE visits SET id = id WHERE answers IS NULL AND id > 1; DELETE FROM visits WHERE id = 1; COMMIT",
    );
    base.wait_for("SELECT count(*) FROM visits WHERE answers ? 'dshield'", 59i64);
    wait_quiet(&base);
}

/// A source without a column to write into: its keys are asked about and their answers joined, and no row of it changes.
#[test]
fn a_table_that_is_only_joined_gets_its_answers_and_keeps_its_rows_as_they_are() {
    let base = Base::new("tables", "join_only");
    let keys = base.known("dshield", 3);
    base.run("CREATE TABLE visits (id serial PRIMARY KEY, ip inet)");
    let insert = |key: &str| base.run(&format!("INSERT INTO visits (ip) SELECT '{key}' FROM generate_series(1, 10)"));
    let rows =
        "SELECT string_agg(ctid || ' ' || xmin || ' ' || id || ' ' || ip, ',' ORDER BY id) FROM visits WHERE id <= 20";
    insert(&keys[0]);
    insert(&keys[1]);
    let before: String = base.one(rows);
    base.run("SELECT enrich_attach('visits', 'ip', '{dshield}')");
    let joined = "SELECT count(d.country) FROM visits v JOIN enrichment_dshield d ON d.cache_key = host(v.ip)";
    base.wait_for(joined, 20i64);
    // rows that come later are asked about too
    insert(&keys[2]);
    base.wait_for(joined, 30i64);
    wait_quiet(&base);
    assert_eq!(base.one::<String>(rows), before);
    assert_eq!(base.asked("dshield"), 3);
    base.run("SELECT enrich_detach('visits')");
    assert_eq!(base.one::<String>(rows), before);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'visits'::regclass"), 0);
}

/// Detaching takes the triggers and leaves what was written.
#[test]
fn a_detached_table_keeps_its_answers_and_no_trigger_in_any_partition() {
    let base = Base::new("tables", "detached");
    let keys = base.known("dshield", 4);
    base.run(&format!(
        "CREATE TABLE visits (id int, ip text, answers jsonb) PARTITION BY RANGE (id);
         CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM (0) TO (100);
         CREATE TABLE visits_2 PARTITION OF visits FOR VALUES FROM (100) TO (200);
         INSERT INTO visits SELECT n, k FROM unnest('{{{}}}'::text[]) k, generate_series(1, 150, 50) n;
         SELECT enrich_attach('visits', 'ip', '{{dshield}}', 'answers')",
        keys.join(",")
    ));
    base.wait_for("SELECT count(*) FROM visits WHERE answers ? 'dshield'", 12i64);
    wait_quiet(&base);
    let rows = "SELECT string_agg(tableoid || ' ' || ctid || ' ' || xmin || ' ' || v::text, ',' ORDER BY id, ip) FROM visits v";
    let before: String = base.one(rows);
    base.run("SELECT enrich_detach('visits')");
    assert_eq!(base.one::<String>(rows), before);
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid IN ('visits'::regclass, 'visits_1'::regclass, 'visits_2'::regclass)";
    assert_eq!(base.one::<i64>(triggers), 0);
}
