//! Helpers of the write-back: where much is to be written, further processes write shares of the keys beside the worker.
//!
//! Every key belongs to one share, by its hash, so no two processes write the same rows. A share whose helper has ended is the worker's
//! again, whatever it ended for.

use super::helper::Helper;
use super::write_back::{Share, WriteBack};
use super::{database, signals, xact};
use crate::core::error::Error;
use crate::pg::store::sources;
use crate::pg::{gucs, store, wake};
use pgrx::bgworkers::BackgroundWorker;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

const NAME: &str = "enrichment_cache writer";
/// So many rounds have ended with more to write before helpers are started.
const PRESSED_ROUNDS: u32 = 2;
/// After helpers were started, the next ones are not before this.
const PAUSE: Duration = Duration::from_secs(5);

/// The helpers of this worker.
#[derive(Default)]
pub struct Writers {
    /// By share, from 1 on; the worker's own is 0.
    helpers: Vec<Helper>,
    pressed: u32,
    started: Option<Instant>,
}

impl Writers {
    /// The shares that this process writes itself.
    pub fn share(&mut self) -> Share {
        if self.helpers.iter().all(Helper::has_ended) {
            self.helpers.clear();
            return Share::default();
        }
        let ended = self.helpers.iter().zip(1..).filter(|(helper, _)| helper.has_ended()).map(|(_, share)| share);
        Share { of: self.helpers.len() as i32 + 1, mine: std::iter::once(0).chain(ended).collect() }
    }

    /// Takes note whether a round ended with more to write, and starts helpers when that goes on.
    pub fn tend(&mut self, pressed: bool) {
        self.pressed = if pressed { self.pressed + 1 } else { 0 };
        let rested = self.started.is_none_or(|started| started.elapsed() > PAUSE);
        if self.pressed < PRESSED_ROUNDS || !self.helpers.is_empty() || !rested {
            return;
        }
        self.started = Some(Instant::now());
        let of = gucs::write_back_workers();
        for share in 1..of {
            let extra = format!("{} {share} {of}", wake::my_pid());
            // without a free slot the worker goes on alone; which shares there are is settled by then
            match Helper::start(NAME, "enrichment_writer_main", &extra) {
                Some(helper) => self.helpers.push(helper),
                None if self.helpers.is_empty() => return,
                None => self.helpers.push(Helper::ended()),
            }
        }
    }
}

#[pg_guard]
#[no_mangle]
pub extern "C-unwind" fn enrichment_writer_main(database: pg_sys::Datum) {
    signals::install();
    let oid = database.value() as u32;
    let numbers: Vec<i32> = BackgroundWorker::get_extra().split(' ').filter_map(|number| number.parse().ok()).collect();
    let [leader, share, of] = numbers[..] else { return };
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(pg_sys::Oid::from(oid)), None);
    signals::configure_session();
    store::registry::in_worker();
    let changes = database::changes(oid);
    let mut write_back = WriteBack::of(Share { of, mine: vec![share] });
    while !signals::terminating() && database::is_served_by(oid, leader, changes) {
        signals::reload_if_asked();
        match round(&mut write_back) {
            Ok(true) => (),
            Ok(false) | Err(Error::NotInstalled) => return,
            Err(error) => {
                // the worker takes the share over, and says what is wrong where it stays so
                pgrx::log!("enrichment_cache: a helper of the write-back ends: {error}");
                return;
            }
        }
    }
}

fn round(write_back: &mut WriteBack) -> Result<bool, Error> {
    let attached = xact::run(c"enrichment_cache: reading sources", sources::all)?;
    write_back.helped(&attached.standing)
}
