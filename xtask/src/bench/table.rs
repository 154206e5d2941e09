//! What was measured, for people and for programs.

use serde_json::{Value, json};

/// Durations in milliseconds.
#[derive(Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn add(&mut self, millis: f64) {
        self.0.push(millis);
    }

    /// The smallest value that at least `percent` of a hundred do not exceed.
    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    fn json(&self) -> Value {
        let seconds = |percent| (self.percentile(percent)).round() / 1000.0;
        json!({ "p50": seconds(50), "p99": seconds(99) })
    }

    fn line(&self, what: &str) -> String {
        format!("{what:<46} {:>8.3} s {:>8.3} s\n", self.percentile(50) / 1000.0, self.percentile(99) / 1000.0)
    }
}

/// All of it.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) pushes: u32,
    pub(crate) page_first_line: Series,
    pub(crate) page_served: Series,
    pub(crate) page_ended: Series,
    pub(crate) docs_first_line: Series,
    pub(crate) docs_ended: Series,
    /// Seconds of processor time for one push.
    pub(crate) page_cpu: f64,
    pub(crate) docs_cpu: f64,
    /// Bytes.
    pub(crate) peak_rss: u64,
    pub(crate) peak_pss: u64,
    pub(crate) processes: usize,
}

impl Report {
    pub(crate) fn json(&self) -> String {
        json!({
            "pushes": self.pushes,
            "page": {
                "firstLogLineSeconds": self.page_first_line.json(),
                "contentServedSeconds": self.page_served.json(),
                "endOfRunSeconds": self.page_ended.json(),
                "cpuSecondsPerPush": self.page_cpu,
            },
            "docs": {
                "firstLogLineSeconds": self.docs_first_line.json(),
                "endOfRunSeconds": self.docs_ended.json(),
                "cpuSecondsPerPush": self.docs_cpu,
            },
            "memory": {
                "peakRssBytes": self.peak_rss,
                "peakPssBytes": self.peak_pss,
                "processes": self.processes,
            },
        })
        .to_string()
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!("{:<46} {:>10} {:>10}\n", format!("{} pushes of each kind", self.pushes), "p50", "p99");
        text += &self.page_first_line.line("page change: push to first log line");
        text += &self.page_served.line("page change: push to new content served");
        text += &self.page_ended.line("page change: push to end of run");
        text += &self.docs_first_line.line("docs change: push to first log line");
        text += &self.docs_ended.line("docs change: push to end of run");
        text += &format!("{:<46} {:>8.3} s\n", "page change: processor time for a push", self.page_cpu);
        text += &format!("{:<46} {:>8.3} s\n", "docs change: processor time for a push", self.docs_cpu);
        let mib = |bytes: u64| bytes >> 20;
        text += &format!(
            "memory at its peak: {} MiB in {} processes, {} MiB with shared pages counted once",
            mib(self.peak_rss),
            self.processes,
            mib(self.peak_pss)
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut series = Series::default();
        for value in (1..=30).rev() {
            series.add(f64::from(value));
        }
        assert!((series.percentile(50) - 15.0).abs() < f64::EPSILON);
        assert!((series.percentile(99) - 30.0).abs() < f64::EPSILON);
        assert!(Series::default().percentile(50).is_nan());
    }
}
