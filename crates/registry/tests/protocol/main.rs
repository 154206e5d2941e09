//! The registry over HTTP, as clients meet it.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod clients;
mod collection;
mod commit;
mod hostile;
mod listing;
mod mount;
mod pulling;
mod pushers;
mod robots;
mod site;
mod skopeo;
mod tagging;
mod tokens;
mod uploads;
