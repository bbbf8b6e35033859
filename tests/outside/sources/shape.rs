//! The shape cowrieprocessor: what readers of that project find in `enrichment`.

use crate::sources_support::{make_sessions, wait_quiet};
use crate::support::Base;

const SPUR: &str = r#"{"as": {"number": 64500, "organization": "Example"}, "organization": "Example Ltd", "infrastructure": "DATACENTER",
    "client": {"behaviors": ["FILE_SHARING"], "countries": 3, "count": 7, "proxies": ["P"], "spread": 12, "types": ["DESKTOP"],
        "concentration": {"city": "Kiel", "country": "DE", "geohash": "u1"}},
    "location": {"city": "Bonn", "country": "DE", "state": "NW"}, "risks": ["TUNNEL"], "services": ["OPENVPN"],
    "tunnels": [{"type": "VPN", "operator": "X"}]}"#;
const ITEMS: &str = r#"["Example", ["FILE_SHARING"], "Kiel", "DE", "u1", 3, 7, ["P"], 12, ["DESKTOP"], "DATACENTER", "Bonn", "DE", "NW",
    "Example Ltd", ["TUNNEL"], ["OPENVPN"], [{"type": "VPN", "operator": "X"}]]"#;

/// Rows as three writers left them, in a json or a jsonb column.
fn has_the_shape(name: &str, json: &str) {
    let base = Base::new("sources", name);
    let keys = ["9.9.3.1", "9.9.3.2", "9.9.3.1", "9.9.3.1"].map(str::to_string);
    make_sessions(&base, json, &keys);
    base.run(&format!(
        r#"UPDATE enrichment_service SET enabled = false;
        UPDATE session_summaries s SET enrichment = o.old::{json} FROM (VALUES
            ('s2', '{{"dshield": {{"ip": {{"asname": "", "ascountry": ""}}}}, "urlhaus": "", "spur": []}}'),
            ('s3', '{{"password_stats": {{"total_attempts": 3}}, "urlhaus": "old,tags"}}'),
            ('s4', '{{"session": {{"9.9.3.1": {{"dshield": null, "note": 1}}, "9.9.3.7": {{"dshield": 5}}}}, "virustotal": {{"aa": 1}}}}'))
            o (id, old) WHERE s.session_id = o.id;
        SELECT enrich_store('dshield', '9.9.3.1', '{{"ip": {{"as": 64500, "ascountry": "DE", "count": 4}}}}'),
            enrich_store('urlhaus', '9.9.3.1', '{{"query_status": "ok", "urls": [{{"tags": ["mirai", "elf"]}}, {{"tags": ["elf"]}}]}}'),
            enrich_store('spur', '9.9.3.1', '{SPUR}'),
            enrich_store('dshield', '9.9.3.2', NULL, response_status => 'not_found');
        SELECT enrich_attach('session_summaries', 'source_ip', '{{dshield,urlhaus,spur}}', 'enrichment', shape => 'cowrieprocessor')"#
    ));
    base.wait_for("SELECT count(*) FROM session_summaries WHERE enrichment::text LIKE '%_meta%'", 4i64);
    wait_quiet(&base);
    let holds = |row: &str, condition: &str| {
        let sql = format!("SELECT {condition} FROM (SELECT enrichment::jsonb AS e FROM session_summaries WHERE session_id = '{row}') s");
        assert!(
            base.one::<bool>(&sql),
            "{row}: {condition}\n{}",
            base.one::<String>("SELECT string_agg(enrichment::text, E'\\n') FROM session_summaries")
        );
    };
    for row in ["s1", "s3", "s4"] {
        holds(row, r#"e #> '{dshield,ip}' = '{"as": 64500, "ascountry": "DE", "count": 4}'"#);
        holds(row, "string_to_array(e ->> 'urlhaus', ',') @> '{elf,mirai}' AND length(e ->> 'urlhaus') = 9");
        holds(row, &format!("e -> 'spur' = '{ITEMS}'"));
        holds(
            row,
            "e #>> '{_meta,spur,status}' = 'success' AND (e #>> '{_meta,spur,expires_at}')::timestamptz > now()",
        );
        holds(row, "(e #>> '{_meta,spur,fetched_at}')::timestamptz <= now()");
    }
    // asked, and nothing known: no member of the kind that stood for an answer; what was not asked is left as it is
    holds("s2", "NOT e ? 'dshield' AND e #>> '{_meta,dshield,status}' = 'not_found'");
    holds("s2", "e -> 'urlhaus' = '\"\"' AND e -> 'spur' = '[]' AND NOT e -> '_meta' ?| '{urlhaus,spur}'");
    holds("s3", "e -> 'password_stats' = '{\"total_attempts\": 3}'");
    // the loader's shape has the same beside what it had
    holds("s4", "e #> '{session,9.9.3.1,dshield}' = e -> 'dshield' AND e #> '{session,9.9.3.1,spur}' = e -> 'spur'");
    holds("s4", "e #> '{session,9.9.3.1,note}' = '1' AND e #> '{session,9.9.3.7,dshield}' = '5' AND e #> '{virustotal,aa}' = '1'");
    // a second time nothing is left to write
    let versions = "SELECT string_agg(ctid::text, ' ' ORDER BY session_id) FROM session_summaries";
    let before: String = base.one(versions);
    base.run("UPDATE enrichment_indicator SET dirty = true; SELECT enrich_wake()");
    wait_quiet(&base);
    assert_eq!(base.one::<String>(versions), before);
}

#[test]
fn readers_of_cowrieprocessor_find_its_shapes_in_json() {
    has_the_shape("shape_json", "json");
}

#[test]
fn readers_of_cowrieprocessor_find_its_shapes_in_jsonb() {
    has_the_shape("shape_jsonb", "jsonb");
}

/// `vt_flagged` of a table whose own key is a file's: only an answer that says something of it changes it.
#[test]
fn a_raw_column_of_files_has_its_flag_from_virustotals_numbers() {
    let base = Base::new("sources", "raw_files");
    base.run(
        r#"UPDATE enrichment_service SET enabled = false;
        CREATE TABLE droppers (id int, shasum text, answers jsonb, vt_flagged boolean);
        INSERT INTO droppers SELECT i, lpad(i::text, 64, '0'), NULL, CASE WHEN i > 3 THEN true END FROM generate_series(1, 5) i;
        SELECT enrich_store('virustotal', lpad(i::text, 64, '0'), jsonb_build_object('data', jsonb_build_object('attributes',
                CASE WHEN i IN (1, 4) THEN '{"last_analysis_stats": {"malicious": 0, "harmless": 60}}'
                     WHEN i = 2 THEN '{"last_analysis_stats": {"malicious": 3, "harmless": 60}}'
                     ELSE '{"type_description": "ELF"}' END::jsonb))) FROM generate_series(1, 5) i;
        SELECT enrich_attach('droppers', 'shasum', '{virustotal}', 'answers', shape => 'raw', flag_columns => '{"vt_flagged": "virustotal"}')"#,
    );
    base.wait_for("SELECT count(*) FROM droppers WHERE answers IS NULL", 0i64);
    wait_quiet(&base);
    let flags = "SELECT string_agg(coalesce(vt_flagged::text, '-'), ' ' ORDER BY id) FROM droppers";
    assert_eq!(base.one::<String>(flags), "false true - false true");
}
