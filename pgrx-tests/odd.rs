//! Odd JSON for the tests of accessors and views: what providers sent, and what nobody should send. From a seed, so that a
//! failure comes again.

/// A generator of numbers (xorshift64*).
pub struct Chance(u64);

impl Chance {
    pub fn from(seed: u64) -> Self {
        Chance(seed | 1)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % end
    }

    pub fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// JSON values as texts.
pub const VALUES: [&str; 98] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "12",
    "12.0",
    "12.75",
    "-12.75",
    "0.5",
    "0.00000049",
    "-0.1",
    "1e3",
    "1e-3",
    "1e400",
    "-1e400",
    "1e-400",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808.9",
    "-9223372036854775809",
    "2147483647",
    "2147483648",
    "2147483647.5",
    "1772506496",
    "1772506496.1234565",
    "253402300799.5",
    "253402300800",
    "123456789012345678901234567890.12345678901234567890",
    "100000000000000000000.10000",
    "0.00001234",
    "10000",
    "99999999",
    r#""""#,
    r#"" ""#,
    r#""0""#,
    r#""1""#,
    r#""12""#,
    r#"" +12.5\t""#,
    r#""-12.""#,
    r#""0012""#,
    r#""1e3""#,
    r#""NaN""#,
    r#""Infinity""#,
    r#""9223372036854775807""#,
    r#""-9223372036854775809""#,
    r#""0000000000000000000000012""#,
    r#""AS00123""#,
    r#""as123.00""#,
    r#""As123""#,
    r#""AS""#,
    r#""123.4""#,
    r#""4294967295""#,
    r#""2147483648""#,
    r#""yes""#,
    r#""FALSE""#,
    r#""on""#,
    r#""tr""#,
    r#""2026-03-03""#,
    r#""2026-02-30""#,
    r#""2024-02-29 23:59:59.9999999""#,
    r#""2026-03-03T02:54:56+14:59""#,
    r#""2026-03-03 02:54:56 UTC""#,
    r#""2026-03-03 02:54-0730""#,
    r#""2026-03-03 24:00:00""#,
    r#""0001-01-01""#,
    r#""1000-01-01""#,
    r#""9999-12-31T23:59:59.999999Z""#,
    r#""03.03.2026""#,
    r#""infinity""#,
    r#""now""#,
    r#""1772506496""#,
    r#""17725064961""#,
    r#""99999999""#,
    r#""a,b , c""#,
    r#""  ,, ""#,
    r#""['a', 'b']""#,
    r#""[\"a\" ,'', b]""#,
    r#""[a''', x''b]""#,
    r#""[]""#,
    r#""[""#,
    r#""München, Bayern, DE""#,
    r#""a, b, c, US""#,
    r#"", US""#,
    r#""DATACENTER""#,
    r#""VPN""#,
    r#""online""#,
    r#""not listed""#,
    r#""\ud83d\ude80 e\u0301 \u00a0\u200b""#,
    "[]",
    r#"["b", "a", "a", 1.50, true, null, "", ["x"], {"y": 1}]"#,
    r#"[{"z": 1}, []]"#,
    "{}",
    r#"{"zeta": 1, "b": "2", "Alpha": null, "": 3, "ä": "x"}"#,
    r#"{"big": 9223372036854775807, "more": 1}"#,
    r#"[[]]"#,
    r#"["", null, []]"#,
];

/// A text that nearly is a date, a number or a list, as JSON.
pub fn text(chance: &mut Chance) -> String {
    let models = [
        "2026-03-03 02:54:56.123456 +05:30",
        "2024-02-29T23:59Z",
        "1999-12-31",
        "1772506496",
        "-9223372036854775807.5",
        " +0012.0 ",
        "AS2147483647.00",
        "as0012",
        "false",
        "[ 'a' , \"b\" ]",
        "a , b,c",
        "St Louis, Missouri, US",
    ];
    let mut text: Vec<char> = chance.one(&models.map(|model| model)).chars().collect();
    let letters: Vec<char> = "0123456789+-.:,TZ '\"[]aASsUTC\t\u{b}eé/".chars().collect();
    for _ in 0..chance.below(4) {
        let at = chance.below(text.len().max(1));
        let letter = letters[chance.below(letters.len())];
        match chance.below(3) {
            0 if at < text.len() => text[at] = letter,
            1 if at < text.len() => drop(text.remove(at)),
            _ => text.insert(at.min(text.len()), letter),
        }
    }
    serde_json::Value::from(text.into_iter().collect::<String>()).to_string()
}

