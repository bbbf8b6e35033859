//! Passwords: common ones that every breach list holds, then random ones that none does.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// Passwords attackers try first, most tried first. The sandbox's HIBP knows each of them as breached.
#[rustfmt::skip]
pub const COMMON_PASSWORDS: &[&str] = &[
    "123456", "password", "root", "admin", "12345678", "qwerty", "1234", "raspberry", "ubnt", "support", "123456789",
    "12345", "1234567", "1234567890", "111111", "123123", "abc123", "password1", "iloveyou", "000000", "1q2w3e4r",
    "qwerty123", "monkey", "dragon", "123321", "654321", "666666", "1qaz2wsx", "sunshine", "princess", "qwertyuiop",
    "football", "letmein", "121212", "superman", "master", "shadow", "baseball", "michael", "welcome", "charlie",
    "112233", "987654321", "hello", "7777777", "888888", "555555", "999999", "222222", "88888888", "00000000",
    "11111111", "12341234", "11223344", "123qwe", "1q2w3e", "1q2w3e4r5t", "zaq12wsx", "qazwsx", "asdfgh", "asdfghjkl",
    "zxcvbnm", "zxcvbn", "q1w2e3r4", "toor", "guest", "user", "test", "default", "changeme", "pi", "oracle",
    "postgres", "mysql", "ftp", "nagios", "admin123", "admin1234", "admin1", "administrator", "P@ssw0rd", "p@ssw0rd",
    "Passw0rd", "passw0rd", "Password", "Password1", "Password123", "password123", "P@ssword", "root123", "root1234",
    "rootroot", "test123", "test1234", "testing", "tester", "user123", "user1234", "guest123", "oracle123",
    "postgres123", "mysql123", "server", "server123", "linux", "ubuntu", "ubuntu123", "debian", "centos", "redhat",
    "fedora", "vagrant", "docker", "jenkins", "tomcat", "hadoop", "zabbix", "git", "gitlab", "deploy", "webmaster",
    "web", "www", "www-data", "nginx", "apache", "minecraft", "steam", "teamspeak", "ts3", "backup", "manager",
    "operator", "tech", "service", "system", "superuser", "supervisor", "cisco", "juniper", "mikrotik", "dlink",
    "netgear", "linksys", "huawei", "zte", "hikvision", "dahua", "dreambox", "vizxv", "xc3511", "xmhdipc", "juantech",
    "anko", "7ujMko0admin", "7ujMko0vizxv", "klv123", "klv1234", "Zte521", "hi3518", "jvbzd", "meinsm", "fucker",
    "realtek", "ikwb", "smcadmin", "pass", "pass123", "pass1234", "passwd", "secret", "secret123", "login", "access",
    "qwe123", "qweasd", "qweasdzxc", "asd123", "asdf1234", "a123456", "abcd1234", "abc12345", "aa123456", "a12345678",
    "1password", "0000", "1111", "2222", "123", "12", "1", "aaaaaa", "1234qwer", "q1w2e3r4t5", "!@#$%^", "alpine",
    "calvin", "nopass", "live", "ethos",
];

const ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789!#$%*+-=?@_";

/// `count` distinct passwords, by `seed` alone: the common ones first, then random ones of 14 to 20 characters.
pub(super) fn generate(count: usize, seed: u64) -> Vec<String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(super::session::STREAM_PASSWORDS);
    let mut passwords: Vec<String> = COMMON_PASSWORDS.iter().take(count).map(|p| p.to_string()).collect();
    let mut seen: HashSet<String> = passwords.iter().cloned().collect();
    while passwords.len() < count {
        let length = rng.random_range(14..=20);
        let password: String = (0..length).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect();
        if seen.insert(password.clone()) {
            passwords.push(password);
        }
    }
    passwords
}

/// SHA-256 in lower-case hex: what `password_tracking.password_hash` and `files.shasum` hold.
pub(super) fn sha256_hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_distinct_and_begin_with_the_common_ones() {
        let all = generate(1_000, 5);
        assert_eq!(all, generate(1_000, 5));
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 1_000);
        assert_eq!(all[0], COMMON_PASSWORDS[0]);
        assert!(all[COMMON_PASSWORDS.len()..].iter().all(|p| p.len() >= 14));
    }

    #[test]
    fn the_sandbox_knows_the_common_passwords_and_no_other() {
        let known: HashSet<&str> = enrichment_sandbox::passwords::COMMON_PASSWORDS.iter().map(|(p, _)| *p).collect();
        for (n, password) in generate(1_000, 5).iter().enumerate() {
            assert_eq!(known.contains(password.as_str()), n < COMMON_PASSWORDS.len(), "{password}");
        }
    }

    #[test]
    fn passwords_hash_as_sha256_hex() {
        // FIPS 180-2, appendix B.1
        assert_eq!(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
