//! Reports of VirusTotal on files, 20 to 25 KB: the verdicts of 72 engines and what is known of the file.

use super::dice::Dice;
use super::keys::file_hash;
use std::fmt::Write;

const ENGINES: &[&str] = &[
    "Bkav",
    "Lionic",
    "tehtris",
    "MicroWorld-eScan",
    "ClamAV",
    "CMC",
    "CAT-QuickHeal",
    "Skyhigh",
    "ALYac",
    "Malwarebytes",
    "Zillya",
    "Sangfor",
    "K7AntiVirus",
    "K7GW",
    "Cybereason",
    "Arcabit",
    "Baidu",
    "VirIT",
    "Symantec",
    "ESET-NOD32",
    "TrendMicro-HouseCall",
    "Avast",
    "Cynet",
    "Kaspersky",
    "BitDefender",
    "NANO-Antivirus",
    "SUPERAntiSpyware",
    "Tencent",
    "TACHYON",
    "Emsisoft",
    "F-Secure",
    "DrWeb",
    "VIPRE",
    "TrendMicro",
    "FireEye",
    "Sophos",
    "huorong",
    "Jiangmin",
    "Google",
    "Avira",
    "Antiy-AVL",
    "Kingsoft",
    "Gridinsoft",
    "Xcitium",
    "Microsoft",
    "ViRobot",
    "ZoneAlarm",
    "GData",
    "Varist",
    "AhnLab-V3",
    "Acronis",
    "McAfee",
    "MAX",
    "VBA32",
    "Zoner",
    "Rising",
    "Yandex",
    "Ikarus",
    "MaxSecure",
    "Fortinet",
    "AVG",
    "Panda",
    "CrowdStrike",
    "alibabacloud",
    "Avast-Mobile",
    "DeepInstinct",
    "APEX",
    "Paloalto",
    "Trapmine",
    "Webroot",
    "Cylance",
    "SentinelOne",
];
const FAMILIES: &[&str] =
    &["mirai", "gafgyt", "mozi", "xorddos", "coinminer", "tsunami", "dofloo", "prometei", "kinsing"];
const SYMBOLS: &[&str] =
    &["socket", "connect", "recv", "send", "fork", "kill", "inet_addr", "getpid", "strstr", "memcpy", "select"];

