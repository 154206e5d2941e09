//! The table.

use serde_json::{Value, json};

/// What is to be reached.
#[derive(Clone, Copy)]
enum Goal {
    /// Nothing: the figure is there to be looked at.
    None,
    /// At most this.
    AtMost(f64),
    /// No more than the peer, but for what two runs differ by.
    NoWorse,
}

/// One figure of one server.
pub(super) struct Row {
    what: &'static str,
    unit: &'static str,
    goal: Goal,
    value: f64,
    note: Option<String>,
}

impl Row {
    pub(super) fn new(what: &'static str, unit: &'static str, most: Option<f64>, value: f64) -> Self {
        Self { what, unit, goal: most.map_or(Goal::None, Goal::AtMost), value, note: None }
    }

    pub(super) fn no_worse(what: &'static str, unit: &'static str, value: f64) -> Self {
        Self { what, unit, goal: Goal::NoWorse, value, note: None }
    }

    pub(super) fn note(mut self, note: String) -> Self {
        self.note = Some(note);
        self
    }
}

/// Both servers' figures side by side.
pub(super) struct Report<'a> {
    lines: Vec<(&'a Row, Option<&'a Row>)>,
}

/// Two runs of the same thing differ by this much.
const SAME: f64 = 1.05;

impl<'a> Report<'a> {
    pub(super) fn of(ours: &'a [Row], peer: Option<&'a [Row]>) -> Self {
        let beside = |row: &Row| peer.and_then(|rows| rows.iter().find(|other| other.what == row.what));
        Self { lines: ours.iter().map(|row| (row, beside(row))).collect() }
    }

    pub(super) fn text(&self) -> String {
        let mut text =
            format!("{:<42} {:>10} {:>10} {:>7}  {:<10} {}\n", "", "towpath", "peer", "ratio", "goal", "reached");
        for (ours, peer) in &self.lines {
            let other = peer.map_or_else(|| "–".to_owned(), |peer| shown(peer.value));
            let ratio = peer.map(|peer| ours.value / peer.value).filter(|ratio| ratio.is_finite());
            let ratio = ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
            let (goal, reached) = match (ours.goal, reached(ours, *peer)) {
                (Goal::AtMost(most), reached) => (format!("≤ {most}"), reached),
                (Goal::NoWorse, reached) => ("≤ peer".to_owned(), reached),
                (Goal::None, _) => (String::new(), None),
            };
            let reached = reached.map_or("", |yes| if yes { "yes" } else { "NO" });
            let what = format!("{}, {}", ours.what, ours.unit);
            text += &format!("{what:<42} {:>10} {other:>10} {ratio:>7}  {goal:<10} {reached}\n", shown(ours.value));
            let notes = [("towpath", Some(*ours)), ("peer", *peer)];
            for (who, note) in notes.into_iter().filter_map(|(who, row)| Some((who, row?.note.as_ref()?))) {
                text += &format!("  {who}: {note}\n");
            }
        }
        text.truncate(text.trim_end().len());
        text
    }

    pub(super) fn json(&self) -> String {
        let line = |(ours, peer): &(&Row, Option<&Row>)| -> Value {
            let goal = if let Goal::AtMost(most) = ours.goal { Some(most) } else { None };
            json!({
                "figure": ours.what, "unit": ours.unit, "towpath": ours.value, "peer": peer.map(|peer| peer.value),
                "goal": goal, "reached": reached(ours, *peer),
                "note": ours.note, "peerNote": peer.and_then(|peer| peer.note.as_ref()),
            })
        };
        json!({ "figures": self.lines.iter().map(line).collect::<Vec<_>>() }).to_string()
    }
}

fn reached(ours: &Row, peer: Option<&Row>) -> Option<bool> {
    match ours.goal {
        Goal::None => None,
        Goal::AtMost(most) => Some(ours.value <= most),
        Goal::NoWorse => peer.map(|peer| ours.value <= peer.value * SAME),
    }
}

fn shown(value: f64) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_judged_by_the_figure_and_the_peer() {
        let ours = [
            Row::new("a", "s", Some(1.0), 0.5),
            Row::new("b", "s", Some(1.0), 1.5),
            Row::no_worse("c", "s", 2.0),
            Row::new("d", "s", None, 1.0).note("here".into()),
        ];
        let peer = [Row::new("a", "s", Some(1.0), 1.0), Row::no_worse("c", "s", 1.0)];
        let report = Report::of(&ours, Some(&peer));
        let reached: Vec<_> = report.lines.iter().map(|(ours, peer)| reached(ours, *peer)).collect();
        assert_eq!(reached, [Some(true), Some(false), Some(false), None]);
        let text = report.text();
        assert!(text.contains("0.50") && text.contains("NO") && text.contains("towpath: here"), "{text}");
        assert_eq!(super::reached(&ours[2], None), None, "without a peer nobody can tell");
    }
}
