//! Faults on order: which requests they hit, and how often.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::draw::Draw;
use crate::provider::Provider;

/// The key of calls that ask for the state of an account and no key's answer: only an order that names it hits them.
pub const STATUS: &str = "status";

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// the usual answer after `ms` milliseconds
    Slow {
        /// milliseconds
        ms: u64,
    },
    /// part of a body, then a TCP reset
    Reset,
    /// part of a body, then an orderly end of the connection
    Eof,
    /// an HTML page with status 200
    #[serde(rename = "html_200")]
    Html200,
    /// as if the key (or the agent) were wrong
    WrongKey,
    /// that status, with an error page
    Status {
        /// 200 to 599
        status: u16,
    },
    /// 429 with `Retry-After` in seconds
    RetryAfterSeconds {
        /// seconds
        #[serde(alias = "seconds")]
        n: u64,
    },
    /// 429 with `Retry-After` as an HTTP date that many seconds ahead
    RetryAfterDate {
        /// seconds
        #[serde(alias = "seconds")]
        n: u64,
    },
    /// 429 from the network edge: HTML, no `Retry-After`
    #[serde(rename = "429_plain")]
    Plain429,
    /// a valid JSON object of at least that many bytes, streamed
    HugeBody {
        /// bytes before compression
        bytes: u64,
        /// compressed, whether or not the client asked for it
        #[serde(default)]
        gzip: bool,
    },
    /// 302 to that URL
    Redirect {
        /// absolute or relative URL
        #[serde(alias = "url")]
        to: String,
    },
    /// the first half of the usual body, as if it were the whole
    TruncatedJson,
    /// 200 with a body that is no JSON and no HTML
    NotJson,
    /// 200 without a body
    #[serde(rename = "empty_200")]
    Empty200,
    /// that status with exactly that body, as `application/json`, and these headers besides
    Body {
        /// 200 to 599
        status: u16,
        /// as it goes over the wire
        body: String,
        /// by name
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    /// never an answer
    Hang,
}

/// An order for a fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// a provider's name or `*`
    pub service: String,
    /// only requests for exactly this key, as it stands in the request
    #[serde(default)]
    pub key: Option<String>,
    /// how many requests it hits; without it all
    #[serde(default)]
    pub count: Option<u64>,
    /// which part of the requests it may hit it does hit, 0 to 1; without it all
    #[serde(default)]
    pub share: Option<f64>,
    /// what goes wrong
    #[serde(flatten)]
    pub kind: Kind,
}

impl Order {
    /// Why the order cannot be carried out, if so.
    pub fn problem(&self) -> Option<String> {
        if let Err(problem) = Provider::parse_many(&self.service) {
            return Some(problem);
        }
        match &self.kind {
            Kind::Status { status } | Kind::Body { status, .. } if !(200..600).contains(status) => {
                Some(format!("status {status} is not between 200 and 599"))
            }
            _ => self
                .share
                .filter(|share| !(0.0..=1.0).contains(share))
                .map(|share| format!("a share of {share} is not between 0 and 1")),
        }
    }

    fn hits(&self, provider: Provider, key: &str) -> bool {
        (self.service == "*" || self.service == provider.name())
            && self.key.as_deref().map_or(key != STATUS, |wanted| wanted == key)
            && self.count != Some(0)
    }
}

#[derive(Debug, Clone, Serialize)]
struct Standing {
    id: u64,
    /// for orders that hit a share only
    #[serde(skip)]
    dice: Draw,
    #[serde(flatten)]
    order: Order,
}

impl Standing {
    fn hits(&mut self, provider: Provider, key: &str) -> bool {
        let Standing { dice, order, .. } = self;
        order.hits(provider, key) && order.share.is_none_or(|share| dice.chance(share))
    }
}

#[derive(Debug, Default)]
struct Book {
    last_id: u64,
    standing: Vec<Standing>,
}

/// All orders that stand.
#[derive(Debug, Default)]
pub struct Faults {
    book: Mutex<Book>,
}

