//! A standby follows its primary, and leads when it is promoted.

use std::path::PathBuf;
use testbed::Cluster;

fn count(cluster: &Cluster) -> i64 {
    cluster.client("postgres").query_one("SELECT count(*) FROM t", &[]).unwrap().get(0)
}

#[test]
fn a_standby_has_what_was_replayed_and_leads_when_promoted() {
    let primary = Cluster::builder("primary").start().unwrap();
    primary.client("postgres").batch_execute("CREATE TABLE t AS SELECT 1 AS a").unwrap();
    let standby = Cluster::builder("standby").standby_of(&primary).setting("work_mem", "3MB").start().unwrap();
    assert_ne!(standby.port(), primary.port());
    assert_eq!(standby.psql("postgres", &["-Atc", "SHOW work_mem"]).unwrap(), "3MB\n");

    primary.client("postgres").batch_execute("INSERT INTO t VALUES (2)").unwrap();
    standby.wait_replayed(&primary);
    assert_eq!(count(&standby), 2);
    let why = standby.client("postgres").batch_execute("INSERT INTO t VALUES (3)").unwrap_err();
    assert_eq!(why.code().unwrap().code(), "25006");

    drop(primary);
    standby.promote();
    standby.client("postgres").batch_execute("INSERT INTO t VALUES (3)").unwrap();
    assert_eq!(count(&standby), 3);
}

#[test]
fn a_standby_of_nobody_does_not_start_and_leaves_nothing() {
    let primary = Cluster::builder("primary").start().unwrap();
    let base = primary.data_dir().with_file_name("standby");
    primary.stop(testbed::StopMode::Fast).unwrap();
    let why = Cluster::builder("standby").standby_of(&primary).dir(&base).start().map(|_| ()).unwrap_err();
    assert!(why.contains("pg_basebackup failed"), "{why}");
    assert!(!PathBuf::from(&base).exists());
}
