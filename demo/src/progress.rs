//! How far the work is: one reading of the extension's views, as plain values.

use crate::services::FAST;
use crate::Result;
use postgres::{Client, Row};

/// One line per service. A window that is used up counts when it is longer than a second: shorter ones are the
/// limiter's daily work, not waiting. Times are text in the server's time zone.
const READING: &str = "
WITH coverage AS (
    SELECT service, sum(eligible)::bigint AS eligible, sum(answered)::bigint AS answered,
           sum(failed)::bigint AS failed
    FROM enrichment_coverage GROUP BY service),
windows AS (
    SELECT service, string_agg(max || '/' || per, ' + ' ORDER BY window_start DESC, max) AS limits,
           max(paused_until) FILTER (WHERE paused_until > now()) AS paused_until,
           max(pause_reason) AS pause_reason
    FROM enrichment_quota_status GROUP BY service),
used_up AS (
    SELECT DISTINCT ON (service) service, per, max, resets_at
    FROM enrichment_quota_status
    WHERE remaining <= 0 AND per <> 'second' AND resets_at > now() ORDER BY service, resets_at DESC),
calls AS (
    SELECT service, sum(api_calls)::bigint AS calls FROM enrichment_cache_stats GROUP BY service)
SELECT c.service, c.eligible, c.answered, c.failed,
       coalesce(q.waiting + q.in_flight, 0)::bigint AS queued,
       coalesce(calls.calls, 0)::bigint AS calls, coalesce(w.limits, 'no limit') AS limits,
       to_char(coalesce(w.paused_until, u.resets_at), 'HH24:MI:SS') AS waiting_until,
       CASE WHEN w.paused_until IS NOT NULL THEN coalesce(w.pause_reason, 'paused')
            WHEN u.service IS NOT NULL THEN u.max || '/' || u.per || ' used up' END AS waiting_because,
       to_char(e.eta, 'HH24:MI:SS') AS eta, extract(epoch FROM e.eta - now())::bigint AS seconds_left
FROM coverage c
LEFT JOIN windows w USING (service)
LEFT JOIN used_up u USING (service)
LEFT JOIN calls USING (service)
LEFT JOIN enrichment_queue_status q USING (service)
LEFT JOIN enrichment_eta e USING (service)
ORDER BY array_position('{dshield,urlhaus,spur,hibp,virustotal}', c.service)";

/// Rows of the user's table that hold an answer, and keys that stand between: not yet folded, not yet written back.
const ROWS: &str = "
SELECT (SELECT count(*) FROM session_summaries),
       (SELECT count(*) FROM session_summaries WHERE enrichment->>'dshield' IS NOT NULL),
       (SELECT count(*) FROM enrichment_arrival),
       (SELECT count(*) FROM enrichment_indicator i JOIN enrichment_source s ON s.name = i.source
         WHERE i.dirty AND NOT s.services @> '{virustotal}')";

/// One service's progress, in distinct keys over all sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    pub eligible: u64,
    pub answered: u64,
    pub failed: u64,
    pub queued: u64,
    pub calls: u64,
    /// As `20/second` or `30/minute + 500/day`.
    pub limits: String,
    /// Until when the limiter or a pause holds the service back, as a time of day.
    pub waiting_until: Option<String>,
    pub waiting_because: Option<String>,
    /// The extension's own forecast, as a time of day.
    pub eta: Option<String>,
    pub seconds_left: Option<i64>,
}

impl Service {
    /// Every key is answered, or has failed for good and waits for nothing.
    pub fn is_complete(&self) -> bool {
        self.answered >= self.eligible || (self.queued == 0 && self.answered + self.failed >= self.eligible)
    }

    /// What the service does at this moment, until when and why it waits, and when it will be done.
    pub fn state(&self) -> String {
        if self.is_complete() {
            return match self.failed {
                0 => "complete".into(),
                failed => format!("complete, {failed} failed"),
            };
        }
        let doing = match &self.waiting_until {
            Some(time) => format!("waiting until {time}"),
            None => "working".into(),
        };
        let eta = self.eta.as_ref().map(|eta| format!(", done about {eta}")).unwrap_or_default();
        let why = self.waiting_because.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        doing + &eta + &why
    }
}

