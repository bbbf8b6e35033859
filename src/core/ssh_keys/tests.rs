//! Keys made by OpenSSH 9.2 for these tests, with what its `ssh-keygen -l` says of them, in the commands that plant them.

use super::*;
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use proptest::prelude::*;

/// Kind, data, bits, fingerprint.
#[rustfmt::skip]
const KEYS: [(&str, &str, u32, &str); 7] = [
    ("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIKmATvvffEaBwZkw4w3GwT+2ZPEoAt5ecKP0HwtFMy4k", 256, "gh8tdxRCjzpUKU08NAU5mt5k/U4CuvnhdBj+ZaxiCik"),
    ("ecdsa-sha2-nistp256", "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBOgBeXekCPf5vIdYRANMqMjVMWrS6AO6r0l5D5WzHuzsrhMbtbwHFiWE3alx2vQvRpPOwhhLy05I8f0aszRdJr0=", 256, "HtZ6Jd7JhNJ1lyj6Yfn9pu7ueHpTiPl9Kgn6Emhuu2w"),
    ("ecdsa-sha2-nistp384", "AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBGq9NUoq2nIcyraZMo0BexAc/jQ3DAzfZ3oIaYJYMX3cp1+5kr78SrWGtkqv97v5JxBFlpcZALuA3yxaARMlWvyhtkMWktACHUyBaETrKXqyLsz9Y+mVE8QEc/GygEhrRA==", 384, "Nl8yJjOQ+LJSGepcVfhY6Nk8izQLNmbWVM7SWtS+Tkk"),
    ("ecdsa-sha2-nistp521", "AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBACzV0yRPCnyS1cnd7eG2V/w65wiHqSeKI4Zxr6BVmcDFsSlUuqZ+E8lyikojzFwA9owRLWqxjCFpGHaxoHmVchC7QC/aklwnv0y+JsIkZpWzzUJ3uRchedC4SxTLNDlQ1wnmrQbCwwgfqKe8dCGz00raGqaH6M4fdZvYKTofexJsiBWVg==", 521, "+ZE7x2hwMd5rNRX1c/KeodzKay3IP4mQ4L8ojPpdFeE"),
    ("ssh-dss", "AAAAB3NzaC1kc3MAAACBANrRByMtKiz38XZx9X1Pp6Xxv0DlAhcYfPcLppg5gKCHn0+7ZzIsEAQYLxQLC4xIvi8daa5gWwwszAGPU5VgzyWIrZnMD6J/xoMl7c9HhexcwMbR6Xa8lVBjNiu+wEYwMqMHAmG4X3/i/v/vPFUrDAinAy4l00SB+bCy+ib1n629AAAAFQDmJdJwybfN7MKyC5tpDFH/PrrYtwAAAIEA1PKsglXJqTJER15innJN1Ly66I1lMFDWveFqscv647GFr2kDrk3qVwQK58dumPMuLar3F6NZ+Sc7GgSo/Dz4RPnDQsDjF1uBxBSfhUeym8N/xE8eFKn18UF/KxG+1+gkE6z2/hLrlH8vH5tuDqelFhj44dN/JpYksTtZRczJ+RwAAACAUTXr1iKYb36WsaKopp0vyQPALZTt4BfvXMn0e5LppAi8y7ZvhMn4o1/w7V1K1OaAMKHUI2RHWbMlvsvvNYRjRWxl2L+BOSkSODsqH/HZQCeoyVD750pCa4Q34zx8g8e3iC95cm5VnZ+mQ/dKAWgW+vCK2Q66Lei+oRjvfgphfyI=", 1024, "KjfxwZYJl5uWk5Og4lLKSSBCa8II7RsqrJKlIWA3kyQ"),
    ("ssh-rsa", "AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7phkfjXCO5jFlhKtD8Ki3/HQZ7BOUCDUcp4RWOq1gpEo2Sq8UNQQv6hBGJjVWzcv0zt4aEiW+qOmXv6BDiIgZXD4lOkb4Nbk1NdIxwXCd5ce1718KBtWMbQWJQh7sv22okSsv6SeXeXIjpL9dSi0cYtp2Ya4+czEzzUvZ5vP55w==", 1024, "/3UwVChU4THiUN2ahRkoS+3WNaaNNBzObwkl1YqBjJE"),
    ("ssh-rsa", "AAAAB3NzaC1yc2EAAAADAQABAAABgDAXdYpi7kBl4mnpyt8FjJsRA3MXaYjbEhhMeo3b+ExBUFL28x3H4e3PjkkqACLMEFCB/FXOfvNXOJ6M+vv3l3lIBaaOhADmXrZAkH4j1ml9J80rVeSyPtKcLdvxwn51itJDDu+hEtj8iDos+tsfeo7054two7rLXunSyjIpNupCk92WAVMcObcPbuC0G59d3ZrQsyLwW1k1GW9Z2WOPqE8VCTuDiYz7SxrjBHaGCHq4frBYRRyzp4PonxNWIqUs3RNWvE/pO4xBA/6k4iKQfjX/SJCmDGY9fEV/QLO5TSzwKnczDGYslCUS9Qw3/Han5Qwa46feQx4DRSeYot4XhP01pp8sQh06G+86uvCeYLUyyGD76BxbRruR9X64V/GiyjoATE0dGFQITjz1Qkfc/q6XrYdoWb/HcrAerbyTj2q77Z44loLeuwM92bBN7Po+B2hQsSY0SQM8c98Oh/HE11hf76mSU2kvCt9xvQ0szrZOWmQp4udUCYXd1r1Y21I9sQ==", 3070, "qouyId7yWIV1FQ110UsQ6e6voYQ8DSP+6n6MeeNWoA0"),
];

