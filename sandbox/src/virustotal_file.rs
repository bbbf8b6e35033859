//! VirusTotal's report of a file: 20 to 25 KB, invented from the hash.

use serde_json::{json, Map, Value};

use crate::draw::{Draw, LATEST};
use crate::virustotal_engines::ENGINES;

const FAMILIES: &[(&str, &str)] = &[
    ("trojan", "mirai"),
    ("trojan", "gafgyt"),
    ("trojan", "mozi"),
    ("trojan", "xorddos"),
    ("miner", "xmrig"),
    ("downloader", "shell"),
    ("hacktool", "sshbrute"),
];

struct Form {
    description: &'static str,
    tag: &'static str,
    extension: &'static str,
    magic: &'static str,
    tags: &'static [&'static str],
}

const FORMS: &[Form] = &[
    Form {
        description: "ELF",
        tag: "elf",
        extension: "so",
        magic: "ELF 32-bit LSB executable, ARM, version 1 (ARM), statically linked, stripped",
        tags: &["executable", "linux", "elf"],
    },
    Form {
        description: "Shell script",
        tag: "shell",
        extension: "sh",
        magic: "Bourne-Again shell script, ASCII text executable",
        tags: &["source", "linux", "script", "shell", "sh"],
    },
    Form {
        description: "Win32 EXE",
        tag: "peexe",
        extension: "exe",
        magic: "PE32 executable (GUI) Intel 80386, for MS Windows",
        tags: &["executable", "windows", "win32", "pe", "peexe"],
    },
    Form {
        description: "Android",
        tag: "android",
        extension: "apk",
        magic: "Zip archive data, at least v2.0 to extract",
        tags: &["executable", "mobile", "android", "apk"],
    },
    Form {
        description: "Text",
        tag: "text",
        extension: "txt",
        magic: "ASCII text, with no line terminators",
        tags: &["text"],
    },
];

/// The report of a file, or None for one that is unknown (about a quarter) or a key that is no hash.
pub fn file(key: &str) -> Option<Value> {
    let hash = matches!(key.len(), 32 | 40 | 64) && key.bytes().all(|b| b.is_ascii_hexdigit());
    // Letters of either case name the same file.
    let key = key.to_ascii_lowercase();
    let draw = |subject| Draw::of("virustotal", &key, subject);
    if !hash || draw("unknown").chance(0.25) {
        return None;
    }
    let mut names = draw("hashes");
    let mut digest = |digits: usize| {
        let invented = names.hex(digits);
        if key.len() == digits {
            key.clone()
        } else {
            invented
        }
    };
    let (md5, sha1, sha256) = (digest(32), digest(40), digest(64));
    let form = draw("form").pick(FORMS);
    let malicious = detections(&mut draw("detections"));
    let mut attributes = Map::new();
    engines(&mut attributes, malicious, &mut draw("engines"));
    dates(&mut attributes, &mut draw("dates"));
    identity(&mut attributes, form, &mut draw("identity"));
    strings(&mut attributes, &mut draw("strings"));
    for (name, value) in [("md5", &md5), ("sha1", &sha1), ("sha256", &sha256)] {
        attributes.insert(name.into(), json!(value));
    }
    Some(json!({"data": {
        // Whatever the file was asked by, the id is its SHA-256.
        "id": sha256,
        "type": "file",
        "links": {"self": format!("https://www.virustotal.com/api/v3/files/{sha256}")},
        "attributes": attributes,
    }}))
}

fn detections(draw: &mut Draw) -> usize {
    match draw.between(0, 99) {
        0..18 => 0,
        18..22 => 1,
        22..35 => draw.between(2, 12) as usize,
        _ => draw.between(20, 56) as usize,
    }
}

fn engines(attributes: &mut Map<String, Value>, malicious: usize, draw: &mut Draw) {
    let (category, family) = *draw.pick(FAMILIES);
    let detecting = draw.some(ENGINES, malicious, malicious);
    let mut unsupported = 0;
    let mut timeouts = 0;
    let mut results = Map::new();
    for engine in ENGINES {
        let (verdict, result) = if detecting.contains(&engine) {
            let number = draw.hex(4).to_uppercase();
            ("malicious", json!(format!("Linux.{category}/{family}.{number}!gen")))
        } else if draw.chance(0.15) {
            unsupported += 1;
            ("type-unsupported", Value::Null)
        } else if draw.chance(0.01) {
            timeouts += 1;
            ("timeout", Value::Null)
        } else {
            ("undetected", Value::Null)
        };
        let version = if draw.chance(0.05) {
            Value::Null
        } else {
            json!(format!("{}.0.{}", draw.between(1, 20), draw.between(1, 999)))
        };
        results.insert(
            (*engine).to_string(),
            json!({
                "method": "blacklist",
                "engine_name": engine,
                "engine_version": version,
                "engine_update": format!("202606{:02}", draw.between(1, 30)),
                "category": verdict,
                "result": result,
            }),
        );
    }
    let undetected = ENGINES.len() - malicious - unsupported - timeouts;
    attributes.insert("last_analysis_results".into(), results.into());
    attributes.insert(
        "last_analysis_stats".into(),
        json!({
            "malicious": malicious, "suspicious": 0, "undetected": undetected, "harmless": 0,
            "timeout": timeouts, "confirmed-timeout": 0, "failure": 0, "type-unsupported": unsupported,
        }),
    );
    if malicious >= 2 {
        attributes.insert(
            "popular_threat_classification".into(),
            json!({
                "suggested_threat_label": format!("{category}.{family}/linux"),
                "popular_threat_category": [{"value": category, "count": malicious.div_ceil(2)}],
                "popular_threat_name": [{"value": family, "count": malicious.div_ceil(3)}, {"value": "linux", "count": 1}],
            }),
        );
    }
    let reputation = if malicious > 0 { -draw.between(0, 562) } else { draw.between(0, 72) };
    attributes.insert("reputation".into(), json!(reputation));
    attributes.insert(
        "total_votes".into(),
        json!({"harmless": draw.between(0, 4), "malicious": draw.between(0, malicious as i64)}),
    );
}

