//! What the system says of this process.

use super::text::Text;

/// Writes it. What the system does not say is left out.
pub(super) fn write(text: &mut Text) {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as u64;
    if let Some(stat) = Stat::read() {
        let name = "process_cpu_seconds_total";
        text.single(name, "counter", "User and system time used, in seconds.", stat.ticks as f64 / ticks);
        let help = "Resident memory in bytes.";
        text.single("process_resident_memory_bytes", "gauge", help, stat.resident_pages.saturating_mul(page));
        text.single("process_virtual_memory_bytes", "gauge", "Virtual memory in bytes.", stat.virtual_bytes);
        text.single("process_threads", "gauge", "Threads.", stat.threads);
        if let Some(boot) = boot_seconds() {
            let name = "process_start_time_seconds";
            text.single(name, "gauge", "When it started, in seconds since 1970.", boot + stat.started as f64 / ticks);
        }
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is read.
        text.single("process_open_fds", "gauge", "Open file descriptors.", open.count().saturating_sub(1));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(limit) = limit {
        text.single("process_max_fds", "gauge", "File descriptors that may be open.", limit);
    }
}

/// Fields of `/proc/self/stat`.
struct Stat {
    /// User and system time of this process, in clock ticks.
    ticks: u64,
    threads: u64,
    /// Clock ticks from the machine's start to the process's.
    started: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// Behind the name, which may hold anything, come the fields from the third on.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            ticks: field(14)? + field(15)?,
            threads: field(20)?,
            started: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// When the machine was started, in seconds since 1970.
fn boot_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_parenthesis_moves_no_field() {
        let line = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 50 6 9 9 20 0 11 0 2200 4096 77 1 1 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.ticks, stat.threads, stat.started), (56, 11, 2200));
        assert_eq!((stat.virtual_bytes, stat.resident_pages), (4096, 77));
    }
}
