//! The SQL that CREATE EXTENSION runs, and in which order.

use pgrx::extension_sql_file;

extension_sql_file!("../../sql/install/10_schema.sql", name = "schema", bootstrap);
extension_sql_file!(
    "../../sql/install/20_tables.sql",
    name = "tables",
    requires = [enrich_key_hash, enrich_check_service, enrich_hibp_prefix]
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
    "../../sql/install/50_functions.sql",
    name = "functions",
    requires = ["views", enrich_wake, enrich_lookup, enrich_registry_changed, enrich_preloaded, enrich_ineligible]
);
extension_sql_file!("../../sql/install/80_comments.sql", name = "comments", requires = ["functions"]);
extension_sql_file!("../../sql/install/90_grants.sql", name = "grants", finalize);
