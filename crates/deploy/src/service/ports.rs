//! Which ports are listened on in a network namespace.

use std::collections::BTreeSet;

/// The TCP ports that a process in the network namespace of `pid` listens on.
pub(crate) fn listening(pid: u32) -> Vec<u16> {
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        if let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")) {
            ports.extend(parse(&text));
        }
    }
    ports.into_iter().collect()
}

/// Reads `/proc/net/tcp` (proc_pid_net(5)): the second column is address:port in hexadecimal digits, the fourth the
/// state, of which 0A is LISTEN.
fn parse(table: &str) -> impl Iterator<Item = u16> + '_ {
    table.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let (_, local) = columns.nth(1)?.rsplit_once(':')?;
        (columns.nth(1)? == "0A").then(|| u16::from_str_radix(local, 16).ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n   0: 0100007F:1F90 00000000:0000 0A 00000000:0 0 0\n   \
                     1: 0100007F:0BB8 0100007F:1F90 01 0:0 0 0\n   2: 00000000000000000000000001000000:0050 0:0 0A x\nbad\n";
        assert_eq!(parse(table).collect::<Vec<_>>(), [8080, 80]);
    }

    #[test]
    fn finds_an_own_listener() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(listening(std::process::id()).contains(&listener.local_addr().unwrap().port()));
    }
}
