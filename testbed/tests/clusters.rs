//! Private clusters: they come up, go down, survive violence and leave nothing behind.

use std::path::PathBuf;
use std::time::Duration;
use testbed::{wait_until, Cluster, Stage, StopMode};

fn count(cluster: &Cluster) -> i64 {
    cluster.client("postgres").query_one("SELECT count(*) FROM t", &[]).unwrap().get(0)
}

fn with_a_row(name: &str) -> Cluster {
    let cluster = Cluster::builder(name).start().unwrap();
    cluster.client("postgres").batch_execute("CREATE TABLE t AS SELECT 1 AS a").unwrap();
    cluster
}

#[test]
fn a_cluster_answers_and_has_the_encoding_and_locale_asked_for() {
    let cluster = Cluster::builder("answers").start().unwrap();
    let row = cluster
        .client("postgres")
        .query_one("SELECT current_user::text, current_setting('server_encoding'), datcollate FROM pg_database WHERE datname = 'postgres'", &[])
        .unwrap();
    let row: (String, String, String) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(row, ("postgres".into(), "UTF8".into(), "C.UTF-8".into()));

    let latin = Cluster::builder("latin").encoding("LATIN1").locale("C").start().unwrap();
    assert_eq!(latin.psql("postgres", &["-Atc", "SHOW server_encoding"]).unwrap(), "LATIN1\n");
}

#[test]
fn two_clusters_at_once_do_not_meet() {
    let (one, two) = (with_a_row("one"), Cluster::builder("two").start().unwrap());
    assert_ne!(one.port(), two.port());
    assert_ne!(one.data_dir(), two.data_dir());
    assert!(two.client("postgres").batch_execute("SELECT * FROM t").is_err());
}

#[test]
fn a_stopped_cluster_starts_again_with_its_rows() {
    let cluster = with_a_row("restart");
    for mode in [StopMode::Smart, StopMode::Fast, StopMode::Immediate] {
        cluster.stop(mode).unwrap();
        assert!(!cluster.is_running() && cluster.try_client("postgres").is_err());
        cluster.start_again().unwrap();
        assert_eq!(count(&cluster), 1, "after {mode:?}");
    }
    cluster.restart().unwrap();
    assert_eq!(count(&cluster), 1);
    assert!(cluster.start_again().unwrap_err().contains("already"));
}

#[test]
fn a_cluster_survives_the_kill_of_everything() {
    let cluster = with_a_row("kill");
    let mut open = cluster.client("postgres");
    cluster.kill_postmaster_9();
    assert!(!cluster.is_running());
    assert!(open.simple_query("SELECT 1").is_err());
    cluster.start_again().unwrap();
    assert_eq!(count(&cluster), 1);
    assert!(cluster.log().contains("was not properly shut down"), "{}", cluster.log());
}

#[test]
fn one_killed_process_makes_the_server_recover_by_itself() {
    let cluster = with_a_row("kill-one");
    let old = cluster.backend_pids("checkpointer")[0];
    cluster.kill_9(old);
    let new = wait_until("another checkpointer", Duration::from_secs(30), || {
        let mut client = cluster.try_client("postgres").map_err(|why| why.to_string())?;
        let query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
        let row = client.query_opt(query, &[]).map_err(|why| why.to_string())?;
        Ok(row.map(|row| row.get::<_, i32>(0)).filter(|pid| *pid != old))
    });
    assert_ne!(new, old);
    assert_eq!(count(&cluster), 1);
}

#[test]
#[should_panic(expected = "is not one of this cluster")]
fn only_processes_of_the_cluster_can_be_killed() {
    let cluster = Cluster::builder("mine").start().unwrap();
    cluster.kill_9(std::process::id() as i32);
}

