//! The program itself: its first line, its switches, its end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

struct Program {
    child: Child,
    out: BufReader<ChildStdout>,
    address: String,
}

impl Program {
    fn start(switches: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_enrichment-sandbox"))
            .args(switches)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("program");
        let mut out = BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        out.read_line(&mut line).expect("first line");
        let address =
            line.trim_end().strip_prefix("listening on ").unwrap_or_else(|| panic!("first line {line:?}")).to_string();
        Program { child, out, address }
    }

    fn ended_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.child.try_wait().expect("wait").is_some() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Already ended in most tests.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn the_program_says_where_it_listens_and_then_logs_only_if_asked() {
    for (switches, expected) in [(&["--limits", "none"][..], ""), (&["--log"][..], "hibp \"5BAA6\" 200 ")] {
        let mut program = Program::start(switches);
        let url = format!("http://{}/hibp/range/5BAA6", program.address);
        let answer = ureq::get(&url).header("user-agent", "a").call().expect("answer");
        assert_eq!(answer.status(), 200);
        program.child.kill().expect("kill");
        let mut rest = String::new();
        program.out.read_to_string(&mut rest).expect("rest");
        assert!(rest.starts_with(expected) && rest.is_empty() == expected.is_empty(), "{rest:?}");
    }
}

#[test]
fn the_program_ends_with_its_input_when_asked_even_while_a_request_hangs() {
    let mut program = Program::start(&["--die-with-stdin"]);
    let base = format!("http://{}", program.address);
    ureq::post(format!("{base}/control/fault")).send(r#"{"service":"*","kind":"hang"}"#).expect("order");
    let hanging = std::thread::spawn(move || ureq::get(format!("{base}/hibp/range/5BAA6")).call().is_err());
    drop(program.child.stdin.take());
    assert!(program.ended_within(Duration::from_secs(10)));
    assert!(hanging.join().expect("thread"));
}

#[test]
fn the_program_ends_at_sigterm() {
    let mut program = Program::start(&[]);
    let killed = Command::new("kill").arg(program.child.id().to_string()).status().expect("kill");
    assert!(killed.success());
    assert!(program.ended_within(Duration::from_secs(10)));
    assert_eq!(program.child.wait().expect("status").code(), Some(0));
}

#[test]
fn a_limit_that_cannot_be_read_is_refused_in_words() {
    let output = Command::new(env!("CARGO_BIN_EXE_enrichment-sandbox"))
        .args(["--limit", "spur=fast"])
        .output()
        .expect("program");
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("service=N/second"), "{words}");
}
