//! Tables in other schemas, of other owners, with quoted names, partitioned, or with JSON that jsonb refuses.

use crate::sources_support::{make_sessions, wait_filled, wait_quiet, ATTACH_SESSIONS};
use crate::support::{one, run, Base};

#[test]
fn a_partitioned_table_is_filled_in_every_partition() {
    let base = Base::new("sources", "partitioned");
    let keys = base.known("dshield", 4);
    base.run(
        "CREATE TABLE visits (day date, ip inet, answers jsonb, enrichment_at timestamptz) PARTITION BY RANGE (day);
         CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
         -- its columns stand in another order, as after years of changes
         CREATE TABLE visits_2 (gone text, answers jsonb, enrichment_at timestamptz, ip inet, day date);
         ALTER TABLE visits_2 DROP COLUMN gone;
         ALTER TABLE visits ATTACH PARTITION visits_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')",
    );
    base.run(&format!("INSERT INTO visits VALUES ('2026-01-05', '{}'), ('2026-02-05', '{}')", keys[0], keys[1]));
    base.run("SELECT enrich_attach('visits', 'ip', '{dshield}', 'answers')");
    let unfilled = "SELECT count(*) FROM visits WHERE answers #>> '{dshield,ip,number}' IS DISTINCT FROM host(ip)";
    base.wait_for(unfilled, 0i64);
    wait_quiet(&base);
    base.run(&format!("INSERT INTO visits VALUES ('2026-01-06', '{}'), ('2026-02-06', '{}')", keys[2], keys[3]));
    base.run("UPDATE visits SET day = day + 31 WHERE day = '2026-01-05'");
    base.wait_for(unfilled, 0i64);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM visits_2"), 3);
}

