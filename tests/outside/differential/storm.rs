//! The same comparison while other processes really write, vacuum and rebuild the table at the same moment.

use super::session::{Refusal, Session, Ways, ISOLATION};
use super::{check_relations, seed, steps, steps_wanted};
use crate::reads::{agree, agree_in, Dice, Reads, Seen};
use crate::support::{one, run, said};
use std::sync::atomic::{AtomicBool, Ordering};

/// What a process among others has to live with; of "could not" there is more here than where one acts at a time.
const EXPECTED: [&str; 7] = ["40001", "40P01", "55P03", "23505", "57014", "55006", "25P02"];

fn may_fail(client: &mut postgres::Client, sql: &str) -> bool {
    match client.batch_execute(sql) {
        Ok(()) => true,
        Err(error) => {
            let code = error.code().map_or("", |code| code.code());
            assert!(EXPECTED.contains(&code) || steps::known_bug(sql, &error), "{sql}: {}", said(&error));
            false
        }
    }
}

/// Short transactions, a third of them undone; says how many were committed that had done something.
fn write(reads: &Reads, mut dice: Dice, stop: &AtomicBool) -> usize {
    let mut client = reads.client();
    let mut committed = 0;
    run(&mut client, "SET lock_timeout = '300ms'; SET client_min_messages = error");
    while !stop.load(Ordering::Relaxed) {
        let statements: Vec<String> = (0..1 + dice.below(4)).map(|_| steps::statement(&mut dice)).collect();
        // what compares two statements needs one snapshot for both
        let isolation = dice.pick(&["REPEATABLE READ", "SERIALIZABLE"]);
        let mut going = may_fail(&mut client, &format!("BEGIN ISOLATION LEVEL {isolation}"));
        for sql in &statements {
            going = going && may_fail(&mut client, "SAVEPOINT s") && may_fail(&mut client, sql);
            if dice.percent(20) {
                going = may_fail(&mut client, "ROLLBACK TO SAVEPOINT s");
            }
        }
        // the COMMIT of a transaction that has failed undoes it, and succeeds
        let wrote = going && one::<bool>(&mut client, "SELECT pg_current_xact_id_if_assigned() IS NOT NULL");
        let end = if dice.percent(66) { "COMMIT" } else { "ROLLBACK" };
        if !may_fail(&mut client, end) {
            run(&mut client, "ROLLBACK");
        } else if wrote && end == "COMMIT" {
            committed += 1;
        }
    }
    committed
}

/// Vacuums and rebuilds; says how many of each went through.
fn keep_up(reads: &Reads, mut dice: Dice, stop: &AtomicBool) -> [usize; 2] {
    let mut client = reads.client();
    let mut done = [0, 0];
    run(&mut client, "SET lock_timeout = '500ms'; SET statement_timeout = '3s'; SET client_min_messages = error");
    while !stop.load(Ordering::Relaxed) {
        let rebuilds = dice.percent(50);
        let sql = if rebuilds { steps::rewrite(&mut dice) } else { steps::upkeep(&mut dice) };
        if may_fail(&mut client, sql) {
            done[usize::from(rebuilds)] += 1;
        } else {
            // what a REINDEX CONCURRENTLY that had to give up has left
            let left = "SELECT indexrelid::regclass::text FROM pg_index
                WHERE NOT indisvalid AND indrelid IN ('enrichment_cache'::regclass,
                    (SELECT reltoastrelid FROM pg_class WHERE oid = 'enrichment_cache'::regclass))";
            for row in client.query(left, &[]).unwrap_or_else(|why| panic!("{}", said(&why))) {
                may_fail(&mut client, &format!("DROP INDEX {}", row.get::<_, &str>(0)));
            }
        }
    }
    done
}

fn read(reads: &Reads, isolation: &str, ways: Ways, mut dice: Dice, rounds: usize) -> Seen {
    let mut session = Session::new(reads, 'r', ways);
    let mut all = Seen::default();
    for _ in 0..rounds {
        if may_fail(&mut session.client, &format!("BEGIN ISOLATION LEVEL {isolation}")) {
            for _ in 0..1 + dice.below(3) {
                let view = dice.pick(&["glance", "crowded", "compared"]);
                match session.compare(view) {
                    // an error that a client has to live with: the transaction can only be ended
                    Ok(Seen { answers: 0, .. }) => break,
                    Ok(seen) => all += seen,
                    Err(differences) => panic!("{isolation}, {view}:\n{differences}"),
                }
            }
        }
        if let Err(Refusal::Defect(what)) = session.run("COMMIT") {
            panic!("{isolation}: {what}");
        }
    }
    all
}