/// Everything the display needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub services: Vec<Service>,
    pub rows: u64,
    pub rows_filled: u64,
    /// Keys reported by the triggers and not yet looked at.
    pub arrivals: u64,
    /// Answers not yet written into the user's rows, VirusTotal's aside.
    pub unwritten: u64,
}

impl Progress {
    /// Asks the database.
    ///
    /// # Errors
    /// The server's.
    pub fn read(client: &mut Client) -> Result<Progress> {
        let services = client.query(READING, &[])?.iter().map(service).collect();
        let row = client.query_one(ROWS, &[])?;
        Ok(Progress {
            services,
            rows: count(&row, 0),
            rows_filled: count(&row, 1),
            arrivals: count(&row, 2),
            unwritten: count(&row, 3),
        })
    }

    fn fast(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(|service| FAST.contains(&service.name.as_str()))
    }

    /// The four fast services have answered everything, and the rows are written.
    pub fn is_complete(&self) -> bool {
        self.arrivals == 0
            && self.unwritten == 0
            && self.fast().count() == FAST.len()
            && self.fast().all(|service| service.eligible > 0 && service.is_complete())
    }

    /// Share of the fast services' keys that are answered, in per cent.
    pub fn percent(&self) -> u64 {
        let eligible: u64 = self.fast().map(|service| service.eligible).sum();
        let answered: u64 = self.fast().map(|service| service.answered).sum();
        (answered * 100).checked_div(eligible).unwrap_or(0)
    }

    /// When the last fast service will be complete, by the extension's own forecast.
    pub fn eta(&self) -> Option<&str> {
        self.fast()
            .filter(|service| !service.is_complete())
            .max_by_key(|service| service.seconds_left)
            .and_then(|service| service.eta.as_deref())
    }
}

fn count(row: &Row, column: usize) -> u64 {
    u64::try_from(row.get::<_, i64>(column)).unwrap_or(0)
}

fn service(row: &Row) -> Service {
    Service {
        name: row.get(0),
        eligible: count(row, 1),
        answered: count(row, 2),
        failed: count(row, 3),
        queued: count(row, 4),
        calls: count(row, 5),
        limits: row.get(6),
        waiting_until: row.get(7),
        waiting_because: row.get(8),
        eta: row.get(9),
        seconds_left: row.get(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> Progress {
        let service =
            |name: &&str| Service { name: name.to_string(), eligible: 10, answered: 10, ..Service::default() };
        Progress { services: FAST.iter().map(service).collect(), ..Progress::default() }
    }

    #[test]
    fn the_demo_goes_on_when_the_fast_services_are_complete() {
        let mut progress = complete();
        progress.services.push(Service {
            name: "virustotal".into(),
            eligible: 200,
            answered: 30,
            ..Service::default()
        });
        assert!(progress.is_complete());
        assert_eq!(progress.percent(), 100);
    }

    #[test]
    fn a_missing_or_empty_service_is_not_complete() {
        let mut progress = complete();
        progress.services[0].eligible = 0;
        assert!(!progress.is_complete());
        progress.services.remove(0);
        assert!(!progress.is_complete());
    }

    #[test]
    fn answers_not_yet_in_the_rows_are_waited_for() {
        assert!(!Progress { unwritten: 1, ..complete() }.is_complete());
        assert!(!Progress { arrivals: 1, ..complete() }.is_complete());
    }

    #[test]
    fn a_failed_key_with_a_retry_ahead_is_waited_for() {
        let mut progress = complete();
        progress.services[1] = Service { failed: 1, queued: 1, answered: 9, ..progress.services[1].clone() };
        assert!(!progress.is_complete());
        progress.services[1].queued = 0;
        assert!(progress.is_complete());
        assert_eq!(progress.services[1].state(), "complete, 1 failed");
    }

    #[test]
    fn a_waiting_service_says_until_when_and_why_and_when_it_will_be_done() {
        let mut service = Service { name: "virustotal".into(), eligible: 200, answered: 30, ..Service::default() };
        assert_eq!(service.state(), "working");
        service.waiting_until = Some("12:01:00".into());
        service.waiting_because = Some("30/minute used up".into());
        service.eta = Some("12:06:00".into());
        assert_eq!(service.state(), "waiting until 12:01:00, done about 12:06:00 (30/minute used up)");
        service.answered = 200;
        assert_eq!(service.state(), "complete");
    }
}