/// Any value: one of the list, a text that is nearly something, a text of 20 kB.
pub fn value(chance: &mut Chance) -> String {
    match chance.below(40) {
        0 => format!("{:?}", "x".repeat(20_000)),
        1 => format!("[{}{}]", "[".repeat(300), "]".repeat(300)),
        2..=9 => text(chance),
        _ => chance.one(&VALUES).to_string(),
    }
}

fn object(chance: &mut Chance, members: &[&str], inside: &mut dyn FnMut(&mut Chance, &str) -> String) -> String {
    if chance.below(25) == 0 {
        return value(chance);
    }
    let kept: Vec<&&str> = members.iter().filter(|_| chance.below(8) > 0).collect();
    let members: Vec<String> = kept.iter().map(|name| format!("{name:?}: {}", inside(chance, name))).collect();
    format!("{{{}}}", members.join(", "))
}

fn values(chance: &mut Chance, members: &[&str]) -> String {
    object(chance, members, &mut |chance, _| value(chance))
}

fn several(chance: &mut Chance, up_to: usize, one: impl Fn(&mut Chance) -> String) -> String {
    let items: Vec<String> = (0..chance.below(up_to)).map(|_| one(chance)).collect();
    format!("[{}]", items.join(", "))
}

/// An answer of a service, in one of the shapes in which it was ever cached, with odd values in all places.
pub fn answer(service: &str, chance: &mut Chance) -> String {
    match service {
        "dshield" => {
            let inner = [
                "as",
                "asname",
                "ascountry",
                "network",
                "asabusecontact",
                "count",
                "attacks",
                "mindate",
                "maxdate",
                "threatfeeds",
            ];
            object(chance, &["ip", "ipx"], &mut |chance, _| values(chance, &inner))
        }
        "urlhaus" => {
            let outer = [
                "host",
                "url_count",
                "urls",
                "tags",
                "threat",
                "firstseen",
                "date_added",
                "blacklists",
                "urlhaus_reference",
            ];
            object(chance, &outer, &mut |chance, name| match name {
                "urls" => several(chance, 4, |chance| values(chance, &["url_status", "tags", "threat"])),
                "blacklists" => values(chance, &["spamhaus_dbl", "surbl"]),
                _ => value(chance),
            })
        }
        "virustotal" => {
            let inner = [
                "sha256",
                "last_analysis_stats",
                "popular_threat_classification",
                "type_description",
                "meaningful_name",
                "names",
                "tags",
                "reputation",
                "size",
                "first_submission_date",
                "last_submission_date",
                "last_analysis_date",
                "asn",
                "as_owner",
                "country",
            ];
            let attributes = object(chance, &inner, &mut |chance, name| match name {
                "last_analysis_stats" => {
                    values(chance, &["malicious", "suspicious", "undetected", "harmless", "type-unsupported"])
                }
                "popular_threat_classification" => values(chance, &["suggested_threat_label"]),
                _ => value(chance),
            });
            match chance.below(3) {
                0 => format!(r#"{{"data": {{"attributes": {attributes}, "id": 1}}}}"#),
                1 => format!(r#"{{"attributes": {attributes}, "type": "file"}}"#),
                _ => attributes,
            }
        }
        "spur" => match chance.below(3) {
            0 => object(
                chance,
                &["as", "organization", "infrastructure", "client", "location", "risks", "services", "tunnels"],
                &mut |chance, name| match name {
                    "as" => values(chance, &["number", "organization"]),
                    "client" => values(chance, &["behaviors", "proxies", "types", "count", "countries", "spread"]),
                    "location" => values(chance, &["city", "state", "country"]),
                    "tunnels" => several(chance, 3, |chance| values(chance, &["type", "operator", "anonymous"])),
                    _ => value(chance),
                },
            ),
            shape => {
                // values of one kind only, so that both orders are met, and lists of nothing
                let texts = chance.below(2) == 0;
                let items: Vec<String> = (0..chance.below(3) * 9)
                    .map(|_| match chance.below(3) {
                        0 => r#""""#.to_owned(),
                        _ if texts => text(chance),
                        _ => value(chance),
                    })
                    .collect();
                let list = format!("[{}]", items.join(", "));
                if shape == 1 {
                    list
                } else {
                    format!(r#"{{"spur_data": {list}}}"#)
                }
            }
        },
        _ => value(chance),
    }
}
