//! Hot standbys: made from a running cluster, waited for, promoted.

use crate::cluster::Cluster;
use crate::wait::wait_until;
use std::time::Duration;

const REPLAYED_WITHIN: Duration = Duration::from_secs(60);

impl Cluster {
    /// Fills the data directory from a running primary, to start as its standby.
    pub(crate) fn copy_from(&self, primary: &str) -> Result<(), String> {
        let output = self
            .server_command("pg_basebackup")
            .args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"])
            .args(["-d", primary, "-D"])
            .arg(self.data_dir())
            .output()
            .map_err(|why| format!("cannot run pg_basebackup: {why}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("pg_basebackup failed: {}", String::from_utf8_lossy(&output.stderr).trim_end()))
    }

    /// Waits until this standby has replayed all that `primary` has written by now.
    ///
    /// # Panics
    /// When it has not within a minute.
    #[track_caller]
    pub fn wait_replayed(&self, primary: &Cluster) {
        let text = |cluster: &Cluster, sql: &str| -> Result<String, String> {
            let mut client = cluster.try_client("postgres").map_err(|why| why.to_string())?;
            Ok(client.query_one(sql, &[]).map_err(|why| why.to_string())?.get(0))
        };
        let written = text(primary, "SELECT pg_current_wal_lsn()::text").unwrap_or_else(|why| panic!("{why}"));
        let compare = format!(
            "SELECT CASE WHEN pg_last_wal_replay_lsn() >= '{written}' THEN '' ELSE pg_last_wal_replay_lsn()::text END"
        );
        wait_until(&format!("the standby to replay {written}"), REPLAYED_WITHIN, || match text(self, &compare)? {
            done if done.is_empty() => Ok(Some(())),
            replayed => Err(format!("it has replayed {replayed}")),
        });
    }

    /// Makes a standby a primary of its own; returns once it is one.
    ///
    /// # Panics
    /// When it is none within a minute.
    #[track_caller]
    pub fn promote(&self) {
        let mut client = self.client("postgres");
        match client.query_one("SELECT pg_promote(true, 60)", &[]) {
            Ok(row) => assert!(row.get::<_, bool>(0), "the standby was not promoted within a minute"),
            Err(why) => panic!("pg_promote: {why}"),
        }
    }
}
