//! The program: reads the command line, serves, and ends when it is told to.

use std::io::{Read, Write};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use enrichment_sandbox::limits::{self, Limit};
use enrichment_sandbox::provider::Provider;
use enrichment_sandbox::{server, Settings};
use tokio::signal::unix::{signal, SignalKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Limits {
    Real,
    None,
}

/// Answers like VirusTotal, DShield, URLhaus, Spur and Pwned Passwords, on loopback.
#[derive(Debug, Parser)]
#[command(name = "enrichment-sandbox")]
struct Switches {
    /// Port on 127.0.0.1; 0 picks a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The providers' own limits, or none
    #[arg(long, value_enum, default_value = "real")]
    limits: Limits,
    /// A limit in place of a service's own: service=N/second, minute, hour or day (repeatable)
    #[arg(long = "limit", value_parser = limits::parse)]
    limit: Vec<(Provider, Limit)>,
    /// Milliseconds every answer takes
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// Queries left at Spur
    #[arg(long, default_value_t = Settings::default().spur_balance)]
    spur_balance: i64,
    /// Share of addresses and hosts that URLhaus knows, 0 to 1
    #[arg(long, default_value_t = Settings::default().urlhaus_found)]
    urlhaus_found: f64,
    /// The accepted key of VirusTotal
    #[arg(long, default_value_t = Settings::default().virustotal_key)]
    virustotal_key: String,
    /// The accepted key of URLhaus
    #[arg(long, default_value_t = Settings::default().urlhaus_key)]
    urlhaus_key: String,
    /// The accepted token of Spur
    #[arg(long, default_value_t = Settings::default().spur_key)]
    spur_key: String,
    /// Print a line per request
    #[arg(long)]
    log: bool,
    /// End when standard input ends
    #[arg(long)]
    die_with_stdin: bool,
}

impl Switches {
    fn settings(self) -> Settings {
        Settings {
            port: self.port,
            real_limits: self.limits == Limits::Real,
            limits: self.limit,
            latency_ms: self.latency_ms,
            spur_balance: self.spur_balance,
            urlhaus_found: self.urlhaus_found,
            virustotal_key: self.virustotal_key,
            urlhaus_key: self.urlhaus_key,
            spur_key: self.spur_key,
            log: self.log,
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match run(Switches::parse()).await {
        // Not by returning: that would wait for requests that hang on order.
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("cannot serve: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(switches: Switches) -> std::io::Result<()> {
    // Before the line that says the program is ready, for a signal may follow at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if switches.die_with_stdin {
        std::thread::spawn(end_with_stdin);
    }
    let served = server::serve(switches.settings(), |address| {
        let mut out = std::io::stdout();
        // A parent that has closed the pipe does not want to know.
        let _gone = writeln!(out, "listening on {address}").and_then(|()| out.flush());
    });
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = served => ended,
    }
}

fn end_with_stdin() {
    let mut input = std::io::stdin();
    let mut waste = [0; 4096];
    while matches!(input.read(&mut waste), Ok(read) if read > 0) {}
    std::process::exit(0);
}
