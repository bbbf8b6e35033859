//! Users' tables of the documented shapes are filled, whole and with nothing else touched.

mod arrivals;
mod columns;
mod documents;
mod held;
mod kinds;
mod layouts;
mod loader;
mod moved;
mod options;
mod order;
mod replicated;
mod shape;
mod slices;
mod sweeps;
mod trouble;
mod writers;

use crate::sources_support::{load, note_expected, wait_filled, wait_quiet, ATTACH_SESSIONS, CLOSED, SMALL};
use crate::support::{one, run, Base};
use testbed::honeypot::{AddressType, JsonType, Shape};

const SERVICES: [&str; 3] = ["dshield", "urlhaus", "spur"];

/// Loads, attaches, waits, and looks at every row.
fn fills(name: &str, json: JsonType, address: AddressType) {
    let base = Base::new("sources", name);
    let loaded = load(&base, &Shape { json, address, ..Shape::default() }, &SMALL);
    assert!(loaded.public_addresses < loaded.addresses, "the data lacks private addresses");
    let mut client = base.client();
    run(
        &mut client,
        "CREATE TABLE before AS SELECT session_id, enrichment::text, xmin::text AS version FROM session_summaries",
    );
    for kind in ["enrichment IS NULL", "enrichment = '{}'", "enrichment LIKE '%password_stats%'"] {
        let sql = format!("SELECT count(*) > 0 FROM before WHERE {kind}");
        assert!(one::<bool>(&mut client, &sql), "the data lacks rows where {kind}");
    }
    note_expected(&base, &SERVICES);
    run(&mut client, ATTACH_SESSIONS);
    wait_filled(&base, "{dshield,urlhaus,spur}");
    wait_quiet(&base);
    let open = format!("s.source_ip IS NOT NULL AND NOT {CLOSED}");
    let none = |client: &mut _, what: &str, condition: &str| {
        let from = "session_summaries s JOIN before b USING (session_id)
            LEFT JOIN expected d ON d.service = 'dshield' AND d.ip = host(s.source_ip::text::inet)";
        let sql = format!(
            "SELECT coalesce(string_agg(s.session_id || ' ' || coalesce(s.enrichment::text, 'NULL'), E'\\n'), '')
            FROM (SELECT s.* FROM {from} WHERE {condition} LIMIT 3) s"
        );
        assert_eq!(one::<String>(client, &sql), "", "{what}");
    };
    none(
        &mut client,
        "a row without a public address was touched",
        &format!(
            "(s.source_ip IS NULL OR {CLOSED}) AND (s.enrichment::text IS DISTINCT FROM b.enrichment
            OR s.enrichment_at IS NOT NULL OR s.dshield_flagged OR s.xmin::text <> b.version)"
        ),
    );
    none(
        &mut client,
        "another module's key was changed",
        "(s.enrichment::jsonb -> 'password_stats') IS DISTINCT FROM (b.enrichment::jsonb -> 'password_stats')",
    );
    none(&mut client, "a flag differs from the provider's word", "s.dshield_flagged <> coalesce(d.flagged, false)");
    none(&mut client, "enrichment_at is missing", &format!("{open} AND s.enrichment_at IS NULL"));
    none(
        &mut client,
        "a member too many",
        &format!(
            "{open} AND EXISTS (SELECT FROM jsonb_object_keys(s.enrichment::jsonb) k
        WHERE k <> ALL ('{{dshield,urlhaus,spur,_meta,password_stats}}'))"
        ),
    );
    none(
        &mut client,
        "_meta has other members",
        &format!(
            "{open} AND EXISTS (
        SELECT FROM jsonb_each(s.enrichment::jsonb -> '_meta') m WHERE m.key <> ALL ('{{dshield,urlhaus,spur}}')
            OR NOT m.value ?& '{{status,fetched_at,expires_at}}')"
        ),
    );
    for service in SERVICES {
        let of = |condition: &str| {
            format!("{open} AND EXISTS (SELECT FROM expected e LEFT JOIN enrichment_cache c
            ON c.service = e.service AND c.cache_key = e.ip CROSS JOIN LATERAL (SELECT s.enrichment::jsonb -> '{service}' AS body,
                s.enrichment::jsonb #> '{{_meta,{service}}}' AS meta) j
            WHERE e.service = '{service}' AND e.ip = host(s.source_ip::text::inet) AND ({condition}))")
        };
        none(
            &mut client,
            "a status differs from the provider's word",
            &of("j.meta ->> 'status' IS DISTINCT FROM e.outcome"),
        );
        none(&mut client, "an answer differs from the cache", &of("j.body IS DISTINCT FROM c.payload"));
        none(
            &mut client,
            "an answer without knowledge, or knowledge without an answer",
            &of("(j.body IS NOT NULL) <> (e.outcome = 'success')"),
        );
        none(
            &mut client,
            "a time differs from the cache",
            &of("(j.meta ->> 'fetched_at')::timestamptz IS DISTINCT FROM date_trunc('second', c.fetched_at)
                OR (j.meta ->> 'expires_at')::timestamptz IS DISTINCT FROM date_trunc('second', c.expires_at)"),
        );
    }
    for flagged in [true, false] {
        let sql = format!("SELECT count(*) > 0 FROM session_summaries WHERE dshield_flagged = {flagged}");
        assert!(one::<bool>(&mut client, &sql), "no row shows a flag that is {flagged}");
    }
    assert_eq!(one::<Option<String>>(&mut client, "SELECT last_error FROM enrichment_source"), None);
}

#[test]
fn sessions_with_json_and_varchar_are_filled() {
    fills("json_varchar", JsonType::Json, AddressType::Varchar);
}

#[test]
fn sessions_with_json_and_inet_are_filled() {
    fills("json_inet", JsonType::Json, AddressType::Inet);
}

#[test]
fn sessions_with_jsonb_and_varchar_are_filled() {
    fills("jsonb_varchar", JsonType::Jsonb, AddressType::Varchar);
}

#[test]
fn sessions_with_jsonb_and_inet_are_filled() {
    fills("jsonb_inet", JsonType::Jsonb, AddressType::Inet);
}