#[test]
fn settings_are_taken_at_the_start_and_later() {
    let cluster = Cluster::builder("settings").setting("work_mem", "1MB").setting("work_mem", "3MB").start().unwrap();
    assert_eq!(cluster.psql("postgres", &["-Atc", "SHOW work_mem"]).unwrap(), "3MB\n");
    cluster.set("work_mem", "5MB");
    wait_until("the new setting", Duration::from_secs(10), || {
        let shown = cluster.psql("postgres", &["-Atc", "SHOW work_mem"])?;
        Ok((shown == "5MB\n").then_some(()))
    });
    cluster.restart().unwrap();
    assert_eq!(cluster.psql("postgres", &["-Atc", "SHOW work_mem"]).unwrap(), "5MB\n");
}

#[test]
fn psql_tells_its_errors() {
    let cluster = Cluster::builder("psql").start().unwrap();
    let why = cluster.psql("postgres", &["-c", "SELECT 1/0"]).unwrap_err();
    assert!(why.contains("division by zero"), "{why}");
    let file = cluster.data_dir().with_file_name("two.sql");
    std::fs::write(&file, "SELECT 1;\nSELECT nonsense;\nCREATE TABLE never ();\n").unwrap();
    let why = cluster.psql_file("postgres", &file).unwrap_err();
    assert!(why.contains("two.sql:2") && !why.contains("CREATE TABLE"), "{why}");
}

#[test]
fn a_server_that_does_not_come_up_shows_its_log() {
    let why = Cluster::builder("broken").setting("nonsense", "1").start().map(|_| ()).unwrap_err();
    assert!(why.contains("unrecognized configuration parameter \"nonsense\""), "{why}");
}

#[test]
fn nothing_is_left_after_drop() {
    let cluster = Cluster::builder("gone").start().unwrap();
    let base = cluster.data_dir().parent().unwrap().to_path_buf();
    let (data, socket) = (cluster.data_dir(), PathBuf::from(cluster.host()));
    let postmaster = cluster.postmaster_pid().unwrap();
    assert!(data.exists() && socket.exists());
    drop(cluster);
    assert!(!base.exists() && !socket.exists());
    assert!(!PathBuf::from(format!("/proc/{postmaster}/exe")).exists());
}

#[test]
fn a_kept_cluster_starts_again_where_it_was() {
    let scratch = Cluster::builder("scratch").start().unwrap();
    let directory = scratch.data_dir().with_file_name("kept");
    let first = Cluster::builder("kept").dir(&directory).keep(true).start().unwrap();
    first.client("postgres").batch_execute("CREATE TABLE t AS SELECT 1 AS a").unwrap();
    drop(first);
    let second = Cluster::builder("kept").dir(&directory).start().unwrap();
    assert_eq!(count(&second), 1);
    assert!(Cluster::builder("kept").dir(&directory).start().is_err(), "two servers in one directory");
    drop(second);
    assert!(!directory.exists());
}

#[test]
fn a_cluster_left_running_can_be_taken_up_and_stopped() {
    let scratch = Cluster::builder("scratch").start().unwrap();
    let directory = scratch.data_dir().with_file_name("left");
    let cluster = Cluster::builder("left").dir(&directory).start().unwrap();
    let port = cluster.port();
    cluster.leave_running();
    let taken_up = Cluster::adopt(&directory).unwrap();
    assert_eq!(taken_up.port(), port);
    taken_up.client("postgres").batch_execute("SELECT 1").unwrap();
    taken_up.stop(StopMode::Fast).unwrap();
    assert!(Cluster::adopt(&directory).is_err());
    std::fs::remove_dir_all(PathBuf::from(taken_up.host())).unwrap();
}

#[test]
fn the_stage_is_a_tree_of_its_own() {
    let stage = Stage::from_env().unwrap();
    let config = stage.bin("pg_config");
    let output = std::process::Command::new(&config).arg("--pkglibdir").output().unwrap();
    let library = String::from_utf8(output.stdout).unwrap();
    let home = config.parent().and_then(|bin| bin.parent()).unwrap();
    assert_eq!(PathBuf::from(library.trim_end()), home.join("lib"));
}
