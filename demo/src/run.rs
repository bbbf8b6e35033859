//! `run`: from an empty directory to filled tables, step by step, with everything left running at the end.

use crate::psql::Psql;
use crate::services::{self, ATTACH, RAISE_LIMITS, SANDBOX_ARGUMENTS};
use crate::state::State;
use crate::{live, place, report, sandbox, screen, stop, Result};
use postgres::Client;
use std::path::Path;
use std::time::{Duration, Instant};
use testbed::honeypot::{self, Shape, Size};
use testbed::{try_wait_until, Cluster};

const DATABASE: &str = "honeypot";
const WORKER_UP: Duration = Duration::from_secs(20);

/// The subcommand. What the last run left is stopped and removed first.
///
/// # Errors
/// The first step that fails; server and providers stay up, so that the user can look.
pub fn run() -> Result<()> {
    let directory = place::directory()?;
    stop::clear(&directory)?;
    std::fs::create_dir_all(&directory)?;
    let cluster = start_cluster(&directory)?;
    let outcome = show(&cluster, &directory);
    cluster.leave_running();
    outcome
}

fn start_cluster(directory: &Path) -> Result<Cluster> {
    let at = place::cluster(directory);
    State { cluster: Some(at.clone()), sandbox: None }.write(directory)?;
    let began = Instant::now();
    let cluster = Cluster::builder("demo")
        .dir(&at)
        .keep(true)
        .preload(true)
        .setting("enrichment_cache.contact", "demo@example.org")
        .setting("enrichment_cache.stats_interval", "1s")
        .start()?;
    screen::done(format!("private cluster on port {} ({:.1} s)", cluster.port(), began.elapsed().as_secs_f64()));
    Ok(cluster)
}

fn show(cluster: &Cluster, directory: &Path) -> Result<()> {
    cluster.try_client("postgres")?.batch_execute(&format!("CREATE DATABASE {DATABASE}"))?;
    let mut client = cluster.try_client(DATABASE)?;
    load(&mut client)?;
    let providers = start_providers(directory)?;
    client.batch_execute("CREATE EXTENSION enrichment_cache")?;
    screen::done("CREATE EXTENSION enrichment_cache");
    let psql = Psql {
        program: cluster.stage().bin("psql"),
        host: "127.0.0.1".into(),
        port: cluster.port(),
        user: "postgres".into(),
        database: DATABASE.into(),
    };
    let outcome = fill(&mut client, &psql, providers);
    if outcome.is_err() {
        report::diagnosis(&psql, &cluster.log_tail(20));
    }
    outcome
}

fn start_providers(directory: &Path) -> Result<u16> {
    let mut state = State::read(directory)?.unwrap_or_default();
    let providers = sandbox::start(&directory.join("sandbox.log"), &SANDBOX_ARGUMENTS)?;
    let port = providers.port;
    state.sandbox = Some(providers);
    state.write(directory)?;
    screen::done(format!("sandbox providers on 127.0.0.1:{port}: nothing leaves this machine"));
    Ok(port)
}

fn fill(client: &mut Client, psql: &Psql, providers: u16) -> Result<()> {
    set_up(client, providers)?;
    let began = Instant::now();
    client.batch_execute(ATTACH)?;
    screen::done("tables attached; new rows will be picked up by themselves");
    screen::statement(ATTACH);
    let zone: String = client.query_one("SHOW timezone", &[])?.get(0);
    screen::title(format!("The worker fills cache and tables (times are {zone})"));
    let last = live::watch(client)?;
    let seconds = began.elapsed().as_secs();
    screen::done(format!("{} of {} sessions filled in {seconds} s", last.rows_filled, last.rows));
    report::results(psql)?;
    report::reasons(client, psql, &last)?;
    report::farewell(psql);
    Ok(())
}

fn set_up(client: &mut Client, providers: u16) -> Result<()> {
    services::point_at_sandbox(client, providers)?;
    screen::done("services pointed at the sandbox, keys set with enrich_set_secret(service, secret)");
    client.batch_execute(RAISE_LIMITS)?;
    screen::done("limits raised for the demo; VirusTotal keeps a small quota, so that waiting is seen");
    screen::statement(RAISE_LIMITS);
    try_wait_until("the worker of this database", WORKER_UP, || {
        client
            .query_opt("SELECT FROM enrichment_worker WHERE database = current_database() AND pid IS NOT NULL", &[])
            .map(|row| row.map(|_| ()))
            .map_err(|error| error.to_string())
    })?;
    screen::done("background worker is up");
    Ok(())
}

fn load(client: &mut Client) -> Result<()> {
    let shape = Shape::default();
    honeypot::create_tables(client, &shape)?;
    let loaded = honeypot::load(client, &shape, &Size::demo())?;
    screen::done(format!(
        "honeypot tables: {} sessions from {} addresses ({} not public), {} file rows with {} hashes, {} passwords",
        loaded.sessions,
        loaded.addresses,
        loaded.addresses - loaded.public_addresses,
        loaded.files,
        loaded.hashes,
        loaded.passwords
    ));
    Ok(())
}