const ED: (&str, &str, u32, &str) = KEYS[0];

fn line(comment: &str) -> String {
    format!("{} {} {comment}", ED.0, ED.1)
}

fn only(command: &str) -> Planted {
    let found = planted(command);
    assert_eq!(found.len(), 1, "{command}: {found:?}");
    found.into_iter().next().unwrap()
}

#[test]
fn every_kind_of_key_is_measured_as_ssh_keygen_measures_it() {
    for (kind, data, bits, fingerprint) in KEYS {
        let found = only(&format!("echo \"{kind} {data} x@y\" >> ~/.ssh/authorized_keys"));
        let key = &found.key;
        assert_eq!((key.kind, key.data.as_str(), key.bits, key.fingerprint.as_str()), (kind, data, bits, fingerprint));
        assert_eq!(found.comment.as_deref(), Some("x@y"), "{kind}");
    }
    // printf '%s' "<kind> <data>" | sha256sum
    assert_eq!(only(&line("")).key.hash, "a7b0a9c496cfc6fa32f3fa7fcb5aca14f15056c4850db98b0e130f82481f5f35");
}

#[test]
fn a_command_says_how_and_where_it_plants() {
    let key = line("who@where");
    let cases = [
        (format!("echo '{key}' >> ~/.ssh/authorized_keys"), Way::Direct, Some("~/.ssh/authorized_keys")),
        (
            format!("echo {key}>/srv/a/.ssh/authorized_keys; chmod 600 x > /tmp/log"),
            Way::Direct,
            Some("/srv/a/.ssh/authorized_keys"),
        ),
        (
            format!("cd ~ && rm -rf .ssh && mkdir .ssh && echo \"{key}\">>.ssh/authorized_keys && chmod -R go= ~/.ssh"),
            Way::Direct,
            Some(".ssh/authorized_keys"),
        ),
        (
            format!("echo \"{key}\" | tee -a /srv/b/.ssh/authorized_keys2"),
            Way::Direct,
            Some("/srv/b/.ssh/authorized_keys2"),
        ),
        (
            format!("tee -a '/srv/a/.ssh/authorized_keys' <<< \"{key}\""),
            Way::Direct,
            Some("/srv/a/.ssh/authorized_keys"),
        ),
        (
            format!("echo \"{key}\" 2>/dev/null > \"/srv/a/.ssh/authorized_keys\""),
            Way::Direct,
            Some("/srv/a/.ssh/authorized_keys"),
        ),
        (
            format!("echo \"{key}\" | dd of=/srv/a/.ssh/authorized_keys"),
            Way::Direct,
            Some("/srv/a/.ssh/authorized_keys"),
        ),
        (format!("printf '{}\\n'", key.replace(' ', "\\x20")), Way::Direct, None),
        (
            format!("cat << EOF >> /srv/a/.ssh/authorized_keys\n{key}\nEOF"),
            Way::Heredoc,
            Some("/srv/a/.ssh/authorized_keys"),
        ),
        (
            format!("cat > ~/.ssh/authorized_keys <<-'END'\n\t{key}\n\tEND\n"),
            Way::Heredoc,
            Some("~/.ssh/authorized_keys"),
        ),
        (format!("cat <<A > /tmp/a\nx\nA\necho \"{key}\" > /tmp/b"), Way::Direct, Some("/tmp/b")),
        (
            format!("cat << EOF >> /srv/a/.ssh/authorized_keys {key} EOF"),
            Way::Heredoc,
            Some("/srv/a/.ssh/authorized_keys"),
        ),
        (
            format!("echo {} | base64 -d >> ~/.ssh/authorized_keys", STANDARD.encode(&key)),
            Way::Base64,
            Some("~/.ssh/authorized_keys"),
        ),
        (
            format!(
                "echo {}|base64 --decode|bash",
                STANDARD.encode(format!("echo \"{key}\" > /srv/a/.ssh/authorized_keys"))
            ),
            Way::Base64,
            Some("/srv/a/.ssh/authorized_keys"),
        ),
        (
            format!(
                "python -c 'import base64; exec(base64.b64decode(\"{}\"))'",
                STANDARD.encode(STANDARD.encode(&key))
            ),
            Way::Base64,
            None,
        ),
    ];
    for (command, way, target) in cases {
        let found = only(&command);
        assert_eq!((found.way, found.target.as_deref()), (way, target), "{command}");
        assert_eq!(found.key.fingerprint, ED.3, "{command}");
    }
}

