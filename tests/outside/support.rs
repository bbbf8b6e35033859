//! What these tests share: a cluster per subject, a database of their own in it with sandbox providers of its own,
//! and questions to it.

use postgres::types::{FromSqlOwned, ToSql};
use postgres::Client;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};
use testbed::{wait_until, Cluster, Sandbox};

/// Nothing here takes longer, also on a busy machine; what is waited for usually comes within milliseconds.
pub const SOON: Duration = Duration::from_secs(30);

/// The cluster that the tests of one subject share; it ends with the last test that holds it.
pub fn shared_cluster(subject: &'static str) -> Arc<Cluster> {
    static RUNNING: Mutex<BTreeMap<&'static str, Weak<Cluster>>> = Mutex::new(BTreeMap::new());
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = running.get(subject).and_then(Weak::upgrade) {
        return cluster;
    }
    let cluster = Arc::new(own_cluster(subject));
    running.insert(subject, Arc::downgrade(&cluster));
    cluster
}

/// A cluster for one test, which may do to it what it likes.
pub fn own_cluster(name: &str) -> Cluster {
    Cluster::builder(name)
        .preload(true)
        .setting("max_worker_processes", "40")
        .setting("autovacuum", "off")
        .start()
        .unwrap_or_else(|why| panic!("{why}"))
}

/// A database with the extension, whose services ask sandbox providers of its own without limits.
pub struct Base {
    pub cluster: Arc<Cluster>,
    pub sandbox: Sandbox,
    pub name: String,
}

impl Base {
    /// In the cluster of `subject`, without limits on either side.
    #[track_caller]
    pub fn new(subject: &'static str, name: &str) -> Base {
        Base::in_cluster(&shared_cluster(subject), name, &["--limits", "none"])
    }

    /// In a cluster, with sandbox providers started with these arguments.
    #[track_caller]
    pub fn in_cluster(cluster: &Arc<Cluster>, name: &str, sandbox: &[&str]) -> Base {
        Base::with_sandbox(cluster, name, Sandbox::start(sandbox))
    }

    /// In a cluster, asking these sandbox providers, without limits on our side.
    #[track_caller]
    pub fn with_sandbox(cluster: &Arc<Cluster>, name: &str, sandbox: Sandbox) -> Base {
        create_database(cluster, name);
        let base = Base { cluster: cluster.clone(), sandbox, name: name.to_string() };
        let mut client = base.client();
        run(&mut client, "CREATE EXTENSION enrichment_cache; UPDATE enrichment_service SET limits = '[]'");
        base.sandbox.point_services(&mut client, "public");
        wait_served(cluster, name);
        base
    }

    #[track_caller]
    pub fn client(&self) -> Client {
        self.cluster.client(&self.name)
    }

    #[track_caller]
    pub fn run(&self, sql: &str) {
        run(&mut self.client(), sql);
    }

    #[track_caller]
    pub fn one<T: FromSqlOwned>(&self, sql: &str) -> T {
        one(&mut self.client(), sql)
    }

    /// Waits until a query of this database gives this value.
    #[track_caller]
    pub fn wait_for<T: FromSqlOwned + PartialEq + Debug>(&self, sql: &str, wanted: T) {
        let mut client = self.client();
        wait_until(sql, SOON, || ask::<T>(&mut client, sql).and_then(|got| same(got, &wanted)));
    }

    /// The worker's process.
    #[track_caller]
    pub fn worker(&self) -> i32 {
        wait_served(&self.cluster, &self.name)
    }

    /// How often a provider was asked something.
    #[track_caller]
    pub fn asked(&self, service: &str) -> i64 {
        self.sandbox.stats()[service]["requests"].as_i64().unwrap_or(-1)
    }

    /// How often a provider was asked for a key.
    #[track_caller]
    pub fn asked_for(&self, service: &str, key: &str) -> i64 {
        self.sandbox.stats()[service]["by_key"][key].as_i64().unwrap_or(0)
    }

    /// `n` addresses of which the provider knows something.
    #[track_caller]
    pub fn known(&self, service: &str, n: usize) -> Vec<String> {
        let known = |key: &String| self.sandbox.expect(service, key)["outcome"] == "success";
        (1..).map(address).filter(known).take(n).collect()
    }
}

/// The n-th of many public addresses.
pub fn address(n: u32) -> String {
    std::net::Ipv4Addr::from(0x0808_0000 + n).to_string()
}

