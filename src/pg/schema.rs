//! The SQL that CREATE EXTENSION runs, and in which order.

use pgrx::extension_sql_file;

extension_sql_file!("../../sql/install/10_schema.sql", name = "schema", bootstrap);
extension_sql_file!(
    "../../sql/install/20_tables.sql",
    name = "tables",
    requires = [
        enrich_key_hash,
        enrich_check_service,
        enrich_hibp_prefix,
        enrich_scattered,
        enrich_payload_terms,
        enrich_payload_query_terms
    ]
);
extension_sql_file!("../../sql/install/30_services.sql", name = "services", requires = ["tables"]);
extension_sql_file!(
    "../../sql/install/40_views.sql",
    name = "views",
    requires = [
        "services",
        enrich_worker_states,
        enrich_lane_waits,
        enrich_quota_live,
        enrich_live_lookups,
        enrich_hibp_range
    ]
);
extension_sql_file!(
    "../../sql/install/42_coverage.sql",
    name = "coverage",
    requires = ["views", enrich_hibp_prefix, enrichment_tally_rows, enrichment_row_keys]
);
extension_sql_file!("../../sql/install/43_eta.sql", name = "eta", requires = ["coverage"]);
extension_sql_file!(
    "../../sql/install/50_registry.sql",
    name = "registry",
    requires = ["eta", enrich_lookup, enrich_registry_changed, enrichment_keep_history]
);
extension_sql_file!("../../sql/install/51_shapes.sql", name = "shapes", requires = ["registry"]);
extension_sql_file!(
    "../../sql/install/52_sources.sql",
    name = "sources",
    requires =
        ["shapes", enrich_wake, enrichment_check_expression, enrichment_worth, enrichment_ask_source, enrichment_cost]
);
extension_sql_file!("../../sql/install/53_refresh.sql", name = "refresh", requires = ["sources", enrich_preloaded]);
extension_sql_file!("../../sql/install/54_explain.sql", name = "explain", requires = ["refresh", enrich_ineligible]);
extension_sql_file!(
    "../../sql/install/58_disk.sql",
    name = "disk",
    requires = ["explain", enrich_disk_state, enrich_export_batch, enrich_export_unknown_batch]
);
extension_sql_file!("../../sql/install/55_health.sql", name = "health", requires = ["disk", enrich_preloaded]);
extension_sql_file!(
    "../../sql/install/57_engine.sql",
    name = "engine",
    requires = ["health", enrich_retry, enrich_queue_length]
);
extension_sql_file!("../../sql/install/57_test.sql", name = "test", requires = ["engine", enrich_test]);
extension_sql_file!(
    "../../sql/install/57_diagnose.sql",
    name = "diagnose",
    requires = ["test", enrichment_json_reads, enrichment_has_secret, enrich_safe_jsonb]
);
extension_sql_file!(
    "../../sql/install/58_passwords.sql",
    name = "passwords",
    requires = ["diagnose", enrich_safe_jsonb]
);
extension_sql_file!(
    "../../sql/install/59_hibp_load.sql",
    name = "hibp_load",
    requires = ["passwords", enrichment_hibp_corpus, enrichment_hibp_load_step]
);
extension_sql_file!(
    "../../sql/install/61_ssh_keys.sql",
    name = "ssh_keys",
    requires = ["hibp_load", enrich_ssh_keys, enrich_event_command]
);
extension_sql_file!(
    "../../sql/install/60_migration.sql",
    name = "migration",
    requires = ["ssh_keys", enrichment_migration_check, enrichment_migration_step, enrichment_migration_verify_disk]
);
extension_sql_file!(
    "../../sql/install/62_import.sql",
    name = "import",
    requires = ["migration", enrichment_migration_take, enrichment_migration_compare]
);
extension_sql_file!("../../sql/install/70_privileges.sql", name = "privileges", requires = ["import"]);
extension_sql_file!("../../sql/install/80_comments.sql", name = "comments", requires = ["privileges"]);
extension_sql_file!("../../sql/install/90_grants.sql", name = "grants", finalize);