#[test]
fn a_comment_ends_where_the_command_goes_on() {
    for (behind, comment) in [
        (" mdrfckr\">>x", Some("mdrfckr")),
        (" two words\n", Some("two words")),
        (" a@b;reboot", Some("a@b")),
        (" a@b && reboot", Some("a@b")),
        (" > x", None),
        ("\" > x", None),
        ("\\n > x", None),
        ("", None),
    ] {
        assert_eq!(only(&format!("{} {}{behind}", ED.0, ED.1)).comment.as_deref(), comment, "{behind:?}");
    }
    assert_eq!(only(&line(&"é".repeat(9000))).comment.unwrap().chars().count(), MAX_COMMENT);
}

#[test]
fn what_no_server_would_take_is_no_key() {
    let data = ED.1;
    for command in [
        String::new(),
        "ssh-ed25519".into(),
        "ssh-ed25519 ".into(),
        format!("ssh-rsa {data}"),
        format!("ssh-ed25519{data}"),
        data.to_string(),
        format!("ssh-ed25519 {}", &data[..data.len() - 4]),
        format!("ssh-ed25519 {data}AAAA"),
        format!("ssh-ed25519 {}", data.replace('A', "é")),
        // an RSA key whose modulus is negative
        format!("ssh-rsa {}", STANDARD.encode(b"\0\0\0\x07ssh-rsa\0\0\0\x01\x03\0\0\0\x02\x80\x01")),
        "ssh-keygen -t rsa; ssh-copy-id a@b; echo c3NoLXJzYSA= | base64 -d".into(),
    ] {
        assert_eq!(planted(&command), [], "{command}");
    }
}

#[test]
fn a_key_counts_once_in_a_command_whatever_its_padding() {
    let (kind, padded) = (KEYS[2].0, KEYS[2].1);
    let bare = padded.trim_end_matches('=');
    assert_ne!(padded, bare);
    let command = format!("echo \"{kind} {bare} a\" > x; echo '{kind} {padded} b' > y; {}", line("c"));
    let found = planted(&command);
    assert_eq!(found.iter().map(|one| one.key.kind).collect::<Vec<_>>(), [kind, ED.0]);
    assert_eq!(found[0].key.data, padded);
}

#[test]
fn a_huge_or_nested_command_ends_soon() {
    // quadratic work on any of these would take minutes
    let piece = format!("{} ", line("x"));
    for command in [
        "<<A ".repeat(300_000),
        format!("{}{}", "<<A\n".repeat(200_000), line("x")),
        "ssh-rsa ".repeat(150_000),
        format!("base64 {}", format!("{} ", "QUFB".repeat(20)).repeat(12_000)),
        format!("base64 {}", "A".repeat(4_000_000)),
        piece.repeat(5_000),
        format!("base64 {}", STANDARD.encode(piece.repeat(3_000))),
        "-".repeat(1_200_000),
        format!("{}\u{e9}", "x".repeat(MAX_COMMAND - 1)),
    ] {
        assert!(planted(&command).len() <= MAX_KEYS);
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,400}") {
        planted(&text);
    }

    #[test]
    fn no_text_made_of_its_own_words_makes_it_panic(parts in proptest::collection::vec(prop_oneof![
        Just("ssh-rsa ".to_string()), Just("ssh-ed25519\t".to_string()), Just("<<EOF\n".to_string()), Just("EOF\n".to_string()),
        Just("<<<".to_string()), Just(" >> ".to_string()), Just("'".to_string()), Just("\"".to_string()), Just("base64 -d".to_string()),
        Just("~/.ssh/authorized_keys".to_string()), Just("\\x20".to_string()), Just("é".to_string()), Just(line("c d")),
        Just(STANDARD.encode(line("e"))), "[A-Za-z0-9+/]{0,60}={0,2}", "\\PC{0,5}",
    ], 0..20)) {
        let command = parts.concat();
        for found in planted(&command) {
            prop_assert!(found.comment.is_none_or(|comment| !comment.is_empty()));
            prop_assert!(found.target.is_none_or(|target| !target.is_empty()));
        }
    }

    #[test]
    fn no_bytes_of_a_key_make_it_panic(blob in proptest::collection::vec(any::<u8>(), 0..120), cut in 0usize..60, n in 0..KEYS.len()) {
        let mut key = STANDARD.decode(KEYS[n].1).unwrap();
        let at = cut.min(key.len());
        key.splice(at.., blob.iter().copied());
        let (kind, data) = (KEYS[n].0, STANDARD.encode(&key));
        planted(&format!("{kind} {data}"));
    }
}

#[test]
fn the_command_of_an_event_is_read_whatever_else_stands_in_it() {
    for (event, command) in [
        (r#"{"input": "ls", "src_ip": "1.2.3.4"}"#, Some("ls")),
        (r#"{"input": "", "command": "pwd"}"#, Some("pwd")),
        (r#"{"password": "\u0000", "input": "a\u0000b\n"}"#, Some("ab\n")),
        (r#"{"input": 7}"#, None),
        (r#"{"input": null}"#, None),
        ("[1]", None),
        ("{", None),
        ("", None),
    ] {
        assert_eq!(command_of(event).as_deref(), command, "{event}");
    }
}
