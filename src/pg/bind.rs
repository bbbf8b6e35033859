//! What can be bound to a parameter of our statements. Texts go into the encoding of the database on the way.

use super::convert::RawJsonb;
use super::encoding::{self, RawText};
use pgrx::datum::{Date, Interval, IntoDatum, TimestampWithTimeZone};
use pgrx::pg_sys;

/// A value of a parameter; `None` is NULL.
pub trait Bind {
    fn bind(self) -> Option<pg_sys::Datum>;
}

macro_rules! as_it_is {
    ($($type:ty),*) => {$(
        impl Bind for $type {
            fn bind(self) -> Option<pg_sys::Datum> {
                self.into_datum()
            }
        }
        impl Bind for Option<$type> {
            fn bind(self) -> Option<pg_sys::Datum> {
                self.into_datum()
            }
        }
        impl Bind for Vec<$type> {
            fn bind(self) -> Option<pg_sys::Datum> {
                self.into_datum()
            }
        }
        impl Bind for Vec<Option<$type>> {
            fn bind(self) -> Option<pg_sys::Datum> {
                self.into_datum()
            }
        }
    )*};
}

as_it_is!(bool, i32, i64, f64, pg_sys::Oid, pgrx::Uuid, Date, Interval, TimestampWithTimeZone, RawJsonb, &[u8]);

macro_rules! text {
    ($($type:ty),*) => {$(
        impl Bind for $type {
            fn bind(self) -> Option<pg_sys::Datum> {
                match encoding::is_utf8() {
                    true => self.into_datum(),
                    false => encoded(&self).into_datum(),
                }
            }
        }
        impl Bind for Option<$type> {
            fn bind(self) -> Option<pg_sys::Datum> {
                self?.bind()
            }
        }
        impl Bind for Vec<$type> {
            fn bind(self) -> Option<pg_sys::Datum> {
                match encoding::is_utf8() {
                    true => self.into_datum(),
                    false => self.iter().map(|text| encoded(text)).collect::<Vec<RawText>>().into_datum(),
                }
            }
        }
        impl Bind for Vec<Option<$type>> {
            fn bind(self) -> Option<pg_sys::Datum> {
                match encoding::is_utf8() {
                    true => self.into_datum(),
                    false => {
                        let texts = self.iter().map(|text| text.as_ref().map(|text| encoded(text)));
                        texts.collect::<Vec<Option<RawText>>>().into_datum()
                    }
                }
            }
        }
    )*};
}

text!(&str, String);

impl<T> Bind for Option<Vec<T>>
where
    Vec<T>: Bind,
{
    fn bind(self) -> Option<pg_sys::Datum> {
        self?.bind()
    }
}

fn encoded(text: &str) -> RawText {
    RawText::of(&encoding::encode(text))
}
