//! `text[]` in PostgreSQL's own binary form (its `src/include/utils/array.h`), without the length in front of it: paths
//! come as one, lists go as one.

/// `text` in `pg_type.dat`.
const TEXT_OID: u32 = 25;
/// Offsets count from the length in front, and data begins at a multiple of eight.
const LENGTH: usize = 4;

/// The texts of an array, one after the other whatever its dimensions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Texts<'a> {
    /// From the first text on.
    rest: &'a [u8],
    left: usize,
}

/// Takes an array apart. `None` when one of its elements is NULL.
pub fn read(bytes: &[u8]) -> Option<Texts<'_>> {
    let dimensions = word(bytes, 0)? as usize;
    if dimensions == 0 {
        return Some(Texts { rest: &[], left: 0 });
    }
    let count = (0..dimensions).try_fold(1usize, |count, at| count.checked_mul(word(bytes, 12 + 4 * at)? as usize))?;
    let with_nulls = word(bytes, 4)? as usize;
    let sizes = 12 + 8 * dimensions;
    let data = if with_nulls == 0 { eight(LENGTH + sizes) - LENGTH } else { with_nulls - LENGTH };
    if with_nulls != 0 {
        let set = |at: usize| bytes.get(sizes + at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0);
        if !(0..count).all(set) {
            return None;
        }
    }
    Some(Texts { rest: bytes.get(data..)?, left: count })
}

impl<'a> Iterator for Texts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let first = *self.rest.first()?;
        let little = cfg!(target_endian = "little");
        // a short length is not aligned; what is aligned has a zero in front, or its own length's first byte
        let short = if little { first & 1 == 1 } else { first & 0x80 != 0 };
        let (skip, size) = if short {
            (1, if little { first >> 1 } else { first & 0x7F } as usize)
        } else {
            let length = word(self.rest, 0)?;
            (4, if little { length >> 2 } else { length & 0x3FFF_FFFF } as usize)
        };
        let text = self.rest.get(skip..size)?;
        self.rest = self.rest.get(four(size)..).unwrap_or_default();
        Some(text)
    }
}

/// Puts an array of one dimension together.
pub fn write<'a>(texts: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
    let count = texts.len() as u32;
    let mut bytes = Vec::with_capacity(20 + 32 * texts.len());
    for word in [u32::from(count > 0), 0, TEXT_OID] {
        bytes.extend(word.to_ne_bytes());
    }
    if count > 0 {
        bytes.extend(count.to_ne_bytes());
        bytes.extend(1u32.to_ne_bytes());
    }
    for text in texts {
        let size = (LENGTH + text.len()) as u32;
        bytes.extend((if cfg!(target_endian = "little") { size << 2 } else { size }).to_ne_bytes());
        bytes.extend(text);
        bytes.resize(four(bytes.len()), 0);
    }
    bytes
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn four(offset: usize) -> usize {
    (offset + 3) & !3
}

fn eight(offset: usize) -> usize {
    (offset + 7) & !7
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(texts in proptest::collection::vec(".{0,40}", 0..9)) {
            let bytes = write(texts.iter().map(|text| text.as_bytes()));
            let back: Vec<&[u8]> = read(&bytes).unwrap().collect();
            prop_assert_eq!(back, texts.iter().map(|text| text.as_bytes()).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), dimensions in 0..4u32) {
            let mut bytes = bytes;
            if let Some(first) = bytes.get_mut(..4) {
                first.copy_from_slice(&dimensions.to_ne_bytes());
            }
            let _ = read(&bytes).map(|texts| texts.take(100).count());
        }
    }
}
