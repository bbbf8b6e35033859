//! Who may do what: nothing for PUBLIC, three levels by enrich_grant, the monitoring views for pg_monitor.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{acting_as, holds, list, refused, refused_to, relations, run, text};
    use pgrx::prelude::*;

    const ADMIN_ONLY: [&str; 7] = [
        "SELECT enrich_invalidate('dshield', '9.80.0.1')",
        "SELECT enrich_cleanup()",
        "SELECT enrich_set_secret('spur', 'x')",
        "SELECT enrich_attach('pg_class', 'relname', '{dshield}')",
        "SELECT enrich_detach('x')",
        "INSERT INTO enrichment_service (name, key_kind, url) VALUES ('p', 'ip', 'https://p.example/{key}')",
        "UPDATE enrichment_service SET enabled = false",
    ];
    const WRITERS: [&str; 8] = [
        "SELECT enrich_store('dshield', '9.80.0.2', '{}')",
        "SELECT enrich_store_many('dshield', '{9.80.0.3}', ARRAY['{}']::jsonb[])",
        "SELECT enrich_store_text('dshield', '9.80.0.4', 'x')",
        "SELECT enrich_compare_and_store('dshield', '9.80.0.5', 0, '{}')",
        "SELECT enrich_request('dshield', '9.80.0.6')",
        "SELECT enrich_request_many('dshield', '{9.80.0.7}')",
        "SELECT enrich_fetch('dshield', '9.80.0.2')",
        "SELECT * FROM enrich_password('x')",
    ];
    const READERS: [&str; 9] = [
        "SELECT enrich_get('dshield', '9.80.0.1')",
        "SELECT enrich_get('dshield', '9.80.0.1'::inet)",
        "SELECT enrich_get('dshield', '9.80.0.1', '1 day')",
        "SELECT * FROM enrich_get_many('dshield', '{9.80.0.1}')",
        "SELECT enrich_get_text('dshield', '9.80.0.1')",
        "SELECT * FROM enrich_lookup('dshield', '9.80.0.1')",
        "SELECT enrich_explain('dshield', '9.80.0.9')",
        "SELECT * FROM enrich_health()",
        "SELECT enrich_normalize_key('ip', '9.80.0.1')",
    ];
    const CHANGES: [&str; 5] = [
        "DELETE FROM enrichment_cache",
        "UPDATE enrichment_queue SET priority = 1",
        "TRUNCATE enrichment_history",
        "INSERT INTO enrichment_arrival (source, raw_keys, row_counts, weights, latest) VALUES ('x', '{}', '{}', '{}', '{}')",
        "DELETE FROM enrichment_quota",
    ];

    fn role(name: &str, level: Option<&str>) {
        run(&format!("CREATE ROLE {name}"));
        if let Some(level) = level {
            run(&format!("SELECT enrich_grant('{name}', '{level}')"));
        }
    }

    fn may_not(role: &str, statements: &[&str]) {
        for sql in statements {
            let refusal = refused_to(role, sql);
            assert_eq!(refusal.sqlstate, "42501", "{sql}: {refusal:?}");
        }
    }

    fn may(role: &str, statements: &[&str]) {
        acting_as(role, || statements.iter().for_each(|sql| run(sql)));
    }

    #[pg_test]
    fn permissions_public_may_run_no_function_of_the_extension() {
        role("permissions_nobody", None);
        assert_eq!(
            list(
                "SELECT p.oid::regprocedure FROM pg_proc p
                JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
                WHERE e.extname = 'enrichment_cache' AND p.pronamespace = e.extnamespace
                  AND has_function_privilege('permissions_nobody', p.oid, 'EXECUTE') ORDER BY 1"
            ),
            Vec::<String>::new()
        );
        may_not("permissions_nobody", &READERS);
        may_not("permissions_nobody", &WRITERS);
        may_not("permissions_nobody", &ADMIN_ONLY);
    }

    #[pg_test]
    fn permissions_public_may_touch_no_table_view_or_sequence() {
        role("permissions_outsider", None);
        for kind in ["r", "v", "S"] {
            let relations = relations(kind);
            assert!(relations.len() >= 4, "{kind}: {relations:?}");
            for relation in relations {
                let privilege = if kind == "S" {
                    "USAGE, SELECT, UPDATE"
                } else {
                    "SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER"
                };
                let function = if kind == "S" { "has_sequence_privilege" } else { "has_table_privilege" };
                holds(&format!("NOT {function}('permissions_outsider', '{relation}', '{privilege}')"));
            }
        }
        may_not("permissions_outsider", &["SELECT * FROM enrichment_cache", "SELECT * FROM enrichment_queue_status"]);
        may_not("permissions_outsider", &CHANGES);
    }

    #[pg_test]
    fn permissions_a_reader_reads_and_nothing_else() {
        role("permissions_reader", Some("reader"));
        run("SELECT enrich_store('dshield', '9.80.0.1', '{\"a\": 1}')");
        may("permissions_reader", &READERS);
        acting_as("permissions_reader", || {
            assert_eq!(text("SELECT enrich_get('dshield', '9.80.0.1')"), r#"{"a": 1}"#);
            for view in relations("v") {
                run(&format!("SELECT * FROM {view}"));
            }
        });
        may_not("permissions_reader", &WRITERS);
        may_not("permissions_reader", &ADMIN_ONLY);
        may_not("permissions_reader", &CHANGES);
    }

    #[pg_test]
    fn permissions_a_writer_also_stores_and_requests() {
        role("permissions_writer", Some("writer"));
        may("permissions_writer", &WRITERS);
        may("permissions_writer", &READERS);
        may_not("permissions_writer", &ADMIN_ONLY);
        may_not("permissions_writer", &CHANGES);
    }

    #[pg_test]
    fn permissions_an_admin_also_keeps_services_sources_and_secrets() {
        role("permissions_admin", Some("admin"));
        run("GRANT CREATE ON SCHEMA public TO permissions_admin");
        may("permissions_admin", &WRITERS);
        may("permissions_admin", &READERS);
        acting_as("permissions_admin", || {
            run("CREATE TABLE permissions_table (address inet, enrichment jsonb)");
            run("SELECT enrich_attach('permissions_table', 'address', '{dshield}', 'enrichment')");
            run("INSERT INTO permissions_table VALUES ('9.80.1.1')");
            run("SELECT enrich_detach('permissions_table')");
            run("SELECT enrich_invalidate('dshield', '9.80.0.2'), enrich_cleanup(), enrich_set_secret('spur', 'x')");
            run("INSERT INTO enrichment_service (name, key_kind, url) VALUES ('permissionsown', 'ip', 'https://p.example/{key}')");
            run("UPDATE enrichment_service SET ttl = '2 days' WHERE name = 'permissionsown'");
            run("SELECT enrich_store('permissionsown', '9.80.0.8', '{}')");
            run("DELETE FROM enrichment_service WHERE name = 'permissionsown'");
        });
        may_not("permissions_admin", &CHANGES);
    }

    #[pg_test]
    fn permissions_writing_to_an_attached_table_needs_none_of_the_extensions() {
        role("permissions_sensor", None);
        run("CREATE TABLE permissions_events (address text, enrichment json); GRANT INSERT ON permissions_events TO permissions_sensor");
        run("SELECT enrich_attach('permissions_events', 'address', '{dshield}', 'enrichment')");
        acting_as("permissions_sensor", || run("INSERT INTO permissions_events VALUES ('9.80.2.1')"));
        assert_eq!(list("SELECT raw_keys FROM enrichment_arrival WHERE source = 'permissions_events'"), ["{9.80.2.1}"]);
    }

    #[pg_test]
    fn permissions_pg_monitor_reads_the_monitoring_views_and_no_answers() {
        role("permissions_monitor", None);
        run("GRANT pg_monitor TO permissions_monitor");
        acting_as("permissions_monitor", || {
            for view in ["coverage", "eta", "queue_status", "quota_status", "stat", "worker"] {
                run(&format!("SELECT * FROM enrichment_{view}"));
            }
        });
        may_not(
            "permissions_monitor",
            &["SELECT * FROM enrichment_cache", "SELECT * FROM enrichment_dshield", "SELECT * FROM enrichment_secret"],
        );
    }

    #[pg_test]
    fn permissions_an_unknown_level_is_refused() {
        role("permissions_level", None);
        refused("SELECT enrich_grant('permissions_level', 'owner')").says(
            "22023",
            "unknown level \"owner\"",
            "Use reader, writer or admin.",
        );
        assert_eq!(refused("SELECT enrich_grant('permissions_missing', 'reader')").sqlstate, "42704");
        refused_to("permissions_level", "SELECT enrich_grant('permissions_level', 'admin')");
    }
}
