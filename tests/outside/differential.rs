//! Whatever happens to the cache, and in whatever order, enrich_get answers what plain SQL answers under the same
//! snapshot. `ENRICHMENT_DIFFERENTIAL_SEED` repeats a run, `ENRICHMENT_DIFFERENTIAL_STEPS` makes it longer.

mod session;
mod standby;
mod steps;
mod storm;

use crate::reads::{agree, Dice, Reads, Seen};
use crate::support::{one, run};
use session::{Outcome, Refusal, Session, Transaction, Ways, ISOLATION, MEMOS};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::SystemTime;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// The seed of this run, said where a failing test shows it.
pub fn seed() -> u64 {
    let seed = setting("ENRICHMENT_DIFFERENTIAL_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(1, |now| now.as_micros() as u64 % 1_000_000_007)
    });
    eprintln!("ENRICHMENT_DIFFERENTIAL_SEED={seed}");
    seed
}

/// How many steps a test takes: `default`, or as many as asked for.
pub fn steps_wanted(default: usize) -> usize {
    setting("ENRICHMENT_DIFFERENTIAL_STEPS").map_or(default, |steps| steps as usize)
}

/// Several sessions, and what has been done in them.
pub struct Play {
    seed: u64,
    dice: Dice,
    sessions: Vec<Session>,
    upkeep: Session,
    prepared: Vec<String>,
    log: String,
    step: usize,
    seen: Seen,
    /// Passes under an open cursor.
    passes_of_cursors: i64,
    ended: BTreeMap<String, usize>,
}

impl Play {
    pub fn new(reads: &Reads, seed: u64) -> Play {
        let mut dice = Dice::new(seed);
        reads.fill_crowd();
        let first = dice.below(MEMOS.len());
        let mut ways = MEMOS.iter().cycle().skip(first).map(|memo| Ways { memo, workers: false });
        let mut sessions: Vec<_> =
            ['a', 'b', 'c', 'u'].map(|name| Session::new(reads, name, ways.next().expect("a cycle"))).into();
        sessions.insert(3, Session::new(reads, 'd', Ways { memo: dice.pick(&MEMOS[1..]), workers: true }));
        // only one session runs at a time here, and nobody lets go meanwhile
        sessions.iter_mut().for_each(|session| run(&mut session.client, "SET lock_timeout = '10ms'"));
        let mut upkeep = sessions.pop().expect("five sessions");
        run(&mut upkeep.client, "SET statement_timeout = '500ms'");
        let (prepared, log, ended) = (Vec::new(), String::new(), BTreeMap::new());
        Play {
            seed,
            dice,
            sessions,
            upkeep,
            prepared,
            log,
            step: 0,
            seen: Seen::default(),
            passes_of_cursors: 0,
            ended,
        }
    }

    /// One step in one session, then a look from all of them.
    pub fn step(&mut self) {
        self.step += 1;
        let who = self.dice.below(self.sessions.len());
        match (self.dice.below(100), self.sessions[who].open.is_some()) {
            (0..4, _) => self.finish_prepared(),
            (4..8, _) => {
                let sql = steps::upkeep(&mut self.dice);
                self.run_upkeep(sql);
            }
            (8..10, _) => self.alone(),
            (10..50, false) => self.begin(who),
            (50..56, false) => {
                let call = steps::procedure(&mut self.dice);
                self.run(who, &call);
            }
            (10..18, true) => self.savepoint(who),
            (18..26, true) => self.back(who),
            (26..30, true) => self.release(who),
            (30..42, true) => self.end(who),
            (42..46, true) => self.prepare(who),
            (46..56, _) => self.cursor(who),
            _ => {
                let sql = steps::statement(&mut self.dice);
                self.run(who, &sql);
            }
        }
        self.look(who);
    }

    fn note(&mut self, who: &str, sql: &str, outcome: Outcome) -> bool {
        let (done, ended) = match outcome {
            Ok(()) => (true, "ok".to_string()),
            Err(Refusal::Expected(code)) => (false, code),
            Err(Refusal::Defect(what)) => self.defect(who, &what),
        };
        let _ = writeln!(self.log, "#{} {who} {sql} -> {ended}", self.step);
        *self.ended.entry(ended).or_default() += 1;
        done
    }

    fn defect(&self, who: &str, what: &str) -> ! {
        let Play { seed, step, log, .. } = self;
        panic!("seed {seed}, step {step}, session {who}:\n{what}\n--- the steps ---\n{log}")
    }

