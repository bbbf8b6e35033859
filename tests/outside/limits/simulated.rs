//! Days of limits in seconds: server and providers go by a clock that the test sets forward, and what the providers noted
//! of each call's time is the judge.

use crate::support::{self, ask, wait_served, Base, SOON};
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use testbed::{wait_until, Clock, Cluster, Sandbox, StopMode};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 86_400 * SECOND;
/// 2040-02-27 00:00 UTC; that February has 29 days.
const MIDNIGHT: i64 = 2_213_913_600 * SECOND;
/// When time begins.
const BEGIN: i64 = MIDNIGHT - 30 * MINUTE;
/// 2040-03-01 00:00 UTC.
const MARCH: i64 = 2_214_172_800 * SECOND;

const WAITS: &str = "SELECT (EXTRACT(epoch FROM max(next_call_at)) * 1000000)::int8 FROM enrich_lane_waits()
    WHERE service = 'hibp' AND next_call_at > clock_timestamp()";
const CALLED: &str = "SELECT EXISTS (SELECT FROM enrichment_queue WHERE state = 'in_flight')";

struct Simulation {
    // the programs end before the clock
    base: Base,
    clock: Clock,
}

impl Simulation {
    /// Servers far from UTC, so that their days are not the providers'.
    fn begin(name: &'static str, limits: &str) -> Self {
        let clock = Clock::new(name);
        clock.advance_to(BEGIN);
        let cluster = Cluster::builder(name)
            .preload(true)
            .clock(&clock)
            .setting("autovacuum", "off")
            .setting("timezone", "Pacific/Auckland")
            // nobody is left to wait for
            .setting("enrichment_cache.sweep_interval", "0")
            .start()
            .unwrap_or_else(|why| panic!("{why}"));
        let base = Base::with_sandbox(&Arc::new(cluster), name, Sandbox::start_by(&clock, &["--limits", "none"]));
        base.run(&format!("UPDATE enrichment_service SET limits = '{limits}', max_in_flight = 8 WHERE name = 'hibp'"));
        Self { base, clock }
    }

    fn request(&self, n: u32) {
        self.base.run(&format!(
            "SELECT enrich_request_many('hibp', array_agg(upper(lpad(to_hex(n), 5, '0')))) FROM generate_series(1, {n}) n"
        ));
    }

    /// Waits until the worker has started and stored all that it may at this moment; until when it waits then.
    fn rest(&self, client: &mut Client) -> i64 {
        wait_until("the worker to wait for its limit", SOON, || {
            client.batch_execute("SELECT enrich_wake()").map_err(|why| support::said(&why))?;
            let until = ask::<Option<i64>>(client, WAITS)?;
            // looked at after it, as what is called now was claimed before it was said
            Ok(until.filter(|_| ask::<bool>(client, CALLED) == Ok(false)))
        })
    }

    /// Lets time pass until this moment, from one thing the worker waits for to the next.
    fn pass_until(&self, end: i64) {
        let mut client = self.base.client();
        loop {
            let next = self.rest(&mut client);
            if next >= end {
                return self.clock.advance_to(end);
            }
            self.clock.advance_to(next);
        }
    }

    /// When the calls arrived.
    fn calls(&self) -> Vec<i64> {
        self.base.sandbox.calls("hibp").into_iter().map(|(at, _)| at).collect()
    }
}

/// The most calls in any time of this length, and when they were made, in seconds since the first of them.
fn densest(calls: &[i64], length: i64) -> (usize, Vec<i64>) {
    let within = |first: usize| calls[first..].iter().take_while(move |at| **at < calls[first] + length);
    let first = (0..calls.len()).max_by_key(|first| within(*first).count()).unwrap_or(0);
    let made: Vec<i64> = within(first).map(|at| (at - calls[first]) / SECOND).collect();
    (made.len(), made)
}

fn in_day(calls: &[i64], day: i64) -> usize {
    calls.iter().filter(|at| (day..day + DAY).contains(at)).count()
}

#[test]
fn a_simulated_day_spends_what_the_public_limits_allow_and_no_call_more() {
    let simulation = Simulation::begin(
        "simulated_day",
        r#"[{"max": 4, "per": "minute"}, {"max": 500, "per": "day"}, {"max": 15500, "per": "month"}]"#,
    );
    simulation.request(1_200);
    simulation.pass_until(MIDNIGHT - SECOND);
    let calls = simulation.calls();
    // half an hour at four in 61.2 s
    assert!((112..=120).contains(&calls.len()), "{} calls in the last half hour of the day", calls.len());
    simulation.pass_until(MIDNIGHT + DAY - SECOND);
    let calls = simulation.calls();
    let (most, made) = densest(&calls, MINUTE);
    assert_eq!(most, 4, "{made:?}");
    assert_eq!(in_day(&calls, MIDNIGHT), 500);
    // the next day begins at midnight in UTC, and not at the server's
    simulation.pass_until(MIDNIGHT + DAY + SECOND);
    simulation.rest(&mut simulation.base.client());
    let calls = simulation.calls();
    assert_eq!(in_day(&calls, MIDNIGHT + DAY), 4);
    let attempts = "SELECT count(*) FROM enrichment_queue WHERE attempts > 0 OR last_outcome IS NOT NULL";
    assert_eq!(simulation.base.one::<i64>(attempts), 0, "a limit is no failed attempt");
}