fn dates(attributes: &mut Map<String, Value>, draw: &mut Draw) {
    let first = draw.moment();
    let last = (first + draw.skewed(90_000_000)).min(LATEST);
    for (name, seconds, always) in [
        ("first_submission_date", first, true),
        ("last_submission_date", last, true),
        ("last_analysis_date", last + 7, true),
        ("last_modification_date", last + 3_607, true),
        ("creation_date", first - draw.skewed(9_000_000), false),
    ] {
        if always || draw.chance(0.3) {
            attributes.insert(name.into(), json!(seconds));
        }
    }
    attributes.insert("times_submitted".into(), json!(draw.skewed(4_000)));
    attributes.insert("unique_sources".into(), json!(draw.skewed(900)));
}

fn identity(attributes: &mut Map<String, Value>, form: &Form, draw: &mut Draw) {
    let names: Vec<String> = (0..draw.between(1, 20))
        .map(|_| format!("/var/tmp/{}/{}.{}", draw.hex(6), draw.hex(12), form.extension))
        .collect();
    attributes.insert("meaningful_name".into(), json!(names[0]));
    attributes.insert("names".into(), json!(names));
    attributes.insert("type_description".into(), json!(form.description));
    attributes.insert("type_tag".into(), json!(form.tag));
    attributes.insert("type_extension".into(), json!(form.extension));
    attributes.insert("type_tags".into(), json!(form.tags));
    attributes.insert("tags".into(), json!(draw.some(form.tags, 0, 3)));
    attributes.insert("magic".into(), json!(form.magic));
    attributes.insert("size".into(), json!(draw.skewed(8_000_000)));
    let ssdeep = format!("1536:{}:{}", draw.hex(40), draw.hex(20));
    attributes.insert("ssdeep".into(), json!(ssdeep));
    attributes.insert("tlsh".into(), json!(format!("T1{}", draw.hex(70).to_uppercase())));
    attributes.insert("vhash".into(), json!(draw.hex(32)));
}

/// Blocks with the strings found inside files: control characters, `\u0000` among them.
fn strings(attributes: &mut Map<String, Value>, draw: &mut Draw) {
    let mut found: Vec<String> =
        (0..draw.between(5, 20)).map(|_| format!("GET /{}?id={}", draw.hex(10), draw.hex(24))).collect();
    match draw.between(0, 99) {
        0..15 => found.push(format!("libc\u{0}start\u{0}{}", draw.hex(6))),
        15..25 => found.push("\u{1}\u{2}\u{5}\u{6}\u{10}\u{11} \u{7f}".to_string()),
        // The text of an escape, harmless: in JSON a backslash stands before its backslash.
        25..35 => found.push("C:\\u0000\\dropper.exe".to_string()),
        35..40 => found.push("na\u{ef}ve \u{fffd} \u{1f41b}".to_string()),
        _ => {}
    }
    attributes.insert(
        "exiftool".into(),
        json!({"FileType": "data", "MIMEType": "application/octet-stream", "": "unnamed", "Strings": found}),
    );
    let sections: Vec<Value> = (0..draw.between(3, 8))
        .map(|n| {
            json!({
                "name": format!(".s{n}"),
                "entropy": draw.between(0, 800) as f64 / 100.0,
                "virtual_address": draw.between(4_096, 4_000_000),
                "size": draw.between(0, 900_000),
                "md5": draw.hex(32),
            })
        })
        .collect();
    attributes.insert("sections".into(), json!(sections));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Answer;

    fn hashes() -> impl Iterator<Item = String> {
        (0..400).map(|n| Draw::of("test", &format!("{n}"), "sha256").hex(64))
    }

    #[test]
    fn a_quarter_of_all_files_is_unknown() {
        let unknown = hashes().filter(|hash| file(hash).is_none()).count();
        assert!((70..130).contains(&unknown), "{unknown} of 400");
    }

    #[test]
    fn a_report_is_about_as_large_as_the_recorded_ones() {
        let sizes: Vec<usize> =
            hashes().filter_map(|hash| file(&hash)).map(|body| Answer::pretty_json(200, &body).body.len()).collect();
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!((20_000..25_500).contains(&mean), "mean {mean}");
    }

    #[test]
    fn the_stats_count_the_results_and_the_label_is_there_from_two_detections() {
        for body in hashes().filter_map(|hash| file(&hash)) {
            let attributes = &body["data"]["attributes"];
            let stats = attributes["last_analysis_stats"].as_object().expect("stats");
            let sum: i64 = stats.values().filter_map(Value::as_i64).sum();
            assert_eq!(sum as usize, ENGINES.len());
            let malicious = attributes["last_analysis_results"]
                .as_object()
                .expect("results")
                .values()
                .filter(|result| result["category"] == "malicious")
                .count();
            assert_eq!(stats["malicious"], malicious);
            let label = attributes.get("popular_threat_classification");
            assert_eq!(label.is_some(), malicious >= 2);
        }
    }

    #[test]
    fn some_reports_carry_nul_and_some_only_the_text_of_it() {
        let bodies: Vec<String> = hashes().filter_map(|hash| file(&hash)).map(|body| body.to_string()).collect();
        let with = |text: &str| bodies.iter().filter(|body| body.contains(text)).count();
        assert!(with("libc\\u0000start") > 10);
        assert!(with("C:\\\\u0000\\\\dropper") > 10);
    }
}
