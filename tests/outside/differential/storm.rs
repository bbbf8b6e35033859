//! The same comparison while other processes really write, vacuum and rebuild the table at the same moment.

use super::session::{Refusal, Session};
use super::{check_relations, seed, steps, steps_wanted};
use crate::reads::{agree, agree_in, Dice, Reads};
use crate::support::{one, run, said};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

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

/// Short transactions, a third of them undone.
fn write(reads: &Reads, mut dice: Dice, stop: &AtomicBool) {
    let mut client = reads.client();
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
        let end = if dice.percent(66) { "COMMIT" } else { "ROLLBACK" };
        if !may_fail(&mut client, end) {
            run(&mut client, "ROLLBACK");
        }
    }
}

fn keep_up(reads: &Reads, mut dice: Dice, stop: &AtomicBool) {
    let mut client = reads.client();
    run(&mut client, "SET lock_timeout = '500ms'; SET statement_timeout = '3s'; SET client_min_messages = error");
    while !stop.load(Ordering::Relaxed) {
        let sql = if dice.percent(50) { steps::upkeep(&mut dice) } else { steps::rewrite(&mut dice) };
        if !may_fail(&mut client, sql) {
            // what a REINDEX CONCURRENTLY that had to give up has left
            let left = "SELECT indexrelid::regclass::text FROM pg_index
                WHERE NOT indisvalid AND indrelid IN ('enrichment_cache'::regclass,
                    (SELECT reltoastrelid FROM pg_class WHERE oid = 'enrichment_cache'::regclass))";
            for row in client.query(left, &[]).unwrap_or_else(|why| panic!("{}", said(&why))) {
                may_fail(&mut client, &format!("DROP INDEX {}", row.get::<_, &str>(0)));
            }
        }
    }
}

fn read(reads: &Reads, isolation: &str, mut dice: Dice, rounds: usize) -> i64 {
    let mut session = Session::new(reads, 'r');
    let mut answers = 0;
    for _ in 0..rounds {
        if may_fail(&mut session.client, &format!("BEGIN ISOLATION LEVEL {isolation}")) {
            for _ in 0..1 + dice.below(3) {
                let view = dice.pick(&["glance", "glance", "compared"]);
                match session.compare(view) {
                    Ok(seen) => answers += seen,
                    Err(differences) => panic!("{isolation}, {view}:\n{differences}"),
                }
            }
        }
        if let Err(Refusal::Defect(what)) = session.run("COMMIT") {
            panic!("{isolation}: {what}");
        }
    }
    answers
}

#[test]
fn enrich_get_answers_as_plain_sql_while_others_write_and_rebuild() {
    let reads = Reads::apart("storm");
    let seed = seed();
    let stop = AtomicBool::new(false);
    let answers = AtomicI64::new(0);
    let rounds = steps_wanted(100);
    let dice = |of: u64| Dice::new(seed.wrapping_mul(31).wrapping_add(of));
    std::thread::scope(|scope| {
        for of in 0..2 {
            let dice = dice(of);
            scope.spawn(|| write(&reads, dice, &stop));
        }
        scope.spawn(|| keep_up(&reads, dice(7), &stop));
        let readers: Vec<_> = super::session::ISOLATION
            .into_iter()
            .zip(10..)
            .map(|(isolation, of)| {
                let (reads, dice, answers) = (&reads, dice(of), &answers);
                scope.spawn(move || answers.fetch_add(read(reads, isolation, dice, rounds), Ordering::Relaxed))
            })
            .collect();
        let failed = readers.into_iter().filter_map(|reader| reader.join().err()).next();
        stop.store(true, Ordering::Relaxed);
        if let Some(panic) = failed {
            std::panic::resume_unwind(panic);
        }
    });
    let answers = answers.into_inner();
    eprintln!("{answers} answers");
    assert!(answers > 20 * rounds as i64, "{answers} answers in {rounds} rounds");
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