    fn run(&mut self, who: usize, sql: &str) -> bool {
        let name = self.sessions[who].to_string();
        let outcome = self.sessions[who].run(sql);
        self.note(&name, sql, outcome)
    }

    fn run_upkeep(&mut self, sql: &str) {
        let outcome = self.upkeep.run(sql);
        self.note("upkeep", sql, outcome);
    }

    fn begin(&mut self, who: usize) {
        let isolation = self.dice.pick(&ISOLATION);
        let read_only = self.dice.percent(12);
        let read = if read_only { "READ ONLY" } else { "READ WRITE" };
        if self.run(who, &format!("BEGIN ISOLATION LEVEL {isolation} {read}")) {
            self.sessions[who].open = Some(Transaction { isolation, read_only, savepoints: 0, statements: 0 });
        }
    }

    fn savepoint(&mut self, who: usize) {
        let Some(depth) = self.sessions[who].open.as_ref().map(|open| open.savepoints + 1) else { return };
        if depth <= 5 && self.run(who, &format!("SAVEPOINT s{depth}")) {
            self.set_savepoints(who, depth);
        }
    }

    fn set_savepoints(&mut self, who: usize, depth: usize) {
        if let Some(open) = &mut self.sessions[who].open {
            open.savepoints = depth;
        }
    }

    /// Back to a savepoint, which stays; cursors opened since are gone.
    fn back(&mut self, who: usize) {
        let Some(depth) = self.sessions[who].open.as_ref().map(|open| open.savepoints).filter(|n| *n > 0) else {
            return;
        };
        let to = 1 + self.dice.below(depth);
        if self.run(who, &format!("ROLLBACK TO SAVEPOINT s{to}")) {
            self.set_savepoints(who, to);
            // one opened before is still there, but it is simpler to give it up
            self.sessions[who].cursor = None;
            self.run(who, "CLOSE ALL");
        }
    }

    fn release(&mut self, who: usize) {
        let Some(depth) = self.sessions[who].open.as_ref().map(|open| open.savepoints).filter(|n| *n > 0) else {
            return;
        };
        let to = 1 + self.dice.below(depth);
        if self.run(who, &format!("RELEASE SAVEPOINT s{to}")) {
            self.set_savepoints(who, to - 1);
        }
    }

    fn end(&mut self, who: usize) {
        if self.sessions[who].open.is_none() {
            return;
        }
        if self.dice.percent(70) {
            if self.run(who, "COMMIT") {
                self.ended_well(who);
            }
        } else {
            self.sessions[who].end("ROLLBACK");
            self.note(&self.sessions[who].name.to_string(), "ROLLBACK", Ok(()));
        }
    }

    /// The transaction is over, and with it a cursor that is not held.
    fn ended_well(&mut self, who: usize) {
        self.sessions[who].open = None;
        self.sessions[who].cursor = self.sessions[who].cursor.filter(|hold| *hold);
    }

    fn prepare(&mut self, who: usize) {
        if self.sessions[who].open.is_none() || self.prepared.len() >= 2 {
            return;
        }
        let name = format!("{}-{}", self.seed, self.step);
        if self.run(who, &format!("PREPARE TRANSACTION '{name}'")) {
            self.ended_well(who);
            self.prepared.push(name);
        }
    }

    fn finish_prepared(&mut self) {
        if self.prepared.is_empty() {
            return;
        }
        let which = self.dice.below(self.prepared.len());
        let name = self.prepared.swap_remove(which);
        let how = if self.dice.percent(60) { "COMMIT" } else { "ROLLBACK" };
        self.run_upkeep(&format!("{how} PREPARED '{name}'"));
    }

    /// Opens a cursor, or reads on in the open one.
    fn cursor(&mut self, who: usize) {
        match (self.sessions[who].cursor, &self.sessions[who].open) {
            (Some(_), _) => {
                let most = self.dice.pick(&[60, 600]);
                let rows = 1 + self.dice.below(most);
                let session = &mut self.sessions[who];
                let _ = writeln!(self.log, "#{} {session} FETCH {rows}", self.step);
                let fetched = session.fetch(rows);
                self.passes_of_cursors += fetched.as_ref().map_or(0, |seen| seen.passes);
                self.judge(who, fetched);
            }
            (None, Some(_)) => {
                let hold = self.dice.percent(40);
                let kind = if hold { "WITH HOLD" } else { "WITHOUT HOLD" };
                let from = self.dice.pick(&["0::int8 FROM glance", "passes FROM crowded"]);
                let sql = format!(
                    "DECLARE look NO SCROLL CURSOR {kind} FOR
                    SELECT concat_ws(' ', form, service, raw), got::text, want::text, {from}"
                );
                if self.run(who, &sql) {
                    self.sessions[who].cursor = Some(hold);
                }
            }
            (None, None) => {}
        }
    }