#[test]
fn enrich_get_answers_as_plain_sql_while_others_write_and_rebuild() {
    let reads = Reads::apart("storm");
    reads.fill_crowd();
    let seed = seed();
    let stop = AtomicBool::new(false);
    let rounds = steps_wanted(100);
    let dice = |of: u64| Dice::new(seed.wrapping_mul(31).wrapping_add(of));
    let (mut one_by_one, mut by_workers) = (Seen::default(), Seen::default());
    let (committed, kept_up) = std::thread::scope(|scope| {
        let writers = [0, 1].map(|of| {
            scope.spawn({
                let (reads, dice, stop) = (&reads, dice(of), &stop);
                move || write(reads, dice, stop)
            })
        });
        let upkeep = scope.spawn(|| keep_up(&reads, dice(7), &stop));
        let ways = [Ways { memo: "64kB", workers: false }, Ways { memo: "256MB", workers: true }];
        let readers: Vec<_> = ways
            .into_iter()
            .flat_map(|ways| ISOLATION.map(|isolation| (ways, isolation)))
            .zip(10..)
            .map(|((ways, isolation), of)| {
                let (reads, dice) = (&reads, dice(of));
                (ways, scope.spawn(move || read(reads, isolation, ways, dice, rounds / 2)))
            })
            .collect();
        let mut failed = None;
        for (ways, reader) in readers {
            match reader.join() {
                Ok(seen) if ways.workers => by_workers += seen,
                Ok(seen) => one_by_one += seen,
                Err(panic) => failed = Some(panic),
            }
        }
        stop.store(true, Ordering::Relaxed);
        if let Some(panic) = failed {
            std::panic::resume_unwind(panic);
        }
        let committed = writers.map(|writer| writer.join().expect("a writer that goes on"));
        (committed, upkeep.join().expect("upkeep that goes on"))
    });
    let all = one_by_one.answers + by_workers.answers;
    eprintln!(
        "{all} answers, {} comparisons by workers, {} and {} passes, {committed:?} transactions, {kept_up:?} of upkeep",
        by_workers.by_workers, one_by_one.passes, by_workers.passes
    );
    assert!(all > 20 * rounds as i64, "{all} answers in {rounds} rounds");
    assert!(by_workers.by_workers > rounds / 2, "{} comparisons by parallel workers", by_workers.by_workers);
    assert!(one_by_one.passes > 0 && by_workers.passes > 0, "no pass over the table");
    assert!(committed.iter().all(|transactions| *transactions > 0), "{committed:?} transactions went through");
    assert!(kept_up.iter().all(|times| *times > 0), "{kept_up:?} vacuums and rebuilds went through");
    agree(&mut reads.client());
    check_relations(&reads);
}

/// A key that somebody deletes after this snapshot and that its transaction then stores again is there twice for it: each
/// row is an answer, whichever of them is still fresh.
#[test]
fn of_a_key_that_is_seen_twice_either_row_is_an_answer() {
    let reads = Reads::apart("twice");
    let (mut mine, mut others) = (reads.client(), reads.client());
    let rows = [
        "made(1), 'success', now() + interval '1 hour'",
        "made(2), 'success', now() - interval '30 minutes'",
        "NULL, 'not_found', now() + interval '1 hour'",
    ];
    for old in rows {
        for new in rows {
            let insert = |row: &str| {
                format!(
                    "INSERT INTO enrichment_cache (service, cache_key, payload, response_status, expires_at)
                    SELECT service, cache_key, {row} FROM universe WHERE n = 2"
                )
            };
            run(&mut others, "DELETE FROM enrichment_cache");
            run(&mut others, &insert(old));
            run(&mut mine, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM glance");
            run(&mut others, "DELETE FROM enrichment_cache");
            run(&mut mine, &insert(new));
            assert_eq!(one::<i64>(&mut mine, "SELECT count(*) FROM enrichment_cache"), 2, "{old}; {new}");
            for view in ["glance", "compared", "wrapped"] {
                agree_in(&mut mine, view);
            }
            run(
                &mut mine,
                &format!(
                    "DO $$ DECLARE asked universe; BEGIN SELECT u.* INTO asked FROM universe u WHERE n = 2;
                PERFORM must_agree(asked, enrich_get(asked.service, asked.raw), '{}'); END $$",
                    old.replace('\'', "")
                ),
            );
            run(&mut mine, "ROLLBACK");
        }
    }
}
