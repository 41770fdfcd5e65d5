//! The schema and the page that describe the wire name the protocol version that is spoken.

#![allow(clippy::unwrap_used)]

use party::net::PROTOCOL_VERSION;

const SCHEMA: &str = include_str!("../proto/secureinference/party/v1/party.proto");
const PAGE: &str = include_str!("../../docs/wire.md");

#[test]
fn the_schema_and_the_page_name_the_protocol_version_that_is_spoken() {
    let (before, _) = SCHEMA.split_once("uint32 protocol_version = 1;").unwrap();
    let comment = before.lines().rev().find_map(|line| line.trim().strip_prefix("// ")).unwrap();
    assert_eq!(comment, format!("{PROTOCOL_VERSION}."), "party.proto");
    let row = PAGE.lines().find_map(|line| line.strip_prefix("| `protocol_version` | ")).unwrap();
    assert_eq!(row, format!("{PROTOCOL_VERSION} |"), "docs/wire.md");
}
