//! Watching the work: bars on a terminal, a plain line every five seconds elsewhere, until it is complete.

use crate::progress::Progress;
use crate::{screen, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use postgres::Client;
use std::time::{Duration, Instant};

const LIVE_PERIOD: Duration = Duration::from_millis(300);
const PLAIN_PERIOD: Duration = Duration::from_secs(5);
/// The demo is over in about a minute; three times that means that something is wrong.
const LONGEST: Duration = Duration::from_secs(180);

/// Shows progress until the fast services are complete; returns the last reading.
///
/// # Errors
/// The server's, or a sentence with the last reading when the time is over.
pub fn watch(client: &mut Client) -> Result<Progress> {
    let mut display: Box<dyn Display> = match screen::is_live() {
        true => Box::new(Bars::default()),
        false => Box::new(Lines::default()),
    };
    let began = Instant::now();
    loop {
        let progress = Progress::read(client)?;
        let complete = progress.is_complete();
        display.show(&progress, began.elapsed(), complete);
        if complete {
            return Ok(progress);
        }
        if began.elapsed() > LONGEST {
            display.show(&progress, began.elapsed(), true);
            return Err(format!(
                "not complete after {} s: {} % of the fast services' keys are answered",
                LONGEST.as_secs(),
                progress.percent()
            )
            .into());
        }
        std::thread::sleep(LIVE_PERIOD);
    }
}

trait Display {
    /// `last`: nothing follows, so what is shown stays on the screen.
    fn show(&mut self, progress: &Progress, elapsed: Duration, last: bool);
}

/// One bar per service and a summary, redrawn in place.
#[derive(Default)]
struct Bars {
    all: Option<MultiProgress>,
    services: Vec<ProgressBar>,
    summary: Option<ProgressBar>,
}

impl Bars {
    fn bar(all: &MultiProgress, template: &str) -> ProgressBar {
        let style = ProgressStyle::with_template(template).expect("a fixed template");
        all.add(ProgressBar::new(0).with_style(style.progress_chars("━╸─")))
    }
}

impl Display for Bars {
    fn show(&mut self, progress: &Progress, elapsed: Duration, last: bool) {
        let all = self.all.get_or_insert_with(|| MultiProgress::with_draw_target(ProgressDrawTarget::stdout()));
        let summary = self.summary.get_or_insert_with(|| Self::bar(all, "  {msg}"));
        while self.services.len() < progress.services.len() {
            let bar = Self::bar(all, "  {prefix:10} {bar:12.green} {pos:>4}/{len:<4} {wide_msg}");
            self.services.push(bar);
        }
        for (bar, service) in self.services.iter().zip(&progress.services) {
            bar.set_prefix(service.name.clone());
            bar.set_length(service.eligible);
            bar.set_position(service.answered);
            bar.set_message(format!("{} · {} calls · {}", service.state(), service.calls, service.limits));
        }
        summary.set_message(overview(progress, elapsed));
        if last {
            self.services.iter().for_each(ProgressBar::abandon);
            summary.abandon();
        }
    }
}

/// A line for the log of whoever runs the demo without a terminal.
#[derive(Default)]
struct Lines {
    shown: Option<Duration>,
}

impl Display for Lines {
    fn show(&mut self, progress: &Progress, elapsed: Duration, last: bool) {
        if !last && self.shown.is_some_and(|shown| elapsed - shown < PLAIN_PERIOD) {
            return;
        }
        self.shown = Some(elapsed);
        println!("{}", overview(progress, elapsed));
        for service in &progress.services {
            println!(
                "  {:10} {:>4}/{:<4} {}; {} calls, limit {}",
                service.name,
                service.answered,
                service.eligible,
                service.state(),
                service.calls,
                service.limits
            );
        }
    }
}

fn overview(progress: &Progress, elapsed: Duration) -> String {
    let eta = progress.eta().map(|eta| format!(", done about {eta}")).unwrap_or_default();
    format!(
        "{:>3} s  {} % answered, {} of {} sessions filled{eta}",
        elapsed.as_secs(),
        progress.percent(),
        progress.rows_filled,
        progress.rows
    )
}
