//! Free TCP ports on loopback.

use std::net::{Ipv4Addr, TcpListener};

/// A port on 127.0.0.1 that nobody listened on a moment ago.
///
/// It is not reserved: who uses it must be ready to lose the race and ask again, as
/// [`ClusterBuilder::start`](crate::ClusterBuilder::start) does.
///
/// # Panics
/// When the system has no port left to give.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port on 127.0.0.1")
        .port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_listened_on() {
        // the race named above can be lost, though not every time
        assert!((0..5).any(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).is_ok()));
    }
}
