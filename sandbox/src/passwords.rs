//! Common passwords that stand in the ranges with their true SHA-1, so that a check of one finds it.

use std::collections::HashMap;
use std::sync::OnceLock;

use sha1::{Digest, Sha1};

/// Passwords that honeypots see often, and a plausible count of breaches for each.
///
/// The count of `password` is the one published in August 2026, the others only have its order of magnitude.
#[rustfmt::skip]
pub const COMMON_PASSWORDS: &[(&str, u64)] = &[
    ("123456", 209_972_844), ("password", 52_372_427), ("123456789", 38_113_787), ("12345678", 6_832_729),
    ("admin", 5_342_070), ("12345", 4_338_505), ("1234567", 3_622_916), ("1234567890", 3_090_351),
    ("qwerty", 2_680_642), ("1234", 2_357_003), ("111111", 2_095_776), ("123123", 1_881_105),
    ("abc123", 1_701_994), ("password1", 1_550_599), ("iloveyou", 1_421_183), ("000000", 1_309_460),
    ("1q2w3e4r", 1_212_170), ("qwerty123", 1_126_794), ("monkey", 1_052_350), ("dragon", 985_273),
    ("123321", 925_298), ("654321", 871_397), ("666666", 822_729), ("1qaz2wsx", 778_598),
    ("sunshine", 738_423), ("princess", 701_717), ("qwertyuiop", 668_068), ("football", 637_124),
    ("letmein", 608_585), ("121212", 582_193), ("superman", 557_724), ("master", 534_985),
    ("shadow", 513_805), ("baseball", 494_036), ("michael", 475_547), ("welcome", 459_221),
    ("charlie", 442_960), ("112233", 427_671), ("987654321", 413_274), ("hello", 399_694),
    ("7777777", 386_868), ("888888", 374_737), ("555555", 363_249), ("999999", 352_355), ("222222", 342_012),
    ("88888888", 332_182), ("00000000", 322_828), ("11111111", 313_919), ("12341234", 305_424),
    ("11223344", 297_317), ("123qwe", 289_573), ("1q2w3e", 282_168), ("1q2w3e4r5t", 275_082),
    ("zaq12wsx", 269_292), ("qazwsx", 262_787), ("asdfgh", 256_546), ("asdfghjkl", 250_556),
    ("zxcvbnm", 244_801), ("zxcvbn", 239_269), ("q1w2e3r4", 233_947), ("root", 228_824), ("toor", 223_889),
    ("raspberry", 219_133), ("ubnt", 214_547), ("support", 210_121), ("guest", 205_848), ("user", 201_720),
    ("test", 197_731), ("default", 193_874), ("changeme", 190_142), ("pi", 187_526), ("oracle", 184_028),
    ("postgres", 180_639), ("mysql", 177_354), ("ftp", 174_168), ("nagios", 171_078), ("admin123", 168_079),
    ("admin1234", 165_167), ("admin1", 162_339), ("administrator", 159_591), ("P@ssw0rd", 156_920),
    ("p@ssw0rd", 154_323), ("Passw0rd", 151_797), ("passw0rd", 149_339), ("Password", 146_947),
    ("Password1", 144_617), ("Password123", 142_348), ("password123", 140_137), ("P@ssword", 138_980),
    ("root123", 136_879), ("root1234", 134_831), ("rootroot", 132_833), ("test123", 130_883),
    ("test1234", 128_980), ("testing", 127_122), ("tester", 125_308), ("user123", 123_535),
    ("user1234", 121_804), ("guest123", 120_111), ("oracle123", 118_457), ("postgres123", 116_839),
    ("mysql123", 115_257), ("server", 113_709), ("server123", 112_195), ("linux", 110_713),
    ("ubuntu", 110_259), ("ubuntu123", 108_838), ("debian", 107_447), ("centos", 106_084),
    ("redhat", 104_749), ("fedora", 103_441), ("vagrant", 102_158), ("docker", 100_901), ("jenkins", 99_668),
    ("tomcat", 98_459), ("hadoop", 97_274), ("zabbix", 96_110), ("git", 94_969), ("gitlab", 93_848),
    ("deploy", 92_749), ("webmaster", 91_669), ("web", 90_609), ("www", 89_568), ("www-data", 89_542),
    ("nginx", 88_537), ("apache", 87_550), ("minecraft", 86_580), ("steam", 85_626), ("teamspeak", 84_689),
    ("ts3", 83_767), ("backup", 82_861), ("manager", 81_970), ("operator", 81_093), ("tech", 80_231),
    ("service", 79_382), ("system", 78_547), ("superuser", 77_726), ("supervisor", 76_917), ("cisco", 76_121),
    ("juniper", 75_337), ("mikrotik", 75_562), ("dlink", 74_802), ("netgear", 74_053), ("linksys", 73_316),
    ("huawei", 72_589), ("zte", 71_874), ("hikvision", 71_168), ("dahua", 70_473), ("dreambox", 69_788),
    ("vizxv", 69_112), ("xc3511", 68_447), ("xmhdipc", 67_790), ("juantech", 67_143), ("anko", 66_504),
    ("7ujMko0admin", 65_874), ("7ujMko0vizxv", 65_253), ("klv123", 64_641), ("klv1234", 64_036),
    ("Zte521", 64_437), ("hi3518", 63_848), ("jvbzd", 63_267), ("meinsm", 62_694), ("fucker", 62_128),
    ("realtek", 61_569), ("ikwb", 61_017), ("smcadmin", 60_472), ("pass", 59_934), ("pass123", 59_403),
    ("pass1234", 58_879), ("passwd", 58_360), ("secret", 57_848), ("secret123", 57_343), ("login", 56_843),
    ("access", 56_349), ("qwe123", 55_861), ("qweasd", 56_376), ("qweasdzxc", 55_899), ("asd123", 55_428),
    ("asdf1234", 54_962), ("a123456", 54_502), ("abcd1234", 54_047), ("abc12345", 53_597),
    ("aa123456", 53_152), ("a12345678", 52_711), ("1password", 52_276), ("0000", 51_845), ("1111", 51_419),
    ("2222", 50_998), ("123", 50_581), ("12", 50_169), ("1", 49_761), ("aaaaaa", 49_357),
    ("1234qwer", 48_957), ("q1w2e3r4t5", 49_559), ("!@#$%^", 49_168), ("alpine", 48_780), ("calvin", 48_397),
    ("nopass", 48_017), ("live", 47_641), ("ethos", 47_269), ("matrix", 46_900), ("trustno1", 46_536),
    ("killer", 46_174), ("jordan", 45_816), ("hunter", 45_462), ("soccer", 45_111), ("ranger", 44_763),
    ("computer", 44_419), ("internet", 44_077), ("freedom", 43_739), ("whatever", 44_401), ("cheese", 44_069),
    ("pepper", 43_740), ("summer", 43_415), ("winter", 43_092), ("spring", 42_771), ("flower", 42_454),
    ("cookie", 42_140), ("banana", 41_828), ("orange", 41_519),
];

