//! A small HTTP/1.1 server on loopback, for what the sandbox providers never say.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// A request as it came.
pub struct Asked {
    /// The path with its query.
    pub target: String,
    /// The request line and all header lines.
    pub head: String,
}

/// What is said to it.
pub struct Reply {
    pub status: u16,
    /// Header lines, each with its end.
    pub headers: String,
    pub body: Vec<u8>,
}

/// Listens until the test's process ends.
pub struct Server {
    port: u16,
}

impl Server {
    pub fn start(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let reply = Arc::new(reply);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let reply = reply.clone();
                std::thread::spawn(move || converse(stream, &*reply));
            }
        });
        Server { port }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

fn converse(mut stream: TcpStream, reply: &dyn Fn(&Asked) -> Reply) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut reader = BufReader::new(reading);
    while let Some(asked) = read(&mut reader) {
        let Reply { status, headers, body } = reply(&asked);
        let head = format!("HTTP/1.1 {status} Said\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        if stream.write_all(&[head.into_bytes(), body].concat()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Asked> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    reader.read_exact(&mut vec![0; length.unwrap_or(0)]).ok()?;
    let target = head.split(' ').nth(1)?.to_string();
    Some(Asked { target, head })
}

/// JSON, whether it is or not.
pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    Reply { status, headers: "Content-Type: application/json\r\n".to_string(), body: body.into() }
}
