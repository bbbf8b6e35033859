//! The same comparison on a hot standby while its primary goes through the play; then it is promoted.

use super::{check_relations, seed, steps_wanted, Play};
use crate::reads::{agree, builder, comparison, Reads};
use crate::support::{one, refused, run, said, wait_served};
use postgres::{Client, Statement};
use std::sync::Arc;
use testbed::Cluster;

/// A session of the standby, which recovery may end at any time.
struct Reader {
    reads: Reads,
    isolation: &'static str,
    session: Option<(Client, Statement, Statement)>,
    looks: usize,
    answers: i64,
    cancelled: usize,
}

impl Reader {
    fn new(reads: &Reads, isolation: &'static str) -> Reader {
        let reads = Reads { cluster: reads.cluster.clone(), name: reads.name.clone() };
        Reader { reads, isolation, session: None, looks: 0, answers: 0, cancelled: 0 }
    }

    /// One comparison; every seventh ends the transaction and begins another.
    fn look(&mut self) -> Result<(), postgres::Error> {
        self.looks += 1;
        if self.session.is_none() {
            let mut client = self.reads.cluster.try_client(&self.reads.name)?;
            let (glance, compared) = (client.prepare(&comparison("glance"))?, client.prepare(&comparison("compared"))?);
            self.session = Some((client, glance, compared));
            self.looks = 0;
        }
        let Some((client, glance, compared)) = &mut self.session else { return Ok(()) };
        if !self.isolation.is_empty() && self.looks.is_multiple_of(7) {
            client.batch_execute("ROLLBACK")?;
            client.batch_execute(&format!("BEGIN ISOLATION LEVEL {}", self.isolation))?;
        }
        let row = client.query_one(if self.looks.is_multiple_of(3) { &*compared } else { &*glance }, &[])?;
        assert_eq!(row.get::<_, &str>(1), "", "on the standby, {}", self.isolation);
        self.answers += row.get::<_, i64>(0);
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
    let mut readers = ["", "READ COMMITTED", "REPEATABLE READ"].map(|isolation| Reader::new(&there, isolation));

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
        eprintln!("{:?}: {} answers, {} times in the way", reader.isolation, reader.answers, reader.cancelled);
        assert!(reader.answers > 5 * steps as i64, "{}", reader.answers);
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
    agree(&mut client);
}
