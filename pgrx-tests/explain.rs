//! enrich_explain: a sentence for each step of the way.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{run, text};
    use pgrx::prelude::*;

    fn steps(service: &str, key: &str) -> Vec<String> {
        let said = text(&format!("SELECT enrich_explain('{service}', '{key}')"));
        let steps: Vec<String> = said.lines().map(str::to_string).collect();
        assert!(steps.iter().all(|step| step.ends_with('.')), "{said}");
        steps
    }

    /// Waits until this database has its worker: before that nobody asks.
    fn served() {
        run("DO $$ BEGIN
            FOR i IN 1..3000 LOOP
                EXIT WHEN NOT EXISTS (SELECT FROM enrichment_nobody_asks());
                PERFORM pg_sleep(0.01);
            END LOOP;
        END $$");
    }

    #[pg_test]
    fn explain_names_each_step_of_a_key_that_waits() {
        served();
        run("SELECT enrich_set_secret('spur', 'x')");
        run("SELECT enrich_request('spur', '9.95.0.1', 5), enrich_request('spur', '9.95.0.2'), enrich_request('spur', '9.95.0.3')");
        run("UPDATE enrichment_queue SET attempts = 2, last_outcome = 'error', last_error = 'HTTP 503' WHERE cache_key = '9.95.0.3'");
        let said = steps("spur", "9.95.0.3");
        assert_eq!(said.len(), 9, "{said:?}");
        for (n, part) in [
            (0, "spur has not answered for 9.95.0.3: the last attempt failed"),
            (1, "Eligible: yes, as ip 9.95.0.3."),
            (2, "Credential: SPUR_API_KEY is there."),
            (3, "Limits: 1 a second (0 spent, 1 left until "),
            (4, "Queue: 2 ahead of it, priority 0, requested at "),
            (5, "Breaker: closed, calls go out."),
            (6, "Last outcome: error, HTTP 503."),
            (7, "Rows: no attached table has this key."),
            (8, "Next: it waits for its turn under the limits of spur."),
        ] {
            assert!(said[n].starts_with(part), "{said:?}");
        }
        run("INSERT INTO enrichment_lane (service, paused_until, cause, reason, failures) VALUES ('spur', 'infinity', 'unauthorized', 'HTTP 401', 3)");
        let said = steps("spur", "9.95.0.3");
        assert_eq!(said[2], "Credential: SPUR_API_KEY is refused by the provider.");
        assert_eq!(
            said[5],
            "Breaker: spur is not asked until that is mended (unauthorized: HTTP 401), 3 failures in a row."
        );
    }

    #[pg_test]
    fn explain_tells_of_an_open_breaker() {
        run("INSERT INTO enrichment_lane (service, breaker, breaker_since, breaker_until, breaker_failures, breaker_reason)
            VALUES ('urlhaus', 'half_open', '2026-11-01 10:00+00', '2026-11-01 10:05+00', 6, 'HTTP 503.')");
        assert_eq!(
            steps("urlhaus", "9.95.2.1")[5],
            "Breaker: half open since 2026-11-01 10:00:00 UTC after 6 failures in a row (HTTP 503), one call tries again at 2026-11-01 10:05:00 UTC."
        );
    }

    #[pg_test]
    fn explain_says_what_is_missing_and_what_is_not_needed() {
        let said = steps("virustotal", &"a".repeat(64));
        assert_eq!(said[2], "Credential: VT_API_KEY is missing, give it with enrich_set_secret() or as a file.");
        assert_eq!((said[4].as_str(), said[6].as_str()), ("Queue: no request.", "Last outcome: none yet."));
        let said = steps("dshield", "10.1.1.1");
        assert_eq!(said[1..], ["Eligible: no, a private address."]);
        run("SELECT enrich_store('dshield', '9.95.1.1', '{}'), enrich_store('dshield', '9.95.1.2', '{\"a\": 1}')");
        run("SELECT enrich_store('dshield', '9.95.1.3', '{\"a\": 1}', fetched_at => now() - interval '30 days')");
        let said = steps("dshield", "9.95.1.3");
        assert!(said[0].contains(" UTC; it is not in the queue"), "{said:?}");
        let said = steps("dshield", "9.95.1.1");
        assert_eq!(said[2], "Credential: dshield needs none.");
        assert!(said[6].ends_with("which holds nothing and counts as no answer."), "{said:?}");
        assert!(!steps("dshield", "9.95.1.2")[6].contains("nothing"));
    }
    #[pg_test]
    fn explain_tells_what_became_of_the_rows() {
        run("CREATE TABLE explain_visits (ip inet, answers json); INSERT INTO explain_visits (ip) VALUES ('9.95.3.1'), ('9.95.3.1'), ('9.95.3.1');
            CREATE TABLE explain_joined (ip text);
            SELECT enrich_attach('explain_visits', 'ip', '{dshield,spur}', 'answers'), enrich_attach('explain_joined', 'ip', '{dshield}');
            INSERT INTO enrichment_indicator (source, raw_key, cache_key, row_count) VALUES
                ('explain_joined', '9.95.3.1', '9.95.3.1', 1), ('explain_visits', '9.95.3.1', '9.95.3.1', 3)");
        let rows = |service: &str| steps(service, "9.95.3.1").into_iter().find(|step| step.starts_with("Rows: "));
        let said = |text: &str| Some(format!("Rows: {text}."));
        let joined = "explain_joined (1): joined only, nothing is written";
        assert_eq!(rows("spur"), said("explain_visits (3): no answer to write yet"));
        run("SELECT enrich_store('dshield', '9.95.3.1', '{\"a\": 1}')");
        assert_eq!(rows("dshield"), said(&format!("{joined}; explain_visits (3): still to be written")));
        // written into two of three, and then by rights into all
        run("UPDATE enrichment_indicator SET dirty = false, written_at = '2026-11-01 10:00+00';
            UPDATE enrichment_source SET last_error = 'a trigger says no.' WHERE name = 'explain_visits';
            UPDATE explain_visits SET answers = '{\"_meta\": {\"dshield\": {}}, \"x\": \"\\u0000\"}' WHERE ctid <> '(0,1)'");
        assert_eq!(
            rows("dshield"),
            said(&format!("{joined}; explain_visits (3): 1 without the answer that is there (a trigger says no)"))
        );
        run("UPDATE explain_visits SET answers = '{\"_meta\": {\"dshield\": {}}}'");
        assert_eq!(rows("dshield"), said(&format!("{joined}; explain_visits (3): written")));
    }
}