    /// Ends every transaction, then does what nobody may be in the way of.
    fn alone(&mut self) {
        for who in 0..self.sessions.len() {
            self.end(who);
        }
        while !self.prepared.is_empty() {
            self.finish_prepared();
        }
        let sql = steps::exclusive(&mut self.dice);
        self.run_upkeep(sql);
        if self.dice.percent(60) {
            let sql = steps::crowd_again(&mut self.dice);
            self.run_upkeep(&sql);
        }
        // what a REINDEX CONCURRENTLY that had to give up has left
        self.run_upkeep(
            "DO $$ DECLARE left_over text; BEGIN
                FOR left_over IN SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid AND indrelid > 16383 LOOP
                    EXECUTE 'DROP INDEX ' || left_over;
                END LOOP;
            END $$",
        );
    }

    fn look(&mut self, acted: usize) {
        for who in 0..self.sessions.len() {
            let views: &[&str] = match () {
                () if self.step.is_multiple_of(10) => &["compared", "wrapped", "crowded"],
                () if who == acted => &["compared", "crowded"],
                () => &["glance"],
            };
            for view in views {
                let seen = self.sessions[who].compare(view);
                self.judge(who, seen);
            }
        }
    }

    fn judge(&mut self, who: usize, seen: Result<Seen, String>) {
        match seen {
            Ok(seen) => self.seen += seen,
            Err(differences) => self.defect(&self.sessions[who].to_string(), &differences),
        }
    }

    /// Ends everything that is open; returns what was seen.
    pub fn end_all(&mut self) -> Seen {
        for session in &mut self.sessions {
            if session.open.is_some() {
                session.end("ROLLBACK");
            }
        }
        while !self.prepared.is_empty() {
            self.finish_prepared();
        }
        let Play { step, seen: Seen { answers, by_workers, passes }, passes_of_cursors, ended, .. } = self;
        eprintln!(
            "{step} steps, {answers} answers, {by_workers} comparisons by workers, {passes} passes over the table, \
            {passes_of_cursors} of them under a cursor; statements: {ended:?}"
        );
        self.seen
    }
}

/// amcheck finds nothing wrong with the extension's tables and indexes.
pub fn check_relations(reads: &Reads) {
    let mut client = reads.client();
    run(&mut client, "CREATE EXTENSION IF NOT EXISTS amcheck");
    let indexes: i64 = one(
        &mut client,
        "SELECT count(bt_index_parent_check(i.indexrelid, heapallindexed => true, rootdescend => true)::text)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
        WHERE a.amname = 'btree' AND i.indisvalid AND i.indrelid::regclass::text LIKE 'enrichment%'",
    );
    assert!(indexes > 10, "{indexes}");
    let damage: String = one(
        &mut client,
        "SELECT coalesce(string_agg(format('%s block %s: %s', c.relname, v.blkno, v.msg), chr(10)), '')
        FROM pg_class c CROSS JOIN LATERAL verify_heapam(c.oid, check_toast => true) v
        WHERE c.relkind = 'r' AND c.relname LIKE 'enrichment%'",
    );
    assert_eq!(damage, "");
}

#[test]
fn enrich_get_answers_as_plain_sql_whatever_happens_to_the_cache() {
    let reads = Reads::apart("differential");
    let mut play = Play::new(&reads, seed());
    let steps = steps_wanted(300);
    (0..steps).for_each(|_| play.step());
    let Seen { answers, by_workers, passes } = play.end_all();
    assert!(answers > 20 * steps as i64, "{answers} answers in {steps} steps");
    assert!(by_workers > steps / 2, "{by_workers} comparisons by parallel workers in {steps} steps");
    assert!(passes > steps as i64 / 4, "{passes} passes over the table in {steps} steps");
    agree(&mut reads.client());
    check_relations(&reads);
}