#[track_caller]
pub fn create_database(cluster: &Cluster, name: &str) {
    run(&mut cluster.client("postgres"), &format!("CREATE DATABASE \"{name}\""));
}

#[track_caller]
pub fn run(client: &mut Client, sql: &str) {
    if let Err(why) = client.batch_execute(sql) {
        panic!("{sql}: {}", said(&why));
    }
}

#[track_caller]
pub fn one<T: FromSqlOwned>(client: &mut Client, sql: &str) -> T {
    ask(client, sql).unwrap_or_else(|why| panic!("{why}"))
}

/// As [`one`], with parameters.
#[track_caller]
pub fn one_of<T: FromSqlOwned>(client: &mut Client, sql: &str, arguments: &[&(dyn ToSql + Sync)]) -> T {
    let row = client.query_one(sql, arguments).unwrap_or_else(|why| panic!("{sql}: {}", said(&why)));
    row.try_get(0).unwrap_or_else(|why| panic!("{sql}: {why}"))
}

/// The one value of a query, or why there is none.
pub fn ask<T: FromSqlOwned>(client: &mut Client, sql: &str) -> Result<T, String> {
    let row = client.query_one(sql, &[]).map_err(|why| format!("{sql}: {}", said(&why)))?;
    row.try_get(0).map_err(|why| format!("{sql}: {why}"))
}

/// For [`wait_until`]: there when they are the same, else what was got.
pub fn same<T: PartialEq + Debug>(got: T, wanted: &T) -> Result<Option<()>, String> {
    if got == *wanted {
        return Ok(Some(()));
    }
    Err(format!("{got:?} in place of {wanted:?}"))
}

/// What an error of the server says.
pub fn said(error: &postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |db| format!("{} ({})", db.message(), db.code().code()))
}

/// Asserts that a statement is refused with this SQLSTATE and a hint that contains these words; returns the message.
#[track_caller]
pub fn refused(client: &mut Client, sql: &str, sqlstate: &str, hint: &str) -> String {
    let error = match client.simple_query(sql) {
        Ok(_) => panic!("{sql} was not refused"),
        Err(error) => error,
    };
    let Some(db) = error.as_db_error() else { panic!("{sql}: {error}") };
    assert_eq!(db.code().code(), sqlstate, "{sql}: {}", db.message());
    let said = db.hint().unwrap_or("");
    assert!(said.contains(hint), "{sql}: the hint is {said:?} and lacks {hint:?}");
    db.message().to_string()
}

/// The worker of a database, waited for.
#[track_caller]
pub fn wait_served(cluster: &Cluster, database: &str) -> i32 {
    wait_until(&format!("a worker for {database}"), SOON, || {
        let mut client = cluster.try_client("postgres").map_err(|why| why.to_string())?;
        worker_of(&mut client, database)
    })
}

/// The worker that pg_stat_activity shows for a database.
pub fn worker_of(client: &mut Client, database: &str) -> Result<Option<i32>, String> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'enrichment_cache worker' AND datname = $1";
    let row = client.query_opt(sql, &[&database]).map_err(|why| said(&why))?;
    Ok(row.map(|row| row.get(0)))
}

/// Waits until no worker is connected to a database.
#[track_caller]
pub fn wait_unserved(cluster: &Cluster, database: &str) {
    let mut client = cluster.client("postgres");
    wait_until(&format!("the worker of {database} to leave"), SOON, || same(worker_of(&mut client, database)?, &None));
}

/// Wakes the worker and waits until it has looked, from beginning to end, at what there is to do.
#[track_caller]
pub fn let_the_worker_look(base: &Base) {
    let mut client = base.client();
    let sql = "SELECT state_change FROM pg_stat_activity
        WHERE backend_type = 'enrichment_cache worker' AND datname = $1 AND state = 'idle' AND state_change > $2";
    let mut rested: SystemTime = one(&mut client, "SELECT clock_timestamp()");
    // the first rest may end a look that began before
    for _ in 0..2 {
        rested = wait_until("the worker to look and rest", SOON, || {
            client.batch_execute("SELECT enrich_wake()").map_err(|why| said(&why))?;
            let row = client.query_opt(sql, &[&base.name, &rested]).map_err(|why| said(&why))?;
            Ok(row.map(|row| row.get(0)))
        });
    }
}
