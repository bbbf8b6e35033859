//! Texts that have been, or could be, trouble for `jsonb`: a corpus that is kept, and as many more as one wants from a seed.
//! Used by the tests here and by those in the database, which cast each to `jsonb`.

/// Bodies of answers, one for each way to be nasty. What breaks something one day is added here.
pub fn kept() -> Vec<Vec<u8>> {
    let bytes: [&[u8]; 30] = [
        br#"{"a":"\u0000"}"#,
        br#"{"a\u0000b":"\\u0000","a\ufffdb":"\\\u0000"}"#,
        br#"["\ud83d","\ude00","\ud83d\ude00","\ud83d\ud83d\ude00","\ude00\ud83d","\ud83d\\ude00"]"#,
        br#"["\ud83d\u0000","\uDBFF\uDFFF","\ud800x\udc00","\uffff\ufffe"]"#,
        b"\"\xff\xfe\x80\xc0\x80\xed\xa0\x80\xf4\x90\x80\x80\xe2\x82\"",
        b"{\"\xc3\xa9\":\"\xe4\xb8\xad\xf0\x9f\x98\x80\",\"\xc3\":1}",
        br#"{"a":1,"a":2,"a":{"a":1,"\u0061":2}}"#,
        br#"{"":"","":{"":[]}}"#,
        br#"[1e400000,-1e400000,1e-400000,1e131071,1e131072,1e-16383,1e-16384,1.5e-16383]"#,
        br#"[0e999999999999,-0.0e-99999999999999999999,0e-16384,0.0e16384,-0,0.0,1E+2,1e0000000000001]"#,
        br#"[1e2147483647,1e-2147483648,1e9223372036854775807,1e-9223372036854775808,1e99999999999999999999]"#,
        br#"[1e131071,1e131071,1e131071,1e131071,1e131071,1e131071,1e131071,1e131071,1e131071,1e131071]"#,
        br#"[123456789012345678901234567890.123456789012345678901234567890e-5,60000000000]"#,
        b"\xef\xbb\xbf{\"bom\":true}",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b" \t\r\n{ \"a\" : [ 1 , 2 ] }\r\n",
        br#""\"\\\/\b\f\n\r\t\u0001\u001f\u007f\u0080\u2028""#,
        br#""\u000""#,
        br#""\u00g0""#,
        b"\"tab\tinside\"",
        b"\"null\x00inside\"",
        b"{\"a\":1,}",
        b"[NaN,Infinity]",
        b"{'a':1}",
        b"\xfe\xff\x00{\x00}",
        b"",
        b"\xef\xbb\xbf",
        b"null",
        br#""\uD83D\uDE00 \u00e9 \u4e2d \u0152 \\u4e2d""#,
        br#"{"\u0041":1,"A":2,"\/":3,"/":4}"#,
    ];
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", "{\"\":".repeat(depth), "}".repeat(depth));
    let long = [
        nested(512),
        nested(513),
        objects(512),
        objects(100_000),
        "[".repeat(100_000),
        "9".repeat(131_072),
        "9".repeat(131_073),
        format!("0.{}", "3".repeat(16_383)),
        format!("0.{}", "3".repeat(16_384)),
        format!("1{}e-130000", "0".repeat(130_000)),
        format!("\"{}\"", "\\u0000".repeat(50_000)),
        format!("\"{}\"", "\\\\u0000".repeat(50_000)),
        format!("[{}0]", "1e131071,".repeat(1000)),
        format!("{{{}\"z\":0}}", "\"a\":1,".repeat(10_000)),
    ];
    bytes.into_iter().map(<[u8]>::to_vec).chain(long.into_iter().map(String::into_bytes)).collect()
}

/// A text made of a seed: mostly JSON with what is nasty in it, sometimes cut off or with bytes changed.
pub fn made(seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut out = Vec::new();
    if dice.one_of(20) == 0 {
        out.extend(b"\xef\xbb\xbf");
    }
    value(&mut dice, &mut out, 0);
    match dice.one_of(12) {
        0 => out.truncate(dice.one_of(out.len() + 1)),
        1 => {
            let (at, byte) = (dice.one_of(out.len()), dice.next() as u8);
            out[at] = byte;
        }
        _ => {}
    }
    out
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_of(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

fn value(dice: &mut Dice, out: &mut Vec<u8>, depth: usize) {
    let kinds = if depth > 6 { 4 } else { 8 };
    match dice.one_of(kinds) {
        0 => string(dice, out),
        1 | 2 => number(dice, out),
        3 => out.extend([&b"null"[..], b"true", b"false", b"\"\""][dice.one_of(4)]),
        4 | 5 => list(dice, out, b"[]", |dice, out| value(dice, out, depth + 1)),
        6 | 7 => list(dice, out, b"{}", |dice, out| {
            match dice.one_of(3) {
                0 => {
                    out.extend([&b"\"a\""[..], b"\"\"", br#""\u0061""#, br#""\u0000""#, br#""\ufffd""#][dice.one_of(5)])
                }
                _ => string(dice, out),
            }
            out.push(b':');
            value(dice, out, depth + 1);
        }),
        _ => {}
    }
}

fn list(dice: &mut Dice, out: &mut Vec<u8>, ends: &[u8; 2], mut item: impl FnMut(&mut Dice, &mut Vec<u8>)) {
    out.push(ends[0]);
    for n in 0..dice.one_of(6) {
        if n > 0 {
            out.extend([&b","[..], b" ,\n"][dice.one_of(2)]);
        }
        item(dice, out);
    }
    out.push(ends[1]);
}

fn string(dice: &mut Dice, out: &mut Vec<u8>) {
    const PIECES: [&[u8]; 22] = [
        b"plain text",
        br"\u0000",
        br"\\u0000",
        br"\\",
        br"\ud83d",
        br"\ude00",
        br"\ud83d\ude00",
        br#"\""#,
        br"\/\b\f\n\r\t",
        br"\u001f",
        br"\uFFFF",
        b"\xc3\xa9",
        b"\xe4\xb8\xad",
        b"\xf0\x9f\x98\x80",
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xe2\x82",
        b"u0000",
        b"\x7f",
        br"\u4E2d",
        br"\u0152",
    ];
    out.push(b'"');
    for _ in 0..dice.one_of(6) {
        out.extend(PIECES[dice.one_of(PIECES.len())]);
    }
    out.push(b'"');
}

fn number(dice: &mut Dice, out: &mut Vec<u8>) {
    let whole = ["0", "-0", "1", "-7", "12345678901234567890", "9007199254740993"][dice.one_of(6)];
    let fraction = ["", "", ".0", ".5", ".000000000000000000001"][dice.one_of(5)];
    out.extend(whole.bytes().chain(fraction.bytes()));
    if dice.one_of(3) == 0 {
        let size = [2, 300, 16_300, 131_100, 400_000, 3_000_000_000][dice.one_of(6)];
        let exponent = dice.next() % size;
        let sign = ["e", "E+", "e-"][dice.one_of(3)];
        out.extend(format!("{sign}{exponent}").bytes());
    }
}