#[test]
fn a_month_is_used_up_and_the_next_one_begins_at_midnight_utc() {
    let simulation = Simulation::begin("simulated_month", r#"[{"max": 8, "per": "day"}, {"max": 20, "per": "month"}]"#);
    simulation.request(60);
    simulation.pass_until(MARCH - SECOND);
    let february = simulation.calls();
    let by_day = [MIDNIGHT - DAY, MIDNIGHT, MIDNIGHT + DAY, MIDNIGHT + 2 * DAY].map(|day| in_day(&february, day));
    assert_eq!((february.len(), by_day), (20, [8, 8, 4, 0]), "the 26th to the 29th");
    let shown =
        "SELECT per || ' ' || to_char(resets_at AT TIME ZONE 'UTC', 'MM-DD HH24:MI') FROM enrichment_quota_status
        WHERE service = 'hibp' AND remaining = 0";
    assert_eq!(simulation.base.one::<String>(shown), "month 03-01 00:00");
    let known =
        "SELECT to_char(next_attempt_at AT TIME ZONE 'UTC', 'MM-DD HH24:MI') FROM enrich_lookup('hibp', '0003C')";
    assert_eq!(simulation.base.one::<String>(known), "03-01 00:00", "it waits, and is known until when");

    simulation.pass_until(MARCH + SECOND);
    simulation.rest(&mut simulation.base.client());
    let calls = simulation.calls();
    assert_eq!(calls.len(), 28);
    assert!(calls[20] >= MARCH, "{} before the month's end", MARCH - calls[20]);
}

#[test]
fn calls_at_the_end_of_a_day_are_counted_on_the_next_one_too() {
    let simulation = Simulation::begin("simulated_border", r#"[{"max": 8, "per": "day"}]"#);
    simulation.clock.advance_to(MIDNIGHT - 3 * SECOND);
    simulation.request(30);
    simulation.rest(&mut simulation.base.client());
    assert_eq!(simulation.calls().len(), 8);
    simulation.pass_until(MIDNIGHT + DAY - MINUTE);
    // by a clock that is some seconds ahead they were made on this day
    let early = MIDNIGHT - 5 * SECOND;
    assert_eq!(in_day(&simulation.calls(), early), 8);
    simulation.pass_until(MIDNIGHT + DAY + SECOND);
    simulation.rest(&mut simulation.base.client());
    assert_eq!(in_day(&simulation.calls(), MIDNIGHT + DAY), 8, "the day after has its own");
}

#[test]
fn even_calls_are_spread_over_the_day() {
    let simulation = Simulation::begin("simulated_pace", r#"[{"max": 24, "per": "day", "even": true}]"#);
    simulation.request(60);
    simulation.pass_until(MIDNIGHT + DAY);
    let mut calls = simulation.calls();
    calls.retain(|at| (MIDNIGHT..MIDNIGHT + DAY).contains(at));
    assert_eq!(calls.len(), 24, "the whole day's allowance");
    let apart: Vec<i64> = calls.windows(2).map(|two| (two[1] - two[0]) / MINUTE).collect();
    assert!(apart.iter().all(|minutes| (55..=65).contains(minutes)), "{apart:?}");
}

/// Ends the sessions that fetch, at the end of its life.
struct End<'a> {
    ended: &'a AtomicBool,
    simulation: &'a Simulation,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let ends = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE backend_type = 'client backend' AND query LIKE 'SELECT enrich_fetch%'";
        if let Ok(mut client) = self.simulation.base.cluster.try_client("postgres") {
            let _ = client.batch_execute(ends);
        }
    }
}

/// VirusTotal's public limits again, with sessions that all want something else at the same time.
#[test]
fn eight_sessions_and_restarts_in_mid_window_never_exceed_a_minute_or_the_day() {
    let simulation =
        Simulation::begin("simulated_restarts", r#"[{"max": 4, "per": "minute"}, {"max": 30, "per": "day"}]"#);
    let Simulation { clock, base } = &simulation;
    let ended = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for session in 0..8 {
            let ended = &ended;
            threads.spawn(move || {
                for key in 0.. {
                    // a session that the server's end has taken with it comes back
                    let client = base.cluster.try_client(&base.name);
                    if ended.load(Ordering::SeqCst) {
                        return;
                    }
                    if let Ok(mut client) = client {
                        let sql = format!("SELECT enrich_fetch('hibp', '{:05X}', '1 day')", session * 256 + key % 256);
                        let _ = client.batch_execute(&sql);
                    } else {
                        std::thread::yield_now();
                    }
                }
            });
        }
        // also when something here fails: the sessions must not go on for ever
        let _end = End { ended: &ended, simulation: &simulation };
        for round in 0..6 {
            let next = simulation.rest(&mut base.client());
            // in the middle of a window in which four calls were made
            clock.advance_to(clock.now() + 25 * SECOND);
            base.cluster.stop([StopMode::Immediate, StopMode::Fast][round % 2]).expect("a stop");
            base.cluster.start_again().expect("a start");
            wait_served(&base.cluster, &base.name);
            let after = simulation.rest(&mut base.client());
            assert!(after >= next - SECOND, "the restart made a window new");
            clock.advance_to(after);
        }
        simulation.pass_until(MIDNIGHT + 10 * MINUTE);
    });
    let calls = simulation.calls();
    let (most, made) = densest(&calls, MINUTE);
    assert_eq!(most, 4, "{made:?}");
    assert_eq!(in_day(&calls, MIDNIGHT - DAY), 30, "the day's allowance is used up");
    assert!(in_day(&calls, MIDNIGHT) > 4, "the next day goes on");
}
