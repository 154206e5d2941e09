//! A door to the parser of pushes for the fuzzer.

#![allow(missing_docs)]

use crate::commands::Commands;

/// The body of a push: it means the same however it is cut into pieces.
pub fn commands(body: &[u8], cut: usize) {
    let read = |pieces: &[&[u8]]| {
        let mut commands = Commands::default();
        let fed = pieces.iter().try_for_each(|piece| commands.feed(piece));
        fed.map(|()| (commands.side_band(), commands.any(), commands.updates()))
    };
    let (first, second) = body.split_at(cut.min(body.len()));
    assert_eq!(read(&[body]), read(&[first, second]));
}
