//! enrich_attach and enrich_detach: what is refused and how, and that nothing of the user's goes with a detach.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{acting_as, count, holds, list, refused, refused_to, run, text};
    use pgrx::prelude::*;

    fn table(name: &str, columns: &str) {
        run(&format!("CREATE TABLE {name} ({columns})"));
    }

    fn sessions(name: &str) {
        table(name, "session_id varchar(64) PRIMARY KEY, source_ip varchar(45), score int, enrichment json");
    }

    #[pg_test]
    fn attach_gives_the_source_a_name_and_notes_what_is_written_where() {
        sessions("attach_sessions");
        table(
            "attach_files",
            "id serial PRIMARY KEY, shasum varchar(64), vt_malicious bool, enrichment_status varchar(32)",
        );
        table("attach_passwords", "password_text text, breached bool");
        table("attach_joined", "address inet");
        run("CREATE SCHEMA attach_other");
        table("attach_other.sessions", "source_ip inet, enrichment jsonb");
        assert_eq!(
            text("SELECT enrich_attach('attach_sessions', 'source_ip', '{dshield,urlhaus,spur}', 'enrichment')"),
            "attach_sessions"
        );
        assert_eq!(text("SELECT enrich_attach('attach_files', 'shasum', '{virustotal}')"), "attach_files");
        assert_eq!(text("SELECT enrich_attach('attach_passwords', 'password_text', '{hibp}')"), "attach_passwords");
        assert_eq!(
            text("SELECT enrich_attach('attach_joined', 'address', '{dshield}', source_name => 'joined')"),
            "joined"
        );
        assert_eq!(
            text("SELECT enrich_attach('attach_other.sessions', 'source_ip', '{dshield}', 'enrichment')"),
            "attach_other.sessions"
        );
        assert_eq!(
            list(
                "SELECT concat_ws('|', name, relation, key_column, services, coalesce(into_column, '-'), shape)
                FROM enrichment_source ORDER BY name"
            ),
            [
                "attach_files|attach_files|shasum|{virustotal}|-|files",
                "attach_other.sessions|attach_other.sessions|source_ip|{dshield}|enrichment|raw",
                "attach_passwords|attach_passwords|password_text|{hibp}|-|passwords",
                "attach_sessions|attach_sessions|source_ip|{dshield,urlhaus,spur}|enrichment|raw",
                "joined|attach_joined|address|{dshield}|-|none",
            ]
        );
    }

    #[pg_test]
    fn attach_by_a_column_that_is_not_there_lists_those_that_are() {
        sessions("attach_columns");
        run("ALTER TABLE attach_columns DROP COLUMN score");
        refused("SELECT enrich_attach('attach_columns', 'src_ip', '{dshield}', 'enrichment')").says(
            "42703",
            "column \"src_ip\" of relation \"attach_columns\" does not exist",
            "Its columns are: session_id, source_ip, enrichment.",
        );
        refused("SELECT enrich_attach('attach_columns', 'source_ip', '{dshield}', 'answers')").says(
            "42703",
            "column \"answers\" of relation \"attach_columns\" does not exist",
            "Add it: ALTER TABLE public.attach_columns ADD COLUMN answers jsonb.",
        );
        table("attach_bare", "password_text text");
        refused("SELECT enrich_attach('attach_bare', 'password_text', '{hibp}')").says(
            "42703",
            "table \"attach_bare\" has no column for what is known of a password",
            "breached boolean",
        );
    }

    #[pg_test]
    fn attach_refuses_what_is_not_a_lasting_table() {
        sessions("attach_base");
        run("CREATE VIEW attach_view AS SELECT * FROM attach_base");
        run("CREATE MATERIALIZED VIEW attach_matview AS SELECT * FROM attach_base");
        run("CREATE TEMP TABLE attach_temp AS SELECT * FROM attach_base");
        let attach =
            |name: &str| refused(&format!("SELECT enrich_attach('{name}', 'source_ip', '{{dshield}}', 'enrichment')"));
        attach("attach_view").says(
            "42809",
            "\"attach_view\" is not a table",
            "Attach the table that the rows stand in.",
        );
        assert_eq!(attach("attach_view").detail, "It is a view.");
        assert_eq!(attach("attach_matview").detail, "It is a materialized view.");
        attach("attach_temp").says("42809", "\"attach_temp\" is a temporary table", "attach a permanent one");
        assert_eq!(attach("attach_nowhere").sqlstate, "42P01");
    }

    #[pg_test]
    fn attach_refuses_columns_of_a_type_that_does_not_fit() {
        sessions("attach_types");
        refused("SELECT enrich_attach('attach_types', 'score', '{dshield}', 'enrichment')").says(
            "42804",
            "column \"score\" of type integer cannot hold keys",
            "text, varchar, char, inet or cidr",
        );
        refused("SELECT enrich_attach('attach_types', 'source_ip', '{dshield}', 'session_id')").says(
            "42804",
            "column \"session_id\" of type character varying(64) cannot hold answers",
            "json or jsonb",
        );
    }

    #[pg_test]
    fn attach_refuses_services_that_are_unknown_or_do_not_go_together() {
        sessions("attach_services");
        refused("SELECT enrich_attach('attach_services', 'source_ip', '{dshield,dsheild}', 'enrichment')").says(
            "42704",
            "unknown service \"dsheild\"",
            "Known services: dshield, hibp, spur, urlhaus, virustotal.",
        );
        refused("SELECT enrich_attach('attach_services', 'source_ip', '{dshield,hibp}', 'enrichment')").says(
            "22023",
            "hibp cannot share a source with other services or a target column",
            "'{hibp}' alone",
        );
        for services in ["'{}'", "NULL", "'{NULL}'"] {
            let refusal =
                refused(&format!("SELECT enrich_attach('attach_services', 'source_ip', {services}, 'enrichment')"));
            assert!(
                ["22023", "42704"].contains(&refusal.sqlstate.as_str()) && !refusal.hint.is_empty(),
                "{services}: {refusal:?}"
            );
        }
        assert_eq!(count("SELECT count(*) FROM enrichment_source"), 0);
        assert_eq!(count("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'attach_services'::regclass"), 0);
    }

    #[pg_test]
    fn attach_refuses_a_second_source_of_the_same_name() {
        sessions("attach_twice");
        run("SELECT enrich_attach('attach_twice', 'source_ip', '{dshield}', 'enrichment')");
        refused("SELECT enrich_attach('attach_twice', 'source_ip', '{dshield}', 'enrichment')").says(
            "42710",
            "source \"attach_twice\" is attached already",
            "enrich_detach()",
        );
        assert_eq!(count("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'attach_twice'::regclass"), 3);
    }

    #[pg_test]
    fn attach_and_detach_are_for_the_owner_of_the_table() {
        run("CREATE ROLE attach_owner; CREATE ROLE attach_stranger; GRANT CREATE ON SCHEMA public TO attach_owner");
        run("SELECT enrich_grant('attach_owner', 'admin'), enrich_grant('attach_stranger', 'admin')");
        acting_as("attach_owner", || {
            sessions("attach_owned");
            run("GRANT ALL ON attach_owned TO attach_stranger");
        });
        let attach = "SELECT enrich_attach('attach_owned', 'source_ip', '{dshield}', 'enrichment')";
        refused_to("attach_stranger", attach).says(
            "42501",
            "must be owner of table attach_owned",
            "Have the owner of the table, or a superuser, attach it.",
        );
        acting_as("attach_owner", || run(attach));
        refused_to("attach_stranger", "SELECT enrich_detach('attach_owned')").says(
            "42501",
            "must be owner of table public.attach_owned",
            "Have the owner of the table, or a superuser, detach it.",
        );
        acting_as("attach_owner", || run("SELECT enrich_detach('attach_owned')"));
        assert_eq!(count("SELECT count(*) FROM enrichment_source"), 0);
    }

    #[pg_test]
    fn attach_detach_leaves_rows_and_answers_and_takes_its_own_things_along() {
        sessions("attach_gone");
        run("SELECT enrich_attach('attach_gone', 'source_ip', '{dshield}', 'enrichment')");
        run("INSERT INTO attach_gone VALUES ('a', '9.60.0.1', 1, '{\"password_stats\": 1}')");
        run("INSERT INTO enrichment_indicator (source, raw_key, cache_key) VALUES ('attach_gone', '9.60.0.1', '9.60.0.1')");
        run("SELECT enrich_store('dshield', '9.60.0.1', '{}')");
        run("SELECT enrich_detach('attach_gone')");
        assert_eq!(text("SELECT enrichment FROM attach_gone"), r#"{"password_stats": 1}"#);
        holds("enrich_get('dshield', '9.60.0.1') = '{}'");
        assert_eq!(count("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'attach_gone'::regclass"), 0);
        for table in ["enrichment_source", "enrichment_arrival", "enrichment_indicator"] {
            assert_eq!(
                count(&format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%attach_gone%'")),
                0,
                "{table}"
            );
        }
        run("INSERT INTO attach_gone VALUES ('b', '9.60.0.2', 1, NULL)");
        refused("SELECT enrich_detach('attach_gone')").says(
            "42704",
            "no source \"attach_gone\" is attached",
            "Attached sources: none.",
        );
    }

    #[pg_test]
    fn attach_detach_works_after_the_table_was_dropped_or_renamed() {
        sessions("attach_dropped");
        sessions("attach_renamed");
        run("SELECT enrich_attach('attach_dropped', 'source_ip', '{dshield}', 'enrichment'),
            enrich_attach('attach_renamed', 'source_ip', '{dshield}', 'enrichment')");
        run("DROP TABLE attach_dropped; ALTER TABLE attach_renamed RENAME TO attach_renamed_now");
        run("SELECT enrich_detach('attach_dropped'), enrich_detach('attach_renamed')");
        assert_eq!(count("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'attach_renamed_now'::regclass"), 0);
        assert_eq!(count("SELECT count(*) FROM enrichment_source"), 0);
    }
}
