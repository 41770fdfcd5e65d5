//! Reading the graph that a user wrote, with a bound on the work before each stage of it: on
//! the text before it is parsed, on the graph before it is compiled.

use spdz::graph::{Graph, Work};

use crate::api::v1alpha1::MAX_GRAPH_BYTES;

/// Most parts of a definition: names, numbers, and both ends of lists and maps. The parser takes
/// up to 300 bytes of memory for each. A graph of that many numbers does not fit into the
/// Secrets of its parties.
pub const MAX_PARTS: usize = 1 << 17;

/// Most lists and maps within each other, each in brackets. The parser's time grows with the
/// square of their number; a graph needs seven.
pub const MAX_LEVELS: usize = 1 << 6;

/// Most fits: each is computed when the graph is read, which takes about a millisecond.
pub const MAX_FITS: usize = 1 << 8;

/// Reads a graph's definition.
///
/// # Errors
/// What is wrong with it, for its user, without the place in the resource.
pub(super) fn read(definition: &str) -> Result<Graph, String> {
    check_text(definition)?;
    let graph: Graph =
        party::yaml::parse(definition).map_err(|error| format!(" is no graph: {error}"))?;
    graph.work().check(&Work::OF_OTHERS).map_err(|more| format!(": {more}"))?;
    Ok(graph)
}

/// Bounds what parsing takes, by what separates the parts of YAML and JSON. Quotes and comments
/// are not looked at: what they contain counts too.
fn check_text(definition: &str) -> Result<(), String> {
    let (mut parts, mut level, mut levels, mut before) = (0usize, 0usize, 0usize, b'\n');
    for byte in definition.bytes() {
        match byte {
            b'[' | b'{' => level += 1,
            b']' | b'}' => level = level.saturating_sub(1),
            _ => {}
        }
        levels = levels.max(level);
        // A list's or map's mark, at the end of which a part begins.
        let mark = matches!(before, b'-' | b'?') && byte.is_ascii_whitespace();
        let separates = matches!(byte, b'[' | b']' | b'{' | b'}' | b',' | b':' | b'\n');
        parts += usize::from(mark) + usize::from(separates);
        before = byte;
    }
    let large = "let a player bring large tensors instead of making them constants";
    let bounds = [
        ("bytes", definition.len(), MAX_GRAPH_BYTES, large),
        ("names, numbers and ends of lists", parts, MAX_PARTS, large),
        ("lists within each other", levels, MAX_LEVELS, "a graph needs seven"),
        (
            "fits",
            definition.matches("fit").count(),
            MAX_FITS,
            "write the coefficients of polynomials, or apply one to a whole tensor at once",
        ),
    ];
    for (what, found, most, advice) in bounds {
        if found > most {
            return Err(format!(" has {found} {what}, at most {most} are accepted; {advice}"));
        }
    }
    Ok(())
}