impl Faults {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an order; its number is for [`Faults::cancel`].
    pub fn order(&self, order: Order) -> u64 {
        let mut book = self.book();
        book.last_id += 1;
        let id = book.last_id;
        let dice = Draw::of("fault", &id.to_string(), "dice");
        book.standing.push(Standing { id, dice, order });
        id
    }

    /// The fault that hits this request, if any: of several the one ordered first. Uses up one of its count.
    pub fn strike(&self, provider: Provider, key: &str) -> Option<Kind> {
        let mut book = self.book();
        let at = book.standing.iter_mut().position(|standing| standing.hits(provider, key))?;
        let standing = &mut book.standing[at];
        if let Some(count) = &mut standing.order.count {
            *count -= 1;
        }
        Some(standing.order.kind.clone())
    }

    /// Cancels one order; false if there is none of that number.
    pub fn cancel(&self, id: u64) -> bool {
        let mut book = self.book();
        let before = book.standing.len();
        book.standing.retain(|standing| standing.id != id);
        book.standing.len() < before
    }

    /// Cancels all orders and says how many there were.
    pub fn cancel_all(&self) -> usize {
        std::mem::take(&mut self.book().standing).len()
    }

    /// The orders with their numbers and what is left of their counts.
    pub fn list(&self) -> serde_json::Value {
        serde_json::json!(self.book().standing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(text: &str) -> Order {
        serde_json::from_str(text).expect("order")
    }

    #[test]
    fn a_call_for_the_state_is_hit_only_when_it_is_named() {
        let faults = Faults::default();
        faults.order(order(r#"{"service":"spur","kind":"reset"}"#));
        assert_eq!(faults.strike(Provider::Spur, STATUS), None);
        faults.order(order(r#"{"service":"spur","key":"status","kind":"slow","ms":7}"#));
        assert_eq!(faults.strike(Provider::Spur, STATUS), Some(Kind::Slow { ms: 7 }));
    }

    #[test]
    fn a_fault_hits_its_key_as_often_as_ordered() {
        let faults = Faults::default();
        faults.order(order(r#"{"service":"spur","key":"8.8.8.8","kind":"status","status":500,"count":2}"#));
        assert_eq!(faults.strike(Provider::Spur, "9.9.9.9"), None);
        assert_eq!(faults.strike(Provider::Dshield, "8.8.8.8"), None);
        for _ in 0..2 {
            assert_eq!(faults.strike(Provider::Spur, "8.8.8.8"), Some(Kind::Status { status: 500 }));
        }
        assert_eq!(faults.strike(Provider::Spur, "8.8.8.8"), None);
    }

    #[test]
    fn a_fault_for_all_stands_until_it_is_cancelled() {
        let faults = Faults::default();
        let id = faults.order(order(r#"{"service":"*","kind":"hang"}"#));
        for provider in Provider::ALL {
            assert_eq!(faults.strike(provider, "k"), Some(Kind::Hang));
        }
        assert!(faults.cancel(id));
        assert!(!faults.cancel(id));
        assert_eq!(faults.strike(Provider::Hibp, "k"), None);
    }

    #[test]
    fn a_fault_for_a_share_hits_about_that_many() {
        let faults = Faults::default();
        faults.order(order(r#"{"service":"spur","kind":"eof","share":0.05}"#));
        let hit = (0..10_000).filter(|_| faults.strike(Provider::Spur, "8.8.8.8").is_some()).count();
        assert!((400..600).contains(&hit), "{hit} of 10,000");
        assert!(order(r#"{"service":"spur","kind":"eof","share":5}"#).problem().is_some());
    }

    #[test]
    fn an_order_that_makes_no_sense_says_why() {
        assert!(order(r#"{"service":"shodan","kind":"hang"}"#).problem().is_some());
        assert!(order(r#"{"service":"*","kind":"status","status":700}"#).problem().is_some());
        assert_eq!(order(r#"{"service":"*","kind":"empty_200"}"#).problem(), None);
    }
}
