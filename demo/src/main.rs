//! The demo: honeypot tables in a private cluster, filled by the extension from the sandbox providers, with the
//! progress to watch and the results to query. `run` starts afresh and leaves everything running, `stop` ends it.

mod live;
mod place;
mod progress;
mod psql;
mod queries;
mod report;
mod run;
mod sandbox;
mod screen;
mod services;
mod state;
mod stop;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// What every step returns; the text is for the user.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(about = "Shows the extension at work against sandbox providers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start afresh, fill the tables, print the results; everything stays up afterwards
    Run,
    /// Stop the server and the providers of the last run and remove their files
    Stop,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run => run::run(),
        Command::Stop => stop::stop(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            screen::failed(&reason.to_string());
            ExitCode::FAILURE
        }
    }
}
