//! Talking to a cluster: connections, psql, settings.

use crate::cluster::Cluster;
use postgres::{Client, NoTls};
use std::path::Path;
use std::process::Command;

impl Cluster {
    /// Parameters of a connection as superuser, for libpq and for the postgres crate alike.
    pub fn dsn(&self, database: &str) -> String {
        let database = database.replace('\\', r"\\").replace('\'', r"\'");
        let (host, port) = (self.host(), self.port());
        format!("host={host} port={port} user=postgres dbname='{database}' connect_timeout=10")
    }

    /// A connection as superuser `postgres`.
    ///
    /// # Panics
    /// When the server does not let one in.
    #[track_caller]
    pub fn client(&self, database: &str) -> Client {
        match self.try_client(database) {
            Ok(client) => client,
            Err(why) => panic!("no connection to {database}: {why}"),
        }
    }

    /// As [`Cluster::client`], for a server that may be away.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub fn try_client(&self, database: &str) -> Result<Client, postgres::Error> {
        Client::connect(&self.dsn(database), NoTls)
    }

    /// Runs psql in `database` with these arguments, stopping at the first error.
    ///
    /// # Errors
    /// What it wrote to standard output and error.
    pub fn psql(&self, database: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.stage().bin("psql"));
        command.args(["-X", "-v", "ON_ERROR_STOP=1", "-d", &self.dsn(database)]);
        command.args(arguments).env("PGAPPNAME", "psql").env_remove("PGOPTIONS");
        let output = command.output().map_err(|why| format!("cannot run psql: {why}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Runs a file of SQL and psql commands.
    ///
    /// # Errors
    /// What psql wrote, with the line of the file.
    pub fn psql_file(&self, database: &str, file: &Path) -> Result<String, String> {
        self.psql(database, &["-f", &file.display().to_string()])
    }

    /// The processes of one `backend_type` of `pg_stat_activity`, in the order of their start.
    /// A background worker's is the type it was registered with.
    ///
    /// # Panics
    /// When the server does not answer.
    #[track_caller]
    pub fn backend_pids(&self, backend_type: &str) -> Vec<i32> {
        let query = "SELECT pid FROM pg_stat_activity WHERE backend_type = $1 ORDER BY backend_start, pid";
        self.client("postgres")
            .query(query, &[&backend_type])
            .unwrap_or_else(|why| panic!("cannot list processes: {why}"))
            .iter()
            .map(|row| row.get(0))
            .collect()
    }

    /// Has the server read its settings again.
    ///
    /// # Panics
    /// When the server does not answer.
    #[track_caller]
    pub fn reload(&self) {
        self.execute("SELECT pg_reload_conf()");
    }

    /// Sets a setting for the whole cluster (`ALTER SYSTEM`) and reloads. One that is read at the
    /// start only needs a restart as well.
    ///
    /// # Panics
    /// When the server refuses it.
    #[track_caller]
    pub fn set(&self, name: &str, value: &str) {
        let value = value.replace('\'', "''");
        let name = name.split('.').map(|part| format!("\"{part}\"")).collect::<Vec<_>>().join(".");
        self.execute(&format!("ALTER SYSTEM SET {name} = '{value}'"));
        self.reload();
    }

    #[track_caller]
    fn execute(&self, statement: &str) {
        if let Err(why) = self.client("postgres").batch_execute(statement) {
            panic!("{statement}: {why}");
        }
    }
}
