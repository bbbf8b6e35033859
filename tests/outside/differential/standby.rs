//! The same comparison on a hot standby while its primary goes through the play; then it is promoted.

use super::session::Ways;
use super::{check_relations, seed, steps_wanted, Play};
use crate::reads::{agree, agreed, builder, comparison, force_workers, Reads, Seen};
use crate::support::{one, refused, run, said, wait_served};
use postgres::{Client, Statement};
use std::sync::Arc;
use testbed::Cluster;

/// A session of the standby, which recovery may end at any time.
struct Reader {
    reads: Reads,
    isolation: &'static str,
    ways: Ways,
    session: Option<(Client, i32, [Statement; 3])>,
    looks: usize,
    seen: Seen,
    cancelled: usize,
}

impl Reader {
    fn new(reads: &Reads, isolation: &'static str, ways: Ways) -> Reader {
        let reads = Reads { cluster: reads.cluster.clone(), name: reads.name.clone() };
        Reader { reads, isolation, ways, session: None, looks: 0, seen: Seen::default(), cancelled: 0 }
    }

    /// One comparison; every seventh ends the transaction and begins another.
    fn look(&mut self) -> Result<(), postgres::Error> {
        self.looks += 1;
        if self.session.is_none() {
            let mut client = self.reads.cluster.try_client(&self.reads.name)?;
            client.batch_execute(&format!("SET enrichment_cache.memo_size = '{}'; SET jit = off", self.ways.memo))?;
            let views = if self.ways.workers {
                // with sequential scans off there are none for workers to share; here plain SQL stands in a function with
                // the same setting
                force_workers(&mut client);
                ["crowded_there"; 3]
            } else {
                // An index rebuilt on the primary leaves out what nobody there can see; a snapshot here may be older. So plain
                // SQL by index gives less than by sequential scan (seen on PostgreSQL 15.20 without us): compare like with like.
                client.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off")?;
                ["glance", "compared", "crowded_there"]
            };
            let pid = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
            let mut prepare = |view| client.prepare(&comparison(view));
            let statements = [prepare(views[0])?, prepare(views[1])?, prepare(views[2])?];
            self.session = Some((client, pid, statements));
            self.looks = 0;
        }
        let Some((client, pid, statements)) = &mut self.session else { return Ok(()) };
        if !self.isolation.is_empty() && self.looks.is_multiple_of(7) {
            client.batch_execute("ROLLBACK")?;
            client.batch_execute(&format!("BEGIN ISOLATION LEVEL {}", self.isolation))?;
        }
        let row = client.query_one(&statements[self.looks % 3], &[])?;
        assert_eq!(row.get::<_, &str>(1), "", "on the standby, {}", self.isolation);
        self.seen += Seen::of(&row, *pid);
        Ok(())
    }

    /// The same; a session that stood in the way of recovery is begun anew.
    fn look_again(&mut self) {
        let Err(error) = self.look() else { return };
        // https://www.postgresql.org/docs/15/hot-standby.html#HOT-STANDBY-CONFLICT
        let conflict =
            error.is_closed() || error.code().is_some_and(|code| ["40001", "40P01", "25P02"].contains(&code.code()));
        assert!(conflict, "{}", said(&error));
        self.cancelled += 1;
        self.session = None;
    }
}

