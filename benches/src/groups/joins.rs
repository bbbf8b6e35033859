//! A whole table joined with a typed view, against the same join with a table that holds just those payloads.

use super::lookup_random::ONLY_HASH_JOINS;
use crate::bed::{Bed, MAIN};
use crate::data::Sizes;
use crate::measure::plan::Plan;
use crate::measure::rounds::{in_turns, statement};
use crate::measure::session::Session;
use crate::report::findings::{Findings, Target};
use crate::report::table::Table;
use crate::{screen, Result};

/// A service, and the same question to its view and to a table of its payloads.
struct Question {
    service: &'static str,
    /// The user's table and its column.
    table: &'static str,
    key: &'static str,
    /// Over the view `v`, and over the hand-made table `h`.
    view: &'static str,
    hand_made: &'static str,
}

const QUESTIONS: &[Question] = &[
    Question {
        service: "dshield",
        table: "sessions",
        key: "source_ip",
        view: "count(v.asn), count(v.country), sum(v.attacks), sum(v.reports)",
        hand_made: "count((h.payload -> 'ip' ->> 'as')::bigint), count(h.payload -> 'ip' ->> 'ascountry'),
            sum((h.payload -> 'ip' ->> 'attacks')::bigint), sum((h.payload -> 'ip' ->> 'count')::bigint)",
    },
    Question {
        service: "spur",
        table: "sessions",
        key: "source_ip",
        view: "count(v.asn), count(v.infrastructure), count(v.country), sum(v.client_count)",
        hand_made: "count((h.payload -> 'as' ->> 'number')::bigint), count(h.payload ->> 'infrastructure'),
            count(h.payload -> 'location' ->> 'country'), sum((h.payload -> 'client' ->> 'count')::bigint)",
    },
    Question {
        service: "urlhaus",
        table: "sessions",
        key: "source_ip",
        view: "count(v.host), sum(v.url_count), count(v.threat)",
        hand_made: "count(h.payload ->> 'host'), sum((h.payload ->> 'url_count')::bigint),
            count(h.payload #>> '{urls,0,threat}')",
    },
    Question {
        service: "virustotal",
        table: "files",
        key: "shasum",
        view: "sum(v.malicious), count(v.label), count(v.type_description), max(v.last_analysis)",
        hand_made: "sum((h.payload -> 'data' -> 'attributes' -> 'last_analysis_stats' ->> 'malicious')::bigint),
            count(h.payload -> 'data' -> 'attributes' -> 'popular_threat_classification' ->> 'suggested_threat_label'),
            count(h.payload -> 'data' -> 'attributes' ->> 'type_description'),
            max(to_timestamp((h.payload -> 'data' -> 'attributes' ->> 'last_analysis_date')::bigint))",
    },
];

impl Question {
    fn of_view(&self) -> String {
        let Self { service, table, key, view, .. } = self;
        format!("SELECT {view} FROM {table} t JOIN enrichment_{service} v ON v.cache_key = t.{key}")
    }

    fn of_hand_made(&self) -> String {
        let Self { service, table, key, hand_made, .. } = self;
        format!("SELECT {hand_made} FROM {table} t JOIN bench.hand_{service} h ON h.cache_key = t.{key}")
    }

    fn rows(&self, sizes: &Sizes) -> u64 {
        if self.table == "files" {
            sizes.files
        } else {
            sizes.sessions
        }
    }
}

/// A table of one service's payloads, as somebody without the extension would have it.
pub fn hand_made(session: &mut Session, service: &str) -> Result<()> {
    if session.one(&format!("SELECT to_regclass('bench.hand_{service}') IS NOT NULL"))? {
        return Ok(());
    }
    screen::note(&format!("a table with the payloads of {service} alone"));
    session.run(&format!(
        "CREATE TABLE bench.hand_{service} (cache_key text PRIMARY KEY, payload jsonb NOT NULL);
         INSERT INTO bench.hand_{service} SELECT cache_key, payload FROM enrichment_cache
         WHERE service = '{service}' AND payload IS NOT NULL"
    ))?;
    session.run(&format!("VACUUM ANALYZE bench.hand_{service}"))
}

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let sizes = Sizes::of(&bed.settings);
    let mut session = bed.session(MAIN)?;
    let mut findings = Findings::default();
    findings.say(
        "All sessions (for virustotal: all files) joined with a typed view, three or four of its columns aggregated; against the same join with a \
         table made by hand that holds nothing but this service's payloads (`cache_key text PRIMARY KEY, payload jsonb`), with the values taken out \
         and cast in the query (`(payload -> 'ip' ->> 'attacks')::bigint`). The hand-made query fails on an answer of another shape, the view does not. \
         No parallel workers, `work_mem = 256MB`, `hash_mem_multiplier = 2`.",
    );
    let mut plans = Table::new("Plans:", &["service", "view", "hand-made table"]);
    for question in QUESTIONS {
        let service = question.service;
        hand_made(&mut session, service)?;
        let (view, hand) = (question.of_view(), question.of_hand_made());
        same(&mut session, &view, &hand)?;
        session.run("RESET ALL")?;
        let shape = |plan: &Plan, table: &str| {
            let access = plan.access(&["enrichment_cache", table]).join(", ");
            format!("{}, cache by {access}", plan.join())
        };
        let hand_table = format!("hand_{service}");
        let plan = Plan::of(&mut session, &view)?;
        plans.row(&[
            service,
            &shape(&plan, ""),
            &shape(&Plan::of(&mut session, &hand)?, &hand_table).replace("cache by", "table by"),
        ]);
        let rows = question.rows(&sizes);
        let mut variants = vec![statement("view", "", &view, rows)];
        if plan.join() != "Hash Join" {
            variants.push(statement("view, by a hash join", ONLY_HASH_JOINS, &view, rows));
        }
        variants.push(statement("hand-made table", "", &hand, rows));
        let measured = in_turns(bed, &format!("join with {service}"), &mut session, variants)?;
        findings.table(Table::of(
            &format!("`{} JOIN enrichment_{service}`:", question.table),
            "ns a row",
            &measured,
            &[("× hand-made table", "hand-made table")],
        ));
        findings.target(Target::at_most(
            &format!("join with enrichment_{service}, × hand-made table"),
            1.15,
            measured.ratio("view", "hand-made table"),
        ));
        let claim = format!("join of all {} with enrichment_{service} plans as a hash join", question.table);
        findings.target(Target::holds(&claim, plan.join() == "Hash Join"));
    }
    findings.table(plans);
    Ok(findings)
}

/// Both give the same row.
fn same(session: &mut Session, view: &str, hand: &str) -> Result<()> {
    let text = |session: &mut Session, sql: &str| session.one::<String>(&format!("SELECT r::text FROM ({sql}) r"));
    let (ours, theirs) = (text(session, view)?, text(session, hand)?);
    if ours != theirs {
        return Err(format!("the view gives {ours}, the hand-made table {theirs}\n  in: {view}").into());
    }
    Ok(())
}
