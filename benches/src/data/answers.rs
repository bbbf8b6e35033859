//! Answers of dshield, urlhaus and spur for address number `n`, in the providers' shapes and sizes.

use super::dice::Dice;
use std::fmt::Write;

const NAMES: &[&str] = &[
    "CHINANET-BACKBONE No.31,Jin-rong Street",
    "DIGITALOCEAN-ASN",
    "OVH",
    "HETZNER-AS",
    "AMAZON-02",
    "MICROSOFT-CORP-MSN-AS-BLOCK",
    "KIXS-AS-KR Korea Telecom",
    "VNPT-AS-VN VNPT Corp",
    "ROSTELECOM-AS",
    "TELEFONICA BRASIL S.A",
    "RELIANCEJIO-IN Reliance Jio Infocomm Limited",
    "GOOGLE-CLOUD-PLATFORM",
];
const COUNTRIES: &[&str] = &["CN", "US", "FR", "DE", "KR", "VN", "RU", "BR", "IN", "NL", "GB", "SG", "ID", "TW", "IT"];
const FEEDS: &[&str] = &["mastodon", "openresolver", "blocklistde22", "ciarmy", "webiron", "forumspam", "bruteforce"];
const CITIES: &[&str] =
    &["Amsterdam", "Frankfurt am Main", "Ashburn", "Singapore", "Ho Chi Minh City", "Sao Paulo", "Moscow"];
const PROXIES: &[&str] =
    &["LUMINATI_PROXY", "SHIFTER_PROXY", "OXYLABS_PROXY", "SMARTPROXY_PROXY", "NETNUT_PROXY", "922_PROXY"];
const BEHAVIORS: &[&str] = &["TOR_PROXY_USER", "FILE_SHARING", "PPTP_USER", "WEB_SCRAPING"];
const RISKS: &[&str] =
    &["TUNNEL", "WEB_SCRAPING", "LOGIN_BRUTEFORCE", "CALLBACK_PROXY", "GEO_MISMATCH", "SPAM", "ANONYMOUS_ACCESS"];
const SERVICES: &[&str] = &["OPENVPN", "IPSEC", "WIREGUARD", "PPTP", "SSH", "SOCKS", "HTTP_PROXY", "SQUID"];
const OPERATORS: &[&str] = &["NORD_VPN", "MULLVAD_VPN", "PROTON_VPN", "SURFSHARK_VPN", "EXPRESS_VPN"];
const TAGS: &[&str] = &["elf", "mirai", "mozi", "arm", "mips", "32-bit", "gafgyt", "sh", "ddos", "CoinMiner", "xmrig"];