#[test]
fn a_hot_standby_answers_as_plain_sql_there_and_serves_when_promoted() {
    let start = |builder: testbed::ClusterBuilder| Arc::new(builder.start().unwrap_or_else(|why| panic!("{why}")));
    let primary = start(builder("primary"));
    let reads = Reads::in_cluster(&primary, "standing");
    reads.fill();
    wait_served(&primary, "standing");
    let standby = start(
        builder("standby")
            .standby_of(&primary)
            .setting("hot_standby_feedback", "off")
            // replay waits for nobody for long
            .setting("max_standby_streaming_delay", "20ms"),
    );
    let there = Reads { cluster: standby.clone(), name: "standing".to_string() };
    let mut readers = [("", "256MB", true), ("READ COMMITTED", "64kB", false), ("REPEATABLE READ", "256MB", false)]
        .map(|(isolation, memo, workers)| Reader::new(&there, isolation, Ways { memo, workers }));

    let mut play = Play::new(&reads, seed());
    let steps = steps_wanted(120);
    for step in 1..=steps {
        play.step();
        readers.iter_mut().for_each(Reader::look_again);
        if step % 20 == 0 {
            standby.wait_replayed(&primary);
            readers.iter_mut().for_each(Reader::look_again);
        }
    }
    play.end_all();
    standby.wait_replayed(&primary);
    // nothing writes any more, and nobody is in the way
    let mut client = there.client();
    agree(&mut client);
    let whole = "SELECT md5(string_agg(c::text, chr(10) ORDER BY id)) FROM enrichment_cache c";
    assert_eq!(one::<Option<String>>(&mut client, whole), one(&mut reads.client(), whole));
    for reader in &readers {
        let Seen { answers, by_workers, passes } = reader.seen;
        eprintln!(
            "{:?}: {answers} answers, {by_workers} comparisons by workers, {passes} passes, {} times in the way",
            reader.isolation, reader.cancelled
        );
        assert!(answers > 5 * steps as i64, "{answers}");
        assert!(passes > steps as i64 / 10, "{passes}");
        assert_eq!(by_workers > steps / 10, reader.ways.workers, "{by_workers}");
    }
    readers.iter_mut().for_each(|reader| reader.session = None);

    a_standby_refuses_to_write_and_runs_nothing(&standby, &mut client);
    an_unlogged_table_is_no_more_readable_there_by_look_ups(&reads, &there);
    drop(client);
    standby.promote();
    wait_served(&standby, "standing");
    let mut client = there.client();
    there.run("DELETE FROM enrichment_cache");
    there.fill();
    assert!(agree(&mut client) > 100);
    run(&mut client, "SELECT wander(0.5, 10)");
    check_relations(&there);
}

fn a_standby_refuses_to_write_and_runs_nothing(standby: &Cluster, client: &mut Client) {
    for sql in [
        "SELECT enrich_store('dshield', '8.8.0.1', '{}')",
        "SELECT enrich_store_many('dshield', '{8.8.0.1}', ARRAY['{}'::jsonb])",
        "SELECT enrich_invalidate('dshield')",
        "SELECT enrich_request('dshield', '8.8.3.3')",
    ] {
        refused(client, sql, "25006", "");
    }
    run(
        client,
        "SELECT * FROM enrich_health(); SELECT enrich_explain('dshield', '8.8.0.1'); SELECT * FROM enrichment_coverage",
    );
    run(client, "SELECT count(enrich_get('dshield', '8.8.0.' || i % 30)) FROM generate_series(1, 50000) i");
    for backend in ["enrichment_cache worker", "enrichment_cache launcher"] {
        assert!(standby.backend_pids(backend).is_empty(), "{backend} runs on a standby");
    }
}

/// A standby has nothing of an unlogged table, and says so.
fn an_unlogged_table_is_no_more_readable_there_by_look_ups(reads: &Reads, there: &Reads) {
    reads.run("ALTER TABLE enrichment_cache SET UNLOGGED");
    there.cluster.wait_replayed(&reads.cluster);
    let mut client = there.client();
    let says = |client: &mut Client, sql: &str| {
        let error = client.batch_execute(sql).expect_err(sql);
        said(&error)
    };
    let plain = says(&mut client, "SELECT payload FROM enrichment_cache");
    for look in [
        "enrich_get('dshield', '8.8.0.1')",
        "enrich_get('dshield', '8.8.0.1'::inet)",
        "enrich_lookup('dshield', '8.8.0.1')",
    ] {
        assert_eq!(says(&mut client, &format!("SELECT {look}")), plain, "{look}");
    }
    reads.run("ALTER TABLE enrichment_cache SET LOGGED");
    there.cluster.wait_replayed(&reads.cluster);
    agree_unless_cancelled(&mut client);
}

/// As [`agree`]; recovery may end a statement for what it has just replayed, so that it is asked again.
fn agree_unless_cancelled(client: &mut Client) {
    const SERIALIZATION_FAILURE: &str = "40001";
    let mut left = 20;
    let row = loop {
        match client.query_one(&comparison("compared"), &[]) {
            Ok(row) => break row,
            Err(why) if left > 0 && why.code().is_some_and(|code| code.code() == SERIALIZATION_FAILURE) => left -= 1,
            Err(why) => panic!("{}", said(&why)),
        }
    };
    agreed(&row);
}