/// The SHA-1 of a password in upper-case hexadecimal.
pub fn sha1_hex(password: &str) -> String {
    Sha1::digest(password.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Suffixes and counts of the common passwords whose SHA-1 starts with the prefix (5 upper-case digits).
pub fn in_range(prefix: &str) -> Vec<(String, u64)> {
    static RANGES: OnceLock<HashMap<String, Vec<(String, u64)>>> = OnceLock::new();
    let ranges = RANGES.get_or_init(|| {
        let mut ranges: HashMap<String, Vec<(String, u64)>> = HashMap::new();
        for (password, count) in COMMON_PASSWORDS {
            let hash = sha1_hex(password);
            let (prefix, suffix) = hash.split_at(5);
            ranges.entry(prefix.to_string()).or_default().push((suffix.to_string(), *count));
        }
        ranges
    });
    ranges.get(prefix).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_password_is_in_the_range_of_its_sha1() {
        // SHA-1 of "password", as every description of the service has it.
        let suffix = "1E4C9B93F3F0682250B6CF8331B7EE68FD8".to_string();
        assert_eq!(in_range("5BAA6"), vec![(suffix, 52_372_427)]);
    }

    #[test]
    fn no_password_stands_twice() {
        let mut words: Vec<&str> = COMMON_PASSWORDS.iter().map(|(word, _)| *word).collect();
        assert!(words.len() >= 200);
        words.sort_unstable();
        let before = words.len();
        words.dedup();
        assert_eq!(words.len(), before);
    }
}