/// Three quarters are known to DShield; all have their network. 280 to 600 bytes. A later `generation` differs a little.
pub fn dshield(n: u64, address: &str, generation: u64) -> String {
    let mut dice = Dice::new("dshield", n);
    let mut text = String::with_capacity(640);
    let name = dice.pick(NAMES);
    let country = dice.pick(COUNTRIES);
    let (asn, size, contact) = (dice.between(100, 400_000), dice.between(256, 20_000_000) + generation, dice.hex(8));
    let network = format!("{}.{}.0.0/{}", dice.between(32, 99), dice.below(256), dice.between(11, 22));
    let _ = write!(text, r#"{{"ip":{{"number":"{address}","#);
    if dice.chance(0.75) {
        let (count, attacks) = (dice.between(1, 90_000), dice.between(1, 4_000));
        let day = |dice: &mut Dice, year: u64| format!("{year}-{:02}-{:02}", dice.between(1, 12), dice.between(1, 28));
        let (first, last) = (day(&mut dice, 2022), day(&mut dice, 2025));
        let _ = write!(
            text,
            r#""count":{count},"attacks":{attacks},"maxdate":"{last}","mindate":"{first}","updated":"{last} {:02}:{:02}:{:02}","comment":null,"maxrisk":{},"#,
            dice.below(24),
            dice.below(60),
            dice.below(60),
            if dice.chance(0.3) { "10" } else { "null" },
        );
    } else {
        text.push_str(r#""count":null,"attacks":null,"maxdate":null,"mindate":null,"updated":null,"comment":null,"maxrisk":null,"#);
    }
    let _ = write!(
        text,
        r#""asabusecontact":"network-abuse-desk-{contact}@noc.example.net","as":{asn},"asname":"{name}","ascountry":"{country}","assize":{size},"network":"{network}""#
    );
    let feeds = dice.below(4);
    if feeds > 0 {
        let from = dice.below(4);
        let list = (from..from + feeds).map(|feed| {
            let (first, last) = (dice.between(1, 28), dice.between(1, 28));
            format!(r#""{}":{{"lastseen":"2025-05-{last:02}","firstseen":"2024-11-{first:02}"}}"#, FEEDS[feed as usize])
        });
        let list = list.collect::<Vec<_>>().join(",");
        let _ = write!(text, r#","threatfeeds":{{{list}}}"#);
    }
    text.push_str("}}");
    text
}

/// Six of a thousand have URLs (one to ten); the others have none. 30 bytes, or some kilobytes.
pub fn urlhaus(n: u64, address: &str) -> String {
    let mut dice = Dice::new("urlhaus", n);
    if !dice.chance(0.006) {
        return r#"{"query_status":"no_results"}"#.to_string();
    }
    let count = dice.between(1, 10);
    let urls = (0..count).map(|_| {
        let id = dice.between(2_000_000, 3_500_000);
        let tags = (0..dice.between(1, 4)).map(|_| format!("\"{}\"", dice.pick(TAGS))).collect::<Vec<_>>().join(",");
        format!(
            r#"{{"id":"{id}","urlhaus_reference":"https://urlhaus.abuse.ch/url/{id}/","url":"http://{address}:{}/{}","url_status":"{}","date_added":"2025-{:02}-{:02} 11:22:33 UTC","threat":"malware_download","reporter":"geenensp","larted":"true","takedown_time_seconds":"{}","tags":[{tags}]}}"#,
            dice.between(1_024, 65_535),
            dice.hex(12),
            if dice.chance(0.2) { "online" } else { "offline" },
            dice.between(1, 6),
            dice.between(1, 28),
            dice.between(60, 900_000),
        )
    });
    let urls = urls.collect::<Vec<_>>().join(",");
    format!(
        r#"{{"query_status":"ok","urlhaus_reference":"https://urlhaus.abuse.ch/host/{address}/","host":"{address}","firstseen":"2024-02-09 13:37:11 UTC","url_count":"{count}","blacklists":{{"spamhaus_dbl":"not listed","surbl":"not listed"}},"urls":[{urls}]}}"#
    )
}

/// 0.5 to 2 KB, by the length of the lists.
pub fn spur(n: u64, address: &str) -> String {
    let mut dice = Dice::new("spur", n);
    let list = |dice: &mut Dice, from: &[&str], most: u64| {
        let start = dice.below(from.len() as u64);
        (0..dice.between(1, most))
            .map(|k| format!("\"{}\"", from[((start + k) % from.len() as u64) as usize]))
            .collect::<Vec<_>>()
            .join(",")
    };
    let name = dice.pick(NAMES);
    let [asn, users, countries, spread] = [400_000, 60, 5, 9_000_000].map(|most| dice.between(1, most));
    let infrastructure = dice.pick(&["DATACENTER", "VPN", "MOBILE", "RESIDENTIAL", "BUSINESS"]);
    let behaviors = list(&mut dice, BEHAVIORS, 3);
    let proxies = list(&mut dice, PROXIES, 5);
    let risks = list(&mut dice, RISKS, 5);
    let services = list(&mut dice, SERVICES, 6);
    let (city, country, state) = (dice.pick(CITIES), dice.pick(COUNTRIES), dice.hex(6));
    let hash = dice.hex(5);
    let mut text = String::with_capacity(2_048);
    let _ = write!(
        text,
        r#"{{"as":{{"number":{asn},"organization":"{name}"}},"client":{{"behaviors":[{behaviors}],"concentration":{{"city":"{city}","country":"{country}","density":0.{},"geohash":"{hash}","skew":{},"state":"{state}"}},"count":{users},"countries":{countries},"proxies":[{proxies}],"spread":{spread},"types":["MOBILE","DESKTOP"]}},"infrastructure":"{infrastructure}","ip":"{address}","location":{{"city":"{city}","country":"{country}","state":"{state}"}},"organization":"{name}","risks":[{risks}],"services":[{services}],"tunnels":["#,
        dice.between(100, 999),
        dice.between(1, 90),
    );
    // few have many: exits of a service with a whole network
    let tunnels = if dice.chance(0.5) { dice.between(1, 5) } else { 0 };
    for number in 0..tunnels {
        let network = format!("{}.{}.{}", dice.between(32, 99), dice.below(256), dice.below(256));
        let addresses = |dice: &mut Dice| {
            let count = dice.between(1, 6);
            (0..count).map(|_| format!("\"{network}.{}\"", dice.between(1, 254))).collect::<Vec<_>>().join(",")
        };
        let (entries, exits) = (addresses(&mut dice), addresses(&mut dice));
        let _ = write!(
            text,
            r#"{}{{"anonymous":{},"entries":[{entries}],"exits":[{exits}],"operator":"{}","type":"VPN"}}"#,
            if number == 0 { "" } else { "," },
            dice.chance(0.8),
            dice.pick(OPERATORS),
        );
    }
    text.push_str("]}");
    text
}

#[cfg(test)]
mod tests {
    use super::super::keys::address;
    use super::*;

    /// Least, middle and most bytes of 5,000 answers, each of which must be JSON without an escape.
    fn sizes(make: impl Fn(u64, &str) -> String) -> (usize, usize, usize) {
        let mut sizes: Vec<usize> = (0..5_000)
            .map(|n| {
                let text = make(n, &address(n));
                serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|why| panic!("{why}: {text}"));
                assert!(!text.contains(['\\', '\t', '\n']), "{text}");
                text.len()
            })
            .collect();
        sizes.sort_unstable();
        (sizes[0], sizes[2_500], sizes[4_999])
    }

    #[test]
    fn answers_have_the_sizes_of_the_providers() {
        let (least, middle, most) = sizes(|n, address| dshield(n, address, 0));
        assert!(least >= 280 && (350..=550).contains(&middle) && most <= 640, "dshield {least} {middle} {most}");
        let (least, middle, most) = sizes(spur);
        assert!(least >= 480 && (550..=1_100).contains(&middle) && most <= 2_048, "spur {least} {middle} {most}");
        let (least, middle, most) = sizes(urlhaus);
        assert!(least < 60 && middle < 60 && most > 500, "urlhaus {least} {middle} {most}");
    }

    #[test]
    fn another_generation_is_another_answer() {
        assert!((0..1_000).all(|n| dshield(n, "32.0.0.1", 0) != dshield(n, "32.0.0.1", 1)));
    }

    #[test]
    fn six_of_a_thousand_have_urls() {
        let with = (0..100_000).filter(|&n| urlhaus(n, "32.0.0.1").len() > 60).count();
        assert!((500..700).contains(&with), "{with}");
    }
}