#[test]
fn quoted_names_in_another_schema_are_written_as_they_are() {
    let base = Base::new("sources", "quoted");
    let keys = base.known("dshield", 2);
    let table = r#""Honey ""Pot"" %I $1"."Session's table, with a name that is as long as one may""#;
    let (key, into) = (r#""Source IP; --""#, r#""The ""Answers"" %s""#);
    base.run(r#"CREATE SCHEMA "Honey ""Pot"" %I $1""#);
    base.run(&format!(
        "CREATE TABLE {table} ({key} text, {into} json, \"dshield_flagged\" bool, \"enrichment_at\" date)"
    ));
    base.run(&format!("INSERT INTO {table} ({key}) VALUES ('{}')", keys[0]));
    let literal = |name: &str| name.trim_matches('"').replace("\"\"", "\"").replace('\'', "''");
    let attach = format!(
        "SELECT enrich_attach('{}', '{}', '{{dshield,urlhaus}}', '{}')",
        table.replace('\'', "''"),
        literal(key),
        literal(into)
    );
    let source: String = base.one(&attach);
    assert_eq!(source, r#"Honey "Pot" %I $1.Session's table, with a name that is as long as one may"#);
    let unfilled = format!(
        "SELECT count(*) FROM {table} WHERE {into} #>> '{{dshield,ip,number}}' IS DISTINCT FROM {key}
        OR NOT dshield_flagged IS NOT NULL OR enrichment_at IS NULL"
    );
    base.wait_for(&unfilled, 0i64);
    wait_quiet(&base);
    base.run(&format!("INSERT INTO {table} ({key}) VALUES ('{}')", keys[1]));
    base.wait_for(&unfilled, 0i64);
    let mut client = base.client();
    client.execute("SELECT enrich_detach($1)", &[&source]).expect("detached");
    let triggers = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal
        AND tgrelid NOT IN (SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e')";
    assert_eq!(one::<i64>(&mut client, triggers), 0, "a trigger is left on the user's table");
}

/// A table of a role with few rights, and a trigger that notes who writes, when it fires as `timing` says.
fn who_writes(name: &str, timing: &str) {
    let base = Base::new("sources", name);
    let owner = format!("keeper_{name}");
    let mut client = base.client();
    run(
        &mut client,
        &format!("CREATE ROLE {owner}; GRANT CREATE, USAGE ON SCHEMA public TO {owner}; SET ROLE {owner}"),
    );
    run(
        &mut client,
        &format!(
            "CREATE TABLE visits (ip text, answers jsonb);
             CREATE TABLE writers (who text);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 INSERT INTO public.writers VALUES (current_user || CASE WHEN pg_has_role(current_user, 'pg_write_server_files', 'USAGE') THEN ', mighty' ELSE '' END);
                 RETURN NEW;
             END $$;
             CREATE {timing} EXECUTE FUNCTION note();
             RESET ROLE"
        ),
    );
    run(&mut client, &format!("INSERT INTO visits VALUES ('{}')", base.known("dshield", 1)[0]));
    run(&mut client, "SELECT enrich_attach('visits', 'ip', '{dshield}', 'answers')");
    base.wait_for("SELECT count(*) FROM visits WHERE answers ? 'dshield'", 1i64);
    wait_quiet(&base);
    let seen = crate::sources_support::rows(&mut client, "SELECT DISTINCT who FROM writers");
    assert_eq!(seen.join(" "), owner);
    run(&mut client, &format!("DROP OWNED BY {owner}; DROP ROLE {owner}"));
}

#[test]
fn writing_back_runs_as_the_owner_of_the_table() {
    who_writes("owner", "TRIGGER note BEFORE UPDATE ON visits FOR EACH ROW");
}

#[test]
fn a_deferred_trigger_of_the_owner_runs_as_the_owner_too() {
    who_writes("deferred", "CONSTRAINT TRIGGER note AFTER UPDATE ON visits DEFERRABLE INITIALLY DEFERRED FOR EACH ROW");
}

#[test]
fn json_that_jsonb_refuses_stops_nothing() {
    let base = Base::new("sources", "refused_json");
    let keys = base.known("dshield", 6);
    make_sessions(&base, "json", &keys);
    let mut client = base.client();
    let texts = [
        ("s1", r#"{"password_stats": {"note": "a\u0000b", "other": "\\u0000 c:\\\u0000"}}"#),
        ("s2", r#"{"password_stats": {"note": "high \ud83d alone, low \udc00 alone, \ud83d\ude00"}}"#),
        ("s3", r#"{"password_stats": 1e999999}"#),
        ("s4", r#"["not", "an", "object"]"#),
    ];
    for (session, text) in texts {
        let sql = "UPDATE session_summaries SET enrichment = $2::text::json WHERE session_id = $1";
        client.execute(sql, &[&session, &text]).expect("json takes it");
    }
    run(&mut client, ATTACH_SESSIONS);
    base.wait_for(
        "SELECT count(*) FROM session_summaries WHERE session_id IN ('s1', 's2', 's5', 's6')
        AND enrichment::text LIKE '%\"_meta\"%'",
        4i64,
    );
    wait_quiet(&base);
    let enrichment = |client: &mut _, session: &str, path: &str| -> String {
        one(
            client,
            &format!("SELECT enrichment::jsonb #>> '{path}' FROM session_summaries WHERE session_id = '{session}'"),
        )
    };
    assert_eq!(enrichment(&mut client, "s1", "{password_stats,note}"), "a\u{fffd}b");
    assert_eq!(enrichment(&mut client, "s1", "{password_stats,other}"), "\\u0000 c:\\\u{fffd}");
    assert_eq!(
        enrichment(&mut client, "s2", "{password_stats,note}"),
        "high \u{fffd} alone, low \u{fffd} alone, \u{1f600}"
    );
    for (session, text) in &texts[2..] {
        let sql = format!("SELECT enrichment::text FROM session_summaries WHERE session_id = '{session}'");
        assert_eq!(one::<String>(&mut client, &sql), *text, "what cannot be merged stays as it is");
    }
    let health: String = one(
        &mut client,
        "SELECT string_agg(detail, '') FROM enrich_health() WHERE check_name = 'source session_summaries'",
    );
    assert!(health.contains(&keys[2]), "{health}");
    wait_filled_but(&base, "s3");
}

/// The other rows have everything.
fn wait_filled_but(base: &Base, session: &str) {
    base.run(&format!("DELETE FROM session_summaries WHERE session_id IN ('{session}', 's4')"));
    wait_filled(base, "{dshield,urlhaus,spur}");
}