/// The report on file number `n`.
pub fn report(n: u64) -> String {
    let mut dice = Dice::new("virustotal", n);
    let hash = file_hash(n);
    let family = dice.pick(FAMILIES);
    let share = if dice.chance(0.85) { 0.3 + dice.unit() * 0.6 } else { 0.0 };
    let (results, malicious) = engines(&mut dice, family, share);
    let undetected = ENGINES.len() as u64 - malicious;
    let (sha1, md5, vhash, tlsh, telf) = (dice.hex(40), dice.hex(32), dice.hex(32), dice.hex(70), dice.hex(70));
    let seen = dice.between(1_600_000_000, 1_740_000_000);
    let mut text = String::with_capacity(28_000);
    let _ = write!(
        text,
        r#"{{"data":{{"id":"{hash}","type":"file","links":{{"self":"https://www.virustotal.com/api/v3/files/{hash}"}},"attributes":{{"sha256":"{hash}","sha1":"{sha1}","md5":"{md5}","vhash":"{vhash}","tlsh":"T1{tlsh}","telfhash":"t1{telf}","ssdeep":"1536:{}:{}","size":{},"type_tag":"elf","type_description":"ELF","magic":"ELF 32-bit LSB executable, ARM, version 1 (ARM), statically linked, stripped","first_submission_date":{seen},"last_submission_date":{},"last_analysis_date":{},"times_submitted":{},"unique_sources":{},"reputation":-{},"total_votes":{{"harmless":0,"malicious":{}}},"meaningful_name":"{family}.arm7","#,
        dice.hex(44),
        dice.hex(40),
        dice.between(1_000, 3_000_000),
        seen + dice.below(1_000_000),
        seen + dice.below(9_000_000),
        dice.between(1, 90),
        dice.between(1, 60),
        dice.below(200),
        dice.below(30),
    );
    let _ = write!(
        text,
        r#""last_analysis_stats":{{"malicious":{malicious},"suspicious":0,"undetected":{undetected},"harmless":0,"timeout":0,"confirmed-timeout":0,"failure":0,"type-unsupported":4}},"popular_threat_classification":{{"suggested_threat_label":"trojan.{family}","popular_threat_category":[{{"value":"trojan","count":{malicious}}}],"popular_threat_name":[{{"value":"{family}","count":{}}}]}},"tags":["elf","{}","{}"],"#,
        malicious / 2,
        dice.pick(&["arm", "mips", "x86", "sparc", "ppc"]),
        dice.pick(&["upx", "64bits", "contains-elf", "shared-lib"]),
    );
    let names =
        (0..dice.between(4, 24)).map(|_| format!("\"{}.{}\"", dice.hex(16), dice.pick(&["arm7", "sh", "bin", "x86"])));
    let _ = write!(text, r#""names":[{}],"#, names.collect::<Vec<_>>().join(","));
    elf_info(&mut text, &mut dice);
    rules(&mut text, &mut dice);
    let _ = write!(text, r#""last_analysis_results":{{{results}}}}}}}}}"#);
    text
}

/// The engines' verdicts, and how many say malicious.
fn engines(dice: &mut Dice, family: &str, share: f64) -> (String, u64) {
    let mut malicious = 0;
    let mut list = Vec::with_capacity(ENGINES.len());
    for engine in ENGINES {
        let (major, minor) = (dice.between(1, 24), dice.below(99_999));
        let (category, result) = if dice.chance(share) {
            malicious += 1;
            (
                "malicious",
                format!("\"{}.Linux.{family}.{}\"", dice.pick(&["Trojan", "Backdoor", "Worm", "ELF"]), dice.hex(6)),
            )
        } else {
            ("undetected", "null".to_string())
        };
        list.push(format!(
            r#""{engine}":{{"method":"blacklist","engine_name":"{engine}","engine_version":"{major}.{}.{minor}","engine_update":"202507{:02}","category":"{category}","result":{result}}}"#,
            dice.below(10),
            dice.between(1, 28),
        ));
    }
    (list.join(","), malicious)
}

fn elf_info(text: &mut String, dice: &mut Dice) {
    let sections = (0..dice.between(32, 40)).map(|number| {
        format!(
            r#"{{"name":".{}{number}","section_type":"PROGBITS","virtual_address":{},"physical_offset":{},"size":{},"flags":"{}"}}"#,
            dice.pick(&["text", "data", "rodata", "bss", "init"]),
            dice.below(1 << 24),
            dice.below(1 << 20),
            dice.below(1 << 20),
            dice.pick(&["AX", "WA", "A", "AMS"]),
        )
    });
    let sections = sections.collect::<Vec<_>>().join(",");
    let imports = (0..dice.between(48, 72))
        .map(|number| format!(r#"{{"name":"{}_{number}","type":"FUNC","bind":"GLOBAL"}}"#, dice.pick(SYMBOLS)));
    let imports = imports.collect::<Vec<_>>().join(",");
    let _ = write!(
        text,
        r#""elf_info":{{"header":{{"hdr_version":"1 (current)","type":"EXEC (Executable file)","machine":"ARM","entrypoint":{},"class":"ELF32","data":"2's complement, little endian","os_abi":"UNIX - System V"}},"section_list":[{sections}],"import_list":[{imports}]}},"#,
        dice.below(1 << 20),
    );
}

fn rules(text: &mut String, dice: &mut Dice) {
    let rules = (0..dice.between(2, 5)).map(|_| {
        format!(
            r#"{{"ruleset_id":"{}","ruleset_name":"Linux_Trojan","rule_name":"Linux_Trojan_{}","match_in_subfile":false,"author":"Elastic Security","source":"https://github.com/elastic/protections-artifacts"}}"#,
            dice.hex(10),
            dice.hex(8),
        )
    });
    let _ = write!(text, r#""crowdsourced_yara_results":[{}],"#, rules.collect::<Vec<_>>().join(","));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn reports_are_json_of_20_to_25_kb() {
        let mut sizes: Vec<usize> = (0..500).map(|n| report(n).len()).collect();
        sizes.sort_unstable();
        assert!(sizes[0] >= 18_000 && (20_000..=25_000).contains(&sizes[250]) && sizes[499] <= 26_000, "{sizes:?}");
    }

    #[test]
    fn the_counts_agree_with_the_verdicts() {
        let text = report(7);
        assert!(!text.contains('\\'));
        let report: Value = serde_json::from_str(&text).unwrap();
        let attributes = &report["data"]["attributes"];
        let results = attributes["last_analysis_results"].as_object().unwrap();
        let malicious = results.values().filter(|verdict| verdict["category"] == "malicious").count() as u64;
        assert_eq!(results.len(), 72);
        assert_eq!(attributes["last_analysis_stats"]["malicious"].as_u64(), Some(malicious));
        assert_eq!(report["data"]["id"].as_str(), Some(file_hash(7).as_str()));
    }
}
