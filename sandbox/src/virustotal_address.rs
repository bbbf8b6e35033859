//! VirusTotal's report of an address.

use std::net::IpAddr;

use serde_json::{json, Map, Value};

use crate::draw::Draw;
use crate::networks;
use crate::virustotal_engines::ENGINES;

/// The report of an address; there is one for every public address.
pub fn address(key: &str, ip: IpAddr) -> Value {
    let draw = |subject| Draw::of("virustotal", key, subject);
    let network = networks::owner(ip);
    let mut counts = draw("detections");
    let malicious = if counts.chance(0.3) { counts.between(1, 18) as usize } else { 0 };
    let suspicious = counts.between(0, 2) as usize;
    let mut engines = draw("engines");
    let mut results = Map::new();
    for (place, engine) in ENGINES.iter().enumerate() {
        let (category, result) = if place < malicious {
            ("malicious", "malware")
        } else if place < malicious + suspicious {
            ("suspicious", "suspicious")
        } else if engines.chance(0.6) {
            ("harmless", "clean")
        } else {
            ("undetected", "unrated")
        };
        results.insert(
            (*engine).to_string(),
            json!({"method": "blacklist", "engine_name": engine, "category": category, "result": result}),
        );
    }
    let count = |category: &str| results.values().filter(|result| result["category"] == category).count();
    let stats = json!({
        "malicious": count("malicious"), "suspicious": count("suspicious"),
        "undetected": count("undetected"), "harmless": count("harmless"), "timeout": 0,
    });
    let mut facts = draw("facts");
    let analysed = facts.moment();
    let mut attributes = json!({
        "asn": network.asn,
        "as_owner": network.organization,
        "country": network.country,
        "continent": network.continent,
        "network": networks::announced(ip),
        "regional_internet_registry": network.registry,
        "last_analysis_date": analysed,
        "last_modification_date": analysed + 4_199,
        "last_analysis_stats": stats,
        "last_analysis_results": results,
        "reputation": -facts.between(-20, 60),
        "tags": facts.some(&["suspicious-udp", "self-signed", "ssh"], 0, 2),
        "total_votes": {"harmless": facts.between(0, 9), "malicious": facts.between(0, 40)},
        "whois": format!("NetRange: {}\nOrganization: {}\n", networks::announced(ip), network.organization),
        "whois_date": analysed - 86_400,
    });
    if facts.chance(0.5) {
        attributes["jarm"] = json!(facts.hex(62));
    }
    json!({"data": {
        "id": key,
        "type": "ip_address",
        "links": {"self": format!("https://www.virustotal.com/api/v3/ip_addresses/{key}")},
        "attributes": attributes,
    }})
}
